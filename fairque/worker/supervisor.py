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
from fairque.core.events import EventBus
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine
from fairque.scheduler.scheduler import TaskScheduler
from fairque.worker.health import HealthServer
from fairque.worker.liaison import Liaison
from fairque.worker.page import Page, Phase
from fairque.worker.policies import apply_policies
from fairque.worker.processes import describe_exit, is_stopped, kill_group
from fairque.worker.supervised import EXIT_CONFIG, EXIT_RECYCLE

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
PULSE_SECONDS = 2.0
"""A process whose threads have not run for so long is held up by a task."""
KILL_GRACE_SECONDS = 0.7
RECYCLE_GRACE_SECONDS = 5.0
"""What a process may take beyond the time that its tasks were given to end, when all stops, or when only this process
is replaced."""
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 10.0
"""A child that lived so long starts again without a pause."""
LAST_WORDS_SECONDS = 0.2
"""How long a supervisor that is out of time goes on telling the server of its dead processes."""
REPEAT_SECONDS = 0.1
"""Between two signals to one process, so that they do not become one."""
SILENT_LEASES = 0.4
"""A process that has not been answered for so much of a lease has it renewed by the supervisor."""


@dataclass(slots=True)
class _Child:
    """One place for a process.

    `told`: how often it was told to stop, last at `told_at`. `kill_at`: when it must have left by itself; `late`:
    it was killed because it had not.
    """

    place: int
    process: subprocess.Popen[bytes] | None = None
    page: Page | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    told: int = 0
    told_at: float = 0.0
    kill_at: float | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class _Gone:
    """A process that has ended, with the page it left."""

    process: subprocess.Popen[bytes]
    page: Page
    code: int
    started: float = field(default=0.0)


