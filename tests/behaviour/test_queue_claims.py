"""Who gets which task, and how a claim is kept, given back, settled or lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    FairQueueError,
    InvalidTaskError,
    PayloadTooLargeError,
    SerializationError,
    StaleClaimError,
    TaskCanceledError,
)
from fairque.core.models import Priority, Task
from fairque.core.retry import Discard, Snooze, fixed
from fairque.core.states import TaskState
from fairque.queue.operations.claims import Settled
from tests.support.facades import Clock
from tests.support.queues import MakeQueue, wait_until

LEASE = 15.0


def payloads(tasks: list[Task[Any]]) -> list[Any]:
    return [task.payload for task in tasks]


# -- order


def test_equal_priorities_are_first_in_first_out(queue: Any, other: Any) -> None:
    for number in range(50):
        (queue if number % 2 else other).push(Task.create(payload=number))
    assert payloads(queue.pop(count=25) + other.pop(count=25)) == list(range(50))


def test_critical_tasks_come_first_and_in_their_order(queue: Any) -> None:
    for number in range(10):
        queue.push(Task.create(payload=number, priority=Priority.VERY_HIGH))
        queue.push(Task.create(payload=100 + number, priority=Priority.CRITICAL))
    assert payloads(queue.pop(count=20)) == [*range(100, 110), *range(10)]


def test_a_higher_priority_goes_before(timed: Any) -> None:
    for priority in (1, 3, 5, 2, 4, 5, 1):
        timed.push(Task.create(payload=priority, priority=priority))
    assert payloads(timed.pop(count=10)) == [5, 5, 4, 3, 2, 1, 1]


@pytest.mark.parametrize("aging", [60.0, 5.0])
def test_a_level_is_worth_some_time_of_waiting(make_queue: MakeQueue, clock: Clock, aging: float) -> None:
    queue = make_queue(clock=clock, aging_seconds=aging)
    queue.push(Task.create(payload="old and low", priority=Priority.LOW))
    clock.advance(aging - 0.1)
    queue.push(Task.create(payload="just in time", priority=Priority.NORMAL))
    clock.advance(0.2)
    queue.push(Task.create(payload="too late", priority=Priority.NORMAL))
    queue.push(Task.create(payload="two levels up", priority=Priority.HIGH))
    expected = ["two levels up", "just in time", "old and low", "too late"]
    assert payloads(queue.pop(count=10)) == expected


def test_without_ageing_every_priority_is_the_same(make_queue: MakeQueue) -> None:
    queue = make_queue(aging_seconds=0)
    for priority in (1, 5, 3):
        queue.push(Task.create(payload=priority, priority=priority))
    assert payloads(queue.pop(count=10)) == [1, 5, 3]


def test_tenants_take_turns(queue: Any) -> None:
    for user in "ABC":
        queue.push_batch(Task.create(payload=user, user_id=user) for _ in range(14))
    claimed = [payload for _ in range(6) for payload in payloads(queue.pop(count=7))]
    assert claimed == list("ABC" * 14)


def test_only_some_tenants_may_be_asked_for(queue: Any) -> None:
    for user in ("a", "b", "c:d"):
        queue.push_batch(Task.create(payload=user, user_id=user) for _ in range(2))
    assert payloads(queue.pop(count=10, users=["c:d", "b", "nobody"])) == ["b", "c:d"] * 2
    assert queue.pop(users=["b"]) is None
    assert payloads(queue.pop(count=10)) == ["a", "a"]
    with pytest.raises(InvalidTaskError, match="1000"):
        queue.pop(users=["u"] * 1001)


# -- pop


def test_pop_gives_a_task_or_none_and_with_a_count_a_list(queue: Any) -> None:
    assert queue.pop() is None
    assert queue.pop(count=3) == []
    queue.push_batch(Task.create(payload=number) for number in range(5))
    assert queue.pop().payload == 0
    assert payloads(queue.pop(count=3)) == [1, 2, 3]
    assert payloads(queue.pop(count=3)) == [4]
    with pytest.raises(InvalidTaskError, match="count"):
        queue.pop(count=0)


def test_a_claimed_task_says_so(queue: Any) -> None:
    queue.push(Task.create(payload=1))
    task = queue.pop(worker_id="mine")
    assert task.state is TaskState.STARTED
    assert task.attempt == 1
    assert len(task.claim.token) == 16
    [worker] = queue.get_stats().workers
    assert worker.incarnation == task.claim.incarnation
    assert worker.running == 1
    assert worker.fields == {"kind": "consumer", "worker_id": "mine"}
    assert 0 < worker.lease_left <= LEASE
    assert queue.get_task(task.task_id).claim == task.claim


def test_what_cannot_be_read_is_a_dead_letter_and_not_in_the_way(queue: Any, flushed: redis.Redis) -> None:
    bodies = [b"\x80\x04\x95 pickle", b"\xc1garbage", b"", b"\x94\x90\x80\xc0"]
    for number, body in enumerate(bodies):
        queue.push(Task.create(payload=None, task_id=f"bad{number}"))
        data = flushed.get(f"fq:task:bad{number}")
        head = data.index(b"\x94\x90\x80\xc0\x80")  # where its body begins
        flushed.set(f"fq:task:bad{number}", data[:head] + body)
    queue.push(Task.create(payload="good"))
    assert queue.pop().payload == "good"
    assert queue.pop() is None
    dead = queue.dlq.list().items
    assert [entry.task.task_id for entry in dead] == ["bad0", "bad1", "bad2", "bad3"]
    assert {entry.reason for entry in dead} == {
        "the payload could not be decoded, or the result could not be stored"
    }
    assert all("SerializationError" in entry.errors[0].type for entry in dead)
    assert "pickle" in dead[0].errors[0].message


# -- settling


def test_a_finished_task_has_its_result(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    queue.finish(queue.pop(), {"n": 1}, seconds=0.5)
    task = handle.task()
    assert (task.state, task.attempt, task.retries) == (TaskState.FINISHED, 1, 0)
    assert handle.result(5) == {"n": 1}
    assert queue.pop() is None


def test_a_released_task_is_next_again_and_nothing_is_used_up(queue: Any) -> None:
    queue.push_batch(Task.create(payload=number, priority=3) for number in range(4))
    first, second = queue.pop(count=2)
    queue.release(second)
    queue.release(first)
    assert queue.get_task(first.task_id).attempt == 0
    assert payloads(queue.pop(count=4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_released_critical_tasks_keep_their_order(queue: Any, order: tuple[int, ...]) -> None:
    queue.push_batch(Task.create(payload=number, priority=6) for number in range(5))
    claimed = queue.pop(count=3)
    for index in order:
        queue.release(claimed[index])
    assert payloads(queue.pop(count=5)) == [0, 1, 2, 3, 4]


def test_settling_twice_is_settling_once(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    task = queue.pop()
    queue.finish(task, "one")
    queue.finish(task, "two")
    assert handle.result(5) == "one"
    assert queue.get_stats().counters["finished"] == 1
    for late in (queue.release, lambda task: queue.fail(task, ValueError()), queue.renew):
        with pytest.raises(StaleClaimError, match=task.task_id):
            late(task)


def test_a_task_that_was_given_back_cannot_be_settled(queue: Any, other: Any) -> None:
    queue.push(Task.create(payload=1))
    task = queue.pop()
    queue.release(task)
    for late in (queue.finish, queue.release, lambda task: queue.fail(task, ValueError())):
        with pytest.raises(StaleClaimError):
            late(task)
    again = other.pop()
    with pytest.raises(StaleClaimError):
        queue.finish(task, "late")
    other.finish(again, "right")
    assert queue.get_handle(task.task_id).result(5) == "right"


def test_only_a_claimed_task_can_be_settled(queue: Any) -> None:
    queue.push(Task.create(payload=1, task_id="t"))
    for task in (Task.create(payload=1), queue.get_task("t")):
        for settle in (queue.finish, queue.release, queue.renew, lambda task: queue.fail(task, ValueError())):
            with pytest.raises(StaleClaimError, match="carries no claim"):
                settle(task)


def test_a_claim_may_be_settled_by_another_object(queue: Any, other: Any) -> None:
    """The token is what counts; the lease stays with who claimed it."""
    handle = queue.push(Task.create(payload=1))
    task = queue.pop()
    with pytest.raises(StaleClaimError):
        other.renew(task)
    other.pop()
    with pytest.raises(StaleClaimError):
        other.renew(task)
    other.finish(task, "done")
    assert handle.result(5) == "done"


def test_a_result_that_cannot_be_stored_is_refused_and_the_claim_stands(make_queue: MakeQueue) -> None:
    queue = make_queue(max_result_bytes=100)
    queue.push(Task.create(payload=1))
    task = queue.pop()
    with pytest.raises(SerializationError, match="result"):
        queue.finish(task, object())
    with pytest.raises(PayloadTooLargeError, match=r"max_result_bytes") as refused:
        queue.finish(task, b"x" * 101)
    assert refused.value.task_id == task.task_id
    assert queue.get_task(task.task_id).state is TaskState.STARTED
    queue.finish(task, b"x" * 90)


# -- cancel


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_waiting_task_is_canceled_at_once(queue: Any, other: Any, delay: float) -> None:
    """Row 21 of the faults: with no worker there at all."""
    handle = queue.push(Task.create(payload=1, delay=delay))
    assert other.cancel(handle.task_id)
    assert handle.state() is TaskState.CANCELED
    assert not handle.cancel()  # it had ended
    assert queue.pop() is None
    with pytest.raises(TaskCanceledError, match="canceled: canceled") as canceled:
        handle.result(5)
    assert canceled.value.reason == "canceled"


def test_tasks_that_were_canceled_while_no_worker_was_there_never_run(queue: Any, other: Any) -> None:
    handles = [outcome.handle for outcome in queue.push_batch(Task.create(payload=n) for n in range(200))]
    for handle in handles[::2]:
        assert handle.cancel()
    claimed = other.pop(count=200)
    assert payloads(claimed) == list(range(1, 200, 2))


def test_a_running_task_is_asked_to_stop(queue: Any, other: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    task = queue.pop()
    assert queue.renew(task) == []
    assert other.cancel(task)
    assert other.cancel(task)
    assert handle.task().cancel_requested
    assert handle.state() is TaskState.STARTED
    assert [one.task_id for one in queue.renew([task])] == [task.task_id]
    queue.finish(task, "ignored")
    assert handle.state() is TaskState.CANCELED
    with pytest.raises(TaskCanceledError):
        handle.result(5)


@pytest.mark.parametrize("how", ["finish", "fail", "release", "snooze", "discard", "leave"])
def test_however_a_canceled_task_ends_it_is_canceled(
    queue: Any, make_queue: MakeQueue, flushed: redis.Redis, how: str
) -> None:
    holder = make_queue()
    handle = queue.push(Task.create(payload=1))
    task = holder.pop()
    handle.cancel()
    match how:
        case "finish":
            holder.finish(task)
        case "fail":
            assert holder.fail(task, ValueError("late")) is Settled.CANCELED
        case "release":
            holder.release(task)
        case "snooze":
            assert holder.fail(task, Snooze(5)) is Settled.CANCELED
        case "discard":
            assert holder.fail(task, Discard()) is Settled.CANCELED
        case "leave":
            holder.close()
    assert handle.state() is TaskState.CANCELED
    assert queue.pop() is None
    assert queue.get_queue_sizes("default").running == 0


def test_a_cancel_of_nothing_says_so(queue: Any) -> None:
    from fairque.core.exceptions import TaskNotFoundError

    with pytest.raises(TaskNotFoundError, match="no task nowhere") as missing:
        queue.cancel("nowhere")
    assert missing.value.task_id == "nowhere"


# -- every call in every state


def put(queue: Any, state: TaskState) -> Any:
    """A handle of a task in that state."""
    delay = 60.0 if state is TaskState.SCHEDULED else None
    handle = queue.push(Task.create(payload=1, delay=delay, max_retries=0))
    match state:
        case TaskState.STARTED:
            queue.pop()
        case TaskState.FINISHED:
            queue.finish(queue.pop(), 1)
        case TaskState.FAILED:
            queue.fail(queue.pop(), ValueError("no"))
        case TaskState.CANCELED:
            handle.cancel()
        case _:
            pass
    assert handle.state() is state
    return handle


REACHABLE = [state for state in TaskState if state is not TaskState.DEFERRED]
CALLS: dict[str, tuple[Callable[[Any, str], Any], dict[TaskState, TaskState | None]]] = {
    "cancel": (
        lambda queue, task_id: queue.cancel(task_id),
        {TaskState.QUEUED: TaskState.CANCELED, TaskState.SCHEDULED: TaskState.CANCELED},
    ),
    "delete": (
        lambda queue, task_id: queue.delete_task(task_id),
        {state: None for state in REACHABLE if state is not TaskState.STARTED},
    ),
    "move_to_dlq": (
        lambda queue, task_id: queue.move_to_dlq(task_id, "why not"),
        dict.fromkeys((TaskState.QUEUED, TaskState.SCHEDULED, TaskState.STARTED), TaskState.FAILED),
    ),
    "requeue": (
        lambda queue, task_id: queue.dlq.requeue(task_id),
        {TaskState.FAILED: TaskState.QUEUED, TaskState.CANCELED: TaskState.QUEUED},
    ),
}


@pytest.mark.parametrize("state", REACHABLE)
@pytest.mark.parametrize("call", CALLS)
def test_calls_by_id_in_every_state(queue: Any, other: Any, call: str, state: TaskState) -> None:
    handle = put(queue, state)
    run, changes = CALLS[call]
    error: FairQueueError | None = None
    try:
        run(other, handle.task_id)
    except FairQueueError as raised:
        error = raised
    if error is not None:
        assert state not in changes
        assert error.task_id == handle.task_id
        assert getattr(error, "state", state) == state
    assert handle.state() is changes.get(state, state)


# -- a lost session


def beat(clock: Clock, *queues: Any, seconds: float, step: float = LEASE / 3) -> None:
    """Time passes, in which these queue objects are heard of."""
    passed = 0.0
    while passed < seconds:
        clock.advance(step)
        passed += step
        for queue in queues:
            queue.renew([])
            queue.pop(users=["nobody"])


def test_a_silent_consumers_tasks_are_given_to_others(make_queue: MakeQueue, clock: Clock) -> None:
    """A consumer that was stopped for too long comes back: its late outcome is refused, and it starts anew."""
    lost, heir = make_queue(clock=clock), make_queue(clock=clock)
    handle = heir.push(Task.create(payload=1))
    task = lost.pop()
    beat(clock, heir, seconds=LEASE - 6)
    assert handle.state() is TaskState.STARTED
    beat(clock, heir, seconds=LEASE + 6)  # one more, since nobody swept before
    assert handle.state() is TaskState.QUEUED
    again = heir.pop()
    assert again.task_id == task.task_id
    assert again.attempt == 2
    assert again.lone  # it was running when its holder was lost
    with pytest.raises(StaleClaimError, match="not recorded"):
        lost.finish(task, "late")
    with pytest.raises(StaleClaimError):
        lost.renew(task)
    heir.finish(again, "right")
    assert handle.result(5) == "right"
    assert heir.get_stats().counters["finished"] == 1
    with pytest.raises(StaleClaimError):
        lost.fail(task, ValueError("later still"))
    [error] = heir.get_errors(task.task_id)
    assert error.type == "WorkerLost"
    heir.push(Task.create(payload=2))
    assert lost.pop().payload == 2  # as a new incarnation


def test_a_silent_consumer_is_noticed_in_real_time(make_queue: MakeQueue) -> None:
    lost, heir = make_queue(lease_seconds=1), make_queue(lease_seconds=1)
    handle = heir.push(Task.create(payload=1))
    task = lost.pop()
    again = heir.pop(wait=10)
    assert again.task_id == task.task_id
    with pytest.raises(StaleClaimError):
        lost.finish(task, "late")
    heir.finish(again, "right")
    assert handle.result(5) == "right"


def test_a_late_outcome_is_refused_while_its_task_waits(make_queue: MakeQueue, clock: Clock) -> None:
    lost, heir = make_queue(clock=clock), make_queue(clock=clock)
    handle = heir.push(Task.create(payload=1))
    task = lost.pop()
    beat(clock, heir, seconds=3 * LEASE)
    assert handle.state() is TaskState.QUEUED
    with pytest.raises(StaleClaimError):
        lost.finish(task, "late")
    assert handle.state() is TaskState.QUEUED


def test_who_renews_keeps_its_tasks(make_queue: MakeQueue, clock: Clock) -> None:
    busy, other = make_queue(clock=clock), make_queue(clock=clock)
    busy.push(Task.create(payload=1))
    task = busy.pop()
    for _ in range(12):
        clock.advance(LEASE / 3)
        assert busy.renew(task) == []
        other.pop()
    busy.finish(task)


def test_nobody_is_reaped_for_the_servers_silence(make_queue: MakeQueue, clock: Clock) -> None:
    """When nobody at all was heard of for longer than a lease, the server was away and not the workers."""
    one, two = make_queue(clock=clock), make_queue(clock=clock)
    one.push(Task.create(payload=1))
    task = one.pop()
    two.pop()
    clock.advance(10 * LEASE)
    two.pop()
    one.finish(task, "still mine")
    assert one.get_stats().counters.get("workers_dead", 0) == 0


def test_three_crashes_alone_are_a_dead_letter(make_queue: MakeQueue, clock: Clock) -> None:
    heir = make_queue(clock=clock)
    handle = heir.push(Task.create(payload=1, max_retries=0))
    for attempt in range(1, 5):
        task = make_queue(clock=clock).pop()
        assert task.attempt == attempt
        assert task.crashes == max(0, attempt - 2)  # the first crash is charged to nobody
        beat(clock, heir, seconds=3 * LEASE)
    task = handle.task()
    assert (task.state, task.crashes) == (TaskState.FAILED, 3)
    assert task.reason == "killed its process three times while running alone"
    assert len(heir.get_errors(task.task_id)) == 4
    assert heir.pop() is None


def test_closing_gives_back_what_was_claimed(make_queue: MakeQueue, queue: Any, flushed: redis.Redis) -> None:
    leaver = make_queue()
    for number in range(5):
        queue.push(Task.create(payload=number, priority=6 if number < 3 else 3))
    claimed = leaver.pop(count=4)
    leaver.close()
    assert [task.attempt for task in queue.list_tasks()] == [0] * 5
    assert payloads(queue.pop(count=5)) == [0, 1, 2, 3, 4]
    with pytest.raises(StaleClaimError):
        leaver.finish(claimed[0])  # it opens again, as another incarnation
    leaver.close()
    leaver.close()
    wait_until(lambda: flushed.zcard("fq:workers") == 1)


def test_times_are_the_servers(timed: Any, clock: Clock) -> None:
    timed.push(Task.create(payload=1))
    clock.advance(10)
    task = timed.pop()
    begun = datetime.fromtimestamp(clock.seconds, UTC)
    assert (task.entered_at - task.enqueued_at).total_seconds() == pytest.approx(10, abs=0.001)
    assert abs((task.entered_at - begun).total_seconds()) < 0.001
    clock.advance(5)
    timed.finish(task, seconds=5)
    stats = timed.get_user_stats("default")
    assert stats.waited_seconds == pytest.approx(10, abs=0.001)
    assert stats.served_seconds == pytest.approx(5, abs=0.001)
    timed.push(Task.create(payload=2, retry=fixed(1)))
