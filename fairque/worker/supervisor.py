"""The supervisor: starts worker processes, renews their leases while they live, gives back at once what a
dead one held.

It runs no task itself, so nothing that a task does can stop it. It judges a child by the page that it shares
with it: a child that holds the interpreter's lock for a minute is busy, one whose oldest task is past its
timeout and a grace (or, without a timeout, `stall_limit_seconds`) is stalled and is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue as queues
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import yaml

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import FairQueueError, WorkerDeadError
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, claims
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Session
from fairque.worker.health import HealthServer
from fairque.worker.page import Page, Phase
from fairque.worker.policies import apply_policies
from fairque.worker.supervised import EXIT_CONFIG, EXIT_RECYCLE

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
KILL_GRACE_SECONDS = 2.0
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 10.0
"""A child that lived so long starts again without a pause."""
GIVE_BACK_TRIES = 60


@dataclass(slots=True)
class _Child:
    """One place for a process. `generation` counts the processes that filled it."""

    place: int
    process: subprocess.Popen[bytes] | None = None
    page: Page | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    next_renewal: float = 0.0


@dataclass(frozen=True, slots=True)
class _Gone:
    """A process that has ended, with the page it left."""

    child: _Child | None
    process: subprocess.Popen[bytes]
    page: Page
    code: int
    started: float = field(default=0.0)


class Supervisor:
    """Runs `processes` worker processes of one entry until it is told to stop.

    `modules` define functions; `handler` is ``module:Class``, for payload tasks. `path` goes before the
    children's own sys.path. Opens nothing before `run`.
    """

    def __init__(
        self,
        config: FairQueueConfig,
        worker_id: str | None = None,
        *,
        modules: Sequence[str] = (),
        processes: int = 1,
        handler: str | None = None,
        path: Sequence[str] = (),
        log_level: int = logging.INFO,
    ) -> None:
        self.config = config
        self.entry = config.worker(worker_id)
        self.processes = processes
        self._modules, self._handler, self._path = tuple(modules), handler, tuple(path)
        self._log_level = log_level
        self._engine = Engine(config.queue, config.key_prefix)
        self._children = [_Child(place) for place in range(processes)]
        self._leaving: list[_Child] = []
        self._gone: queues.SimpleQueue[_Gone | None] = queues.SimpleQueue()
        self._manager: LuaScriptManager | None = None
        self._health: HealthServer | None = None
        self._asked = 0
        self._kill_at: float | None = None
        self._fatal = False
        self.restarts = 0

    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return tuple(child.process.pid for child in self._children if child.process is not None)

    # -- running

    def run(self, *, handle_signals: bool = True) -> int:
        """Serve until SIGTERM or SIGINT (or `stop`); a second one gives everything back at once.

        Returns 0 after an orderly end, 1 if a worker could not start at all.

        Raises:
            QueueUnavailableError: no server answers at the start.
        """
        self._manager = LuaScriptManager(self.config.redis.create_redis_client())
        self._manager.run(admin.open_queue(self._engine))
        apply_policies(self._manager, self._engine, self.config)
        before = {}
        if handle_signals:
            before = {n: signal.signal(n, self._on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
        if self.entry.health_port is not None:
            self._health = HealthServer(self.entry.health_port, self.is_healthy, self.is_ready)
            self._health.start()
        try:
            self._loop()
        finally:
            for child in (*self._children, *self._leaving):
                self._kill(child)
            self._collect_all()
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._health is not None:
                self._health.close()
            self._manager.client.close()
        return 1 if self._fatal else 0

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            if not self._asked:
                for child in self._children:
                    if child.process is None and now >= child.start_at:
                        self._start(child)
            elif all(child.process is None for child in (*self._children, *self._leaving)):
                return
            for child in (*self._children, *self._leaving):
                self._look_after(child, now)
            if self._kill_at is not None and now > self._kill_at:
                for child in (*self._children, *self._leaving):
                    self._kill(child)
            self._collect(TICK_SECONDS)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        _log.info("%s: the supervisor stops its workers", signal.Signals(number).name)
        self.stop()

    def stop(self) -> None:
        """Let the workers finish and leave; a second call gives everything back at once. Does not wait."""
        self._asked += 1
        grace = (self.entry.shutdown_timeout_seconds if self._asked == 1 else 0.0) + KILL_GRACE_SECONDS
        limit = time.monotonic() + grace
        self._kill_at = limit if self._kill_at is None else min(self._kill_at, limit)
        for child in (*self._children, *self._leaving):
            if child.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGTERM)
        self._gone.put(None)

    # -- children

    def _start(self, child: _Child) -> None:
        slots = self.entry.max_concurrent_tasks
        page = Page.create(slots)
        order = {
            "config": self._child_config(),
            "worker_id": self.entry.id,
            "modules": self._modules,
            "handler": self._handler,
            "path": self._path,
            "log_level": self._log_level,
            "page_fd": page.fd,
            "slots": slots,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "fairque.worker.supervised"],
            stdin=subprocess.PIPE,
            pass_fds=(page.fd,),
            start_new_session=True,
        )
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
        now = time.monotonic()
        child.process, child.page, child.started = process, page, now
        child.next_renewal = now + self._engine.config.lease_seconds / 3
        threading.Thread(target=self._wait_for, args=(process, page, now), daemon=True).start()
        _log.info("worker process %d started as pid %d", child.place, process.pid)

    def _child_config(self) -> object:
        """All of it, with secrets (it goes through a pipe), but health is the supervisor's to tell."""
        config = yaml.safe_load(self.config.to_yaml(include_secrets=True))
        for entry in config["workers"]:
            entry["health_port"] = None
        return config

    def _wait_for(self, process: subprocess.Popen[bytes], page: Page, started: float) -> None:
        code = process.wait()
        child = next((c for c in (*self._children, *self._leaving) if c.process is process), None)
        self._gone.put(_Gone(child, process, page, code, started))

    def _look_after(self, child: _Child, now: float) -> None:
        process, page = child.process, child.page
        if process is None or page is None:
            return
        if page.recycle and child in self._children and not self._asked:
            # Its replacement starts at once; the old one finishes what it has.
            old = _Child(child.place, process, page, child.started, next_renewal=child.next_renewal)
            self._leaving.append(old)
            child.process, child.page, child.start_at = None, None, now
            self.restarts += 1
            return
        if any(begun.stalled_at < now for begun in page.begun()):
            _log.error("worker process %d is stalled and is killed", process.pid)
            self._kill(child)
            return
        if now >= child.next_renewal and page.incarnation and not _is_stopped(process.pid):
            child.next_renewal = now + self._engine.config.lease_seconds / 3
            self._renew(page)

    def _renew(self, page: Page) -> None:
        if self._manager is None:
            return
        session = Session(slots=0, incarnation=page.incarnation)
        try:
            self._manager.run(claims.renew(self._engine, session))
        except WorkerDeadError:
            _log.debug("incarnation %s is not alive; its process starts anew by itself", page.incarnation)
        except FairQueueError as error:
            _log.warning("the lease of a worker process could not be renewed: %s", error)

    def _kill(self, child: _Child) -> None:
        if child.process is not None:
            _kill_group(child.process.pid)

    def _collect(self, timeout: float) -> None:
        with contextlib.suppress(queues.Empty):
            gone = self._gone.get(timeout=timeout)
            if gone is not None:
                self._bury(gone)

    def _collect_all(self) -> None:
        """After a kill, every process is still to be buried."""
        until = time.monotonic() + 5
        while (
            any(c.process is not None for c in (*self._children, *self._leaving)) and time.monotonic() < until
        ):
            self._collect(0.1)

    def _bury(self, gone: _Gone) -> None:
        """Its whole group first, so that nothing of it runs on; then its tasks go back at once."""
        _kill_group(gone.process.pid)
        if gone.process.stdin is not None:
            with contextlib.suppress(OSError):
                gone.process.stdin.close()
        incarnation, begun = gone.page.incarnation, [task.token for task in gone.page.begun()]
        if incarnation and gone.code not in (0, EXIT_RECYCLE):
            _log.error(
                "worker process %d ended with %s; %d of its tasks had begun",
                gone.process.pid, _describe(gone.code), len(begun),
            )  # fmt: skip
        if incarnation:
            self._give_back(incarnation, begun)
        old = next((c for c in self._leaving if c.process is gone.process), None)
        child = next((c for c in self._children if c.process is gone.process), None)
        if old is not None:
            self._leaving.remove(old)
        if child is not None:
            self._plan_restart(child, gone)
        gone.page.close()

    def _plan_restart(self, child: _Child, gone: _Gone) -> None:
        now = time.monotonic()
        steady = now - gone.started > STEADY_SECONDS or gone.code in (0, EXIT_RECYCLE)
        was_ready = gone.page.phase is not Phase.STARTING
        child.failures = 0 if steady else child.failures + 1
        pause = BACKOFF_SECONDS[min(max(0, child.failures - was_ready), len(BACKOFF_SECONDS) - 1)]
        child.process, child.page, child.start_at = None, None, now + pause
        self.restarts += 1
        if gone.code == EXIT_CONFIG:
            self._fatal = True
            if not self._asked:
                self.stop()
        elif pause and not self._asked:
            _log.warning("worker process %d starts again in %.1f s", child.place, pause)

    def _give_back(self, incarnation: str, begun: list[bytes]) -> None:
        if self._manager is None:
            return
        for _ in range(GIVE_BACK_TRIES):
            try:
                count = self._manager.run(claims.leave(self._engine, incarnation, begun))
            except FairQueueError as error:
                _log.warning("could not give back the tasks of %s yet: %s", incarnation, error)
                time.sleep(0.5)
                continue
            if count:
                _log.info("%d tasks of the ended process were queued again", count)
            return
        _log.error("the tasks of %s are given back when its lease ends", incarnation)

    # -- health

    def is_healthy(self) -> bool:
        """Whether every place has a process and the server answers them."""
        limit = 2 * self._engine.config.lease_seconds / 3 + 0.5
        now = time.monotonic()
        return all(c.page is not None and now - c.page.last_good < limit for c in self._children)

    def is_ready(self) -> bool:
        """Whether every process claims tasks."""
        return self.is_healthy() and all(
            c.page is not None and c.page.phase is Phase.READY for c in self._children
        )


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (Linux; elsewhere unknown, and taken for running)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
