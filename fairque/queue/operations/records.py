"""Between packed records and what users see."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from fairque.core import record
from fairque.core.codec import Body, body_options, read_task_body
from fairque.core.exceptions import SerializationError
from fairque.core.keys import decode
from fairque.core.models import Claim, Priority, Task
from fairque.core.record import Flags
from fairque.core.states import TaskState

_PRIORITIES = {int(priority): priority for priority in Priority}
# Plain values: arithmetic on an Enum's members costs a microsecond, finding one in its class a tenth.
_CANCEL, _LONE = int(Flags.CANCEL), int(Flags.LONE)
_TOLD = _CANCEL | _LONE
_STARTED = TaskState.STARTED
_user_id = lru_cache(maxsize=4096)(decode)


# The tasks of one claim began together, and most tasks were created when they were queued.
@lru_cache(maxsize=256)
def at(micros: float) -> datetime:
    """A time of the server's clock in µs, as an aware datetime."""
    return datetime.fromtimestamp(micros / 1e6, UTC)


def micros(when: datetime) -> int:
    """An aware datetime in µs of the server's clock."""
    return round(when.timestamp() * 1e6)


def to_task(task_id: bytes | str, data: bytes, *, body: bool = True) -> Task[Any]:
    """The task in a packed record. Without `body`, or if that is malformed, it has no arguments.

    Raises:
        SerializationError: the record, or with `body` its body, is malformed.
    """
    try:
        return _to_task(task_id.decode() if isinstance(task_id, bytes) else task_id, data, body)
    except SerializationError:
        raise
    except (ValueError, KeyError, ArithmeticError, OSError) as error:  # the last two: no such time
        raise SerializationError(f"the record of task {task_id!r} is malformed: {error}") from None


def _to_task(task_id: str, data: bytes, body: bool) -> Task[Any]:
    rec = record.unpack(data)
    content = read_task_body(rec.body) if body else Body((), {})
    # Once for each claim of a busy worker: what nearly no task has is put in afterwards.
    task: Task[Any] = Task(
        task_id=decode(task_id),
        user_id=_user_id(rec.user),
        function=rec.function,
        args=content.args,
        kwargs=content.kwargs,
        payload=content.payload,
        priority=_PRIORITIES[rec.priority],
        max_retries=rec.max_retries,
        cost=rec.cost / 1000,
        state=rec.state,
        attempt=rec.attempt,
        created_at=at(rec.created),
        enqueued_at=at(rec.enqueued),
        entered_at=at(rec.entered),
        claim=Claim(rec.token, rec.holder) if rec.state is _STARTED else None,
        _checked=True,
    )
    rare = body_options(content) if content.options else {}
    if rec.retries or rec.crashes or rec.run or rec.reason:
        rare |= {"retries": rec.retries, "crashes": rec.crashes, "run": rec.run, "reason": rec.reason.text}
    if rec.flags & _TOLD:
        rare |= {"cancel_requested": bool(rec.flags & _CANCEL), "lone": bool(rec.flags & _LONE)}
    if rec.expires:
        rare["expires_at"] = at(rec.expires)
    if rec.state is TaskState.SCHEDULED:
        rare["execute_after"] = task.entered_at
    return msgspec.structs.replace(task, **rare) if rare else task
