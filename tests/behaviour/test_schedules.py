"""`queue.schedules`: schedules kept, changed, declared and run by hand, through both queues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    ConfigError,
    InvalidTaskError,
    QuotaExceededError,
    ScheduleNotFoundError,
    UnknownLimiterError,
)
from fairque.core.policies import UserPolicy
from fairque.core.schedules.models import ScheduledTask
from fairque.core.states import TaskState
from fairque.queue.operations.schedules import Change, Reconciled
from tests.support.facades import Clock

DAY = timedelta(days=1)


def nightly(name: str = "nightly", **fields: Any) -> ScheduledTask:
    return ScheduledTask(name, **{"payload": "report", "cron": "30 2 * * *", **fields})


def now_of(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.seconds, UTC)


def names(page: Any) -> list[str]:
    return sorted(info.name for info in page.items)


# -- kept and looked at


def test_a_schedule_is_kept_as_it_was_given(timed: Any, clock: Clock) -> None:
    given = nightly(
        "a: b", timezone="Europe/Berlin", options={"user_id": "u", "priority": 5}, misfire="run_all",
        misfire_limit=3, overlap="queue", jitter_seconds=60, start=datetime(2020, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert timed.schedules.get("a: b") is None
    assert timed.schedules.add(given) is Change.ADDED
    info = timed.schedules.get("a: b")
    assert info.schedule == given
    assert (info.name, info.source, info.paused, info.problem) == ("a: b", "", False, "")
    assert (info.last_task_id, info.running) == (None, False)
    assert abs(info.decided_until - now_of(clock)) < timedelta(milliseconds=1)
    assert info.next_run == info.look_at == given.next_runs(1, now_of(clock))[0]
    assert timed.schedules.next_runs("a: b") == given.next_runs(5, now_of(clock))
    assert len(timed.schedules.next_runs("a: b", 7)) == 7
    assert timed.schedules.history("a: b") == ()
    assert timed.schedules.add(given) is Change.UNCHANGED
    assert timed.schedules.add(nightly("a: b")) is Change.CHANGED
    assert timed.schedules.get("a: b").schedule == nightly("a: b")
    assert timed.schedules.remove("a: b")
    assert not timed.schedules.remove("a: b")
    assert timed.schedules.get("a: b") is None


def test_hundreds_are_listed_in_pages(queue: Any) -> None:
    for number in range(250):
        queue.schedules.add(nightly(f"s{number:03}"))
    found: list[str] = []
    page = queue.schedules.list()
    while True:
        found += names(page)
        if page.cursor is None:
            break
        page = queue.schedules.list(page.cursor)
    assert sorted(set(found)) == [f"s{number:03}" for number in range(250)]
    with pytest.raises(InvalidTaskError, match="is no cursor"):
        queue.schedules.list("x")
    assert queue.schedules.reconcile([], "code").removed == ()
    for name in found:
        queue.schedules.remove(name)


def test_ticks_of_before_a_change_of_pattern_are_not_missed(timed: Any, clock: Clock) -> None:
    timed.schedules.add(nightly())
    before = timed.schedules.get("nightly").decided_until
    clock.advance(3 * 86_400)
    timed.schedules.add(nightly(payload="other"))
    assert timed.schedules.get("nightly").decided_until == before  # a deploy loses no tick
    timed.schedules.add(nightly(cron="0 3 * * *"))
    assert timed.schedules.get("nightly").decided_until == now_of(clock)


def test_a_pause_lets_ticks_pass_for_good(timed: Any, clock: Clock) -> None:
    timed.schedules.add(nightly())
    assert timed.schedules.pause("nightly")
    assert not timed.schedules.pause("nightly")
    info = timed.schedules.get("nightly")
    assert (info.paused, info.next_run, info.look_at, info.schedule.paused) == (True, None, None, True)
    assert len(timed.schedules.next_runs("nightly")) == 5
    clock.advance(3 * 86_400)
    assert timed.schedules.resume("nightly")
    assert not timed.schedules.resume("nightly")
    info = timed.schedules.get("nightly")
    assert info.decided_until == now_of(clock)
    assert info.next_run - now_of(clock) < DAY


def test_what_there_is_not_is_named(queue: Any) -> None:
    for act in ("pause", "resume", "trigger", "history", "next_runs"):
        with pytest.raises(ScheduleNotFoundError, match="there is no schedule 'nope'") as refused:
            getattr(queue.schedules, act)("nope")
        assert refused.value.schedule == "nope"
    with pytest.raises(ConfigError, match="must be a ScheduledTask, not 'nightly'"):
        queue.schedules.add("nightly")
    with pytest.raises(InvalidTaskError, match="schedule name must not be empty"):
        queue.schedules.get("")


def test_nobody_leads_where_no_scheduler_runs(queue: Any) -> None:
    assert queue.schedules.leader() is None


def test_a_definition_that_a_newer_version_wrote_does_no_harm(queue: Any, flushed: redis.Redis) -> None:
    for name in ("good", "newer"):
        queue.schedules.add(nightly(name))
    packed: Any = flushed.hget("fq:schedules", "newer")
    flushed.hset("fq:schedules", "newer", packed.replace(b"payload", b"paylaod"))
    assert names(queue.schedules.list()) == ["good", "newer"]
    info = queue.schedules.get("newer")
    with pytest.raises(ConfigError, match="'paylaod' is not known: did you mean 'payload'"):
        _ = info.schedule
    assert queue.schedules.add(nightly("newer")) is Change.CHANGED
    assert queue.schedules.get("newer").schedule == nightly("newer")


# -- declared


def test_a_deploy_adds_changes_and_removes_what_its_source_declared(queue: Any) -> None:
    queue.schedules.add(nightly("by hand"))
    queue.schedules.reconcile([nightly("other")], "other")
    assert queue.schedules.reconcile([nightly("a"), nightly("b"), nightly("c")]) == Reconciled(
        added=("a", "b", "c")
    )
    assert queue.schedules.get("a").source == "code"
    done = queue.schedules.reconcile([nightly("a"), nightly("b", payload=2), nightly("d")])
    assert done == Reconciled(added=("d",), changed=("b",), unchanged=("a",), removed=("c",))
    assert names(queue.schedules.list()) == ["a", "b", "by hand", "d", "other"]
    assert queue.schedules.reconcile([]).removed != ()
    assert names(queue.schedules.list()) == ["by hand", "other"]


def test_a_deploy_leaves_a_pause_and_a_cursor(timed: Any, clock: Clock) -> None:
    declared = [nightly("a"), nightly("b")]
    timed.schedules.reconcile(declared)
    cursor = timed.schedules.get("a").decided_until
    timed.schedules.pause("b")
    clock.advance(86_400)
    assert timed.schedules.reconcile(declared).unchanged == ("a", "b")
    timed.schedules.reconcile([nightly("a", payload=2), nightly("b", payload=2)])
    assert timed.schedules.get("a").decided_until == cursor
    assert timed.schedules.get("b").paused
    assert timed.schedules.get("b").schedule.payload == 2


def test_a_name_that_is_declared_is_taken_over(queue: Any) -> None:
    queue.schedules.add(nightly("a"))
    queue.schedules.reconcile([nightly("b")], "one")
    done = queue.schedules.reconcile([nightly("a"), nightly("b")], "two")
    assert (done.changed, done.taken_over) == (("a", "b"), ("b",))
    queue.schedules.reconcile([], "one")
    assert names(queue.schedules.list()) == ["a", "b"]
    queue.schedules.add(nightly("a"))  # by hand again, and so nobody's
    queue.schedules.reconcile([], "two")
    assert names(queue.schedules.list()) == ["a"]


def test_a_declaration_that_contradicts_itself_is_refused(queue: Any) -> None:
    with pytest.raises(ConfigError, match="schedule 'a' is declared twice by code"):
        queue.schedules.reconcile([nightly("a"), nightly("a", payload=2)])
    with pytest.raises(ConfigError, match="must be a ScheduledTask"):
        queue.schedules.reconcile(["a"])
    for source in ("", "*", None):
        with pytest.raises(ConfigError, match="the source of declared schedules must be a name"):
            queue.schedules.reconcile([], source)
    assert names(queue.schedules.list()) == []


# -- by hand


def test_a_run_by_hand_is_a_task_like_any_other(queue: Any, other: Any) -> None:
    queue.schedules.add(nightly(options={"user_id": "alice", "labels": {"x": "y"}}, paused=True))
    handle = other.schedules.trigger("nightly")
    assert handle.task_id.startswith("nightly@")
    assert handle.task_id.endswith("Z-now")
    task = queue.pop()
    assert (task.task_id, task.user_id, task.payload) == (handle.task_id, "alice", "report")
    assert task.labels.keys() == {"x", "schedule", "tick"}
    info = queue.schedules.get("nightly")
    assert (info.last_task_id, info.running) == (handle.task_id, True)
    queue.finish(task, "done")
    assert handle.result(5) == "done"
    assert not queue.schedules.get("nightly").running
    [entry] = queue.schedules.history("nightly")
    assert (entry.outcome, entry.count, entry.task_id) == ("asked", 1, handle.task_id)
    assert entry.first == entry.last <= entry.at


@pytest.mark.leaves_keys("schedules:waiting:*")  # a scheduler takes it out with its next look
def test_a_run_by_hand_waits_for_the_one_before_with_queue(queue: Any) -> None:
    queue.schedules.add(nightly(overlap="queue"))
    first, second = queue.schedules.trigger("nightly"), queue.schedules.trigger("nightly")
    assert (first.state(), second.state()) == (TaskState.QUEUED, TaskState.DEFERRED)
    assert second.cancel()
    third = queue.schedules.trigger("nightly")
    assert third.state() is TaskState.DEFERRED  # the one before it is over, but the first is not


def test_a_run_by_hand_is_refused_as_any_push(queue: Any) -> None:
    queue.set_user_policy("u", UserPolicy(max_queued=1))
    queue.schedules.add(nightly(options={"user_id": "u"}))
    queue.schedules.trigger("nightly")
    with pytest.raises(QuotaExceededError, match="user u has 1 tasks waiting"):
        queue.schedules.trigger("nightly")
    queue.schedules.add(nightly(options={"limiter": "none"}))
    with pytest.raises(UnknownLimiterError, match="'none'"):
        queue.schedules.trigger("nightly")
    assert len(queue.schedules.history("nightly")) == 1
