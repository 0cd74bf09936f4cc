"""Tenants in numbers: one by one, and in pages by backlog, service and wait."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from fairque.core.exceptions import InvalidTaskError
from fairque.core.models import Priority, QueueSizes, Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.queue.operations.users import UserStats
from tests.support.facades import Clock
from tests.support.queues import MakeQueue

MINUTE = 60.0


def push(queue: Any, user: str, count: int = 1, **options: Any) -> None:
    outcomes = queue.push_batch(
        Task.create(payload=number, user_id=user, **options) for number in range(count)
    )
    assert all(outcome.ok for outcome in outcomes)


def work(queue: Any, clock: Clock, count: int, seconds: float = 1.0) -> None:
    """So many tasks, one after the other."""
    for _ in range(count):
        task = queue.pop()
        clock.advance(seconds)
        queue.finish(task, seconds=seconds)


def everybody(queue: Any, by: str, limit: int) -> list[UserStats]:
    """All pages."""
    found: list[UserStats] = []
    cursor = None
    while True:
        page = queue.list_users(by, cursor, limit)
        assert len(page) <= limit
        found += page
        cursor = page.cursor
        if cursor is None:
            return found


# -- one


def test_who_was_never_seen_has_nothing(queue: Any) -> None:
    stats = queue.get_user_stats("nobody: {%}")
    assert stats.user_id == "nobody: {%}"
    assert (stats.weight, stats.group, stats.actual_share, stats.fair_share) == (1.0, None, None, None)
    zero = {"user_id", "weight", "group", "actual_share", "fair_share"}
    assert not any(getattr(stats, item.name) for item in fields(UserStats) if item.name not in zero)
    assert queue.get_queue_sizes("nobody") == QueueSizes(critical=0, normal=0, running=0)


def test_every_number_of_a_life(timed: Any, clock: Clock) -> None:
    timed.set_group_policy("g: {%}", GroupPolicy())
    timed.set_limiter("l", LimiterPolicy(max_concurrency=1))
    timed.set_user_policy("u", UserPolicy(weight=2, group="g: {%}"))
    push(timed, "u", 2)
    clock.advance(3)
    push(timed, "u", 3, priority=Priority.CRITICAL, max_retries=0)
    push(timed, "u", 2, limiter="l")
    push(timed, "u", 1, delay=100)
    stats = timed.get_user_stats("u")
    assert (stats.critical, stats.normal, stats.limited, stats.delayed, stats.queued) == (3, 2, 2, 1, 7)
    assert timed.get_queue_sizes("u") == QueueSizes(critical=3, normal=2, running=0, limited=2, delayed=1)
    assert (stats.group, stats.weight) == ("g: {%}", 2.0)
    assert stats.oldest_seconds == pytest.approx(3, abs=0.01)
    assert (stats.ready, stats.paused, stats.parked, stats.running) == (True, False, False, 0)
    first, second, third = timed.pop(count=3)
    assert timed.get_user_stats("u").running == 3
    assert timed.get_user_stats("u").tag > stats.tag
    clock.advance(2)
    timed.finish(first, seconds=2)
    timed.fail(second, ValueError("no"), seconds=2)
    timed.cancel(third)
    timed.finish(third, seconds=2)
    stats = timed.get_user_stats("u")
    assert (stats.finished, stats.failed, stats.canceled, stats.dead_letters) == (1, 1, 1, 1)
    assert stats.served_seconds == pytest.approx(6, abs=0.01)
    assert (stats.running, stats.queued, stats.claims) == (0, 4, 3)
    assert stats.waited_seconds == pytest.approx(0, abs=0.01)
    assert stats.oldest_seconds == pytest.approx(5, abs=0.01)
    clock.advance(10)
    timed.finish(timed.pop())
    stats = timed.get_user_stats("u")
    assert stats.waited_seconds == pytest.approx(15, abs=0.01)
    assert stats.wait_seconds == pytest.approx(15 / 4, abs=0.01)
    timed.set_group_policy("g: {%}", GroupPolicy(paused=True))
    timed.set_user_policy("u", UserPolicy(paused=True, group="g: {%}"))
    assert timed.get_user_stats("u").paused


def test_who_is_out_of_tokens_is_parked(timed: Any, clock: Clock) -> None:
    timed.set_user_policy("u", UserPolicy(rate_limit=0.5, burst=1))
    push(timed, "u", 2)
    timed.finish(timed.pop())
    assert timed.pop() is None
    stats = timed.get_user_stats("u")
    assert (stats.parked, stats.ready) == (True, False)
    clock.advance(2.01)
    assert timed.pop() is not None


# -- shares


@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
def test_shares_of_late(make_queue: MakeQueue, clock: Clock, fairness: str) -> None:
    """What was had, and what the weight entitled to."""
    queue = make_queue(clock=clock, fairness=fairness, sparse_share=0)
    queue.set_user_policy("heavy", UserPolicy(weight=3))
    for user in ("heavy", "light"):
        push(queue, user, 200)
    work(queue, clock, 40)
    heavy, light = (queue.get_user_stats(user) for user in ("heavy", "light"))
    assert heavy.actual_share == pytest.approx(0.75, abs=0.05)
    assert light.actual_share == pytest.approx(0.25, abs=0.05)
    assert heavy.fair_share == pytest.approx(0.75, abs=0.08)
    assert light.fair_share == pytest.approx(0.25, abs=0.05)
    assert heavy.claims + light.claims == pytest.approx(40, abs=30)
    # One that wants less than it could have: its share is less than fair.
    queue.pause_user("light")
    work(queue, clock, 70)
    assert queue.get_user_stats("heavy").actual_share == pytest.approx(1)
    assert queue.get_user_stats("light").actual_share == 0
    # Long after, nothing of it is late any more.
    queue.pause_user("heavy")
    clock.advance(10 * MINUTE)
    stats = queue.get_user_stats("heavy")
    assert (stats.claims, stats.service, stats.actual_share, stats.fair_share) == (0, 0.0, None, None)
    assert stats.finished > 70


def test_shares_within_a_group(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(clock=clock, sparse_share=0)
    queue.set_group_policy("g", GroupPolicy())
    for user in ("one", "two"):
        queue.set_user_policy(user, UserPolicy(group="g"))
    for user in ("one", "two", "alone"):
        push(queue, user, 100)
    work(queue, clock, 40)
    shares = {user: queue.get_user_stats(user) for user in ("one", "two", "alone")}
    assert shares["alone"].actual_share == pytest.approx(0.5, abs=0.05)
    assert shares["one"].actual_share == pytest.approx(0.25, abs=0.05)
    assert shares["two"].fair_share == pytest.approx(0.25, abs=0.05)
    assert shares["alone"].fair_share == pytest.approx(0.5, abs=0.08)


# -- all


def test_pages_go_from_the_largest_to_those_with_nothing(timed: Any) -> None:
    sizes = {f"u{number}: {{%}}": number * number for number in range(9)}
    for user, size in sizes.items():
        push(timed, user, size)
        push(timed, user, 1, delay=100)
    for limit in (1, 2, 4, 100):
        found = everybody(timed, "backlog", limit)
        assert sorted(stats.user_id for stats in found) == sorted(sizes)
        # Those with 0 and 1 come last, in the order in which they came.
        expected = sorted(sizes, key=lambda user: -sizes[user])
        assert [stats.user_id for stats in found][:7] == expected[:7]
        assert [stats.queued for stats in found][:7] == [sizes[user] for user in expected[:7]]
    assert len(timed.list_users("backlog", limit=4).items) == 4
    assert timed.list_users("backlog", limit=100).cursor is None


def test_the_order_of_service_and_of_wait(timed: Any, clock: Clock) -> None:
    # The later one comes, the shorter it waits, and the longer it runs.
    users = [f"u{number}" for number in range(6)]
    for user in users:
        clock.advance(10)
        push(timed, user)
    for number in range(len(users)):
        work(timed, clock, 1, seconds=0.1 * 2**number)
    by_wait = [stats.user_id for stats in everybody(timed, "wait", 4)]
    by_service = [stats.user_id for stats in everybody(timed, "service", 4)]
    assert by_service == users[::-1]
    waits = {stats.user_id: stats.wait_seconds for stats in everybody(timed, "wait", 100)}
    assert by_wait == sorted(users, key=lambda user: -waits[user])
    assert waits["u0"] > waits["u2"] > waits["u5"] > 0
    # What is long past counts no more.
    clock.advance(10 * MINUTE)
    assert {stats.wait_seconds for stats in everybody(timed, "wait", 100)} == {0.0}


def test_a_thousand_users_come_once_each(timed: Any) -> None:
    names = {f"user-{number}" for number in range(1000)}
    outcomes = timed.push_batch(
        Task.create(payload=0, user_id=name) for name in sorted(names) for _ in range(1 + len(name) % 3)
    )
    assert all(outcome.ok for outcome in outcomes)
    for by in ("backlog", "service", "wait"):
        found = [stats.user_id for stats in everybody(timed, by, 300)]
        assert len(found) == len(set(found)) == 1000
        assert set(found) == names


def test_nobody_is_an_empty_page(queue: Any) -> None:
    page = queue.list_users()
    assert (page.items, page.cursor) == ((), None)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"by": "size"}, "listed by backlog, service, wait, not by 'size'"),
        ({"limit": 0}, "1 to 500 tenants, not 0"),
        ({"limit": 501}, "1 to 500 tenants, not 501"),
        ({"cursor": "5"}, "'5' is no cursor"),
        ({"cursor": "list/x"}, "is no cursor"),
        ({"cursor": "all/5"}, "is no cursor"),
    ],
)
def test_bad_pages_are_refused(queue: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidTaskError, match=told):
        queue.list_users(**options)


def test_reconciling_a_queue_in_good_order_changes_nothing(timed: Any, clock: Clock) -> None:
    push(timed, "a", 20)
    push(timed, "b", 3, delay=60)
    claimed = timed.pop(count=4)
    report = timed.reconcile()
    assert report.repaired == ()
    assert report.checked >= 27
    assert timed.reconcile(tasks=False).checked < report.checked
    for task in claimed:
        timed.finish(task)


def test_reconcile_mends_and_says_so(timed: Any, flushed: Any) -> None:
    push(timed, "a: {%}", 5)
    flushed.delete("fq:queue:user:a%3A %7B%25%7D:normal")
    report = timed.reconcile()
    assert sum(one.what.startswith("queue of task") for one in report.repaired) == 5
    assert {one.now for one in report.repaired if one.what.startswith("queue")} == {"that of a: {%}"}
    assert timed.reconcile().repaired == ()
    assert len(timed.pop(count=9)) == 5
