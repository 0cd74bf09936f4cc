"""What a failure leads to: a retry, another try later, an end, or the dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairque.core.exceptions import InvalidStateError, TaskFailedError, TaskNotFoundError
from fairque.core.models import Task
from fairque.core.retry import Discard, RetryAfter, Snooze, exponential, fixed, linear
from fairque.core.states import TaskState
from fairque.queue.operations.claims import Settled
from tests.support.facades import Clock
from tests.support.queues import MakeQueue


class TemporaryError(Exception):
    """Something that passes."""


def delay_of(task: Task[Any], clock: Clock) -> float:
    """Seconds until a scheduled task is due."""
    assert task.execute_after is not None
    return task.execute_after.timestamp() - clock.seconds


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (fixed(10), [10, 10, 10]),
        (linear(5), [5, 10, 15]),
        (exponential(base=2, cap=7, jitter=False), [2, 4, 7]),
    ],
)
def test_a_policy_says_when_it_is_tried_again(
    timed: Any, clock: Clock, policy: Any, delays: list[float]
) -> None:
    handle = timed.push(Task.create(payload=1, retry=policy, max_retries=3))
    for number, delay in enumerate(delays, start=1):
        assert timed.fail(timed.pop(), ValueError(f"attempt {number}")) is Settled.RETRIED
        task = handle.task()
        assert task.state is TaskState.SCHEDULED
        assert (task.attempt, task.retries) == (number, number)
        assert delay_of(task, clock) == pytest.approx(delay, abs=0.001)
        assert timed.pop() is None
        clock.advance(delay + 0.001)
    assert timed.fail(timed.pop(), ValueError("attempt 4")) is Settled.FAILED
    assert handle.task().reason == "no retries left"
    assert [error.message for error in timed.get_errors(handle.task_id)] == [
        f"attempt {n}" for n in range(1, 5)
    ]


def test_by_default_there_are_three_with_jitter(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1))
    for full in (1, 2, 4):
        timed.fail(timed.pop(), ValueError("no"))
        assert full / 2 - 0.001 <= delay_of(handle.task(), clock) <= full + 0.001
        clock.advance(full + 0.001)
    assert timed.fail(timed.pop(), ValueError("no")) is Settled.FAILED


def test_a_retry_at_once_stands_behind_what_waits(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1, retry=fixed(0)))
    queue.push(Task.create(payload=2))
    assert queue.fail(queue.pop(), ValueError("no")) is Settled.RETRIED
    assert handle.state() is TaskState.QUEUED
    assert [task.payload for task in queue.pop(count=2)] == [2, 1]


@pytest.mark.parametrize(
    ("policy", "error", "retried"),
    [
        (fixed(1, give_up_on=ValueError), ValueError("x"), False),
        (fixed(1, give_up_on=ValueError), KeyError("x"), True),
        (fixed(1, retry_on=TemporaryError), TemporaryError("x"), True),
        (fixed(1, retry_on=TemporaryError), ValueError("x"), False),
        (fixed(1, retry_on=OSError, give_up_on=FileNotFoundError), FileNotFoundError("x"), False),
        (fixed(1, retry_on=OSError, give_up_on=FileNotFoundError), PermissionError("x"), True),
        (fixed(1, retry_on="some.module.Error"), TemporaryError("x"), False),
    ],
)
def test_not_every_error_deserves_a_retry(queue: Any, policy: Any, error: Exception, retried: bool) -> None:
    handle = queue.push(Task.create(payload=1, retry=policy))
    code = queue.fail(queue.pop(), error)
    assert code is (Settled.RETRIED if retried else Settled.FAILED)
    if not retried:
        assert handle.task().reason.startswith("gave up")


def test_retry_after_says_itself_when_and_uses_a_retry(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1, max_retries=1))
    assert timed.fail(timed.pop(), RetryAfter(120, "busy")) is Settled.RETRIED
    assert delay_of(handle.task(), clock) == pytest.approx(120, abs=0.001)
    clock.advance(121)
    assert timed.fail(timed.pop(), RetryAfter(120, "busy")) is Settled.FAILED
    assert [error.message for error in timed.get_errors(handle.task_id)] == ["busy", "busy"]


def test_snooze_uses_nothing_up(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1, max_retries=0))
    for _ in range(5):
        assert timed.fail(timed.pop(), Snooze(30)) is Settled.SNOOZED
        task = handle.task()
        assert (task.state, task.attempt, task.retries) == (TaskState.SCHEDULED, 0, 0)
        assert delay_of(task, clock) == pytest.approx(30, abs=0.001)
        clock.advance(31)
    assert timed.get_errors(handle.task_id) == ()
    timed.finish(timed.pop(), "done")
    assert handle.result(5) == "done"


def test_discard_is_a_cancel_by_the_task(queue: Any) -> None:
    from fairque.core.exceptions import TaskCanceledError

    handle = queue.push(Task.create(payload=1))
    assert queue.fail(queue.pop(), Discard("out of date")) is Settled.CANCELED
    assert handle.task().reason == "discarded by the task"
    assert [error.message for error in queue.get_errors(handle.task_id)] == ["out of date"]
    assert len(queue.dlq.list()) == 0
    with pytest.raises(TaskCanceledError):
        handle.result(5)


# -- dead letters


def die(queue: Any, error: Exception | None = None, **options: Any) -> Any:
    """The handle of a task that has failed for good."""
    handle = queue.push(Task.create(**{"payload": 1, "max_retries": 0, **options}))
    queue.fail(queue.pop(users=[options.get("user_id", "default")]), error or ValueError("no"))
    assert handle.state() is TaskState.FAILED
    return handle


def test_a_dead_letter_keeps_its_payload_and_every_error(timed: Any, clock: Clock) -> None:
    handle = timed.push(
        Task.create(payload={"n": 1}, user_id="u", retry=fixed(1), max_retries=2, labels={"a": "b"})
    )
    for number in range(3):
        task = timed.pop()
        try:
            raise TemporaryError(f"number {number}")
        except TemporaryError as error:
            timed.fail(task, error)
        clock.advance(2)
    [entry] = timed.dlq.list()
    assert entry.task.task_id == handle.task_id
    assert entry.task.payload == {"n": 1}
    assert entry.task.labels == {"a": "b"}
    assert entry.reason == "no retries left"
    assert entry.entered_at == handle.task().entered_at
    assert [error.attempt for error in entry.errors] == [1, 2, 3]
    assert [error.message for error in entry.errors] == ["number 0", "number 1", "number 2"]
    for error in entry.errors:
        assert error.type.endswith("test_queue_retries.TemporaryError")
        assert "raise TemporaryError" in error.traceback
        assert abs((datetime.now(UTC) - error.at).total_seconds()) < 60


def test_a_failed_tasks_result_is_its_error_with_the_remote_traceback(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1, max_retries=0))
    try:
        raise TemporaryError("the reason")
    except TemporaryError as error:
        queue.fail(queue.pop(), error)
    with pytest.raises(TaskFailedError, match="the reason") as failed:
        handle.result(5)
    assert failed.value.task_id == handle.task_id
    assert failed.value.error_type.endswith("TemporaryError")
    assert failed.value.message == "the reason"
    assert "raise TemporaryError" in failed.value.traceback
    assert "raise TemporaryError" in "".join(failed.value.__notes__)


def test_dead_letters_are_listed_by_user_and_in_pages(queue: Any) -> None:
    for number in range(7):
        die(queue, payload=number, user_id="a" if number % 2 else "b:{}")
    assert [entry.task.payload for entry in queue.dlq.list()] == list(range(7))
    assert [entry.task.payload for entry in queue.dlq.list("b:{}")] == [0, 2, 4, 6]
    assert len(queue.dlq.list("nobody")) == 0
    seen: list[int] = []
    cursor = None
    while True:
        page = queue.dlq.list(cursor=cursor, limit=3)
        seen += [entry.task.payload for entry in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == list(range(7))
    assert queue.get_user_stats("a").dead_letters == 3


def test_a_dead_letter_is_queued_again_as_a_new_run(queue: Any) -> None:
    handle = die(queue)
    assert queue.dlq.requeue(handle.task_id) == 1
    task = handle.task()
    assert (task.state, task.run, task.attempt, task.retries, task.reason) == (TaskState.QUEUED, 1, 0, 0, "")
    assert queue.get_errors(handle.task_id) == ()
    assert len(queue.dlq.list()) == 0
    queue.finish(queue.pop(), "at last")
    assert handle.result(5) == "at last"


def test_many_dead_letters_are_queued_again_or_purged(queue: Any) -> None:
    handles = [die(queue, user_id=f"u{number % 3}", payload=number) for number in range(9)]
    assert queue.dlq.requeue([handles[0].task_id, handles[1].task_id]) == 2
    assert queue.dlq.requeue(user="u1") == 2
    assert queue.dlq.purge(handles[2].task_id) == 1
    assert queue.dlq.purge(user="u2") == 2
    assert handles[2].state() is None
    assert queue.dlq.requeue() == 2
    assert queue.dlq.requeue() == queue.dlq.purge() == 0
    assert len(queue.list_tasks()) == 6


def test_hundreds_of_dead_letters_go_in_chunks(queue: Any) -> None:
    queue.push_batch(Task.create(payload=number, max_retries=0) for number in range(1100))
    while tasks := queue.pop(count=1000):
        for task in tasks:
            queue.fail(task, ValueError())
    assert queue.dlq.requeue() == 1100
    while tasks := queue.pop(count=1000):
        for task in tasks:
            queue.move_to_dlq(task)
    assert queue.dlq.purge() == 1100
    assert queue.get_stats().states == dict.fromkeys(TaskState, 0)


def test_only_what_has_failed_or_was_canceled_is_queued_again(queue: Any) -> None:
    dead = die(queue)
    waiting = queue.push(Task.create(payload=1))
    with pytest.raises(InvalidStateError, match="only a failed or canceled task") as refused:
        queue.dlq.requeue([waiting.task_id, dead.task_id])
    assert (refused.value.task_id, refused.value.state) == (waiting.task_id, "queued")
    assert dead.state() is TaskState.QUEUED  # the others are
    with pytest.raises(TaskNotFoundError) as missing:
        queue.dlq.requeue("nowhere: %")
    assert missing.value.task_id == "nowhere: %"


@pytest.mark.parametrize("state", ["queued", "scheduled", "started"])
def test_a_caller_may_make_a_dead_letter(queue: Any, state: str) -> None:
    handle = queue.push(Task.create(payload=1, delay=60 if state == "scheduled" else None))
    task = queue.pop() if state == "started" else handle.task()
    assert task.state == state
    queue.move_to_dlq(task, "the customer has left")
    [entry] = queue.dlq.list()
    assert entry.reason == "moved to the dead letters by a caller"
    assert [error.message for error in entry.errors] == ["the customer has left"]
    assert abs((datetime.now(UTC) - entry.errors[0].at).total_seconds()) < 60
    with pytest.raises(TaskFailedError, match="the customer has left"):
        handle.result(5)
    if state == "started":
        from fairque.core.exceptions import StaleClaimError

        with pytest.raises(StaleClaimError):
            queue.finish(task)
    with pytest.raises(InvalidStateError, match="is failed and cannot be failed"):
        queue.move_to_dlq(task)


def test_the_default_of_retries_is_configurable(make_queue: MakeQueue) -> None:
    queue = make_queue(default_max_retries=0)
    queue.push(Task.create(payload=1))
    assert queue.fail(queue.pop(), ValueError()) is Settled.FAILED
