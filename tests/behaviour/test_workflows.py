"""Whole workflows: stored at once or not at all, looked at, canceled, run again."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis

from fairque.core.exceptions import (
    CycleError,
    DuplicateTaskError,
    InvalidTaskError,
    QuotaExceededError,
    ResultTimeoutError,
    TaskCanceledError,
    TaskFailedError,
    TaskNotFoundError,
    UnknownDependencyError,
)
from fairque.core.models import Task
from fairque.core.pipeline import Group
from fairque.core.policies import UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations import enqueue
from fairque.queue.operations.base import Engine
from tests.support.flow_tasks import Total, add, double, numbers, ok

QUEUED, STARTED, DEFERRED, SCHEDULED, FINISHED, FAILED, CANCELED = TaskState


def made(task_id: str, **options: Any) -> Task[Any]:
    return Task.create(task_id=task_id, payload=task_id, max_retries=0, **options)


def drain(queue: Any, failing: tuple[str, ...] = ()) -> list[str]:
    order: list[str] = []
    while tasks := queue.pop(50):
        for task in tasks:
            order.append(task.task_id)
            if task.task_id in failing:
                queue.fail(task, ValueError("no"))
            else:
                queue.finish(task, task.task_id)
    return order


def states(handle: Any) -> dict[str, TaskState | None]:
    return {node.task_id: node.task and node.task.state for node in handle.tree()}


def test_a_pipeline_is_stored_whole_and_runs_in_order(queue: Any) -> None:
    a, b, c, d = (made(name) for name in "abcd")
    handle = queue.enqueue((a >> (b | c) >> d).with_options(name="nightly", workflow_id="w"))
    assert handle.workflow_id == "w"
    info = handle.info()
    assert (info.name, info.state, info.total, info.progress) == ("nightly", "running", 4, 0.0)
    assert states(handle) == {"a": QUEUED, "b": DEFERRED, "c": DEFERRED, "d": DEFERRED}
    assert handle.tree()[0].depends_on == ()
    assert set(handle.tree()[3].depends_on) == {"b", "c"}
    with pytest.raises(ResultTimeoutError):
        handle.result(0.05)
    order = drain(queue)
    assert order[0] == "a"
    assert order[3] == "d"
    assert handle.state() == "finished"
    assert handle.result(5) == "d"
    assert queue.get_workflow("w").result(5) == "d"
    assert [found.workflow_id for found in queue.list_workflows()] == ["w"]


def test_a_list_gives_the_list_of_its_results(queue: Any) -> None:
    handle = queue.enqueue([made("a"), made("b")])
    drain(queue)
    assert handle.result(5) == ["a", "b"]


def test_a_single_task_is_pushed(queue: Any) -> None:
    handle = queue.enqueue(made("a"))
    assert handle.task_id == "a"
    drain(queue)
    assert handle.result(5) == "a"


def test_nothing_is_stored_of_what_is_refused(queue: Any, flushed: redis.Redis) -> None:
    queue.push(made("taken"))
    queue.set_user_policy("small", UserPolicy(max_queued=2))
    before = {
        key: cast(Any, flushed).dump(key) for key in cast(Any, flushed).scan_iter() if b"clock" not in key
    }
    for error, work in (
        (DuplicateTaskError, made("a") >> made("taken")),
        (UnknownDependencyError, made("a") >> made("b", depends_on="nowhere")),
        (QuotaExceededError, made("a", user_id="small") >> [made(n, user_id="small") for n in "bc"]),
        (CycleError, made("a", depends_on="b") >> made("b")),
        (InvalidTaskError, made("a") >> made("b", on_duplicate="return")),
        (InvalidTaskError, []),
    ):
        with pytest.raises(error):
            queue.enqueue(work)
        after = {
            key: cast(Any, flushed).dump(key) for key in cast(Any, flushed).scan_iter() if b"clock" not in key
        }
        assert after == before, error
    queue.enqueue((made("a") >> made("b")).with_options(workflow_id="w"))
    with pytest.raises(DuplicateTaskError, match="workflow w"):
        queue.enqueue((made("c") >> made("d")).with_options(workflow_id="w"))
    queue.set_user_policy("small", None)
    drain(queue)


def test_an_output_of_what_was_not_enqueued_names_the_missing_part(queue: Any) -> None:
    found = numbers(3)
    each = double.map(found.output)
    with pytest.raises(
        UnknownDependencyError, match=rf"double .* each item of the output of task {found.task_id}.*first >>"
    ) as refused:
        queue.enqueue(each.reduce(add))
    assert refused.value.dependency == found.task_id
    with pytest.raises(
        UnknownDependencyError, match=rf"double .* is given the output of task {found.task_id}"
    ):
        queue.push(double(found.output[0]))
    # One that was pushed by itself need not be part of it.
    queue.push(found)
    handle = queue.enqueue(each.reduce(add))
    assert handle.info().total == 2
    queue.cancel(found)
    assert handle.info().canceled == 2
    queue.cleanup_expired_tasks()


def test_a_failed_workflow_says_why(queue: Any) -> None:
    handle = queue.enqueue(made("a") >> made("b") >> made("c"))
    drain(queue, failing=("a",))
    assert handle.state() == "failed"
    assert states(handle) == dict.fromkeys("abc", FAILED)
    with pytest.raises(TaskFailedError, match=r"task a failed.*ValueError: no"):
        handle.result(5)


def test_a_workflow_can_be_run_again_from_where_it_failed(queue: Any) -> None:
    a, b, c, d, e = (made(name) for name in "abcde")
    handle = queue.enqueue(a >> (b >> c | d >> e))
    drain(queue, failing=("b", "d"))
    assert states(handle) == {"a": FINISHED, "b": FAILED, "c": FAILED, "d": FAILED, "e": FAILED}
    assert handle.retry(from_=b) == 2
    assert handle.state() == "running"
    assert states(handle) == {"a": FINISHED, "b": QUEUED, "c": DEFERRED, "d": FAILED, "e": FAILED}
    assert drain(queue) == ["b", "c"]
    assert handle.state() == "failed"
    assert handle.retry() == 2
    assert drain(queue) == ["d", "e"]
    assert handle.state() == "finished"
    assert handle.result(5) == ["c", "e"]
    with pytest.raises(TaskNotFoundError):
        handle.retry(from_="x")


def test_a_workflow_can_be_canceled(queue: Any) -> None:
    handle = queue.enqueue(made("a") >> made("b") >> made("c", trigger_rule="all_done"))
    running = queue.pop()
    assert handle.cancel()
    assert states(handle) == {"a": STARTED, "b": CANCELED, "c": CANCELED}
    queue.finish(running, 1)
    assert handle.state() == "canceled"
    assert not handle.cancel()
    with pytest.raises(TaskCanceledError):
        handle.result(5)
    assert handle.retry() == 3
    assert drain(queue) == ["a", "b", "c"]
    assert handle.state() == "finished"


def test_one_waits_for_a_task_outside(queue: Any) -> None:
    queue.push(made("first"))
    handle = queue.enqueue(made("a", depends_on="first") >> made("b"))
    assert states(handle) == {"a": DEFERRED, "b": DEFERRED}
    assert drain(queue) == ["first", "a", "b"]
    assert handle.result(5) == "b"


def test_there_is_no_such_workflow(queue: Any) -> None:
    handle = queue.get_workflow("x")
    for ask in (handle.info, handle.tree, handle.result, handle.cancel, handle.retry):
        with pytest.raises(TaskNotFoundError, match="no workflow x"):
            ask()


def test_results_stay_until_the_workflow_has_ended(queue: Any, flushed: redis.Redis) -> None:
    handle = queue.enqueue(made("a", result_ttl=1) >> made("b"))
    queue.finish(queue.pop(), 1)
    assert flushed.ttl("fq:task:a") == flushed.ttl("fq:result:a") == -1
    drain(queue)
    queue.cleanup_expired_tasks()
    for name in ("task:a", "result:a", "deps:blocked:a", "task:b", f"workflow:{handle.workflow_id}"):
        assert cast(Any, flushed).ttl(f"fq:{name}") >= 3600, name


# -- large ones


def test_what_is_still_to_come_of_a_large_workflow_is_not_taken_to_be_gone(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue(result_ttl_seconds=0)
    sweeps: list[int] = []

    def sweep(engine: Engine) -> Any:
        """Who looks after what time brings does so while the workflow comes in."""
        while len(sweeps) < 100:
            yield engine.call("sweep", "", 0, 0, "due", "0")
            sweeps.append(1)
            if not (yield engine.call("go_on")):
                return

    monkeypatch.setattr(enqueue, "go_on", sweep)
    parts = [made(f"part-{number}") for number in range(1500)]
    handle = queue.enqueue(Group(tuple(parts)) >> made("last"))
    assert len(sweeps) > 1
    assert handle.info().state == "running"
    assert drain(queue)[-1] == "last"
    assert handle.state() == "finished"
    monkeypatch.undo()
    for _ in range(5):
        queue.cleanup_expired_tasks()


def test_a_large_workflow_is_unseen_until_it_is_whole(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue, "MAX_NODES", 50)
    seen: list[int] = []
    original = enqueue._stage

    def stage(*args: Any) -> Any:
        yield from original(*args)
        seen.append(1)

    monkeypatch.setattr(enqueue, "_stage", stage)
    names = [str(n) for n in range(500)]
    handle = queue.enqueue(made("first") >> [made(name) for name in names] >> made("last"))
    assert seen
    assert handle.info().total == 502
    order = drain(queue)
    assert (order[0], order[-1], len(order)) == ("first", "last", 502)
    assert handle.result(5) == "last"
    with pytest.raises(DuplicateTaskError):
        queue.enqueue(made("x") >> [made(f"y{name}") for name in names] >> made("first"))
    queue.cleanup_expired_tasks()


def test_what_was_left_on_the_stage_is_never_seen(
    queue: Any, flushed: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "MAX_NODES", 20)
    original = enqueue._stage

    def left(*arguments: Any) -> Any:
        flow = original(*arguments)
        yield next(flow)
        raise RuntimeError("the client dies")

    with monkeypatch.context() as patched:
        patched.setattr(enqueue, "_stage", left)
        with pytest.raises(RuntimeError, match="dies"):
            queue.enqueue([made(str(n)) for n in range(100)])
    assert not cast(Any, flushed).keys("fq:task:*")
    assert queue.get_stats().states.get("queued", 0) == 0
    [stage] = cast(Any, flushed).keys("fq:workflow:*")
    assert 0 < cast(Any, flushed).ttl(stage) <= enqueue.STAGE_SECONDS
    # It keeps nobody from enqueueing the same tasks.
    assert queue.enqueue([made(str(n)) for n in range(100)]).info().total == 100
    assert len(drain(queue)) == 100


def test_results_have_their_types(queue: Any) -> None:
    handle = queue.enqueue(ok(1) >> add([1, 2]))
    queue.finish(queue.pop(), 1)
    queue.finish(queue.pop(), Total(3, [1, 2]))
    assert handle.result(5) == Total(3, [1, 2])


# -- waiting for many


def test_many_are_waited_for_as_they_end(queue: Any) -> None:
    handles = [queue.push(made(name)) for name in "abc"]
    for name in "abc":
        task = queue.pop()
        assert task.task_id == name
    claimed = {task.task_id: task for task in [queue.get_task(name) for name in "abc"]}
    queue.finish(claimed["b"], "b")
    ended = iter(queue.as_completed(handles, timeout=10))
    assert next(ended).task_id == "b"
    queue.finish(claimed["c"], "c")
    assert next(ended).task_id == "c"
    queue.finish(claimed["a"], "a")
    assert next(ended).task_id == "a"
    assert list(ended) == []
    plain = [getattr(handle, "target", handle) for handle in handles]  # on the loop, nothing may block
    assert queue.gather(plain, timeout=5) == ["a", "b", "c"]


def test_waiting_for_many_has_an_end(queue: Any) -> None:
    handles = [queue.push(made(name)) for name in "ab"]
    with pytest.raises(ResultTimeoutError, match="2 tasks"):
        list(queue.as_completed(handles, timeout=0.05))
