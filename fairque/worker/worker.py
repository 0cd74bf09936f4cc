"""Worker: one process that serves a queue."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus, WorkerStarted, WorkerStopped
from fairque.core.exceptions import ConfigError, FairQueueError
from fairque.core.middleware import Middleware
from fairque.core.registry import default_registry
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine
from fairque.queue.operations.records import at
from fairque.queue.spool import spool_for
from fairque.worker.cleaner import Cleaner
from fairque.worker.executors import Executor, create_executor
from fairque.worker.handler import TaskHandler
from fairque.worker.health import HealthServer
from fairque.worker.loop import NO_FUNCTIONS, ControlLoop
from fairque.worker.memory import process_memory_mb
from fairque.worker.page import Page, Phase
from fairque.worker.policies import apply_policies
from fairque.worker.runner import Runner
from fairque.worker.slots import STUCK_SECONDS
from fairque.worker.waker import Waker

_log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
LEAVE_SECONDS = 1.0
"""What stopping may take beyond the timeout that was given to the tasks."""


def import_modules(modules: Sequence[str]) -> None:
    """Import the modules that define the functions.

    Raises:
        ConfigError: one cannot be found, or fails.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(
                    f"there is no module {name!r} on the path ({', '.join(sys.path[:3]) or '.'}, ...): start in "
                    "the directory that holds it, or install it"
                ) from None
            raise


