"""What became of a task: its result, its failure, and the news on the way."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairque.core.attempts import error_in
from fairque.core.codec import decode_error, decode_value
from fairque.core.exceptions import TaskCanceledError, TaskFailedError
from fairque.core.keys import decode, encode
from fairque.core.models import Task
from fairque.core.record import Reason
from fairque.core.states import TaskState
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.records import to_task
from fairque.queue.operations.tasks import not_found, of_this_run

WATCH_SECONDS = 60.0
"""How long the server remembers a watcher; watchers renew within half of it."""
RECHECK_SECONDS = 20.0
"""How long a watcher trusts that news would reach it (it may have been lost with the server)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task is: `done` of `total` (None: unknown)."""

    done: float
    total: float | None
    text: str


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """News of a task: it entered `state`, or it told its `progress`."""

    task_id: str
    state: TaskState | None = None
    attempt: int = 0
    reason: str = ""
    progress: Progress | None = None
    at: datetime | None = None

    @property
    def is_last(self) -> bool:
        """Whether the task has ended."""
        return self.state is not None and self.state.is_terminal


@dataclass(frozen=True, slots=True)
class Ending:
    """A task that has ended, with what it left."""

    task: Task[Any]
    result: bytes | None
    errors: tuple[bytes, ...]

    def value(self, result_type: Any = None) -> Any:
        """The result, rebuilt as `result_type` if given.

        Raises:
            TaskFailedError, TaskCanceledError: it did not finish.
        """
        task = self.task
        if task.state is TaskState.FINISHED:
            return None if self.result is None else decode_value(self.result, result_type)
        if task.state is TaskState.CANCELED:
            raise TaskCanceledError(
                f"task {task.task_id} was canceled: {task.reason}",
                task_id=task.task_id,
                user_id=task.user_id,
                reason=task.reason,
            )
        last = decode_error(error_in(self.errors[-1])) if self.errors else None
        raise TaskFailedError(
            f"task {task.task_id} failed ({task.reason})"
            + (f": {last.type}: {last.message}" if last else ""),
            task_id=task.task_id,
            user_id=task.user_id,
            error_type=last.type if last else "",
            error_message=last.message if last else task.reason,
            traceback=last.traceback if last else "",
        )


def watch(engine: Engine, task_id: str, client: str) -> Flow[Task[Any]]:
    """The task; news of it is put on the client's list from now on.

    Raises:
        TaskNotFoundError: there is no such task.
    """
    encoded = encode(task_id, "task_id")
    data = yield engine.call("watch", encoded, client, round(WATCH_SECONDS * 1e3))
    if not data:
        raise not_found(task_id)
    return to_task(encoded, data, body=False)


def get_ending(engine: Engine, task_id: str) -> Flow[Ending | None]:
    """What the task left, or None if it has not ended.

    Raises:
        TaskNotFoundError: there is no such task.
    """
    encoded = encode(task_id, "task_id")
    data, result, _progress, _others, *errors = yield engine.call("get_task", encoded)
    if not data:
        raise not_found(task_id)
    task = to_task(encoded, data, body=False)
    errors = of_this_run(data, errors)
    return Ending(task, result, tuple(errors)) if task.state is not None and task.state.is_terminal else None


def get_progress(engine: Engine, task_id: str) -> Flow[Progress | None]:
    """What the running task told last, or None."""
    _data, _result, progress, _others, *_errors = yield engine.call("get_task", encode(task_id, "task_id"))
    return _progress_of(progress) if progress else None


def update_of(task: Task[Any]) -> TaskUpdate:
    """The state of a task as news."""
    return TaskUpdate(task.task_id, task.state, task.attempt, task.reason, None, task.entered_at)


def read_message(data: bytes) -> tuple[str, TaskUpdate]:
    """The encoded task id and the news in an entry of a client's list (lib/wake.lua).

    Raises:
        ValueError: it is none.
    """
    head, _, rest = data.partition(b"\n")
    task_id = head[1:].decode()
    if head[:1] == b"p":
        return task_id, TaskUpdate(decode(task_id), progress=_progress_of(rest))
    if head[:1] != b"s" or len(rest) != 4:
        raise ValueError("neither a state nor progress")
    state, reason, attempt = struct.unpack(">BBH", rest)
    return task_id, TaskUpdate(decode(task_id), TaskState.from_code(state), attempt, Reason(reason).text)


def _progress_of(data: bytes) -> Progress:
    return Progress(*decode_value(data))
