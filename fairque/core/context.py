"""`current_task()`: what a running function can know and say about its own task."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from fairque.core.checks import check_number
from fairque.core.exceptions import NotInTaskError
from fairque.core.models import Task

ReportProgress = Callable[[float, float | None, str], object]
"""Gets what was done, of what total (None: unknown), and a text. Cheap, and does not raise."""


def _ignore_progress(done: float, total: float | None, text: str) -> None:
    """Where nobody listens."""


def _never_cancelled() -> bool:
    return False


class XComAccess(Protocol):
    """How a context reaches the values that tasks leave for each other. Workers make it."""

    def push(self, key: str, value: Any, namespace: str, ttl: float | timedelta | None) -> None: ...
    def pull(self, key: str, default: Any, namespace: str, wait: float) -> Any: ...
    async def push_async(
        self, key: str, value: Any, namespace: str, ttl: float | timedelta | None
    ) -> None: ...
    async def pull_async(self, key: str, default: Any, namespace: str, wait: float) -> Any: ...


class TaskContext:
    """The running task, as the function that it runs sees it. Executors make it and give it its callbacks."""

    __slots__ = ("_is_cancelled", "_report", "task")

    def __init__(
        self,
        task: Task[Any],
        report: ReportProgress = _ignore_progress,
        is_cancelled: Callable[[], bool] = _never_cancelled,
    ) -> None:
        self.task = task
        self._report = report
        self._is_cancelled = is_cancelled

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.task.task_id

    @property
    def user_id(self) -> str:
        """The tenant it belongs to."""
        return self.task.user_id

    @property
    def attempt(self) -> int:
        """Which attempt this is; the first is 1."""
        return self.task.attempt

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the task to stop, or its worker lost it: return soon, nothing is kept."""
        return self._is_cancelled()

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Report how far the task has come: `done` of `total` (None: unknown), and a line of `text` for
        people.

        Raises:
            InvalidTaskError: a number is negative or NaN.
        """
        check_number(done, "done", 0, 1e18)
        if total is not None:
            check_number(total, "total", 0, 1e18)
        self._report(done, total, str(text))

    def xcom_push(
        self, key: str, value: Any, *, namespace: str = "default", ttl: float | timedelta | None = None
    ) -> None:
        """Leave a value for other tasks of this user. `ttl` in seconds; None: `xcom_ttl_seconds`.

        In an ``async def`` await `xcom_push_async` instead: this waits for the server.

        Raises:
            PayloadTooLargeError: it is over `max_result_bytes`.
            SerializationError: it is no data.
            NotInTaskError: no worker runs this task.
        """
        self._xcom().push(key, value, namespace, ttl)

    def xcom_pull(
        self, key: str, default: Any = msgspec.UNSET, *, namespace: str = "default", wait: float = 0
    ) -> Any:
        """A value that a task of this user has left, waiting for up to `wait` seconds for it; else the default.

        In an ``async def`` await `xcom_pull_async` instead: this waits for the server.

        Raises:
            XComNotFoundError: it is not there, and there is no default.
            NotInTaskError: no worker runs this task.
        """
        return self._xcom().pull(key, default, namespace, wait)

    async def xcom_push_async(
        self, key: str, value: Any, *, namespace: str = "default", ttl: float | timedelta | None = None
    ) -> None:
        """As `xcom_push`, awaiting."""
        await self._xcom().push_async(key, value, namespace, ttl)

    async def xcom_pull_async(
        self, key: str, default: Any = msgspec.UNSET, *, namespace: str = "default", wait: float = 0
    ) -> Any:
        """As `xcom_pull`, awaiting."""
        return await self._xcom().pull_async(key, default, namespace, wait)

    def _xcom(self) -> XComAccess:
        raise NotInTaskError("XCom works inside a task that a worker runs; elsewhere use queue.xcom")

    def __repr__(self) -> str:
        return f"<TaskContext {self.task_id} user_id={self.user_id!r} attempt={self.attempt}>"


_current: ContextVar[TaskContext] = ContextVar("fairque_current_task")
find_current = _current.get
"""As `current_task`, with a default; LookupError without one."""
enter = _current.set
"""Make a context the current one, in this thread or coroutine, until `leave` gets the token that this returns."""
leave = _current.reset


def current_task() -> TaskContext:
    """The task that this code runs in.

    Raises:
        NotInTaskError: no task runs here: neither in this thread nor in this coroutine.
    """
    context = find_current(None)
    if context is None:
        raise NotInTaskError(
            "current_task() works inside a running task only; a thread that a task starts itself must be "
            "given the context: contextvars.copy_context().run(...)"
        )
    return context


@contextmanager
def running(context: TaskContext) -> Generator[TaskContext]:
    """Make `context` the current one within a ``with`` block, in this thread or coroutine."""
    token = enter(context)
    try:
        yield context
    finally:
        leave(token)
