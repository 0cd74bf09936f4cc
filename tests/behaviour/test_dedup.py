"""One task for many pushes: throttle, where the first wins, and debounce, where the last one does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    DuplicateTaskError,
    InvalidTaskError,
    QuotaExceededError,
    UnknownLimiterError,
)
from fairque.core.models import Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.retry import Snooze, fixed
from fairque.core.states import TaskState
from fairque.queue.operations import claims, push, tasks
from tests.support.bench import Bench
from tests.support.facades import Clock
from tests.support.invariants import assert_consistent
from tests.support.queues import MakeQueue, at, wait_until

QUEUED, SCHEDULED, STARTED = TaskState.QUEUED, TaskState.SCHEDULED, TaskState.STARTED
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def throttled(payload: Any, window: float = 60, **options: Any) -> Task[Any]:
    return Task.create(
        payload=payload, **{"dedup_key": "k", "dedup_window": window, "on_duplicate": "throttle", **options}
    )


def debounced(payload: Any, window: float = 10, **options: Any) -> Task[Any]:
    return Task.create(
        payload=payload, **{"dedup_key": "k", "dedup_window": window, "on_duplicate": "debounce", **options}
    )


def due_in(queue: Any, task_id: str, clock: Clock) -> float:
    task = queue.get_task(task_id)
    assert task.state is SCHEDULED
    seconds: float = task.execute_after.timestamp() - clock.seconds
    return seconds


# -- throttle


def test_the_first_of_a_window_wins_and_the_others_are_dropped(queue: Any, flushed: redis.Redis) -> None:
    first = queue.push(throttled(1, 0.3))
    assert (first.outcome, first.existing) == ("stored", False)
    second = queue.push(throttled(2, 0.3))
    assert (second.outcome, second.existing, second.task_id) == ("throttled", True, first.task_id)
    task = queue.pop()
    assert task.payload == 1
    queue.finish(task, "done")
    assert queue.push(throttled(3, 0.3)).outcome == "throttled"  # whatever became of the first
    assert second.result(5) == "done"
    wait_until(lambda: not flushed.exists("fq:dedup:default:k"))
    assert queue.push(throttled(4, 0.3)).outcome == "stored"
    assert [task.payload for task in queue.pop(count=9)] == [4]


def test_each_user_and_key_has_a_window_of_its_own(queue: Any) -> None:
    pushed = [queue.push(throttled(1, user_id=user, dedup_key=key)) for user in "ab" for key in ("x", "y")]
    assert {handle.outcome for handle in pushed} == {"stored"}
    assert queue.push(throttled(1, user_id="a", dedup_key="x")).outcome == "throttled"


@pytest.mark.parametrize("make", [throttled, debounced])
def test_an_id_that_is_taken_is_refused_all_the_same(queue: Any, make: Callable[..., Task[Any]]) -> None:
    queue.push(make(1, task_id="t"))
    for key in ("k", "other"):
        with pytest.raises(DuplicateTaskError, match="there is a task t already"):
            queue.push(make(2, task_id="t", dedup_key=key))
    assert queue.get_task("t").payload == 1


# -- debounce


def test_the_last_one_wins_and_each_push_puts_it_off(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    first = timed.push(debounced(1))
    assert (first.outcome, first.existing) == ("stored", False)
    assert due_in(timed, first.task_id, clock) == pytest.approx(10, abs=0.01)
    created = first.task().created_at
    for payload in (2, 3):
        clock.advance(9)
        again = timed.push(debounced(payload))
        assert (again.outcome, again.existing, again.task_id) == ("debounced", True, first.task_id)
        assert due_in(timed, first.task_id, clock) == pytest.approx(10, abs=0.01)
        assert timed.pop() is None
    assert_consistent(flushed)
    assert first.task().created_at == created
    clock.advance(10.1)
    [task] = timed.pop(count=9)
    assert (task.payload, task.task_id) == (3, first.task_id)
    timed.finish(task)
    assert not flushed.exists("fq:dedup:default:k")
    assert timed.push(debounced(4)).outcome == "stored"


def test_all_but_the_id_is_that_of_the_last_one(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    timed.set_limiter("api", LimiterPolicy(max_concurrency=5))
    first = timed.push(
        debounced(
            {"a": "x" * 3000},
            priority=2,
            labels={"a": "b"},
            limiter="api",
            expires_at=at(clock, 3600),
            timeout=9,
        )
    )
    assert_consistent(flushed)
    timed.push(debounced(7, priority=6, cost=3, max_retries=1, retry=fixed(2), correlation_id="c"))
    assert_consistent(flushed)
    task = timed.get_task(first.task_id)
    assert (task.payload, task.priority, task.cost, task.max_retries) == (7, 6, 3, 1)
    assert (task.retry, task.correlation_id, task.limiter, task.timeout) == (fixed(2), "c", None, None)
    assert (dict(task.labels), task.expires_at) == ({}, None)
    timed.push(debounced(8, limiter="api", expires_at=at(clock, 60)))
    assert_consistent(flushed)
    clock.advance(11)
    task = timed.pop()
    assert (task.payload, task.limiter) == (8, "api")
    assert_consistent(flushed)


def test_a_function_may_take_the_place_of_another(timed: Any, clock: Clock) -> None:
    options = {"dedup_key": "k", "dedup_window": 5, "on_duplicate": "debounce"}
    timed.push(Task(function="m:f", args=(1,), **options))
    timed.push(Task(function="m:longer_name", args=(1, 2), kwargs={"x": b"\xff"}, **options))
    clock.advance(6)
    [task] = timed.pop(count=9)
    assert (task.function, task.args, task.kwargs) == ("m:longer_name", (1, 2), {"x": b"\xff"})


def test_it_does_not_wait_for_ever(timed: Any, clock: Clock) -> None:
    first = timed.push(debounced(0, dedup_max_wait=25))
    for number in range(1, 4):
        clock.advance(8)
        assert timed.push(debounced(number, dedup_max_wait=25)).outcome == "debounced"
    assert due_in(timed, first.task_id, clock) == pytest.approx(1, abs=0.01)
    clock.advance(1.1)
    assert timed.pop().payload == 3


def test_past_its_longest_wait_a_push_only_replaces(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    """It is due, and nobody has claimed it yet: it is not put off any more, and does not lose its place."""
    first = timed.push(debounced(0, dedup_max_wait=10))
    clock.advance(11)
    timed.cleanup_expired_tasks()
    assert first.state() is QUEUED
    timed.push(Task.create(payload="behind"))
    assert timed.push(debounced(1, dedup_max_wait=10)).outcome == "debounced"
    assert_consistent(flushed)
    assert [task.payload for task in timed.pop(count=9)] == [1, "behind"]


def test_what_is_due_and_not_claimed_is_put_off_again(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    first = timed.push(debounced(0))
    clock.advance(11)
    timed.cleanup_expired_tasks()
    assert first.state() is QUEUED
    assert timed.push(debounced(1)).outcome == "debounced"
    assert due_in(timed, first.task_id, clock) == pytest.approx(10, abs=0.01)
    assert_consistent(flushed)
    assert timed.pop() is None


def test_a_shorter_longest_wait_counts_from_the_first_push(timed: Any, clock: Clock) -> None:
    first = timed.push(debounced(0))
    clock.advance(9)
    timed.push(debounced(1, window=5, dedup_max_wait=5))
    assert first.state() is QUEUED
    assert timed.pop().payload == 1


@pytest.mark.parametrize("how", ["runs", "was released", "is retried", "snoozes"])
def test_once_claimed_a_later_push_is_a_task_of_its_own(
    timed: Any, clock: Clock, flushed: redis.Redis, how: str
) -> None:
    first = timed.push(debounced(1, retry=fixed(60)))
    clock.advance(11)
    task = timed.pop()
    match how:
        case "was released":
            timed.release(task)
        case "is retried":
            timed.fail(task, ValueError("no"))
        case "snoozes":
            timed.fail(task, Snooze(60))
    second = timed.push(debounced(2))
    assert second.outcome == "stored"
    assert second.task_id != first.task_id
    third = timed.push(debounced(3))
    assert (third.outcome, third.task_id) == ("debounced", second.task_id)
    assert_consistent(flushed)
    if how == "runs":
        timed.finish(task)  # which does not take the key from the other
        assert timed.push(debounced(4)).task_id == second.task_id
    assert first.task().payload == 1


@pytest.mark.parametrize("end", ["cancel", "delete", "bury", "expire"])
def test_what_has_ended_before_is_not_joined(
    timed: Any, clock: Clock, flushed: redis.Redis, end: str
) -> None:
    first = timed.push(debounced(1, expires_at=at(clock, 5)))
    match end:
        case "cancel":
            first.cancel()
        case "delete":
            timed.delete_task(first.task_id)
        case "bury":
            timed.move_to_dlq(first.task_id)
        case "expire":
            clock.advance(6)
            timed.cleanup_expired_tasks()
    assert timed.push(debounced(2)).outcome == "stored"
    assert_consistent(flushed)


def test_its_watchers_and_its_update_stay(timed: Any, clock: Clock) -> None:
    first = timed.push(debounced(1))
    timed.update_task(first.task_id, delay=500)
    news = first.events(timeout=10)
    assert next(news).state is SCHEDULED
    again = timed.push(debounced(2))
    assert due_in(timed, first.task_id, clock) == pytest.approx(10, abs=0.01)
    clock.advance(11)
    timed.finish(timed.pop(), "done")
    assert again.result(5) == first.result(5) == "done"
    assert [update.state for update in news][-1] is TaskState.FINISHED


def test_modes_may_meet_on_one_key(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    first = timed.push(throttled(1))
    joined = timed.push(debounced(2))
    assert (joined.outcome, joined.task_id) == ("debounced", first.task_id)
    with pytest.raises(DuplicateTaskError, match="use on_duplicate='return', 'throttle' or 'debounce'"):
        timed.push(Task.create(payload=3, dedup_key="k"))
    assert timed.push(Task.create(payload=3, dedup_key="k", on_duplicate="return")).outcome == "returned"
    assert timed.push(throttled(3)).outcome == "throttled"
    assert_consistent(flushed)
    clock.advance(11)
    timed.finish(timed.pop())
    assert timed.push(Task.create(payload=4, dedup_key="k")).outcome == "stored"


def test_a_replacement_needs_no_room_but_its_limiter(timed: Any) -> None:
    timed.set_user_policy("default", UserPolicy(max_queued=1))
    first = timed.push(debounced(1))
    assert timed.push(debounced(2)).outcome == "debounced"
    with pytest.raises(QuotaExceededError):
        timed.push(debounced(3, dedup_key="other"))
    with pytest.raises(UnknownLimiterError):
        timed.push(debounced(4, limiter="nowhere"))
    assert first.task().payload == 2


def test_the_counts_of_an_organisation_follow(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    timed.set_group_policy("g", GroupPolicy())
    timed.set_user_policy("default", UserPolicy(group="g"))
    for number in range(3):
        timed.push(debounced(number, priority=6))
        assert_consistent(flushed)
    clock.advance(11)
    timed.cleanup_expired_tasks()
    timed.push(debounced(3, priority=2))
    assert_consistent(flushed)


def test_whoever_waits_is_told_of_the_new_time(queue: Any, other: Any) -> None:
    """A worker that sleeps until the old moment finds nothing then, and the task at the new one."""
    queue.push(debounced(0, 0.3))
    queue.push(debounced(1, 0.5))
    queue.push(debounced(2, 0.2))
    assert other.pop(wait=10).payload == 2


# -- in batches


def test_a_batch_tells_what_became_of_each(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    outcomes = timed.push_batch([
        throttled("t1", dedup_key="t"), debounced("d1"), throttled("t2", dedup_key="t"), debounced("d2"),
        Task.create(payload="plain"), debounced("d3"), Task.create(payload="k1", dedup_key="unique"),
        Task.create(payload="k2", dedup_key="unique"),
    ])  # fmt: skip
    assert [outcome.handle.outcome if outcome.ok else "refused" for outcome in outcomes] == [
        "stored", "stored", "throttled", "debounced", "stored", "debounced", "stored", "refused",
    ]  # fmt: skip
    assert outcomes[1].handle.task_id == outcomes[3].handle.task_id == outcomes[5].handle.task_id
    assert_consistent(flushed)
    assert sorted(task.payload for task in timed.pop(count=9)) == ["k1", "plain", "t1"]
    clock.advance(11)
    assert [task.payload for task in timed.pop(count=9)] == ["d3"]


def test_many_at_once_are_one_task_with_one_of_the_last(
    queue: Any, make_queue: MakeQueue, flushed: redis.Redis
) -> None:
    outcomes: list[str] = []

    def push_some(one: Any, name: str) -> None:
        outcomes.extend(one.push(debounced((name, number), 60)).outcome for number in range(20))

    threads = [threading.Thread(target=push_some, args=(make_queue(), name)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["debounced"] * 79 + ["stored"]
    [task] = queue.list_tasks("scheduled")
    assert task.payload[1] == 19
    assert_consistent(flushed)


# -- a reply that was lost


def test_a_push_that_is_sent_again_changes_nothing(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    first, second = debounced(1), debounced(2)
    stored, joined = (next(push.push(bench.engine, task)) for task in (first, second))
    execute = bench.manager.execute
    assert execute(stored)[0] == execute(stored)[0] == 1
    assert execute(joined)[0] == push.DEBOUNCED
    before = bench.get(first.task_id)
    assert before is not None
    bench.clock.advance(5)
    assert execute(joined) == [push.DEBOUNCED, first.task_id.encode()]
    assert bench.get(first.task_id) == before
    assert before.payload == 2
    bench.run(tasks.cancel(bench.engine, first.task_id))
    bench.run(claims.leave(bench.engine, bench.worker.incarnation))


# -- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_duplicate": "throttle"}, "'throttle' needs a dedup_key, and a dedup_window"),
        ({"on_duplicate": "debounce", "dedup_key": "k"}, "'debounce' needs a dedup_key, and a dedup_window"),
        ({"on_duplicate": "throttle", "dedup_key": "k", "dedup_window": 0}, "dedup_window"),
        (
            {"on_duplicate": "debounce", "dedup_key": "k", "dedup_window": 5, "delay": 3},
            "dedup_window after the last push: leave delay out",
        ),
        (
            {"on_duplicate": "debounce", "dedup_key": "k", "dedup_window": 5, "execute_after": MOMENT},
            "leave execute_after out",
        ),
        (
            {"on_duplicate": "debounce", "dedup_key": "k", "dedup_window": 5, "dedup_max_wait": 4},
            "at least its dedup_window of 5 s, not 4 s",
        ),
        ({"dedup_key": "k", "dedup_window": 5, "dedup_max_wait": 9}, "dedup_max_wait is for on_duplicate='debounce'"),
        ({"on_duplicate": "merge"}, "must be one of 'reject', 'return', 'throttle', 'debounce'"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTaskError, match=words):
        Task.create(payload=1, **options)
    with pytest.raises(InvalidTaskError, match=words):
        Task.create(payload=1).with_options(**options)


def test_times_may_be_timedeltas() -> None:
    task = Task.create(
        dedup_key="k",
        dedup_window=timedelta(minutes=1),
        dedup_max_wait=timedelta(hours=1),
        on_duplicate="debounce",
    )
    assert (task.dedup_window, task.dedup_max_wait) == (60, 3600)
