"""TaskHandler: what runs tasks that carry a payload instead of a function, and hears how tasks end."""

from __future__ import annotations

from typing import Any

from fairque.core.models import Task


class TaskHandler:
    """Subclass it, and give an instance to the worker.

    `process_task` may be `async def`; then it runs on the worker's event loop. What it returns is the task's
    result, an exception is a failure, and RetryAfter, Snooze and Discard mean what they mean in a function.

    The `on_...` hooks are called for every task that this worker runs, functions too, once its outcome has
    been told: they cannot change it, and one that fails is logged. They may be `async def`. Durations are
    seconds. RetryAfter, Snooze and Discard call none.

    With `executor: process`, each process makes a handler of its own by calling the class without arguments,
    and hooks run where the task ran; if that process is gone, because it crashed or was killed, they run in
    the worker's own.
    """

    def process_task(self, task: Task[Any]) -> object:
        """Do the work of `task.payload`."""
        raise NotImplementedError(f"{type(self).__qualname__} has no process_task")

    def on_task_success(self, task: Task[Any], duration: float) -> object:
        """The task has returned."""

    def on_task_failure(self, task: Task[Any], error: BaseException, duration: float) -> object:
        """An attempt has failed; it may be tried again."""

    def on_task_timeout(self, task: Task[Any], duration: float) -> object:
        """An attempt ran longer than its timeout; it may be tried again."""
