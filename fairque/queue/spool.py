"""The local spool: tasks that were pushed while the server was away wait in files until it is back.

One `Spool` for each queue in a process. It appends to a file of its own, and a background thread (spool_drain.py) tells
the server, in order, what that file and those of processes that are gone hold. Each task carries the operation id of
its push, so whatever is told twice is stored once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from fairque.core.config import FairQueueConfig
from fairque.core.events import Event, EventBus
from fairque.core.exceptions import ConfigError, FairQueueError, QueueUnavailableError, SpoolFullError
from fairque.core.spool_records import OVERHEAD_BYTES, SetAside, SpooledTask, encode
from fairque.queue.embedded import default_data_dir
from fairque.queue.spool_aside import AsideFile
from fairque.queue.spool_drain import Drainer
from fairque.queue.spool_file import SUFFIX, Look, SpoolFile, sync_directory

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
"""A file that is longer is followed by another one, so that what was drained can be removed."""
REMEMBERED_REFUSALS = 1000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LABEL = "queue.json"


class Owner(Protocol):
    """Who uses a spool: a queue or a worker. Its observers are told what becomes of the tasks."""

    events: EventBus


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What one queue's spool holds on this machine. `waiting`: tasks that this process wrote; `files` and `bytes`: of
    all processes; `set_aside`: what the server refused, or could not be read."""

    directory: Path | None
    waiting: int
    files: int
    bytes: int
    set_aside: int


