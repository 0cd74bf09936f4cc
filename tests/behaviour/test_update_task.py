"""A task that waits gets another place, another time, or other options."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    InvalidStateError,
    InvalidTaskError,
    PayloadTooLargeError,
    TaskNotFoundError,
)
from fairque.core.models import Priority, Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.retry import fixed, never
from fairque.core.retry_rules import on
from fairque.core.states import TaskState
from tests.support.facades import Clock
from tests.support.invariants import assert_consistent
from tests.support.queues import MakeQueue, at

QUEUED, SCHEDULED = TaskState.QUEUED, TaskState.SCHEDULED


def put(queue: Any, *names: str, **options: Any) -> None:
    for name in names:
        queue.push(Task.create(task_id=name, payload=name, **options))


def order(queue: Any) -> str:
    """The names of all tasks that can start, in the order in which they do."""
    return "".join(task.task_id for task in queue.pop(count=100))


# -- its place


@pytest.mark.parametrize(
    ("name", "priority", "after"),
    [
        ("c", Priority.VERY_HIGH, "cab"),
        ("c", Priority.CRITICAL, "cab"),
        ("a", Priority.LOW, "bca"),
        ("a", 3, "abc"),
        ("a", 6, "abc"),
    ],
)
def test_a_new_priority_is_a_new_place(queue: Any, name: str, priority: int, after: str) -> None:
    put(queue, *"abc")
    assert queue.update_task(name, priority=priority) is QUEUED
    assert queue.get_task(name).priority == priority
    assert order(queue) == after


def test_among_critical_ones_it_is_the_last_and_out_of_them_it_has_its_age(queue: Any) -> None:
    put(queue, "a", "b")
    put(queue, "x", "y", "z", priority=6)
    queue.update_task("a", priority=6)
    queue.update_task("y", priority=3)
    assert queue.get_queue_sizes("default").critical == 3
    assert order(queue) == "xzaby"


def test_it_keeps_its_age_in_the_normal_queue(timed: Any, clock: Clock) -> None:
    """With ageing of a minute a level: as if it had been pushed with that priority."""
    put(timed, "a", priority=1)
    clock.advance(90)
    put(timed, "b", priority=3)
    timed.update_task("a", priority=2)
    assert order(timed) == "ab"


def test_under_a_limiter_too(queue: Any, flushed: redis.Redis) -> None:
    queue.set_limiter("api", LimiterPolicy(max_concurrency=9))
    put(queue, *"abc", limiter="api")
    put(queue, "d")
    queue.update_task("c", priority=6)
    queue.update_task("b", delay=60)
    assert_consistent(flushed)
    assert order(queue) == "cad"
    assert_consistent(flushed)


def test_nobody_gains_or_loses_a_turn_by_it(queue: Any, flushed: redis.Redis) -> None:
    for number in range(10):
        put(queue, f"a{number}", user_id="a")
        put(queue, f"b{number}", user_id="b")
    dice = random.Random(1)
    served: list[str] = []
    for _ in range(20):
        waiting = [task.task_id for task in queue.list_tasks(user="a")]
        for name in dice.sample(waiting, min(3, len(waiting))):
            queue.update_task(name, priority=dice.randint(1, 6))
        task = queue.pop()
        served.append(task.user_id)
        queue.finish(task)
        assert abs(served.count("a") - served.count("b")) <= 1
    assert_consistent(flushed)


def test_the_lane_for_newcomers_is_not_opened_again(queue: Any, flushed: redis.Redis) -> None:
    """An update of a tenant's only task is no arrival."""
    put(queue, "a")
    before = flushed.zrange("fq:ready:sparse", 0, -1, withscores=True)
    for priority in (6, 3, 6):
        queue.update_task("a", priority=priority)
    assert flushed.zrange("fq:ready:sparse", 0, -1, withscores=True) == before


# -- its time


