"""Tasks that wait for others: when they run, when they never do, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
import redis

from fairque.core.exceptions import (
    CycleError,
    InvalidTaskError,
    TaskCanceledError,
    TaskFailedError,
    UnknownDependencyError,
)
from fairque.core.models import Task
from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.references import OutputRef
from fairque.core.retry import Discard
from fairque.core.states import TaskState
from fairque.core.triggers import decide
from tests.support.facades import Clock

QUEUED, STARTED, DEFERRED, SCHEDULED, FINISHED, FAILED, CANCELED = TaskState


def make(task_id: str, *others: str, **options: Any) -> Task[Any]:
    return Task.create(task_id=task_id, payload=task_id, depends_on=others, max_retries=0, **options)


def state(queue: Any, task_id: str) -> TaskState | None:
    task = queue.get_task(task_id)
    return task.state if task else None


def end(queue: Any, how: str) -> str:
    """The next task ends: it succeeds, fails or is canceled."""
    task = queue.pop()
    if how == "succeeded":
        queue.finish(task, task.task_id)
    else:
        queue.fail(task, ValueError("no") if how == "failed" else Discard("no"))
    return cast(str, task.task_id)


def drain(queue: Any) -> list[str]:
    order: list[str] = []
    while tasks := queue.pop(10):
        for task in tasks:
            order.append(task.task_id)
            queue.finish(task, None)
    return order


# -- waiting


def test_a_task_waits_for_another_and_then_runs(queue: Any) -> None:
    queue.push(make("a"))
    queue.push(make("b", "a"))
    assert state(queue, "b") is DEFERRED
    assert queue.get_task("b").depends_on == ("a",)
    assert end(queue, "succeeded") == "a"
    assert state(queue, "b") is QUEUED
    assert end(queue, "succeeded") == "b"
    assert queue.pop() is None


def test_what_has_ended_is_waited_for_no_more(queue: Any) -> None:
    queue.push(make("a"))
    end(queue, "succeeded")
    queue.push(make("b", "a"))
    assert state(queue, "b") is QUEUED
    queue.push(make("bad"))
    queue.push(make("worse", "bad"))
    end(queue, "succeeded")
    end(queue, "failed")
    assert state(queue, "worse") is FAILED
    queue.push(make("late", "bad"))
    assert state(queue, "late") is FAILED
    with pytest.raises(TaskFailedError, match="waits for task bad, which failed"):
        queue.get_handle("late").result(5)
    queue.push(make("later", "late"))
    assert state(queue, "later") is FAILED


def test_a_chain_and_a_diamond_run_in_order(queue: Any) -> None:
    outcomes = queue.push_batch(
        [make("a"), make("b", "a"), make("c", "a"), make("d", "b", "c"), make("e", "d"), make("f")]
    )
    assert all(outcome.ok for outcome in outcomes)
    order = drain(queue)
    assert sorted(order) == list("abcdef")
    assert order.index("a") < min(order.index("b"), order.index("c"))
    assert max(order.index("b"), order.index("c")) < order.index("d") < order.index("e")


def test_a_retry_is_no_end(queue: Any) -> None:
    queue.push(Task.create(task_id="a", payload=1, max_retries=1))
    queue.push(make("b", "a"))
    queue.fail(queue.pop(), ValueError("once"))
    assert state(queue, "b") is DEFERRED


def test_a_delay_begins_when_nothing_is_waited_for_any_more(timed: Any, clock: Clock) -> None:
    timed.push(make("a"))
    timed.push(make("b", "a", delay=10))
    clock.advance(60)
    end(timed, "succeeded")
    assert state(timed, "b") is SCHEDULED
    clock.advance(9)
    assert timed.pop() is None
    clock.advance(2)
    assert timed.pop().task_id == "b"


def test_those_of_different_tenants_wait_for_each_other(queue: Any) -> None:
    queue.push(make("a", user_id="alice"))
    queue.push(make("b", "a", user_id="bob"))
    assert queue.get_queue_sizes("bob").delayed == 1
    assert drain(queue) == ["a", "b"]
    assert queue.get_queue_sizes("bob").delayed == 0


# -- trigger rules


@pytest.mark.parametrize("rule", TRIGGER_RULES)
def test_the_rules_are_those_of_the_table(queue: Any, rule: TriggerRule) -> None:
    for first, second in itertools.product(("succeeded", "failed", "canceled"), repeat=2):
        ids = [f"{first}-{second}-{name}" for name in "abc"]
        queue.push(make(ids[0]))
        queue.push(make(ids[1]))
        queue.push(make(ids[2], *ids[:2], trigger_rule=rule))
        counts = dict.fromkeys(("succeeded", "failed", "canceled"), 0)
        pending = 2
        for how in (first, second):
            end(queue, how)
            counts[how] += 1
            pending -= 1
            decision = decide(rule, **counts, pending=pending)
            if decision.action == "run":
                assert state(queue, ids[2]) is QUEUED, (rule, first, second)
            elif decision.action == "wait":
                assert state(queue, ids[2]) is DEFERRED, (rule, first, second)
            else:
                assert state(queue, ids[2]) is decision.state, (rule, first, second)
                assert (
                    queue.get_task(ids[2]).reason == decision.reason
                    or "rule" in queue.get_task(ids[2]).reason
                )
            if decision.action != "wait":
                break
        drain(queue)


def test_a_failure_reaches_any_depth(queue: Any) -> None:
    queue.push_batch([make("0"), *(make(str(n), str(n - 1)) for n in range(1, 700))])
    queue.push(make("after", "699", trigger_rule="all_done"))
    end(queue, "failed")
    queue.cleanup_expired_tasks()
    assert {state(queue, str(n)) for n in range(700)} == {FAILED}
    assert queue.get_task("699").reason == "a dependency failed"
    assert drain(queue) == ["after"]


def test_a_cancellation_reaches_those_behind(queue: Any) -> None:
    queue.push_batch([make("a"), make("b", "a"), make("c", "b"), make("d", "c", trigger_rule="all_done")])
    assert queue.cancel("a")
    assert state(queue, "c") is CANCELED
    with pytest.raises(TaskCanceledError, match="dependency"):
        queue.get_handle("c").result(5)
    assert drain(queue) == ["d"]


def test_one_that_waits_can_be_canceled_and_tells_those_behind_it(queue: Any) -> None:
    queue.push_batch([make("a"), make("b", "a"), make("c", "b")])
    queue.cancel("b")
    assert state(queue, "c") is CANCELED
    assert drain(queue) == ["a"]


# -- what is not there


def test_an_unknown_dependency_is_refused(queue: Any, flushed: redis.Redis) -> None:
    queue.get_stats()
    before = set(cast(Any, flushed).keys())
    with pytest.raises(UnknownDependencyError, match="nowhere") as refused:
        queue.push(make("a", "nowhere"))
    assert refused.value.dependency == "nowhere"
    assert set(cast(Any, flushed).keys()) == before
    good, bad, behind = queue.push_batch([make("x"), make("y", "x", "no"), make("z", "y")])
    assert good.ok
    assert isinstance(bad.error, UnknownDependencyError)
    assert isinstance(behind.error, UnknownDependencyError)


def test_one_that_comes_in_time_is_waited_for(timed: Any, clock: Clock) -> None:
    timed.push(make("b", "a", await_missing_seconds=60))
    assert state(timed, "b") is DEFERRED
    clock.advance(50)
    timed.push(make("a"))
    clock.advance(50)
    timed.cleanup_expired_tasks()
    assert state(timed, "b") is DEFERRED
    assert drain(timed) == ["a", "b"]


def test_one_that_does_not_come_in_time_is_a_failure(timed: Any, clock: Clock) -> None:
    timed.push(make("b", "a", await_missing_seconds=60, trigger_rule="all_done"))
    timed.push(make("c", "b", trigger_rule="all_done"))
    clock.advance(59)
    timed.cleanup_expired_tasks()
    assert state(timed, "b") is DEFERRED
    clock.advance(2)
    timed.pop()
    timed.cleanup_expired_tasks()
    assert state(timed, "b") is FAILED
    with pytest.raises(TaskFailedError, match="waits for task a, which did not appear"):
        timed.get_handle("b").result(5)
    assert state(timed, "c") is QUEUED or state(timed, "c") is STARTED


def test_a_deleted_dependency_is_a_failure(queue: Any) -> None:
    queue.push_batch([make("a"), make("b", "a", trigger_rule="all_done"), make("c", "b")])
    queue.delete_task("a")
    with pytest.raises(TaskFailedError, match="dependency a is gone"):
        queue.get_handle("b").result(5)
    assert state(queue, "c") is FAILED


def test_a_lost_dependency_is_noticed(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    timed.push_batch([make("a"), make("b", "a")])
    flushed.delete("fq:task:a")
    flushed.zrem("fq:state:queued", "a")
    clock.advance(10)
    timed.cleanup_expired_tasks()
    assert state(timed, "b") is FAILED
    assert timed.pop() is None


# -- cycles


def test_a_cycle_is_refused_and_named(queue: Any) -> None:
    queue.push(make("a", "c", await_missing_seconds=60))
    queue.push(make("b", "a"))
    with pytest.raises(CycleError, match="c -> a -> b -> c") as refused:
        queue.push(make("c", "b"))
    assert refused.value.cycle == ("c", "a", "b")
    with pytest.raises(CycleError):
        queue.push(make("self", "self", await_missing_seconds=5))
    queue.push(make("c"))
    assert drain(queue) == ["c", "a", "b"]


# -- again


def test_a_requeued_task_waits_again_for_those_that_run_again(queue: Any) -> None:
    queue.push_batch([make("a"), make("b", "a"), make("c", "b")])
    end(queue, "failed")
    assert [state(queue, name) for name in "abc"] == [FAILED] * 3
    assert queue.dlq.requeue(["a", "b", "c"]) == 3
    assert [state(queue, name) for name in "abc"] == [QUEUED, DEFERRED, DEFERRED]
    assert drain(queue) == ["a", "b", "c"]


def test_a_requeued_task_runs_whatever_became_of_those_that_it_waited_for(queue: Any) -> None:
    queue.push_batch([make("a"), make("b", "a")])
    end(queue, "failed")
    queue.dlq.requeue(["b"])
    assert drain(queue) == ["b"]


# -- many


def test_two_thousand_wait_for_one_and_one_for_two_thousand(queue: Any) -> None:
    ids = [str(n) for n in range(2000)]
    queue.push(make("first"))
    assert all(outcome.ok for outcome in queue.push_batch([make(name, "first") for name in ids]))
    queue.push(make("last", *ids))
    end(queue, "succeeded")
    order: list[str] = []
    while tasks := queue.pop(100):
        for task in tasks:
            order.append(task.task_id)
            queue.finish(task, None)
    assert sorted(order[:-1]) == sorted(ids)
    assert order[-1] == "last"


def test_a_task_that_nobody_waits_for_costs_nothing(queue: Any, flushed: redis.Redis) -> None:
    queue.push(make("a"))
    end(queue, "succeeded")
    assert not [key for key in cast(Any, flushed).scan_iter() if b":deps:" in key]


def test_another_time_for_one_that_waits_counts_when_nothing_is_waited_for_any_more(
    timed: Any, clock: Clock
) -> None:
    timed.push(make("a"))
    timed.push(make("b", "a"))
    assert timed.update_task("b", delay=10) is DEFERRED
    clock.advance(60)
    end(timed, "succeeded")
    assert state(timed, "b") is SCHEDULED
    clock.advance(11)
    assert timed.pop().task_id == "b"


def test_what_is_debounced_waits_for_nobody(queue: Any) -> None:
    queue.push(make("a"))
    options: dict[str, Any] = {"dedup_key": "k", "dedup_window": 5, "on_duplicate": "debounce"}
    task = Task.create(task_id="b", payload=OutputRef("a"), **options)
    with pytest.raises(InvalidTaskError, match="debounce"):
        queue.push(task)
    assert queue.get_task("b") is None