class Worker:
    """Claims and runs tasks as one entry of `config.workers` says. It opens nothing before `start`.

    `handler` runs payload tasks. `modules` define functions and are imported at the start. `run` handles
    signals; to embed a worker, use `start` and `stop`, from any thread.
    """

    def __init__(
        self,
        config: FairQueueConfig | None = None,
        handler: TaskHandler | None = None,
        *,
        worker_id: str | None = None,
        modules: Sequence[str] = (),
        middleware: Sequence[Middleware] = (),
        events: EventBus | None = None,
        page: Page | None = None,
    ) -> None:
        self.config = config or FairQueueConfig.create_default()
        self.entry = self.config.worker(worker_id)
        self.events = events or EventBus()
        self.modules = tuple(modules)
        self._handler, self._page = handler, page
        self._runner = Runner(
            handler,
            middlewares=middleware,
            task_timeout=self.entry.task_timeout_seconds,
            max_result_bytes=self.config.queue.max_result_bytes,
        )
        self._engine = Engine(self.config.queue, self.config.key_prefix, bus=self.events)
        self._loop: ControlLoop | None = None
        self._executor: Executor | None = None
        self._manager: LuaScriptManager | None = None
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        self._watch: threading.Thread | None = None
        self._health: HealthServer | None = None
        self._cleaner: Cleaner | None = None
        self._out = threading.Event()
        self._stop_within: float | None = None
        self._error: Exception | None = None
        self.recycling = False

    # -- starting

    def start(self) -> None:
        """Return when the worker is ready: connected, start hooks run, its lease taken.

        Raises:
            QueueUnavailableError: no server answers.
            ConfigError: a module is missing, or processes cannot be made.
            OSError: `health_port` is taken.
        """
        if self._manager is not None:
            raise ConfigError("this worker was started before: make a new one")
        import_modules(self.modules)
        with ExitStack() as undo:  # a start that fails leaves nothing behind
            loop = self._prepare(undo)
            undo.pop_all()
        self._cleaner = Cleaner(self.config, self._engine, loop.session.incarnation)
        self._thread = threading.Thread(target=self._run_loop, name="fairque-loop", daemon=True)
        self._thread.start()
        self._watch = threading.Thread(target=self._look_after, name="fairque-watch", daemon=True)
        self._watch.start()
        self._cleaner.start()
        if self._page is not None and self._stop_within is None:
            self._page.set_phase(Phase.READY)
        self.events.emit(
            WorkerStarted(at=self._now(), worker_id=self.entry.id, incarnation=loop.session.incarnation)
        )
        _log.info(
            "worker %s is ready: %d slots, pid %d",
            self.entry.id,
            self.entry.max_concurrent_tasks,
            os.getpid(),
        )

    def _prepare(self, undo: ExitStack) -> ControlLoop:
        """Everything but the threads that serve; `undo` takes it back."""
        entry = self.entry
        manager = self._manager = LuaScriptManager(
            self.config.redis.create_redis_client(), breaker=breaker_for(self.config, self.events)
        )
        undo.callback(manager.client.close)
        manager.assured.lenient = True
        manager.run(admin.open_queue(self._engine, serves=True))
        spool = spool_for(self.config)
        spool.join(self)  # what a producer on this machine left behind
        undo.callback(spool.leave, self)
        if self._page is None:  # else the supervisor has done so
            apply_policies(manager, self._engine, self.config)
        executor = self._executor = create_executor(
            entry.executor,
            entry.max_concurrent_tasks,
            self._runner,
            modules=self.modules or None,
            max_tasks_per_process=entry.max_tasks_per_process,
            max_memory_mb=entry.max_memory_mb,
        )
        functions = (
            *default_registry().names(),
            *([""] if self._handler is not None else []),
        ) or NO_FUNCTIONS
        block = max(0.1, min(entry.poll_interval_seconds, self.config.queue.lease_seconds / 3))
        waker = self._waker = Waker(self.config.redis, block, self._hear, manager.breaker)
        loop = self._loop = ControlLoop(self._engine, manager, executor, entry, waker, functions, self._page)
        if entry.health_port is not None:
            self._health = HealthServer(entry.health_port, self.is_healthy, self.is_ready)
            self._health.start()
            undo.callback(self._health.close)
        executor.start(loop.slots)
        undo.callback(executor.stop, 0)
        loop.join()
        undo.callback(loop.leave)
        if self._stop_within is not None:  # asked while it was starting
            loop.stop(self._stop_within)
        waker.start(self._engine.keys.wake(loop.session.incarnation))
        return loop

    def _hear(self, message: bytes) -> None:
        if self._loop is not None:
            self._loop.on_message(message)

    def _now(self) -> Any:
        return at(time.time() * 1e6)

    def _run_loop(self) -> None:
        loop, executor = self._loop, self._executor
        if loop is None or executor is None:
            return
        try:
            loop.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must say so and go
            _log.exception("the control loop ended; the worker's tasks are given back by its lease")
            self._error = error
        finally:
            executor.stop(0)
            if self._waker is not None:
                self._waker.close()
            if self._cleaner is not None:
                self._cleaner.stop()
            if self._health is not None:
                self._health.close()
            if self._manager is not None:
                self._manager.client.close()
            spool_for(self.config).leave(self)
            self.events.emit(
                WorkerStopped(
                    at=self._now(),
                    worker_id=self.entry.id,
                    incarnation=loop.session.incarnation,
                    released=loop.released,
                )
            )
            _log.info(
                "worker %s is out: %d tasks settled, %d given back",
                self.entry.id,
                loop.completed,
                loop.released,
            )
            self._out.set()

    # -- health

    @property
    def incarnation(self) -> str:
        """The name of this process's current lease, empty before the start."""
        return self._loop.session.incarnation if self._loop else ""

    @property
    def health_port(self) -> int | None:
        """The port on which /healthz and /readyz answer, if they do."""
        return self._health.port if self._health else None

    def is_healthy(self) -> bool:
        """Whether the loop runs and the server answered within the last two heartbeats."""
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            return False
        return time.monotonic() - self._loop.last_good < 2 * self.config.queue.lease_seconds / 3 + 0.5

    def is_ready(self) -> bool:
        """Whether it claims tasks: healthy, and not on its way out."""
        return self.is_healthy() and self._loop is not None and not self._loop.stopping

    def _look_after(self) -> None:
        """Whether this process should be replaced: a stuck thread, too many tasks, too much memory.

        Only a supervisor can replace it; without one, stuck threads keep their slots.
        """
        while not self._out.wait(WATCH_SECONDS):
            loop, executor = self._loop, self._executor
            if self._page is None or loop is None or executor is None:
                continue
            self._page.beat(time.monotonic(), loop.completed)
            if loop.stopping:
                continue
            if reason := self._why_recycle(loop, executor):
                _log.warning("this worker process is replaced: %s", reason)
                self.recycling = True
                self._page.set_phase(Phase.LEAVING, recycle=True)
                loop.stop(self.entry.shutdown_timeout_seconds)

    def _why_recycle(self, loop: ControlLoop, executor: Executor) -> str | None:
        if self.entry.executor == "process":
            return None  # its children are replaced one by one
        if any(task.overdue > STUCK_SECONDS for task in executor.stuck()):
            return "a task is past its timeout and does not end"
        limit = self.entry.max_tasks_per_process
        if limit is not None and loop.completed >= limit:
            return f"it has run {loop.completed} tasks (max_tasks_per_process)"
        if self.entry.max_memory_mb is not None and process_memory_mb() > self.entry.max_memory_mb:
            return f"it holds more than {self.entry.max_memory_mb} MB (max_memory_mb)"
        return None

    # -- stopping

    def stop(self, timeout: float | None = None) -> bool:
        """Claim no more, let what runs end within `timeout` seconds (default: shutdown_timeout_seconds), give
        the rest back without using up an attempt, and return when the worker is out. False: a thread did not
        end in time.
        """
        seconds = self.entry.shutdown_timeout_seconds if timeout is None else timeout
        self.ask_to_stop(seconds)
        return self.join(seconds + LEAVE_SECONDS + 4) if self._thread is not None else True

    def ask_to_stop(self, timeout: float) -> None:
        """As `stop`, without waiting; a later call can shorten the time."""
        if self._page is not None:
            self._page.set_phase(Phase.LEAVING, recycle=self.recycling)
        self._stop_within = timeout if self._stop_within is None else min(timeout, self._stop_within)
        if self._loop is not None:
            self._loop.stop(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the worker is out; False if `timeout` seconds were not enough."""
        return self._out.wait(timeout)

    def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, and leave; a second signal gives everything back at once.

        Raises: as `start`, and what ended it otherwise.
        """
        asked = 0

        def on_signal(number: int, _frame: FrameType | None) -> None:
            nonlocal asked
            asked += 1
            _log.info("%s: the worker stops%s", signal.Signals(number).name, " at once" if asked > 1 else "")
            self.ask_to_stop(self.entry.shutdown_timeout_seconds if asked == 1 else 0.0)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.start()
            while not self._out.wait(0.5):
                pass
            if self._error is not None:
                raise self._error
        except FairQueueError:
            self.ask_to_stop(0.0)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
