"""`async def` tasks, on one event loop in a thread of the worker.

What other threads submit is collected, and the loop is called once for all that came before it looks: a call costs a
system call. What is submitted on the loop, because a task has ended there, begins at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fairque.core.models import Task
from fairque.worker.executors.ledger import Execution
from fairque.worker.executors.parts import LedgerExecutor, TaskRunner
from fairque.worker.executors.watchdog import Watchdog

LEAVE_SECONDS = 0.5
"""What cancelled tasks have for their `finally` when the executor leaves."""


class AsyncioExecutor(LedgerExecutor):
    """Runs each task as an asyncio task. The loop's thread is made for the first of them."""

    name = "asyncio"

    def __init__(self, runner: TaskRunner, slots: int) -> None:
        super().__init__(runner, slots)
        # asyncio.timeout ends a task at its deadline. The watchdog only reports, which it can also when a
        # task blocks the loop.
        self._watchdog = Watchdog(self._ledger.expire)
        self._ledger.expect = self._watchdog.expect
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived: deque[Execution] = deque()
        self._called = False  # the loop was told to look at what has arrived

    def submit(self, task: Task[Any]) -> None:
        execution = self._ledger.open(task)
        if execution is None:
            return
        loop = self._loop or self._start_loop()
        if self._thread is threading.current_thread():
            self._begin(loop, execution)
            return
        self._arrived.append(execution)
        if not self._called:
            self._called = True
            loop.call_soon_threadsafe(self._begin_all, loop)

    def call(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for an awaitable on the loop; for other threads than the loop's. Raises what it raises."""
        loop = self._loop or self._start_loop()
        return asyncio.run_coroutine_threadsafe(_await(awaitable), loop).result()

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_loop, args=(loop,), name="fairque-loop", daemon=True)
                thread.start()
                self._thread = thread
                self._loop = loop
            return self._loop

    def _begin_all(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called = False  # before the first is taken: what comes later calls again
        while self._arrived:
            self._begin(loop, self._arrived.popleft())

    def _begin(self, loop: asyncio.AbstractEventLoop, execution: Execution) -> None:
        self._tasks.add(loop.create_task(self._run(loop, execution)))

    async def _run(self, loop: asyncio.AbstractEventLoop, execution: Execution) -> None:
        task = cast(asyncio.Task[None], asyncio.current_task(loop))
        if not self._ledger.take(execution):
            self._tasks.discard(task)
            return
        # Only from here on, since an asyncio task that is cancelled before its first step never runs at all.
        # What was cancelled earlier is seen by the runner.
        execution.on_cancel = lambda: _call_soon(loop, _cancel, execution, task)
        try:
            outcome = await self._runner.run_async(execution)
            self._ledger.settle(execution, outcome)
            if self._runner.has_hooks(outcome):
                await self._runner.after_async(execution, outcome)
        finally:
            self._tasks.discard(task)

    def leave(self) -> None:
        self._watchdog.stop()
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        _call_soon(loop, self._end_loop)
        if thread is not threading.current_thread():
            thread.join(LEAVE_SECONDS)

    def _end_loop(self) -> None:
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            task.cancel()

        async def end() -> None:
            # A task that ignores its cancellation is left behind with the loop, as a thread would be.
            while self._tasks:
                done, _ = await asyncio.wait(self._tasks)
                self._tasks -= done  # also those that were cancelled before their first step
            loop.stop()

        self._ending = loop.create_task(end())


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _cancel(execution: Execution, task: asyncio.Task[None]) -> None:
    if not execution.left:
        task.cancel()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        pass  # the loop is closed: nothing runs on it any more


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