class Supervisor:
    """Runs `processes` worker processes of one entry until it is told to stop.

    `modules` define functions; `handler` is ``module:Class``, for payload tasks. `path` goes before the
    children's own sys.path. With `scheduler`, a TaskScheduler runs beside them, in this process. `events` hear of dead
    processes and what they held (`WorkerDead`, `TaskLost`), and of schedules. Opens nothing before `run`.
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
        scheduler: bool = False,
        events: EventBus | None = None,
    ) -> None:
        self.config = config
        self.entry = config.worker(worker_id)
        self.processes = processes
        self._modules, self._handler, self._path = tuple(modules), handler, tuple(path)
        self._log_level = log_level
        self.events = events or EventBus()
        self._scheduler = TaskScheduler(config, events=self.events) if scheduler else None
        self._engine = Engine(config.queue, config.key_prefix, bus=self.events)
        self._children = [_Child(place) for place in range(processes)]
        self._leaving: list[_Child] = []
        self._gone: queues.SimpleQueue[_Gone | None] = queues.SimpleQueue()
        self._liaison: Liaison | None = None
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
            OSError: `health_port` is taken.
        """
        manager = LuaScriptManager(self.config.redis.create_redis_client(), breaker=breaker_for(self.config))
        manager.assured.lenient = True
        manager.run(admin.open_queue(self._engine, serves=True))
        apply_policies(manager, self._engine, self.config)
        if self._scheduler is not None:
            self._scheduler.start()
        self._liaison = Liaison(manager, self._engine)
        before = {}
        if handle_signals:
            before = {n: signal.signal(n, self._on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            if self.entry.health_port is not None:
                self._health = HealthServer(self.entry.health_port, self.is_healthy, self.is_ready)
                self._health.start()
            self._loop()
        finally:
            if self._scheduler is not None:
                self._scheduler.stop(LAST_WORDS_SECONDS)
            for child in (*self._children, *self._leaving):
                self._out_of_time(child)
            self._collect_all()
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._health is not None:
                self._health.close()
            now = time.monotonic()
            self._liaison.close(max(LAST_WORDS_SECONDS, (self._kill_at or now) - now + LAST_WORDS_SECONDS))
        return 1 if self._fatal else 0

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            if not self._asked:
                for child in self._children:
                    if child.process is None and now >= child.start_at:
                        self._try_start(child)
            elif all(child.process is None for child in (*self._children, *self._leaving)):
                return
            for child in (*self._children, *self._leaving):
                self._look_after(child, now)
                if any(limit is not None and now > limit for limit in (self._kill_at, child.kill_at)):
                    self._out_of_time(child)
            self._collect(TICK_SECONDS)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        _log.info("%s: the supervisor stops its workers", signal.Signals(number).name)
        self.stop()

    def stop(self) -> None:
        """Let the workers finish and leave; a second call gives everything back at once. Does not wait."""
        self._asked += 1
        if self._scheduler is not None:
            self._scheduler.ask_to_stop()
        grace = (self.entry.shutdown_timeout_seconds if self._asked == 1 else 0.0) + KILL_GRACE_SECONDS
        limit = time.monotonic() + grace
        self._kill_at = limit if self._kill_at is None else min(self._kill_at, limit)
        self._gone.put(None)  # the loop tells the children, also those that it is just starting

    # -- children

    def _try_start(self, child: _Child) -> None:
        """A machine that is out of processes, memory or files may have some again: the others go on meanwhile."""
        try:
            self._start(child)
        except OSError as error:
            child.failures += 1
            pause = _pause(child.failures)
            child.start_at = time.monotonic() + pause
            _log.error("worker process %d cannot be started (%s); again in %.1f s", child.place, error, pause)

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
            "schedules": self._scheduler is not None,
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "fairque.worker.supervised"],
                stdin=subprocess.PIPE,
                pass_fds=(page.fd,),
                start_new_session=True,
            )
        except OSError:
            page.close()
            raise
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
        now = time.monotonic()
        child.process, child.page, child.started = process, page, now
        child.told, child.late = 0, False
        threading.Thread(target=self._wait_for, args=(process, page, now), daemon=True).start()
        _log.info("worker process %d started as pid %d", child.place, process.pid)

    def _child_config(self) -> object:
        """With secrets (it goes through a pipe), but health and schedules are the supervisor's."""
        config = yaml.safe_load(
            self.config.model_copy(update={"schedules": {}}).to_yaml(include_secrets=True)
        )
        for entry in config["workers"]:
            entry["health_port"] = None
        return config

    def _wait_for(self, process: subprocess.Popen[bytes], page: Page, started: float) -> None:
        code = process.wait()
        self._gone.put(_Gone(process, page, code, started))

    def _look_after(self, child: _Child, now: float) -> None:
        process, page = child.process, child.page
        if process is None or page is None:
            return
        if child.told < min(self._asked, 2) and now >= child.told_at + REPEAT_SECONDS:
            child.told, child.told_at = child.told + 1, now
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if page.recycle and child in self._children and not self._asked:
            # Its replacement starts at once; the old one finishes what it has.
            limit = now + self.entry.shutdown_timeout_seconds + RECYCLE_GRACE_SECONDS
            old = _Child(child.place, process, page, child.started, kill_at=limit)
            self._leaving.append(old)
            # One that asks for it before it has done anything would ask again at once.
            child.failures = 0 if page.settled else child.failures + 1
            child.process, child.page, child.start_at = None, None, now + _pause(child.failures)
            self.restarts += 1
            return
        if self._is_stalled(page, now):
            _log.error("worker process %d is stalled and is killed", process.pid)
            self._kill(child)
            return
        silent = now - page.last_good > SILENT_LEASES * self._engine.config.lease_seconds
        if silent and page.incarnation and self._liaison is not None and not is_stopped(process.pid):
            self._liaison.keep_alive(page.incarnation, now)

    def _is_stalled(self, page: Page, now: float) -> bool:
        """Whether its oldest task is out of time and no thread of its own gets to run, so that it cannot see to that
        itself; or it has said nothing for the same time to a server that answers."""
        if now - page.pulse > PULSE_SECONDS and any(begun.stalled_at < now for begun in page.begun()):
            return True
        heard = (
            self._liaison.renewed_at(page.incarnation)
            if self._liaison is not None and page.incarnation
            else 0.0
        )
        answers = now - heard < self._engine.config.lease_seconds
        return answers and not page.begun() and now - page.last_good > self.entry.stall_limit_seconds

    def _out_of_time(self, child: _Child) -> None:
        child.late = True
        self._kill(child)

    def _kill(self, child: _Child) -> None:
        if child.process is not None:
            kill_group(child.process.pid)

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
        kill_group(gone.process.pid)
        if gone.process.stdin is not None:
            with contextlib.suppress(OSError):
                gone.process.stdin.close()
        old = next((c for c in self._leaving if c.process is gone.process), None)
        child = next((c for c in self._children if c.process is gone.process), None)
        incarnation, begun = gone.page.incarnation, [task.token for task in gone.page.begun()]
        if gone.code in (0, EXIT_RECYCLE) or any(c is not None and c.late for c in (old, child)):
            begun = []  # it left in order, or ran out of time to: no task is to blame
        elif incarnation:
            _log.error(
                "worker process %d ended with %s; %d of its tasks had begun",
                gone.process.pid, describe_exit(gone.code), len(begun),
            )  # fmt: skip
        if incarnation and self._liaison is not None:
            self._liaison.give_back(incarnation, begun)
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
        pause = _pause(max(0, child.failures - was_ready))
        child.process, child.page, child.start_at = None, None, now + pause
        self.restarts += 1
        if gone.code == EXIT_CONFIG:
            self._fatal = True
            if not self._asked:
                self.stop()
        elif pause and not self._asked:
            _log.warning("worker process %d starts again in %.1f s", child.place, pause)

    # -- health

    def is_healthy(self) -> bool:
        """Whether every place has a process that the server answers, or that is busy with its lease renewed."""
        now = time.monotonic()
        decides = self._asked or self._scheduler is None or self._scheduler.is_healthy()
        return bool(decides) and all(self._is_well(child, now) for child in self._children)

    def _is_well(self, child: _Child, now: float) -> bool:
        process, page = child.process, child.page
        if process is None or page is None or self._liaison is None:
            return False
        with contextlib.suppress(ValueError):  # the page was closed just now: it is dead
            heard = page.last_good
            if page.begun() and not is_stopped(process.pid):  # a task may hold the interpreter's lock
                heard = max(heard, self._liaison.renewed_at(page.incarnation))
            return now - heard < 2 * self._engine.config.lease_seconds / 3 + 0.5
        return False

    def is_ready(self) -> bool:
        """Whether every process claims tasks."""
        return self.is_healthy() and all(
            c.page is not None and c.page.phase is Phase.READY for c in self._children
        )


def _pause(failures: int) -> float:
    return BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
