"""Looking at tasks, and moving those that nobody runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from fairque.core.attempts import TaskAttempt, error_in, read_attempt, run_of
from fairque.core.codec import decode_error, encode_value
from fairque.core.exceptions import InvalidStateError, InvalidTaskError, SerializationError, TaskNotFoundError
from fairque.core.keys import decode, encode
from fairque.core.models import Task, TaskError
from fairque.core.record import run_in
from fairque.core.states import TaskState
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.records import to_task

T = TypeVar("T")
PAGE = 1000
_CURSOR = re.compile(
    r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/(\d{1,9})"
)  # a score, and how many of it have been seen
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor that the next call goes on from (None: these were the last)."""

    items: tuple[T, ...]
    cursor: str | None

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def encoded_id(task_id: str | Task[Any]) -> str:
    return encode(task_id.task_id if isinstance(task_id, Task) else task_id, "task_id")


def not_found(task_id: str) -> TaskNotFoundError:
    """The error for an id that the server does not know."""
    return TaskNotFoundError(
        f"there is no task {task_id}: it never existed, was deleted, or its result_ttl has passed",
        task_id=task_id,
    )


def get_task(engine: Engine, task_id: str | Task[Any]) -> Flow[Task[Any] | None]:
    """The task as the server has it, or None."""
    encoded = encoded_id(task_id)
    data, _result, _progress, others, *_errors = yield engine.call("get_task", encoded)
    if not data:
        return None
    task = to_task(encoded, data)
    if not others:
        return task
    return msgspec.structs.replace(
        task, depends_on=tuple(decode(other.decode()) for other in others if other)
    )


def get_errors(engine: Engine, task_id: str | Task[Any]) -> Flow[tuple[TaskError, ...]]:
    """The error of every failed attempt of this run that is kept, oldest first."""
    data, _result, _progress, _others, *errors = yield engine.call("get_task", encoded_id(task_id))
    return tuple(decode_error(error_in(error)) for error in of_this_run(data, errors))


def of_this_run(data: bytes | None, errors: Sequence[bytes]) -> list[bytes]:
    """The errors of the run that a task's record is in: a requeue keeps those of the runs before."""
    run = run_in(data) if data else 0
    return [error for error in errors if run_of(error) == run]


def get_attempts(engine: Engine, task_id: str | Task[Any]) -> Flow[tuple[TaskAttempt, ...]]:
    """Every failed attempt that is kept, also of the runs before, oldest first."""
    _data, _result, _progress, _others, *errors = yield engine.call("get_task", encoded_id(task_id))
    return tuple(read_attempt(error) for error in errors)


def cancel(engine: Engine, task_id: str | Task[Any]) -> Flow[bool]:
    """Cancel a task that waits, or ask one that runs to stop. False: it had ended.

    Raises:
        TaskNotFoundError: there is no such task.
    """
    code, _state = yield engine.call("cancel", encoded_id(task_id))
    return bool(code)


def delete_tasks(engine: Engine, task_ids: Sequence[str | Task[Any]]) -> Flow[int]:
    """Remove tasks with all that belongs to them; returns how many there were.

    Raises:
        InvalidStateError: one is running: cancel it first. The others are gone.
    """
    deleted = 0
    running: str | None = None
    for start in range(0, len(task_ids), CHUNK):
        part = [encoded_id(task_id) for task_id in task_ids[start : start + CHUNK]]
        reply = yield engine.call("delete", *part)
        deleted += sum(1 for code in reply if code > 0)
        running = next((task_id for task_id, code in zip(part, reply, strict=True) if code < 0), running)
    if running is not None:
        running = decode(running)
        raise InvalidStateError(
            f"task {running} is running: cancel it first, then delete it",
            task_id=running,
            state=TaskState.STARTED,
        )
    return deleted


def list_tasks(
    engine: Engine,
    state: TaskState | str = TaskState.QUEUED,
    user: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Flow[Page[Task[Any]]]:
    """One page of the tasks in a state, oldest first; with `user`, only that tenant's (pages can then be
    short).

    Raises:
        InvalidTaskError: there is no such state, or the cursor or limit is wrong.
    """
    try:
        source = TaskState(state).value
    except ValueError:
        names = ", ".join(member.value for member in TaskState)
        raise InvalidTaskError(f"there is no state {state!r}: the states are {names}") from None
    return (yield from page(engine, source, user, cursor, limit))


def page(
    engine: Engine, source: str, user: str | None, cursor: str | None, limit: int
) -> Flow[Page[Task[Any]]]:
    if not 1 <= limit <= PAGE:
        raise InvalidTaskError(f"a page has 1 to {PAGE} tasks, not {limit}")
    start, skip = "-inf", "0"
    if cursor is not None:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
        start, skip = found.groups()
    reply = yield engine.call("list_tasks", source, encode(user) if user else "", start, skip, limit)
    at_end = reply[0] == b""
    items: list[Task[Any]] = []
    for task_id, data in zip(reply[2::2], reply[3::2], strict=True):
        try:
            items.append(to_task(task_id, data))
        except SerializationError:
            items.append(to_task(task_id, data, body=False))
    return Page(tuple(items), None if at_end else f"{reply[0].decode()}/{reply[1]}")


def requeue(engine: Engine, task_ids: Sequence[str | Task[Any]]) -> Flow[int]:
    """failed | canceled -> queued: a new run under the same id; returns how many.

    Raises:
        TaskNotFoundError, InvalidStateError: one is not there, or has not ended so. The others are queued.
    """
    done = 0
    problem: TaskNotFoundError | InvalidStateError | None = None
    for start in range(0, len(task_ids), CHUNK):
        part = [encoded_id(task_id) for task_id in task_ids[start : start + CHUNK]]
        reply = yield engine.call("requeue", *part, resend=False)
        for task_id, code in zip(map(decode, part), reply, strict=True):
            if code > 0:
                done += 1
            elif code == 0:
                problem = problem or not_found(task_id)
            else:
                state = TaskState.from_code(-code)
                problem = problem or InvalidStateError(
                    f"task {task_id} is {state}: only a failed or canceled task can be requeued",
                    task_id=task_id,
                    state=state,
                )
    if problem is not None:
        raise problem
    return done


def set_progress(engine: Engine, ttl: float, items: Sequence[tuple[str, bytes, Any]]) -> Flow[int]:
    """Tell how far running tasks are: (encoded id, token, progress) each; returns how many still ran."""
    argv = [part for task_id, token, value in items for part in (task_id, token, encode_value(value))]
    taken: int = yield engine.call("progress", round(ttl * 1e3), *argv)
    return taken
