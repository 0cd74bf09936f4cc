"""What the worker itself puts around a task, in the same shape as a plugin's middleware: retries, timeout.

The onion, from the outside: retry decision, the plugins' middleware, timeout, the function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fairque.core.context import TaskContext, XComAccess, find_current
from fairque.core.exceptions import TaskTimeoutError
from fairque.core.middleware import Middleware, Next, NextAsync
from fairque.core.models import Task
from fairque.core.retry import RetryPolicy
from fairque.core.retry_rules import CONTROL, next_delay
from fairque.worker.executors.ledger import Execution
from fairque.worker.xcom import TaskXCom

T = TypeVar("T")


class Call(TaskContext):
    """The running task's context, with what the worker knows beside it."""

    __slots__ = ("execution", "function", "retry_delay")

    def __init__(self, execution: Execution, function: Callable[..., Any] | None) -> None:
        # One for each task that runs: it asks the execution, so that no callbacks need to be made.
        self.task = execution.task
        self._report = execution.progress
        self.execution = execution
        self.function = function
        self.retry_delay: float | None = None

    @property
    def cancelled(self) -> bool:
        """As the execution says."""
        return self.execution.cancelled

    def _xcom(self) -> XComAccess:
        return TaskXCom(self.execution)


current_call = cast(Callable[[], Call], find_current)
"""The context of the task that runs, inside the worker's onion."""


class TaskLogFilter(logging.Filter):
    """Add it to a log handler: its records get `task_id`, `user_id`, `function` and `attempt` (empty outside
    a task)."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = find_current(None)
        task = context.task if context is not None else None
        record.task_id = task.task_id if task else ""
        record.user_id = task.user_id if task else ""
        record.function = task.function if task else ""
        record.attempt = task.attempt if task else 0
        return True


class Retry(Middleware):
    """Notes how long to wait before the next attempt, if the task's policy wants one after this error.

    Whether retries are left is decided where they are counted, by the server.
    """

    def __init__(self, default: RetryPolicy, random: Callable[[], float]) -> None:
        self._default = default
        self._random = random

    def delay(self, task: Task[Any], error: BaseException) -> float | None:
        """Seconds until the next attempt; None: the policy wants none."""
        if isinstance(error, CONTROL):
            return None
        return next_delay(task.retry, self._default, error, task.retries + 1, self._random())

    def execute(self, task: Task[Any], call_next: Next[T]) -> T:
        try:
            return call_next(task)
        except BaseException as error:
            current_call().retry_delay = self.delay(task, error)
            raise

    async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
        try:
            return await call_next(task)
        except BaseException as error:
            current_call().retry_delay = self.delay(task, error)
            raise


class Timeout(Middleware):
    """Ends the task at its timeout, and says so: whatever came of a task that took longer is a
    TaskTimeoutError.

    An `async def` is cancelled. Anything else is interrupted by its executor, as far as that is possible.
    """

    def __init__(self, default: float | None) -> None:
        self._default = default

    def seconds(self, task: Task[Any]) -> float | None:
        """How long the task may run."""
        return self._default if task.timeout is None else task.timeout

    def execute(self, task: Task[Any], call_next: Next[T]) -> T:
        execution = current_call().execution
        execution.timeout = task.timeout or self._default
        # The executor's interruption can strike once, anywhere up to the end of `leave`, also in the
        # `finally` itself; then the second `leave` finds nothing that could strike any more.
        try:
            try:
                answer = call_next(task)
            finally:
                execution.leave()
        except BaseException as error:
            execution.leave()
            if execution.timed_out:
                raise _timed_out(execution, error) from _cause(error)
            raise
        if execution.timed_out:
            raise _timed_out(execution, None)
        return answer

    async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
        execution = current_call().execution
        execution.timeout = self.seconds(task)
        if execution.timeout is None:
            try:
                return await call_next(task)
            finally:
                execution.leave()
        limit = asyncio.timeout(execution.timeout)
        try:
            async with limit:
                answer = await call_next(task)
        except BaseException as error:
            execution.timed_out = execution.timed_out or limit.expired()
            execution.leave()
            if execution.timed_out:
                raise _timed_out(execution, error) from _cause(error)
            raise
        execution.timed_out = execution.timed_out or limit.expired()
        execution.leave()
        if execution.timed_out:
            raise _timed_out(execution, None)
        return answer


def _timed_out(execution: Execution, error: BaseException | None) -> TaskTimeoutError:
    timeout = TaskTimeoutError(
        f"ran longer than its timeout of {execution.timeout:g} s", task_id=execution.task.task_id,
        user_id=execution.task.user_id,
    )  # fmt: skip
    where = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ is not None else error
    # Where the task was when it was interrupted is what its author wants to know.
    return timeout.with_traceback(where.__traceback__) if where is not None else timeout


def _cause(error: BaseException) -> BaseException | None:
    """The error, unless it is only the interruption."""
    return None if isinstance(error, TimeoutError) else error
