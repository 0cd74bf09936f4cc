"""A packed record as the task that users see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairque.core.codec import encode_task_body
from fairque.core.exceptions import SerializationError
from fairque.core.models import Claim, Priority, Task
from fairque.core.record import CLAIM, CLAIMED, HEADER, Flags, Reason, pack_new
from fairque.core.retry import fixed
from fairque.core.states import TaskState
from fairque.queue.operations.records import at, micros, to_task

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SENT: Task[Any] = Task(
    user_id="a:b", function="m:f", args=(1, "é"), kwargs={"x": [2]}, priority=Priority.HIGH, cost=2.5,
    retry=fixed(3), labels={"a": "b"}, timeout=4,
)  # fmt: skip


_NAMES = (
    "version", "state", "priority", "flags", "attempt", "retries", "max_retries", "run", "crashes", "reason",
    "user_size", "function_size", "op_size", "dedup_size", "cost", "created", "enqueued", "entered", "expires",
)  # fmt: skip


def packed(*, claimed: bool = True, **fields: Any) -> bytes:
    """A record of SENT with these fields of its header changed."""
    body = fields.pop("body", encode_task_body(SENT))
    user = fields.pop("user", "a%3Ab")
    data = pack_new(user, "m:f", body, priority=4, max_retries=3, cost=2500, op=b"operated", dedup="d")
    header = dict(zip(_NAMES, HEADER.unpack_from(data), strict=True))
    times = {name: micros(MOMENT) for name in ("created", "enqueued", "entered")}
    header |= (
        {"state": TaskState.STARTED.code, "attempt": 1, "version": CLAIMED if claimed else 1} | times | fields
    )
    claim = CLAIM.pack(2.5, b"t" * 16, b"incarnation") if claimed else b""
    return HEADER.pack(*header.values()) + claim + data[HEADER.size :]


def test_a_claimed_task() -> None:
    task = to_task(b"t%3A1", packed())
    assert (task.task_id, task.user_id, task.function) == ("t:1", "a:b", "m:f")
    assert (task.args, task.kwargs, task.payload) == ((1, "é"), {"x": [2]}, None)
    assert (task.priority, task.cost, task.max_retries) == (Priority.HIGH, 2.5, 3)
    assert (task.retry, task.labels, task.timeout) == (fixed(3), {"a": "b"}, 4)
    assert (task.state, task.attempt, task.claim) == (TaskState.STARTED, 1, Claim(b"t" * 16, "incarnation"))
    assert task.created_at == task.enqueued_at == task.entered_at == MOMENT
    assert (task.retries, task.crashes, task.run, task.reason) == (0, 0, 0, "")
    assert (task.cancel_requested, task.lone, task.expires_at, task.execute_after) == (
        False,
        False,
        None,
        None,
    )


def test_what_few_tasks_have() -> None:
    later = MOMENT + timedelta(hours=1)
    data = packed(
        claimed=False, state=TaskState.SCHEDULED.code, flags=Flags.CANCEL | Flags.LONE | Flags.LANE, retries=2,
        crashes=1, run=4, reason=int(Reason.MOVED), expires=micros(later), entered=micros(later),
    )  # fmt: skip
    task = to_task("t", data)
    assert (task.state, task.claim) == (TaskState.SCHEDULED, None)
    assert (task.retries, task.crashes, task.run, task.reason) == (2, 1, 4, Reason.MOVED.text)
    assert (task.cancel_requested, task.lone) == (True, True)
    assert task.expires_at == task.execute_after == task.entered_at == later


def test_without_its_body() -> None:
    task = to_task("t", packed(body=b"malformed"), body=False)
    assert (task.function, task.args, task.kwargs, task.retry) == ("m:f", (), {}, None)
    task.kwargs["own"] = True
    assert to_task("t", packed(), body=False).kwargs == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x09" + packed()[1:],
        packed()[: HEADER.size],
        packed(state=99),
        packed(priority=9),
        packed(reason=99),
        packed(created=float("nan")),
        packed(enqueued=float("inf")),
        packed(entered=1e17 * 9),
        packed(expires=1e300),
        packed(body=b"malformed"),
        packed().replace(b"m:f", b"m\xff\xff"),
        packed(flags=int(Flags.UNDER_LIMITER))[: HEADER.size + CLAIM.size],
    ],
)
def test_a_malformed_record_says_so(data: bytes) -> None:
    with pytest.raises(SerializationError, match="malformed"):
        to_task("t", data)


def test_a_name_that_is_no_text_says_so() -> None:
    with pytest.raises(SerializationError, match="malformed"):
        to_task(b"\xff", packed())


def test_times_are_exact() -> None:
    for number in range(1, 2**53, 2**53 // 1000):
        moment = at(number % (2**50))
        assert moment.tzinfo is UTC
        assert abs(micros(moment) - number % (2**50)) <= 1
