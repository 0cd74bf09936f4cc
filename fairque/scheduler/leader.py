"""Leadership: of all schedulers of a queue one decides ticks, the others wait for its lease to end.

The lease is renewed each third of it. Who was away for longer finds the office taken, or its token refused; it never
trusts its own clock for that.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from fairque.core.events import EventBus, SchedulerDeposed, SchedulerElected
from fairque.core.exceptions import FairQueueError
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import firing
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import new_incarnation
from fairque.queue.operations.firing import NO_TOKEN, Office

_log = logging.getLogger(__name__)

RENEWALS = 3
"""How often a lease is renewed within its length."""
LATE_SECONDS = 0.002
"""How long after the end of another's lease to ask for the office: not before."""


class Leadership:
    """One scheduler's part in the election. It is used by one thread; `due_at` is in monotonic seconds."""

    def __init__(
        self, engine: Engine, manager: LuaScriptManager, lease_seconds: float, events: EventBus
    ) -> None:
        self.scheduler_id = new_incarnation()
        self.office: Office | None = None
        """What the server said last, while this one leads."""
        self.due_at = 0.0
        """When to ask again."""
        self._engine, self._manager, self._events = engine, manager, events
        self._lease = lease_seconds

    @property
    def leads(self) -> bool:
        """Whether this scheduler led when it asked last."""
        return self.office is not None

    def ask(self) -> Office:
        """Take or renew the office, or learn who has it.

        Raises:
            FairQueueError: the server does not answer, or refuses.
        """
        begun = time.monotonic()
        token = self.office.token if self.office else NO_TOKEN
        office = self._manager.run(firing.lead(self._engine, self.scheduler_id, token, self._lease))
        if not office.leads:
            self.lose()
            wait = min(office.lease_left + LATE_SECONDS, self._lease / RENEWALS)
            self.due_at = time.monotonic() + wait
            return office
        self.due_at = begun + self._lease / RENEWALS
        if self.office is None or self.office.token != office.token:
            _log.info("scheduler %s leads (token %d)", self.scheduler_id, office.token)
            self._events.emit(
                SchedulerElected(at=datetime.now(UTC), scheduler_id=self.scheduler_id, token=office.token)
            )
        self.office = office
        return office

    def lose(self) -> None:
        """The server says that another one leads, or that this one's lease is over."""
        if self.office is None:
            return
        self.office, self.due_at = None, 0.0
        _log.info("scheduler %s leads no more", self.scheduler_id)
        self._events.emit(SchedulerDeposed(at=datetime.now(UTC), scheduler_id=self.scheduler_id))

    def resign(self) -> None:
        """Let another one lead at once; if the server cannot be told, when the lease ends."""
        if self.office is not None:
            try:
                self._manager.run(firing.resign(self._engine, self.scheduler_id, self.office.token))
            except FairQueueError as error:
                _log.debug("scheduler %s could not resign: %s", self.scheduler_id, error)
            self.lose()