class Spool:
    """The spool of one queue in one process; any thread may call it. It touches no file before it is needed."""

    def __init__(self, config: FairQueueConfig) -> None:
        self.config = config
        self._owners: WeakSet[Owner] = WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._files: list[SpoolFile] = []
        self._waiting: Counter[str] = Counter()
        self._refusals: OrderedDict[str, FairQueueError] = OrderedDict()
        self._drainer: Drainer | None = None

    # -- where

    @property
    def directory(self) -> Path:
        """Where this queue's files are.

        Raises:
            ConfigError: no directory is configured, and the user has no home.
        """
        chosen = self.config.spool.directory
        root = Path(chosen).expanduser() if chosen is not None else default_data_dir() / "spool"
        redis, prefix = self.config.redis, self.config.key_prefix
        # A directory for each queue: its name can be read, and its digest tells all of them apart.
        digest = hashlib.sha256(f"{redis.address}\n{redis.db}\n{prefix}".encode()).hexdigest()[:12]
        return root / f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', prefix)}-{digest}"

    @property
    def aside(self) -> AsideFile:
        """What could not go to the server."""
        return AsideFile(self.directory)

    # -- in

    def append(self, records: Sequence[SpooledTask]) -> None:
        """Write tasks; when this returns, they are on the disk, and will be told to the server in this order.

        Raises:
            SpoolFullError: there is no room for them; none was written.
            QueueUnavailableError: they cannot be written for another reason.
        """
        payloads = [encode(record) for record in records]
        size = sum(map(len, payloads)) + OVERHEAD_BYTES * len(payloads)
        with self._lock:
            directory = self.directory
            try:
                self._make(directory)
                self._check_room(directory, size)
                self._writer(directory, size).append(payloads)
            except FairQueueError:  # some are OSErrors, too
                raise
            except OSError as error:
                raise _cannot_write(directory, error) from error
            self._waiting.update(record.task_id for record in records)
            self._drain()

    def _make(self, directory: Path) -> None:
        if self._files or directory.is_dir():
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        redis = self.config.redis
        label = {"server": str(redis.address), "db": redis.db, "prefix": self.config.key_prefix}
        (directory / _LABEL).write_text(json.dumps(label))
        sync_directory(directory)
        sync_directory(directory.parent)

    def _check_room(self, directory: Path, size: int) -> None:
        limit = self.config.spool.max_bytes
        used = sum(_sizes(directory))
        if used + size > limit:
            raise SpoolFullError(
                f"the server is away, and the local spool {directory} holds {used:,} of the {limit:,} bytes that "
                "spool.max_bytes allows: push again later, or raise it",
                used=used,
                limit=limit,
            )

    def _writer(self, directory: Path, size: int) -> SpoolFile:
        last = self._files[-1] if self._files else None
        if last is None or (last.end + size > SEGMENT_BYTES and last.end > SEGMENT_BYTES // 2):
            last = SpoolFile.create(directory)
            self._files.append(last)
        return last

    # -- what became of it

    def holds(self, task_id: str) -> bool:
        """Whether this process wrote the task here, and the server has not been told yet."""
        return task_id in self._waiting

    def refusal_of(self, task_id: str) -> FairQueueError | None:
        """Why the server refused a task of this process's, lately."""
        return self._refusals.get(task_id)

    @property
    def waiting(self) -> int:
        """How many tasks of this process wait here."""
        with self._lock:
            return self._waiting.total()

    @property
    def stats(self) -> SpoolStats:
        """What is there."""
        try:
            directory = self.directory
            sizes = _sizes(directory)
            return SpoolStats(directory, self.waiting, len(sizes), sum(sizes), self.aside.count())
        except ConfigError:
            return SpoolStats(None, 0, 0, 0, 0)

    # -- out

    def join(self, owner: Owner) -> None:
        """`owner` uses this spool from now on: what is there, also from processes that are gone, is drained."""
        if owner in self._owners:
            return
        with self._lock:
            self._owners.add(owner)
        with contextlib.suppress(ConfigError, OSError):
            if next(iter(_spool_files(self.directory)), None) is not None:
                with self._lock:
                    self._drain()

    def leave(self, owner: Owner) -> None:
        """`owner` uses it no more. After the last one, files are let go of, for others to take over."""
        with self._lock:
            self._owners.discard(owner)
            if self._owners:
                return
            drainer, self._drainer = self._drainer, None
        # A thread that waits for a server that swallows everything lets go of the files when it ends.
        if drainer is None or drainer.stop():
            self.let_go()

    def let_go(self, ended: Drainer | None = None) -> None:
        """Leave this process's files to others, unless somebody uses them. `ended`: a thread that does no more."""
        with self._lock:
            if ended is self._drainer:
                self._drainer = None
            if self._owners or self._drainer is not None:
                return
            while self._files:
                self._files.pop().close()
            self._waiting.clear()

    def _drain(self) -> None:
        """Have a thread at it (the caller holds the lock)."""
        if self._drainer is None or not self._drainer.wake():
            self._drainer = Drainer(self)
            self._drainer.start()

    @property
    def is_used(self) -> bool:
        """Whether anybody uses it."""
        return bool(self._owners)

    @contextlib.contextmanager
    def locked(self) -> Generator[list[SpoolFile]]:
        """This process's files, oldest first, which nobody else touches meanwhile."""
        with self._lock:
            yield self._files

    def orphans(self) -> Iterator[SpoolFile]:
        """Files of processes that are gone, oldest first; now they are the caller's."""
        with self._lock:
            own = {file.path for file in self._files}
        for path in sorted(_spool_files(self.directory)):
            if path not in own and (file := SpoolFile.take(path)) is not None:
                yield file

    def looks(self) -> list[Look]:
        """What is in the files of all processes, oldest first."""
        found = [SpoolFile.look(path) for path in sorted(_spool_files(self.directory))]
        return [look for look in found if look is not None]

    def others(self) -> bool:
        """Whether there are files of other processes."""
        with self._lock:
            own = {file.path for file in self._files}
        return any(path not in own for path in _spool_files(self.directory))

    def told(self, record: SpooledTask, error: FairQueueError | None, event: Callable[[], Event]) -> None:
        """The server has the task, or has refused it for good."""
        if error is not None:
            self._refusals[record.task_id] = error
            if len(self._refusals) > REMEMBERED_REFUSALS:
                self._refusals.popitem(last=False)
        with self._lock:
            self._waiting[record.task_id] -= 1
            if self._waiting[record.task_id] <= 0:
                del self._waiting[record.task_id]
        self.emit(event)

    def set_aside(self, source: str, reason: str, data: bytes, record: SpooledTask | None = None) -> None:
        """Keep what cannot go to the server, and say so.

        Raises:
            OSError: it cannot be kept.
        """
        self.aside.add([SetAside(time.time(), source, reason, data, record is not None)])
        if record is None:
            _log.error(
                "%d bytes of the spool file %s are no record (%s): set aside", len(data), source, reason
            )
            return
        _log.error("task %s of the local spool was refused, and is set aside: %s", record.task_id, reason)

    def emit(self, event: Callable[[], Event]) -> None:
        """Tell the observers of everybody who uses the spool."""
        buses = {id(owner.events): owner.events for owner in tuple(self._owners)}
        if not all(bus.idle for bus in buses.values()):
            made = event()
            for bus in buses.values():
                bus.emit(made)


def _spool_files(directory: Path) -> Iterator[Path]:
    try:
        yield from (path for path in directory.iterdir() if path.suffix == SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return


def _sizes(directory: Path) -> list[int]:
    """In bytes, of all files that are there."""
    sizes: list[int] = []
    for path in _spool_files(directory):
        with contextlib.suppress(FileNotFoundError):  # drained just now
            sizes.append(path.stat().st_size)
    return sizes


def _cannot_write(directory: Path, error: OSError) -> QueueUnavailableError:
    told = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return SpoolFullError(
            f"the server is away, and the disk of the local spool {directory} has no room: {told}"
        )
    return QueueUnavailableError(
        f"the server is away, and the local spool {directory} cannot be written: {told}. Name another place in "
        "spool.directory"
    )


_shared: WeakValueDictionary[tuple[object, ...], Spool] = WeakValueDictionary()
_sharing = threading.Lock()


def spool_for(config: FairQueueConfig) -> Spool:
    """The spool that this process has for the queue of `config`."""
    key = (config.redis, config.queue, config.breaker, config.spool)
    with _sharing:
        spool = _shared.get(key)
        if spool is None:
            spool = _shared[key] = Spool(config)
        return spool


def _after_fork() -> None:
    """Files, locks and threads are the parent's."""
    _sharing._at_fork_reinit()  # type: ignore[attr-defined]
    for spool in tuple(_shared.values()):
        for file in spool._files:
            file.forget()
        spool._begin()


os.register_at_fork(after_in_child=_after_fork)
