"""The packed task record: a fixed header that scripts read and write, then names, then an opaque body.

Layout (big endian), the same in ``scripts/lib/record.lua``::

    version state priority flags              4 x u8 attempt retries max_retries run           4 x u16 crashes
    reason                            2 x u8 user_size function_size                   2 x u16 op_size
    dedup_size                        2 x u8 cost                                      u32, thousandths
    created enqueued entered expires charged  5 x f64: µs of the server's clock; charged in cost units or
    seconds token                                     16 bytes: a counter and 64 random bits holder
    11 bytes: the incarnation that claimed it user function op dedup [its length, limiter] body

Times are whole microseconds, exact in a double until the year 2255.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

import msgspec

from fairque.core.states import TaskState

WAITING, CLAIMED = 1, 2
"""The versions: a task that was never claimed has no place for a claim, which saves 35 bytes of each that waits."""
HEADER = struct.Struct(">BBBBHHHHBBHHBBIdddd")
CLAIM = struct.Struct(">d16s11s")
_CLAIMED_HEADER = struct.Struct(HEADER.format + CLAIM.format[1:])
NO_TOKEN = bytes(16)
INCARNATION_CHARS = 11
NO_HOLDER = b"-" * INCARNATION_CHARS
MAX_NAME_BYTES = 256
MAX_DEDUP_BYTES = 255
MAX_LIMITER_BYTES = 255


class Flags(IntFlag):
    """Marks of a task that scripts set."""

    CANCEL = 1  # a cancel was asked for while it ran
    LANE = 2  # it was claimed through the sparse lane
    LONE = 4  # it was running when its process died: it runs alone from now on
    WATCHED = 8  # clients wait for its result or events
    UNKNOWN = 16  # a worker gave it back because it lacks the function
    ERRORS = 32  # it has an error list
    UNDER_LIMITER = 64  # it is under a limiter, whose name follows the names, behind its length
    LINKED = 128  # others wait for it, it waits for others, or it is a node of a workflow


class Reason(IntEnum):
    """Why a task ended, or waits again, other than by its own success."""

    NONE = 0
    EXPIRED = 1
    CANCELED = 2
    RETRIES = 3
    GAVE_UP = 4
    CRASHED = 5
    UNKNOWN_FUNCTION = 6
    DISCARDED = 7
    MOVED = 8
    DEPENDENCY = 9
    INVALID = 10
    UPSTREAM_CANCELED = 11
    NOT_TRIGGERED = 12
    UPSTREAM_GONE = 13

    @property
    def text(self) -> str:
        """The reason as users read it."""
        return _REASONS[self]


_REASONS = {
    Reason.NONE: "",
    Reason.EXPIRED: "expired",
    Reason.CANCELED: "canceled",
    Reason.RETRIES: "no retries left",
    Reason.GAVE_UP: "gave up: the retry policy does not retry this error",
    Reason.CRASHED: "killed its process three times while running alone",
    Reason.UNKNOWN_FUNCTION: "no live worker knows the function",
    Reason.DISCARDED: "discarded by the task",
    Reason.MOVED: "moved to the dead letters by a caller",
    Reason.DEPENDENCY: "a dependency failed",
    Reason.INVALID: "the payload could not be decoded, or the result could not be stored",
    Reason.UPSTREAM_CANCELED: "a dependency was canceled",
    Reason.NOT_TRIGGERED: "its trigger rule was not met",
    Reason.UPSTREAM_GONE: "a dependency is gone, or never appeared",
}


# Plain values: an Enum's operations cost a microsecond each.
_UNDER_LIMITER = int(Flags.UNDER_LIMITER)
_REASON_OF = {int(reason): reason for reason in Reason}
_STATE_OF = {state.code: state for state in TaskState}


class Record(msgspec.Struct, frozen=True, gc=False):
    """One task as the server holds it. Times in µs; `user` in its encoded form."""

    state: TaskState
    priority: int
    flags: int
    attempt: int
    retries: int
    max_retries: int
    run: int
    crashes: int
    reason: Reason
    cost: int
    created: int
    enqueued: int
    entered: int
    expires: int
    charged: float
    token: bytes
    holder: str
    user: str
    function: str
    op: bytes
    dedup: str
    limiter: str
    body: bytes


def pack_new(
    user: str,
    function: str,
    body: bytes,
    *,
    priority: int,
    max_retries: int,
    cost: int,
    expires: int = 0,
    op: bytes = b"",
    dedup: str = "",
    limiter: str = "",
) -> bytes:
    """The record of a task that the server has not seen: state and times are the push script's to fill in."""
    names = user.encode(), function.encode(), dedup.encode()
    under = limiter.encode()
    return (
        HEADER.pack(
            WAITING, 0, priority, Flags.UNDER_LIMITER if under else 0, 0, 0, max_retries, 0, 0, 0, len(names[0]),
            len(names[1]), len(op), len(names[2]), cost, 0.0, 0.0, 0.0, expires,
        )
        + names[0] + names[1] + op + names[2] + (bytes((len(under),)) + under if under else b"") + body
    )  # fmt: skip


def token_in(data: bytes) -> bytes:
    """The token of the claim, also of a record whose names or body are malformed."""
    return bytes(CLAIM.unpack_from(data, HEADER.size)[1]) if data[0] == CLAIMED else NO_TOKEN


def body_in(data: bytes) -> bytes:
    """The body of a task.

    Raises:
        ValueError: the bytes are not a record of this version.
    """
    return unpack(data).body


def run_in(data: bytes) -> int:
    """The number of its run, also of a record whose names or body are malformed."""
    return int.from_bytes(data[10:12])


def unpack(data: bytes) -> Record:
    """The record in `data`.

    Raises:
        ValueError: the bytes are not a record of this version.
    """
    # Once for each claim of a busy worker: as few steps as can be, and nothing that calls into an Enum.
    version = data[0] if data else 0
    size = _CLAIMED_HEADER.size if version == CLAIMED else HEADER.size
    if version not in (WAITING, CLAIMED) or len(data) < size:
        raise ValueError(f"not a task record of version {WAITING} or {CLAIMED}")
    if version == CLAIMED:
        fields = _CLAIMED_HEADER.unpack_from(data)
    else:
        fields = (*HEADER.unpack_from(data), 0.0, NO_TOKEN, NO_HOLDER)
    (
        _version, state, priority, flags, attempt, retries, max_retries, run, crashes, reason, user_size,
        function_size, op_size, dedup_size, cost, created, enqueued, entered, expires, charged, token, holder,
    ) = fields  # fmt: skip
    user_end = size + user_size
    function_end = user_end + function_size
    op_end = function_end + op_size
    body = dedup_end = op_end + dedup_size
    if flags & _UNDER_LIMITER:
        body += 1 + int.from_bytes(data[dedup_end : dedup_end + 1])
    try:
        where, why = _STATE_OF[state], _REASON_OF[reason]
    except KeyError as error:
        raise ValueError(f"no task state or no reason has the code {error}") from None
    return Record(
        where, priority, flags, attempt, retries, max_retries, run, crashes, why,
        cost, int(created), int(enqueued), int(entered), int(expires), charged, token, holder.decode(),
        data[size:user_end].decode(), data[user_end:function_end].decode(), data[function_end:op_end],
        data[op_end:dedup_end].decode(), data[dedup_end + 1 : body].decode(), data[body:],
    )  # fmt: skip
