"""What a supervisor tells the server: that its processes live, and what the dead ones held.

It speaks from threads of its own, so that a server that does not answer keeps the supervisor from nothing.
"""

from __future__ import annotations

import contextlib
import logging
import queue as queues
import threading
import time
from collections.abc import Sequence

from fairque.core.exceptions import FairQueueError, WorkerDeadError
from fairque.queue.losses import tell_losses, tell_renewed
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Session

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5


class Liaison:
    """One supervisor's connection. All methods but `close` return at once."""

    def __init__(self, manager: LuaScriptManager, engine: Engine) -> None:
        self._manager, self._engine = manager, engine
        self._interval = engine.config.lease_seconds / 3
        self._due: dict[str, float] = {}
        self._renewed: dict[str, float] = {}
        self._asked: set[str] = set()
        self._renewals: queues.SimpleQueue[str | None] = queues.SimpleQueue()
        self._givers: list[threading.Thread] = []
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._renew_all, name="fairque-renewals", daemon=True)
        self._renewer.start()

    # -- leases

    def keep_alive(self, incarnation: str, now: float) -> None:
        """Renew this lease, if that was not done within the last third of it. `now`: monotonic seconds."""
        if now >= self._due.get(incarnation, 0.0) and incarnation not in self._asked:
            self._asked.add(incarnation)
            self._renewals.put(incarnation)

    def _renew_all(self) -> None:
        while (incarnation := self._renewals.get()) is not None:
            pause = self._interval
            try:
                session = Session(slots=0, incarnation=incarnation)
                self._manager.run(claims.renew(self._engine, session))
                tell_renewed(self._engine.bus, session)
                self._renewed[incarnation] = time.monotonic()
            except WorkerDeadError:
                _log.debug("incarnation %s is not alive; its process starts anew by itself", incarnation)
            except FairQueueError as error:
                _log.warning("the lease of a worker process could not be renewed: %s", error)
                pause = min(pause, AGAIN_SECONDS)
            self._due[incarnation] = time.monotonic() + pause
            self._asked.discard(incarnation)

    def renewed_at(self, incarnation: str) -> float:
        """When this lease was last renewed from here (monotonic seconds; 0: never)."""
        return self._renewed.get(incarnation, 0.0)

    # -- dead processes

    def give_back(self, incarnation: str, begun: Sequence[bytes]) -> None:
        """Have the tasks of an ended process queued again; those that had begun count as crashed."""
        self._givers = [giver for giver in self._givers if giver.is_alive()]
        giver = threading.Thread(
            target=self._give_back, args=(incarnation, begun), name="fairque-give-back", daemon=True
        )
        self._givers.append(giver)
        giver.start()

    def _give_back(self, incarnation: str, begun: Sequence[bytes]) -> None:
        self._due.pop(incarnation, None)
        self._renewed.pop(incarnation, None)
        while not self._over.is_set():
            try:
                count, news = self._manager.run(claims.give_back(self._engine, incarnation, begun))
            except FairQueueError as error:
                _log.warning("could not give back the tasks of %s yet: %s", incarnation, error)
                self._over.wait(AGAIN_SECONDS)
                continue
            if count:
                _log.info("%d tasks of the ended process were queued again", count)
            tell_losses(self._engine.bus, news)
            return
        _log.error("the tasks of %s are given back when its lease ends", incarnation)

    def close(self, timeout: float) -> None:
        """Let what is to be given back be given back within `timeout` seconds; then be silent."""
        until = time.monotonic() + timeout
        self._renewals.put(None)
        for thread in (*self._givers, self._renewer):
            thread.join(max(0.0, until - time.monotonic()))
        self._over.set()
        if not any(thread.is_alive() for thread in (*self._givers, self._renewer)):
            with contextlib.suppress(FairQueueError):
                self._manager.client.close()
