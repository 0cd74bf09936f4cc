"""What a task's end does to one that waits for it, in every state of that."""

from __future__ import annotations

from typing import Any

import pytest

from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.operations import push, tasks
from tests.support.bench import Bench, settlement
from tests.support.invariants import assert_consistent

QUEUED, STARTED, DEFERRED, SCHEDULED, FINISHED, FAILED, CANCELED = TaskState


def put(bench: Bench, *others: str, **options: Any) -> None:
    task = Task.create(task_id="w", payload=1, depends_on=others, **options)
    bench.run(push.push(bench.engine, task))


@pytest.mark.parametrize("delay", [None, 60])
def test_it_is_let_go_at_once_or_when_due(bench: Bench, delay: float | None) -> None:
    bench.push("a")
    put(bench, "a", delay=delay)
    assert bench.state("w") is DEFERRED
    bench.exchange(settlement(bench.claim(), "finish"))
    assert bench.state("w") is (SCHEDULED if delay else QUEUED)
    assert_consistent(bench.client)


@pytest.mark.parametrize("before", [DEFERRED, CANCELED, FAILED, None])
def test_only_one_that_still_waits_is_let_go(bench: Bench, before: TaskState | None) -> None:
    bench.push("a")
    put(bench, "a")
    claimed = bench.claim()
    if before is CANCELED:
        bench.call("cancel", "w")
    elif before is FAILED:
        bench.call("bury_task", "w", b"")
    elif before is None:
        bench.call("delete", "w")
    assert bench.state("w") is before
    bench.exchange(settlement(claimed, "finish"))
    assert bench.state("w") is (QUEUED if before is DEFERRED else before)
    assert_consistent(bench.client)
    assert not bench.client.exists(bench.keys.downstream("a"))


@pytest.mark.parametrize("ended", [FAILED, CANCELED])
def test_a_new_run_waits_for_what_runs_again(bench: Bench, ended: TaskState) -> None:
    bench.push("a")
    put(bench, "a")
    bench.exchange(settlement(bench.claim(), "give up" if ended is FAILED else "discard"))
    assert bench.state("w") is ended
    bench.run(tasks.requeue(bench.engine, ["a"]))
    assert bench.state("w") is ended
    bench.run(tasks.requeue(bench.engine, ["w"]))
    assert bench.state("w") is DEFERRED
    bench.exchange(settlement(bench.claim(), "finish"))
    assert bench.state("w") is QUEUED
    assert_consistent(bench.client)


def test_what_is_too_much_for_one_call_is_gone_on_with(bench: Bench) -> None:
    bench.push("a")
    batch = [Task.create(task_id=f"w{n}", payload=1, depends_on="a") for n in range(1200)]
    for start in range(0, 1200, 400):
        bench.run(push.push_chunk(bench.engine, batch[start : start + 400]))
    bench.exchange(settlement(bench.claim(), "finish"))
    assert bench.client.zcard(bench.keys.state(QUEUED)) == 500
    assert bench.client.llen(bench.keys.continued) == 1
    for _ in range(2):
        bench.exchange()
    assert bench.client.zcard(bench.keys.state(QUEUED)) == 1200
    bench.exchange()
    assert not bench.client.exists(bench.keys.continued, bench.keys.downstream("a"))
    assert_consistent(bench.client)


def test_the_same_push_again_is_answered_alike(bench: Bench) -> None:
    bench.push("a")
    task = Task.create(task_id="w", payload=1, depends_on="a")
    packed = push.pack(bench.engine, task)
    node = push.pack_node(task, packed, (), ("a",))
    for _ in range(2):
        assert bench.call("push_graph", "", "", "", "", node) == [1, b"w"]
    assert bench.client.zcard(bench.keys.state(DEFERRED)) == 1
