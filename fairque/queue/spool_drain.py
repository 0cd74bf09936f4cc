"""What tells the server, in order, what waits in a local spool."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from fairque.core.events import Event, TaskPushed, TaskSetAside
from fairque.core.exceptions import (
    FairQueueError,
    QueueFullError,
    QueueUnavailableError,
    SerializationError,
)
from fairque.core.spool_records import SpooledTask, decode_task
from fairque.queue.backoff import Backoff
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine
from fairque.queue.operations.push import CHUNK, CHUNK_BYTES, Pushed
from fairque.queue.operations.replay import replay, shown
from fairque.queue.spool_file import SpoolFile

if TYPE_CHECKING:
    from fairque.queue.spool import Spool

_log = logging.getLogger(__name__)

RESCAN_SECONDS = 5.0
"""How often files of other processes are looked at, while there are any: theirs may have died."""
STOP_SECONDS = 10.0


@dataclass(slots=True)
class Drained:
    """What one run did: tasks that the server has now, and what was set aside."""

    stored: int = 0
    refused: int = 0
    damaged: int = 0


class SpoolDrain:
    """One connection to the server, and what is told over it. Not for several threads at once."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        config = spool.config
        self._engine = Engine(config.queue, config.key_prefix)
        self._manager: LuaScriptManager | None = None
        self._opened = False
        self.drained = Drained()

    def drain(self) -> Drained:
        """Tell the server all that waits in this process's files, then in those of processes that are gone.

        Raises:
            QueueUnavailableError, QueueFullError: the server takes none now; what is left stays where it is.
            OSError: a file cannot be read, or what was refused cannot be kept.
        """
        while (file := self._own()) is not None:
            self._empty(file)
            with self._spool.locked() as files:
                # It may have grown meanwhile.
                if file.is_drained and file in files:
                    files.remove(file)
                    file.close()
        for orphan in self._spool.orphans():
            try:
                self._empty(orphan)
                _log.info("a spool file of a process that is gone was drained: %s", orphan.path.name)
            finally:
                orphan.close()
        return self.drained

    def _own(self) -> SpoolFile | None:
        with self._spool.locked() as files:
            return files[0] if files else None

    def _empty(self, file: SpoolFile) -> None:
        while True:
            with self._spool.locked():
                if file.is_drained:
                    return
                scan = file.read(CHUNK, CHUNK_BYTES)
            records: list[tuple[SpooledTask, bytes]] = []
            damaged = list(scan.damaged)
            for payload in scan.payloads:
                try:
                    records.append((decode_task(payload), payload))
                except SerializationError:
                    damaged.append(payload)
            told = self._tell([record for record, _ in records])
            for data in damaged:
                self._spool.set_aside(file.path.name, "damaged, or cut short", data)
                self.drained.damaged += 1
            for (record, payload), outcome in zip(records, told, strict=True):
                self._settle(file, record, payload, outcome.error)
            with self._spool.locked():
                file.advance(scan.size)

    def _settle(
        self, file: SpoolFile, record: SpooledTask, payload: bytes, error: FairQueueError | None
    ) -> None:
        if error is None:
            self.drained.stored += 1
            self._spool.told(record, None, partial(_pushed_event, record))
            return
        self._spool.set_aside(file.path.name, str(error), payload, record)
        self.drained.refused += 1
        self._spool.told(record, error, partial(_refused_event, record, str(error)))

    def _tell(self, records: list[SpooledTask]) -> list[Pushed]:
        """What the server makes of each. An error that is about one of them shall not stop the others."""
        if not records:
            return []
        manager = self._connected()
        try:
            return manager.run(replay(self._engine, records))
        except (QueueUnavailableError, QueueFullError):
            raise
        except FairQueueError as error:
            if len(records) == 1:
                return [_failed(records[0], error)]
            return [outcome for record in records for outcome in self._tell([record])]

    def push_again(self, record: SpooledTask) -> FairQueueError | None:
        """Tell the server one task that it refused before; why it refuses it still.

        Raises:
            QueueUnavailableError, QueueFullError: it takes none now.
        """
        [outcome] = self._tell([record])
        return outcome.error

    def _connected(self) -> LuaScriptManager:
        if self._manager is None:
            config = self._spool.config
            self._manager = LuaScriptManager(config.redis.create_redis_client(), breaker=breaker_for(config))
        if not self._opened:
            self._manager.run(admin.open_queue(self._engine))
            self._opened = True
        return self._manager

    def close(self) -> None:
        """Close the connection."""
        if self._manager is not None:
            self._manager.client.close()
            self._manager = None


class Drainer:
    """A daemon thread that drains while there is anything to drain."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._call = threading.Event()
        self._stopping = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="fairque-spool", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> bool:
        """There is more to do; False if it has ended and another one must do it."""
        with self._lock:
            self._call.set()
            return not self._over

    def stop(self) -> bool:
        """End, after what is being told just now; False if that takes longer."""
        self._stopping.set()
        self._call.set()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        drain, backoff = SpoolDrain(self._spool), Backoff()
        try:
            while not self._ends():
                self._call.clear()
                pause = self._step(drain, backoff)
                if not self._ends(if_idle=pause is None):
                    self._rest(backoff, pause)
        finally:
            with self._lock:
                self._over = True
            drain.close()
            self._spool.let_go(self)

    def _step(self, drain: SpoolDrain, backoff: Backoff) -> float | None:
        """Drain; the seconds to the next try, or None if there is nothing left to do."""
        try:
            drain.drained = Drained()
            drained = drain.drain()
            if drained.stored:
                _log.info("the local spool is drained: %d tasks are on the server", drained.stored)
            backoff.succeeded()
            return RESCAN_SECONDS if self._spool.others() else None
        except (QueueUnavailableError, QueueFullError) as error:
            if not backoff.away:
                _log.warning("the local spool waits for the server: %s", error)
            return backoff.failed(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the tasks are still there to be told
            _log.exception("the local spool cannot be drained; it is tried again")
            return max(RESCAN_SECONDS, backoff.failed(error))

    def _rest(self, backoff: Backoff, pause: float | None) -> None:
        """No less for being called while the server is away."""
        (self._stopping if backoff.away else self._call).wait(pause)

    def _ends(self, *, if_idle: bool = False) -> bool:
        """Whether it is over; decided under the lock, so that a call is not lost."""
        with self._lock:
            if self._stopping.is_set() or not self._spool.is_used or (if_idle and not self._call.is_set()):
                self._over = True
            return self._over


def _failed(record: SpooledTask, error: FairQueueError) -> Pushed:
    return Pushed(record.task_id, shown(record), error=error)


def _pushed_event(record: SpooledTask) -> Event:
    return TaskPushed(
        at=datetime.now(UTC),
        task_id=record.task_id,
        user_id=record.user_id,
        function=record.function,
        priority=record.priority,
    )


def _refused_event(record: SpooledTask, reason: str) -> Event:
    """A task was set aside."""
    return TaskSetAside(
        at=datetime.now(UTC),
        task_id=record.task_id,
        user_id=record.user_id,
        function=record.function,
        reason=reason,
    )
