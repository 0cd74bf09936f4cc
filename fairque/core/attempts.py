"""The history of a task: each failed attempt with its run, worker, times and error, and when it was tried again.

An entry of ``{prefix}:errors:{id}`` is the error as the worker packed it, behind a head that the script writes when it
settles the attempt (``tasks.add_error`` in scripts/lib/tasks.lua; big endian)::

    1                              u8: a head follows; the first byte of a packed error alone is another one
    attempt run                    2 x u16
    started failed delay held      4 x f64: µs of the server's clock (0: it never started), then µs until the next
                                   attempt (-1: there is none), and how much of them the retry budget has added
    holder                         11 bytes: the incarnation that ran it, or dashes
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairque.core.codec import decode_error
from fairque.core.models import TaskError
from fairque.core.record import NO_HOLDER

HEAD = struct.Struct(">BHHdddd11s")
VERSION = 1
KEPT = 50
"""How many attempts of a task are kept: the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAttempt(TaskError):  # noqa: N818 - neither is an exception
    """One failed attempt. `attempt` is its number within `run`, which counts the requeues of the task.

    `worker` is the incarnation that ran it; None, like `started_at`, for what no worker ran (a caller made it a dead
    letter, nobody had its function). `started_at` and `failed_at` are times of the server's clock, `at` of the
    worker's. `retry_in` is how many seconds later it was tried again, None if not at all; `held_back` are those of
    them that the user's retry budget has added.
    """

    run: int = 0
    worker: str | None = None
    started_at: datetime | None = None
    failed_at: datetime
    retry_in: float | None = None
    held_back: float = 0.0

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        return None if self.started_at is None else (self.failed_at - self.started_at).total_seconds()


def read_attempt(data: bytes) -> TaskAttempt:
    """The attempt that an entry of the list tells of.

    Raises:
        SerializationError: the bytes are malformed.
    """
    error = decode_error(error_in(data))
    if not has_head(data):
        return TaskAttempt(**_fields(error), failed_at=error.at)
    _version, attempt, run, started, failed, delay, held, holder = HEAD.unpack_from(data)
    fields = _fields(error) | {"attempt": attempt}
    return TaskAttempt(
        **fields,
        run=run,
        worker=None if holder == NO_HOLDER else holder.decode(),
        started_at=_at(started) if started else None,
        failed_at=_at(failed),
        retry_in=None if delay < 0 else delay / 1e6,
        held_back=held / 1e6,
    )


def has_head(data: bytes) -> bool:
    """Whether the script that stored an entry has put its head before the error."""
    return data[:1] == bytes((VERSION,)) and len(data) > HEAD.size


def error_in(data: bytes) -> bytes:
    """The packed error in an entry."""
    return data[HEAD.size :] if has_head(data) else data


def run_of(data: bytes) -> int:
    """The run that an entry belongs to."""
    return int(HEAD.unpack_from(data)[2]) if has_head(data) else 0


def held_back(head: bytes, due: float) -> float:
    """Seconds by which the retry budget has put off the attempt after the one that `head` tells of, if that is the one
    that is `due` then (µs): somebody may have scheduled the task otherwise since.
    """
    if len(head) < HEAD.size or head[0] != VERSION:
        return 0.0
    _version, _attempt, _run, _started, failed, delay, held, _holder = HEAD.unpack_from(head)
    return held / 1e6 if abs(failed + delay - due) < 1 else 0.0


def _fields(error: TaskError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in ("attempt", "type", "message", "traceback", "at")}


def _at(micros: float) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)