def test_a_queued_task_is_put_off_and_fetched_back(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    put(timed, "a", "b")
    assert timed.update_task("a", delay=60) is SCHEDULED
    task = timed.get_task("a")
    assert task.execute_after.timestamp() == pytest.approx(clock.seconds + 60, abs=0.01)
    sizes = timed.get_queue_sizes("default")
    assert (sizes.normal, sizes.delayed) == (1, 1)
    assert_consistent(flushed)
    assert order(timed) == "b"
    clock.advance(30)
    assert timed.update_task("a", execute_after=at(clock, 10)) is SCHEDULED
    clock.advance(9)
    assert timed.pop() is None
    clock.advance(1.1)
    assert timed.pop().task_id == "a"


def test_a_scheduled_task_is_queued_at_once(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    put(timed, "a", "b", delay=3600)
    put(timed, "c")
    assert timed.update_task("a", delay=0) is QUEUED
    assert timed.update_task("b", execute_after=at(clock, -50), priority=6) is QUEUED
    assert timed.update_task("c", delay=0) is QUEUED  # it stays where it was
    assert_consistent(flushed)
    assert order(timed) == "bca"


def test_a_retry_is_brought_forward(timed: Any) -> None:
    handle = timed.push(Task.create(payload=1, retry=fixed(3600)))
    timed.fail(timed.pop(), ValueError("no"))
    assert handle.state() is SCHEDULED
    assert timed.update_task(handle.task_id, delay=0, max_retries=9) is QUEUED
    task = timed.pop()
    assert (task.attempt, task.retries, task.max_retries) == (2, 1, 9)


@pytest.mark.parametrize("delay", [0, 0.3])
def test_whoever_waits_is_woken(queue: Any, other: Any, delay: float) -> None:
    put(queue, "a", delay=60)
    begun = time.monotonic()
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(other.pop(wait=20)))
    waiting.start()
    while not queue.get_stats().numbers["idle_workers"]:
        assert time.monotonic() < begun + 10
    queue.update_task("a", delay=delay)
    waiting.join(10)
    assert [task.task_id for task in found] == ["a"]


def test_it_wakes_who_waits_for_its_events(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    news = handle.events(timeout=10)
    assert next(news).state is QUEUED
    queue.update_task(handle.task_id, delay=60)
    assert next(news).state is SCHEDULED
    queue.update_task(handle.task_id, delay=0)
    assert next(news).state is QUEUED


def test_an_expiry_is_set_moved_and_taken_away(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    put(timed, "a", "b", expires_at=at(clock, 10))
    put(timed, "c", "d")
    timed.update_task("a", expires_at=None)
    timed.update_task("b", expires_at=at(clock, 100))
    timed.update_task("c", expires_at=at(clock, 20), delay=60)
    assert_consistent(flushed)
    clock.advance(21)
    assert timed.cleanup_expired_tasks()["expired"] == 1
    assert order(timed) == "abd"


# -- its options


def test_other_options_and_all_else_as_it_was(queue: Any) -> None:
    payload = {"bytes": b"\x00\xff", "when": datetime(2026, 1, 2, tzinfo=UTC), "n": 2**60}
    queue.set_limiter("api", LimiterPolicy(max_concurrency=9))
    sent = Task.create(
        payload=payload, user_id="alice", timeout=9, retry=fixed(3), cost=2.5, correlation_id="c", labels={"a": "b"},
        limiter="api", dedup_key="k", result_ttl=60,
    )  # fmt: skip
    handle = queue.push(sent)
    rules = on(ValueError, never) | fixed(1)
    queue.update_task(handle.task_id, timeout=None, retry=rules, labels={"x": "y" * 300}, max_retries=0)
    task = queue.pop()
    assert (task.timeout, task.retry, dict(task.labels), task.max_retries) == (
        None,
        rules,
        {"x": "y" * 300},
        0,
    )
    for name in (
        "payload",
        "user_id",
        "cost",
        "correlation_id",
        "limiter",
        "dedup_key",
        "result_ttl",
        "priority",
    ):
        assert getattr(task, name) == getattr(sent, name), name
    queue.finish(task, "done")
    assert handle.result(5) == "done"


def test_a_function_keeps_its_arguments(queue: Any) -> None:
    queue.push(Task(function="m:f", args=(1, "é", b"\xff"), kwargs={"x": [2]}, task_id="t"))
    queue.update_task("t", timeout=5, labels={"a": "1"})
    queue.update_task("t", labels={})
    task = queue.pop()
    assert (task.function, task.args, task.kwargs) == ("m:f", (1, "é", b"\xff"), {"x": [2]})
    assert (task.timeout, dict(task.labels)) == (5, {})


def test_the_default_of_retries_is_the_queues(make_queue: MakeQueue) -> None:
    queue = make_queue(default_max_retries=7)
    put(queue, "a", max_retries=1)
    queue.update_task("a", max_retries=None)
    assert queue.get_task("a").max_retries == 7


def test_changes_by_many_at_once_all_count(queue: Any, make_queue: MakeQueue) -> None:
    put(queue, "a")
    names = ("timeout", "result_ttl", "correlation_id")
    failed: list[Exception] = []

    def change(one: Any, name: str) -> None:
        try:
            for number in range(1, 21):
                one.update_task("a", **{name: str(number) if name == "correlation_id" else number})
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=change, args=(make_queue(), name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    task = queue.get_task("a")
    assert (task.timeout, task.result_ttl, task.correlation_id) == (20, 20, "20")


# -- organisations


def test_the_counts_of_an_organisation_follow(queue: Any, flushed: redis.Redis) -> None:
    queue.set_group_policy("g", GroupPolicy())
    queue.set_user_policy("u", UserPolicy(group="g"))
    put(queue, *"abc", user_id="u")
    queue.update_task("a", delay=60)
    queue.update_task("b", priority=6)
    assert_consistent(flushed)
    assert order(queue) == "bc"


# -- refusals


@pytest.mark.parametrize("end", ["started", "finished", "failed", "canceled"])
def test_what_has_begun_or_ended_is_not_changed(queue: Any, end: str) -> None:
    put(queue, "a", max_retries=0)
    match end:
        case "started":
            queue.pop()
        case "finished":
            queue.finish(queue.pop())
        case "failed":
            queue.fail(queue.pop(), ValueError())
        case "canceled":
            queue.cancel("a")
    for changes in ({"priority": 4}, {"delay": 5}, {"labels": {"a": "b"}}):
        with pytest.raises(InvalidStateError, match=f"task a is {end} and cannot be updated") as refused:
            queue.update_task("a", **changes)
        assert (refused.value.task_id, refused.value.state) == ("a", end)


@pytest.mark.parametrize("changes", [{"priority": 4}, {"labels": {}}])
def test_an_unknown_task_is_named(queue: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(TaskNotFoundError, match="there is no task no: where") as missing:
        queue.update_task("no: where", **changes)
    assert missing.value.task_id == "no: where"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "there is nothing to change: give one or more of priority, delay"),
        ({"delay": 1, "execute_after": datetime(2026, 1, 1, tzinfo=UTC)}, "give one of them"),
        ({"priority": 7}, "priority"),
        ({"priority": None}, "priority cannot be None"),
        ({"delay": -1}, "delay"),
        ({"max_retries": 70_000}, "max_retries"),
        ({"timeout": 0}, "timeout"),
        ({"labels": {"a": 1}}, "labels"),
        ({"retry": 5}, "retry must be a policy"),
        ({"user_id": "bob"}, "user_id of a task cannot be changed once it is pushed"),
        ({"prority": 3}, "did you mean 'priority'"),
        ({"colour": 3}, "what can be changed is priority"),
    ],
)
def test_bad_changes_are_refused_and_write_nothing(queue: Any, changes: dict[str, Any], words: str) -> None:
    put(queue, "a")
    before = queue.get_task("a")
    with pytest.raises(InvalidTaskError, match=words):
        queue.update_task("a", **changes)
    assert queue.get_task("a") == before


def test_it_does_not_grow_over_the_limit(make_queue: MakeQueue) -> None:
    queue = make_queue(max_payload_bytes=1000)
    put(queue, "a")
    with pytest.raises(PayloadTooLargeError, match="use shorter labels"):
        queue.update_task("a", labels={"a": "x" * 1000})
    queue.update_task("a", labels={"a": "x" * 900})
