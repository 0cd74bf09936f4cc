"""Many tasks at once, by a filter: cancel, retry, remove."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from fairque.core.exceptions import InvalidFilterError, UserBusyError
from fairque.core.filters import TaskFilter
from fairque.core.models import Priority, Task
from fairque.core.states import TaskState
from fairque.queue.operations import bulk
from fairque.queue.operations.bulk import BulkOutcome
from tests.support.facades import Clock
from tests.support.queues import MakeQueue


def push(queue: Any, count: int = 1, **options: Any) -> list[str]:
    outcomes = queue.push_batch(
        Task.create(payload=number, max_retries=0, **options) for number in range(count)
    )
    return [outcome.handle.task_id for outcome in outcomes]


def states(queue: Any) -> dict[str, int]:
    return {state: count for state, count in queue.get_stats().states.items() if count}


def fail_all(queue: Any, error: Exception | None = None) -> None:
    while tasks := queue.pop(count=500):
        for task in tasks:
            queue.fail(task, error or ValueError("no"))


CONDITIONS: dict[str, TaskFilter] = {
    "user": TaskFilter(user="b:{}"),
    "pattern of users": TaskFilter(user="b:*"),
    "priority": TaskFilter(priority=Priority.HIGH),
    "label": TaskFilter(labels={"env": "pr?d"}),
    "older": TaskFilter(older_than=50),
    "all of it": TaskFilter(
        user="b*", priority=[4, 5], labels={"env": "prod"}, older_than=50, state="queued"
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_fits_is_canceled_and_nothing_else(timed: Any, clock: Clock, name: str) -> None:
    wanted = push(timed, 7, user_id="b:{}", priority=Priority.HIGH, labels={"env": "prod"})
    clock.advance(60)
    others = push(timed, 5, user_id="a", labels={"env": "dev"})
    where = CONDITIONS[name]
    assert timed.cancel_where(where, dry_run=True) == BulkOutcome(matched=7, dry_run=True)
    assert states(timed) == {"queued": 12}
    assert timed.cancel_where(where) == BulkOutcome(matched=7, done=7)
    assert all(timed.get_task(task_id).state == "canceled" for task_id in wanted)
    assert all(timed.get_task(task_id).state == "queued" for task_id in others)
    assert timed.cancel_where(where) == BulkOutcome()


def test_by_function(timed: Any) -> None:
    task = Task(function="tests.support.queue_tasks:x.y")
    timed.push(task)
    push(timed, 2)
    assert timed.count_where(TaskFilter(function="tests.support.*")) == 1
    assert timed.count_where(TaskFilter(function="tests.support.queue_tasks:x?y")) == 1
    assert timed.count_where(TaskFilter(function="tests.support.queue_tasks:x-y")) == 0
    assert timed.count_where(TaskFilter(user="default")) == 3


def test_every_state_that_a_cancel_leads_out_of(timed: Any) -> None:
    push(timed, 2)
    push(timed, 3, delay=60)
    held = timed.pop()
    assert timed.cancel_where(TaskFilter(user="*")) == BulkOutcome(matched=5, done=4, asked=1)
    timed.finish(held, 1)
    assert states(timed) == {"canceled": 5}


def test_thousands_due_at_the_same_moment_go_in_chunks_and_nobody_is_passed_over(
    timed: Any, clock: Clock
) -> None:
    """Those that go are between those that stay, so that every page ends in the midst of equal times."""
    from tests.support.queues import at

    when = at(clock, 3600)
    for number in range(5):
        push(timed, 500, execute_after=when, user_id=f"u{number % 2}")
    assert timed.cancel_where(TaskFilter(user="u0")) == BulkOutcome(matched=1500, done=1500)
    assert timed.cancel_where(TaskFilter(user="u*", labels={"x": "y"})) == BulkOutcome()
    assert states(timed) == {"scheduled": 1000, "canceled": 1500}


def test_what_has_moved_since_it_was_seen_is_left_alone(timed: Any, clock: Clock) -> None:
    ids = push(timed, 4)
    found = timed.run(bulk.find_page(timed.engine, TaskFilter(user="*"), TaskState.QUEUED))
    assert [one.task_id for one in found.seen] == ids
    claimed = timed.pop()
    timed.cancel(ids[1])
    timed.delete_task(ids[2])
    clock.advance(1)
    outcome = timed.run(bulk.act(timed.engine, "cancel", found.seen))
    assert outcome == BulkOutcome(done=1, changed=2, gone=1)
    assert timed.get_task(claimed.task_id).cancel_requested is False
    timed.release(claimed)
    clock.advance(1)
    # It is queued again, but not since then.
    assert timed.run(bulk.act(timed.engine, "delete", found.seen[:1])) == BulkOutcome(changed=1)


def test_a_bulk_retry_takes_failed_ones_unless_it_is_told_canceled(timed: Any) -> None:
    push(timed, 3, user_id="a")
    fail_all(timed, TimeoutError("the bank did not answer"))
    push(timed, 2, user_id="b")
    fail_all(timed)
    push(timed, 2, user_id="c")
    timed.cancel_where(TaskFilter(user="c"))
    assert timed.retry_where(TaskFilter(error="BANK DID")) == BulkOutcome(matched=3, done=3)
    assert timed.retry_where(TaskFilter(error="timeouterror")) == BulkOutcome()
    assert timed.retry_where(TaskFilter(user="?"), limit=1) == BulkOutcome(matched=1, done=1)
    assert timed.retry_where(TaskFilter(user="?", state="canceled")) == BulkOutcome(matched=2, done=2)
    assert states(timed) == {"queued": 6, "failed": 1}


def test_a_limit_takes_the_oldest(timed: Any, clock: Clock) -> None:
    ids = []
    for _ in range(6):
        ids += push(timed)
        clock.advance(1)
    assert timed.cancel_where(TaskFilter(user="*"), limit=4) == BulkOutcome(matched=4, done=4)
    assert [timed.get_task(task_id).state.value for task_id in ids] == ["canceled"] * 4 + ["queued"] * 2


def test_removing_is_for_what_has_ended_unless_it_is_told_others(timed: Any) -> None:
    push(timed, 2)
    timed.finish(timed.pop(), 1)
    assert timed.delete_where(TaskFilter(user="default")) == BulkOutcome(matched=1, done=1)
    assert timed.delete_where(TaskFilter(state="queued")) == BulkOutcome(matched=1, done=1)
    assert states(timed) == {}


def test_a_filter_without_a_condition_or_of_other_states_is_refused(timed: Any) -> None:
    push(timed)
    for method in (timed.cancel_where, timed.retry_where, timed.delete_where):
        with pytest.raises(InvalidFilterError, match=r"say so with user='\*'"):
            method(TaskFilter())
        with pytest.raises(InvalidFilterError, match="limit must be at least 1"):
            method(TaskFilter(user="*"), limit=0)
    with pytest.raises(InvalidFilterError, match="a cancel is for tasks that are"):
        timed.cancel_where(TaskFilter(state="failed"))
    with pytest.raises(InvalidFilterError, match="a retry is for tasks that are failed or canceled"):
        timed.retry_where(TaskFilter(state="queued"))
    with pytest.raises(InvalidFilterError, match="not for started ones"):
        timed.delete_where(TaskFilter(state="started"))
    assert states(timed) == {"queued": 1}


def test_a_user_is_deleted_with_everything(timed: Any, flushed: redis.Redis) -> None:
    from fairque.core.policies import UserPolicy

    push(timed, 3, user_id="other")
    push(timed, 4, user_id="gone", priority=Priority.CRITICAL, dedup_key=None)
    timed.finish(timed.pop(users=["gone"]), 1)
    timed.fail(timed.pop(users=["gone"]), ValueError())
    timed.set_user_policy("gone", UserPolicy(weight=2, max_concurrency=5))
    with pytest.raises(UserBusyError, match="2 queued, 0 delayed, 0 running") as refused:
        timed.delete_user("gone")
    assert (refused.value.user_id, refused.value.queued) == ("gone", 2)
    held = timed.pop(users=["gone"])
    half = timed.delete_user("gone", force=True)
    assert (half.done, half.tasks, half.running) == (False, 3, 1)
    assert timed.get_task(held.task_id).cancel_requested
    timed.finish(held, 2)
    done = timed.delete_user("gone")
    assert (done.done, done.tasks, done.running) == (True, 1, 0)
    assert [key for key in flushed.keys("*") if b"gone" in key] == []
    assert timed.get_user_policy("gone") is None
    assert [stats.user_id for stats in timed.list_users().items] == ["other"]
    assert timed.delete_user("gone").done  # there is nothing, and that is what is wanted
    assert timed.delete_user("nobody").tasks == 0


def test_a_user_without_work_goes_at_once_with_dead_letters_and_results(
    make_queue: MakeQueue, flushed: redis.Redis
) -> None:
    queue = make_queue()
    push(queue, 2, user_id="a%b:c")
    queue.finish(queue.pop(), 1)
    queue.fail(queue.pop(), ValueError())
    done = queue.delete_user("a%b:c")
    assert (done.done, done.tasks) == (True, 2)
    assert [key for key in flushed.keys("*") if b"a%25b" in key] == []
    assert queue.dlq.count() == 0
