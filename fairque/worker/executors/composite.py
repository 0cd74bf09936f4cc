"""The executor of a worker in thread mode: each task goes where it belongs.

Functions run in threads, `async def`s on the event loop, and tasks that were running when a process died,
alone in a process of their own, so that the next crash harms nobody else. The slots are shared: whoever
submits keeps count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from fairque.core.exceptions import ConfigError
from fairque.core.models import Task
from fairque.worker import hooks
from fairque.worker.executors.asyncio import AsyncioExecutor
from fairque.worker.executors.base import Listener, RunningTask
from fairque.worker.executors.ledger import NOBODY, Execution
from fairque.worker.executors.parts import LedgerExecutor, TaskRunner
from fairque.worker.executors.process import ProcessExecutor
from fairque.worker.executors.thread import ThreadExecutor


class CompositeExecutor:
    """Threads, an event loop, and processes for tasks that must be alone. `make_alone` is called for the
    first of those."""

    name = "thread"

    def __init__(self, runner: TaskRunner, slots: int, make_alone: Callable[[], ProcessExecutor]) -> None:
        self.slots = slots
        self._runner = runner
        self._threads = ThreadExecutor(runner, slots)
        self._loop = AsyncioExecutor(runner, slots)
        self._make_alone = make_alone
        self._alone: ProcessExecutor | None = None
        self._parts: tuple[LedgerExecutor, ...] = (self._threads, self._loop)
        self._listener: Listener = NOBODY
        self._lock = threading.Lock()
        self._draining = False
        self._stopped = False

    def start(self, listener: Listener) -> None:
        self._listener = listener
        for part in self._parts:
            part.start(listener)
        try:
            hooks.run_start_hooks(self._loop.call)
        except BaseException:
            self._loop.leave()
            raise

    def submit(self, task: Task[Any]) -> None:
        if task.lone:
            self._submit_alone(task)
        elif self._runner.is_async(task):
            self._loop.submit(task)
        else:
            self._threads.submit(task)

    def _submit_alone(self, task: Task[Any]) -> None:
        try:
            with self._lock:
                if self._alone is None and not self._draining:
                    self._alone = self._make_alone()
                    self._alone.start(self._listener)
                    self._parts = (*self._parts, self._alone)
        except ConfigError as error:
            # It has brought down a process with all that ran there. Here it must not run again.
            self._listener.on_outcome(self._runner.failure(Execution.unrun(task), error))
        else:
            (self._alone or self._threads).submit(task)  # the threads, which are drained, return it

    def cancel(self, task_id: str, token: bytes | None = None) -> bool:
        found = [part.cancel(task_id, token) for part in self._parts]
        return any(found)

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(view for part in self._parts for view in part.running())

    def stuck(self) -> tuple[RunningTask, ...]:
        return tuple(view for part in self._parts for view in part.stuck())

    def drain(self) -> None:
        with self._lock:
            self._draining = True
        for part in self._parts:
            part.drain()

    def stop(self, timeout: float) -> tuple[Task[Any], ...]:
        self.drain()
        leave_at = time.monotonic() + timeout
        left_over: list[Task[Any]] = []
        for part in self._parts:
            left_over += part.finish(max(0.0, leave_at - time.monotonic()))
        if self._alone is not None:
            self._alone.leave()
        with self._lock:
            first, self._stopped = not self._stopped, True
        if first:
            hooks.run_stop_hooks(self._loop.call)
        for part in self._parts:
            part.leave()
        return tuple(left_over)
