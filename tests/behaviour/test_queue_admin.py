"""The queue as a whole: pauses, policies, numbers, lists, clean-up."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    ConfigError,
    InvalidStateError,
    InvalidTaskError,
    QueueUnavailableError,
    SchemaMismatchError,
)
from fairque.core.keys import encode
from fairque.core.models import Priority, Task, UserPolicy
from fairque.core.policies import GroupPolicy
from fairque.core.states import TaskState
from fairque.queue.async_queue import AsyncDeadLetters, AsyncTaskQueue
from fairque.queue.async_schedules import AsyncSchedules
from fairque.queue.handles import AsyncTaskHandle, TaskHandle
from fairque.queue.operations.base import SCHEMA
from fairque.queue.queue import DeadLetters, TaskQueue
from fairque.queue.schedules import Schedules
from tests.support.facades import Clock, Facades
from tests.support.queues import MakeQueue, config_for
from tests.support.servers import ServerProcess

# -- pauses and policies


def test_a_paused_queue_takes_and_hands_out_nothing(queue: Any, other: Any) -> None:
    other.push(Task.create(payload=1))
    running = queue.pop()
    other.pause()
    other.pause()
    assert queue.get_stats().paused
    assert queue.get_health().paused
    other.push(Task.create(payload=2))
    assert queue.pop() is None
    assert queue.pop(users=["default"]) is None
    queue.finish(running)  # what runs goes on
    other.resume()
    assert not queue.get_stats().paused
    assert queue.pop().payload == 2


def test_a_paused_tenant_waits_alone(queue: Any) -> None:
    for user in ("a", "b"):
        queue.push_batch(Task.create(payload=user, user_id=user) for _ in range(2))
    queue.pause_user("a")
    assert [task.payload for task in queue.pop(count=9)] == ["b", "b"]
    queue.push(Task.create(payload="a", user_id="a"))
    assert queue.pop() is None
    assert queue.get_user_stats("a").paused
    assert queue.get_queue_sizes("a").normal == 3
    queue.resume_user("a")
    assert len(queue.pop(count=9)) == 3


def test_a_pause_keeps_the_rest_of_the_policy(queue: Any) -> None:
    queue.set_group_policy("g", GroupPolicy())
    policy = UserPolicy(weight=2.5, max_concurrency=3, group="g")
    queue.set_user_policy("a", policy)
    queue.pause_user("a")
    assert queue.get_user_policy("a") == UserPolicy(weight=2.5, max_concurrency=3, group="g", paused=True)
    queue.resume_user("a")
    assert queue.get_user_policy("a") == policy


def test_policies_are_kept_as_they_were_given(queue: Any, other: Any) -> None:
    assert queue.get_user_policy("a: b") is None
    queue.set_group_policy("é", GroupPolicy())
    policies = [
        UserPolicy(),
        UserPolicy(weight=0.01),
        UserPolicy(weight=100, max_concurrency=7, rate_limit=0.5, burst=3, max_queued=10, group="é"),
    ]
    for policy in policies:
        queue.set_user_policy("a: b", policy)
        assert other.get_user_policy("a: b") == policy
        assert queue.get_user_stats("a: b").weight == policy.weight
    queue.set_user_policy("a: b", None)
    assert other.get_user_policy("a: b") is None
    with pytest.raises(ConfigError, match="weight"):
        UserPolicy(weight=0)


def test_a_cap_holds_and_a_change_acts_on_the_backlog(queue: Any) -> None:
    queue.set_user_policy("a", UserPolicy(max_concurrency=2))
    queue.push_batch(Task.create(payload=number, user_id="a") for number in range(6))
    claimed = queue.pop(count=6)
    assert len(claimed) == 2
    assert queue.get_queue_sizes("a").running == 2
    queue.finish(claimed[0])
    assert len(queue.pop(count=6)) == 1
    queue.set_user_policy("a", UserPolicy(max_concurrency=3))
    assert len(queue.pop(count=6)) == 1
    queue.set_user_policy("a", None)
    assert len(queue.pop(count=6)) == 2


def test_a_weight_is_a_share(queue: Any) -> None:
    queue.set_user_policy("heavy", UserPolicy(weight=3))
    for user in ("heavy", "light"):
        queue.push_batch(Task.create(payload=user, user_id=user) for _ in range(80))
    first = [task.payload for task in queue.pop(count=40)]
    assert 29 <= first.count("heavy") <= 31


def test_policies_and_tasks_survive_a_restart(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server(append_only=True, options={"appendfsync": "always"})
    queue = facades.make(config_for(server.url))
    queue.set_user_policy("a", UserPolicy(weight=2, max_concurrency=5))
    queue.pause_user("b")
    queue.pause()
    handles = [queue.push(Task.create(payload=1, user_id=user)) for user in ("a", "b")]
    server.restart()
    assert queue.get_user_policy("a") == UserPolicy(weight=2, max_concurrency=5)
    assert queue.get_stats().paused
    queue.resume()
    task = queue.pop()
    assert (task.user_id, queue.pop()) == ("a", None)
    server.restart()
    queue.finish(task, "done")
    assert handles[0].result(5) == "done"
    assert handles[1].state() is TaskState.QUEUED


# -- numbers


def test_sizes_and_stats_count(queue: Any) -> None:
    queue.push_batch(
        Task.create(payload=number, user_id="a", priority=Priority.CRITICAL if number < 2 else 3)
        for number in range(6)
    )
    queue.push(Task.create(payload=1, delay=60))
    first, second, third, _fourth = queue.pop(count=4)
    queue.finish(first, seconds=0.0)
    queue.fail(second, ValueError())
    queue.move_to_dlq(third)
    sizes = queue.get_queue_sizes("a")
    assert (sizes.critical, sizes.normal, sizes.running) == (0, 2, 1)
    stats = queue.get_stats()
    assert stats.states == {
        TaskState.QUEUED: 2, TaskState.STARTED: 1, TaskState.DEFERRED: 0, TaskState.SCHEDULED: 2,
        TaskState.FINISHED: 1, TaskState.FAILED: 1, TaskState.CANCELED: 0,
    }  # fmt: skip
    assert stats.counters == {"pushed": 7, "claimed": 4, "finished": 1, "retried": 1, "failed": 1}
    user = queue.get_user_stats("a")
    assert (user.finished, user.failed, user.canceled, user.running, user.dead_letters) == (1, 1, 0, 1, 1)
    assert user.ready
    nobody = queue.get_user_stats("nobody")
    assert (nobody.normal, nobody.running, nobody.weight, nobody.ready) == (0, 0, 1.0, False)
    assert queue.get_queue_sizes("nobody").normal == 0


def test_health_says_what_a_person_should_look_at(queue: Any) -> None:
    health = queue.get_health()
    assert health.healthy
    assert (health.workers, health.queued, health.running, health.problems) == (0, 0, 0, ())
    assert 0 < health.latency < 5
    queue.push(Task.create(payload=1))
    assert "no worker is alive" in " ".join(queue.get_health().problems)
    queue.move_to_dlq(queue.pop())
    queue.pause()
    health = queue.get_health()
    assert health.workers == 1
    assert "1 dead letter" in " ".join(health.problems)
    assert "paused" in " ".join(health.problems)
    queue.resume()


def test_health_of_a_server_that_is_away(new_server: Callable[..., ServerProcess], facades: Facades) -> None:
    server = new_server()
    queue = facades.make(config_for(server.url))
    queue.push(Task.create(payload=1))
    assert queue.pop() is not None
    server.kill()
    health = queue.get_health()
    assert not health.healthy
    assert "QueueUnavailableError" in health.problems[0]
    with pytest.raises(QueueUnavailableError):
        queue.push(Task.create(payload=1))
    queue.close()  # says nothing: the lease brings back what it held


def test_a_newer_layout_is_refused_and_named(queue: Any, flushed: redis.Redis) -> None:
    flushed.hset("fq:meta", "schema", SCHEMA + 1)
    with pytest.raises(SchemaMismatchError, match=f"has layout {SCHEMA + 1}; this version reads {SCHEMA}"):
        queue.push(Task.create(payload=1))
    assert flushed.keys("*") == [b"fq:meta"]
    flushed.hset("fq:meta", "schema", SCHEMA)
    queue.push(Task.create(payload=1))


def test_two_prefixes_are_two_queues(make_queue: MakeQueue, queue: Any, flushed: redis.Redis) -> None:
    strange = make_queue(prefix="team-a")
    strange.push(Task.create(payload="theirs", task_id="t"))
    queue.push(Task.create(payload="ours", task_id="t"))
    assert queue.pop().payload == "ours"
    assert strange.pop().payload == "theirs"
    assert strange.delete_task("t") if strange.cancel("t") is False else True
    strange.move_to_dlq("t")
    strange.dlq.purge()
    strange.close()
    for key in flushed.keys("team-a:*"):
        flushed.delete(key)


# -- lists


def test_a_list_goes_on_where_it_stopped_also_at_equal_times(queue: Any, flushed: redis.Redis) -> None:
    """1,500 tasks, 1,200 of which entered their state in the same microsecond."""
    outcomes = queue.push_batch(
        Task.create(payload=number, user_id=f"u{number % 2}") for number in range(1500)
    )
    ids = {outcome.handle.task_id for outcome in outcomes}
    score = flushed.zscore("fq:state:queued", outcomes[200].handle.task_id)
    flushed.zadd("fq:state:queued", {outcome.handle.task_id: score for outcome in outcomes[200:1400]})
    for limit in (1000, 700, 100):
        seen: list[str] = []
        cursor, pages = None, 0
        while True:
            page = queue.list_tasks(limit=limit, cursor=cursor)
            seen += [task.task_id for task in page]
            cursor, pages = page.cursor, pages + 1
            if cursor is None:
                break
        assert len(seen) == 1500
        assert set(seen) == ids
        assert pages <= 1500 // limit + 2
    seen = []
    cursor = None
    while True:
        page = queue.list_tasks(user="u1", limit=400, cursor=cursor)
        seen += [task.user_id for task in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ["u1"] * 750


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.DEFERRED])
def test_each_state_has_its_list_oldest_first(timed: Any, clock: Clock, state: TaskState) -> None:
    handles = []
    for number in range(3):
        handles.append(
            timed.push(Task.create(payload=number, delay=60 if state is TaskState.SCHEDULED else None))
        )
        match state:
            case TaskState.STARTED:
                timed.pop()
            case TaskState.FINISHED:
                timed.finish(timed.pop())
            case TaskState.FAILED:
                timed.move_to_dlq(handles[-1].task_id)
            case TaskState.CANCELED:
                handles[-1].cancel()
        clock.advance(1)
    for name in (state, state.value):
        page = timed.list_tasks(name)
        assert [task.payload for task in page] == [0, 1, 2]
        assert {task.state for task in page} == {state}
        assert page.cursor is None
        assert len(page) == 3


def test_a_list_asked_wrongly_says_how(queue: Any) -> None:
    for arguments, words in (
        ({"state": "ready"}, "there is no state 'ready'"),
        ({"limit": 0}, "1 to 1000"),
        ({"limit": 1001}, "1 to 1000"),
        ({"cursor": "next please"}, "no cursor"),
        ({"cursor": "1/x"}, "no cursor"),
        ({"cursor": "x/1"}, "no cursor"),
        ({"cursor": ""}, "no cursor"),
    ):
        with pytest.raises(InvalidTaskError, match=words):
            queue.list_tasks(**arguments)


def test_a_list_shows_also_what_cannot_be_read(queue: Any, flushed: redis.Redis) -> None:
    queue.push(Task.create(payload=1, task_id="bad"))
    data = flushed.get("fq:task:bad")
    flushed.set("fq:task:bad", data[:-3] + b"\xc1\xc1\xc1")
    [task] = queue.list_tasks()
    assert (task.task_id, task.payload) == ("bad", None)


# -- delete


def test_a_deleted_task_leaves_nothing(queue: Any, flushed: redis.Redis) -> None:
    handle = queue.push(Task.create(payload=1, dedup_key="k", max_retries=0, expires_at=None))
    with pytest.raises(TimeoutError):
        handle.result(0.01)
    task = queue.pop()
    with pytest.raises(InvalidStateError, match="is running: cancel it first"):
        queue.delete_task(task)
    queue.fail(task, ValueError())
    assert queue.delete_task(task)
    assert not queue.delete_task(task)
    assert handle.task() is None
    assert not [key for key in flushed.keys("*") if encode(handle.task_id).encode() in key]
    queue.push(Task.create(payload=1, task_id="a: b"))
    queue.pop()
    with pytest.raises(InvalidStateError) as refused:
        queue.delete_task("a: b")
    assert refused.value.task_id == "a: b"


# -- one interface


PAIRS = [
    (TaskQueue, AsyncTaskQueue),
    (DeadLetters, AsyncDeadLetters),
    (Schedules, AsyncSchedules),
    (TaskHandle, AsyncTaskHandle),
]


def public(kind: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(kind, callable)
        if not name.startswith("_") or name in ("__init__",)
    }


@pytest.mark.parametrize(("plain", "in_async"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_facades_have_the_same_methods_and_parameters(plain: type, in_async: type) -> None:
    assert public(plain).keys() == public(in_async).keys()
    swaps = {name: f"Async{name}" for name in ("TaskQueue", "TaskHandle", "WorkflowHandle", "Iterator")}

    def in_words(annotation: Any) -> str:
        text = str(annotation)
        for name, other in swaps.items():
            text = text.replace(other, name)
        return text

    for name, method in public(plain).items():
        twin = public(in_async)[name]
        one, two = inspect.signature(method), inspect.signature(twin)
        assert list(one.parameters) == list(two.parameters), name
        for parameter, other in zip(one.parameters.values(), two.parameters.values(), strict=True):
            assert (parameter.kind, parameter.default) == (other.kind, other.default), (
                f"{name}({parameter.name})"
            )
            assert in_words(parameter.annotation) == in_words(other.annotation), f"{name}({parameter.name})"
        assert in_words(one.return_annotation) == in_words(two.return_annotation), name
        assert [in_words(inspect.signature(each)) for each in typing.get_overloads(method)] == [
            in_words(inspect.signature(each)) for each in typing.get_overloads(twin)
        ]
        assert (inspect.getdoc(method) or "").splitlines()[:1] == (inspect.getdoc(twin) or "").splitlines()[
            :1
        ], name


@pytest.mark.parametrize(("plain", "in_async"), PAIRS, ids=lambda kind: kind.__name__)
def test_what_waits_is_awaited(plain: type, in_async: type) -> None:
    for name, method in public(in_async).items():
        waits = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        assert waits or name in ("__init__", "events"), name
        assert not inspect.iscoroutinefunction(public(plain)[name])


def test_a_constructor_does_nothing() -> None:
    """No connection, no thread, no file, no loop."""
    import threading

    before = threading.active_count()
    for kind in (TaskQueue, AsyncTaskQueue):
        kind(config_for("unix:///nonexistent/fq.sock"))
    assert threading.active_count() == before


def test_a_queue_is_a_context(server: ServerProcess, flushed: redis.Redis) -> None:
    with TaskQueue(config_for(server.url)) as queue:
        handle = queue.push(Task.create(payload=1))
        queue.pop()
    assert flushed.zcard("fq:workers") == 0
    assert handle.state() is TaskState.QUEUED  # it opens again when it is used
    queue.delete_task(handle.task_id)
    queue.close()


async def test_an_async_queue_is_a_context(server: ServerProcess, flushed: redis.Redis) -> None:
    async with AsyncTaskQueue(config_for(server.url)) as queue:
        handle = await queue.push(Task.create(payload=1))
        await queue.pop()
    assert flushed.zcard("fq:workers") == 0
    assert await handle.state() is TaskState.QUEUED
    await queue.delete_task(handle.task_id)
    await queue.close()
