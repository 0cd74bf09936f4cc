"""What a push returns: a way to a task's state, its result and its news.

Nobody polls. A client that waits is named in the task's watcher set; whatever changes the task puts a message
on the client's wake list, and one listener of the queue object reads that list for all its handles.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fairque.core.attempts import TaskAttempt
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.operations import results
from fairque.queue.operations.push import PushResult
from fairque.queue.operations.results import Progress, TaskUpdate
from fairque.queue.spooling import LOOK_SECONDS, refuse_cancel, still_spooled

if TYPE_CHECKING:
    from fairque.queue.async_queue import AsyncTaskQueue
    from fairque.queue.queue import TaskQueue

R = TypeVar("R")


class _BaseHandle(Generic[R]):
    """The task's id, whether the push found it there already, and what became of the push.

    `outcome` is "stored"; or of a push that found a task there: "returned", "throttled" (this push was dropped) or
    "debounced" (the task, which waits, has this push's arguments and options from now on).
    """

    def __init__(
        self,
        task_id: str,
        result_type: Any = None,
        *,
        existing: bool = False,
        outcome: PushResult = "stored",
    ) -> None:
        self.task_id = task_id
        self.existing = existing
        self.outcome = outcome
        self._result_type = result_type

    @property
    def spooled(self) -> bool:
        """Whether it waits in this process's local spool, and the server does not know of it yet."""
        queue: TaskQueue | AsyncTaskQueue = self._queue  # type: ignore[attr-defined]
        return queue.spool.holds(self.task_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id}>"


class TaskHandle(_BaseHandle[R]):
    """A task in the queue, for sync code."""

    def __init__(
        self,
        queue: TaskQueue,
        task_id: str,
        result_type: Any = None,
        *,
        existing: bool = False,
        outcome: PushResult = "stored",
    ) -> None:
        super().__init__(task_id, result_type, existing=existing, outcome=outcome)
        self._queue = queue

    def task(self) -> Task[R] | None:
        """The task as the server has it now, or None if it is gone, or has not got there yet (`spooled`)."""
        return None if self.spooled else self._queue.get_task(self.task_id)

    def state(self) -> TaskState | None:
        """Its state now, or None if it is gone, or has not got there yet (`spooled`)."""
        task = self.task()
        return task.state if task else None

    def progress(self) -> Progress | None:
        """What the running task told last."""
        if self.spooled:
            return None
        return self._queue.run(results.get_progress(self._queue.engine, self.task_id))

    def attempts(self) -> tuple[TaskAttempt, ...]:
        """Each failed attempt, oldest first, also of the runs before a requeue: the last 50 are kept."""
        return self._queue.get_attempts(self.task_id)

    def cancel(self) -> bool:
        """Cancel it, or ask it to stop if it runs. False: it had ended.

        Raises:
            InvalidStateError: it is in the local spool.
        """
        refuse_cancel(self._queue.spool, self.task_id)
        return self._queue.cancel(self.task_id)

    def result(self, timeout: float | None = None) -> R:
        """Its result, waiting for up to `timeout` seconds (None: for ever); woken by the finish.

        Raises:
            TaskFailedError, TaskCanceledError: it ended otherwise.
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        timeout = self._after_spool(timeout)
        value: R = self._queue.wait_for(self.task_id, timeout).value(self._result_type)
        return value

    def _after_spool(self, timeout: float | None) -> float | None:
        """Wait until the server has it; what is left of `timeout`."""
        spool, begun = self._queue.spool, time.monotonic()
        if not still_spooled(spool, self.task_id, None, None):
            return timeout
        deadline = None if timeout is None else begun + timeout
        while still_spooled(spool, self.task_id, deadline, timeout):
            time.sleep(LOOK_SECONDS)
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def events(self, timeout: float | None = None) -> Iterator[TaskUpdate]:
        """Its state now, then each change and each progress, until it has ended.

        Raises:
            ResultTimeoutError: nothing came for `timeout` seconds.
        """
        self._after_spool(timeout)
        yield from self._queue.updates(self.task_id, timeout)


class AsyncTaskHandle(_BaseHandle[R]):
    """A task in the queue, for async code."""

    def __init__(
        self,
        queue: AsyncTaskQueue,
        task_id: str,
        result_type: Any = None,
        *,
        existing: bool = False,
        outcome: PushResult = "stored",
    ) -> None:
        super().__init__(task_id, result_type, existing=existing, outcome=outcome)
        self._queue = queue

    async def task(self) -> Task[R] | None:
        """The task as the server has it now, or None if it is gone, or has not got there yet (`spooled`)."""
        return None if self.spooled else await self._queue.get_task(self.task_id)

    async def state(self) -> TaskState | None:
        """Its state now, or None if it is gone, or has not got there yet (`spooled`)."""
        task = await self.task()
        return task.state if task else None

    async def progress(self) -> Progress | None:
        """What the running task told last."""
        if self.spooled:
            return None
        return await self._queue.run(results.get_progress(self._queue.engine, self.task_id))

    async def attempts(self) -> tuple[TaskAttempt, ...]:
        """Each failed attempt, oldest first, also of the runs before a requeue: the last 50 are kept."""
        return await self._queue.get_attempts(self.task_id)

    async def cancel(self) -> bool:
        """Cancel it, or ask it to stop if it runs. False: it had ended.

        Raises:
            InvalidStateError: it is in the local spool.
        """
        refuse_cancel(self._queue.spool, self.task_id)
        return await self._queue.cancel(self.task_id)

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - the sync twin has it
        """Its result, waiting for up to `timeout` seconds (None: for ever); woken by the finish.

        Raises:
            TaskFailedError, TaskCanceledError: it ended otherwise.
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        timeout = await self._after_spool(timeout)
        ending = await self._queue.wait_for(self.task_id, timeout)
        value: R = ending.value(self._result_type)
        return value

    async def _after_spool(self, timeout: float | None) -> float | None:  # noqa: ASYNC109 - as above
        """Wait until the server has it; what is left of `timeout`."""
        spool, begun = self._queue.spool, time.monotonic()
        if not still_spooled(spool, self.task_id, None, None):
            return timeout
        deadline = None if timeout is None else begun + timeout
        while still_spooled(spool, self.task_id, deadline, timeout):  # noqa: ASYNC110 - a thread drains it
            await asyncio.sleep(LOOK_SECONDS)
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def events(self, timeout: float | None = None) -> AsyncIterator[TaskUpdate]:
        """Its state now, then each change and each progress, until it has ended.

        Raises:
            ResultTimeoutError: nothing came for `timeout` seconds.
        """
        return self._later_events(timeout) if self.spooled else self._queue.updates(self.task_id, timeout)

    async def _later_events(self, timeout: float | None) -> AsyncIterator[TaskUpdate]:  # noqa: ASYNC109 - as above
        await self._after_spool(timeout)
        async for update in self._queue.updates(self.task_id, timeout):
            yield update
