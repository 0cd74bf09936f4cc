"""Between packed records and what users see."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fairque.core import record
from fairque.core.codec import decode_task_body
from fairque.core.exceptions import SerializationError
from fairque.core.keys import decode
from fairque.core.models import Claim, Priority, Task
from fairque.core.record import Flags
from fairque.core.states import TaskState

_PRIORITIES = {int(priority): priority for priority in Priority}
_user_id = lru_cache(maxsize=4096)(decode)


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
        rec = record.unpack(data)
        priority = _PRIORITIES[rec.priority]
        name = decode(task_id.decode() if isinstance(task_id, bytes) else task_id)
    except (ValueError, KeyError) as error:
        raise SerializationError(f"the record of task {task_id!r} is malformed: {error}") from None
    fields = decode_task_body(rec.body) if body else {}
    return Task._restore(
        task_id=name,
        user_id=_user_id(rec.user),
        function=rec.function,
        priority=priority,
        max_retries=rec.max_retries,
        cost=rec.cost / 1000,
        expires_at=at(rec.expires) if rec.expires else None,
        execute_after=at(rec.entered) if rec.state is TaskState.SCHEDULED else None,
        state=rec.state,
        attempt=rec.attempt,
        retries=rec.retries,
        crashes=rec.crashes,
        run=rec.run,
        created_at=at(rec.created),
        enqueued_at=at(rec.enqueued),
        entered_at=at(rec.entered),
        reason=rec.reason.text,
        cancel_requested=bool(rec.flags & Flags.CANCEL),
        lone=bool(rec.flags & Flags.LONE),
        claim=Claim(rec.token, rec.holder) if rec.state is TaskState.STARTED else None,
        **fields,
    )
