"""Dead letters: tasks that have failed for good, kept with every attempt's error until somebody decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fairque.core.codec import encode_error
from fairque.core.exceptions import InvalidTaskError
from fairque.core.models import DLQEntry, Task
from fairque.core.states import TaskState
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.records import at
from fairque.queue.operations.tasks import Page, delete_tasks, encoded_id, get_errors, page, requeue

BATCH = 500
Ids = str | Task[Any] | Sequence[str | Task[Any]]


def list_dead(
    engine: Engine, user: str | None = None, cursor: str | None = None, limit: int = 100
) -> Flow[Page[DLQEntry]]:
    """One page of dead letters, oldest first, with every attempt's error."""
    found = yield from page(engine, "dlq" if user else TaskState.FAILED.value, user, cursor, limit)
    entries: list[DLQEntry] = []
    for task in found:
        errors = yield from get_errors(engine, task)
        entries.append(
            DLQEntry(task=task, reason=task.reason, entered_at=task.entered_at or at(0), errors=errors)
        )
    return Page(tuple(entries), found.cursor)


def _named(ids: Ids) -> list[str | Task[Any]]:
    return [ids] if isinstance(ids, str | Task) else list(ids)


def _all_dead(engine: Engine, user: str | None) -> Flow[list[str | Task[Any]]]:
    """Those that are there when the call begins; what fails meanwhile is left alone."""
    found: list[str | Task[Any]] = []
    cursor: str | None = None
    while True:
        part = yield from page(engine, "dlq" if user else TaskState.FAILED.value, user, cursor, BATCH)
        found += [task.task_id for task in part]
        cursor = part.cursor
        if cursor is None:
            return found


def requeue_dead(engine: Engine, ids: Ids | None = None, user: str | None = None) -> Flow[int]:
    """Queue dead letters again: those named, else all of `user`, else all; returns how many.

    Raises:
        TaskNotFoundError, InvalidStateError: one that was named is not there, or has not ended so.
    """
    chosen = _named(ids) if ids is not None else (yield from _all_dead(engine, user))
    return (yield from requeue(engine, chosen)) if chosen else 0


def purge_dead(engine: Engine, ids: Ids | None = None, user: str | None = None) -> Flow[int]:
    """Remove dead letters for ever: those named, else all of `user`, else all; returns how many."""
    chosen = _named(ids) if ids is not None else (yield from _all_dead(engine, user))
    return (yield from delete_tasks(engine, chosen)) if chosen else 0


def move_to_dlq(engine: Engine, task_id: str | Task[Any], reason: str, now: datetime) -> Flow[None]:
    """Make a task that has not ended a dead letter.

    Raises:
        TaskNotFoundError, InvalidStateError: there is no such task, or it has ended.
    """
    error = encode_error(InvalidTaskError(reason), 0, now) if reason else b""
    yield engine.call("bury_task", encoded_id(task_id), error, resend=False)
