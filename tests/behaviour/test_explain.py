"""Why a task waits, in words and in numbers, and when it starts."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from fairque.core.config import WorkerConfig
from fairque.core.models import Priority, Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations import assignment, claims
from fairque.queue.operations.explain import Explanation, explain
from fairque.queue.operations.push import push as push_one
from fairque.queue.operations.push import push_chunk
from tests.support import worker_tasks
from tests.support.bench import Bench, settlement
from tests.support.facades import Clock
from tests.support.invariants import dump
from tests.support.queues import MakeQueue
from tests.support.queues import at as moment
from tests.support.workers import Workshop, until


def push(queue: Any, task_id: str, user: str = "alice", **options: Any) -> None:
    queue.push(Task.create(task_id=task_id, payload=1, user_id=user, **options))


def codes(found: Explanation) -> list[str]:
    return [reason.code for reason in found.reasons]


# -- in any state


def test_a_task_that_nobody_knows(queue: Any) -> None:
    found = queue.explain("nothing: {%}")
    assert (found.state, found.reason, found.user_id) == (None, "gone", None)
    assert str(found) == found.text
    assert found.text.startswith("There is no task nothing: {%}: it never existed")


def test_each_state_is_explained(timed: Any, clock: Clock) -> None:
    push(timed, "t", "a: {%}", max_retries=1)
    clock.advance(2)
    task = timed.pop()
    clock.advance(3)
    found = timed.explain(task)
    assert (found.state, found.reason, found.user_id) == (TaskState.STARTED, "running", "a: {%}")
    assert "has been running for 3 s (attempt 1) on worker" in found.text
    timed.cancel("t")
    assert "asked to stop" in timed.explain("t").text
    timed.finish(task)
    clock.advance(60)
    assert timed.explain("t").text == "Task t of user a: {%}: it was canceled 60 s ago: canceled."
    push(timed, "retried", max_retries=1)
    timed.fail(timed.pop(), ValueError("no"))
    found = timed.explain("retried")
    assert (found.reason, found.state) == ("scheduled", TaskState.SCHEDULED)
    assert "scheduled for attempt 2, and due in" in found.text
    assert found.starts_in == pytest.approx(found.due_at.timestamp() - clock.seconds, abs=0.01)
    timed.move_to_dlq("retried", "no use")
    assert timed.explain("retried").text.endswith("moved to the dead letters by a caller.")
    push(timed, "done")
    timed.finish(timed.pop())
    assert timed.explain("done").reason == "finished"
    assert timed.explain("done").starts_in is None


def test_a_delayed_task_tells_when(timed: Any, clock: Clock) -> None:
    push(timed, "t", delay=7200, expires_at=moment(clock, 3600))
    found = timed.explain("t")
    assert (found.reason, found.position) == ("scheduled", None)
    assert found.starts_in == pytest.approx(7200, abs=0.01)
    assert found.due_at.timestamp() == pytest.approx(clock.seconds + 7200, abs=0.01)
    assert found.text == (
        "Task t of user alice: it is scheduled, and due in 2 h. It expires in 60 min, before that."
    )


@pytest.mark.no_leak_check
def test_a_deferred_task_waits_for_others(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.put(TaskState.DEFERRED)
    found = bench.run(explain(bench.engine, "t"))
    assert (found.reason, found.starts_in) == ("deferred", None)
    assert found.text == "Task t of user default: it waits for other tasks."


@pytest.mark.no_leak_check
def test_to_explain_writes_nothing(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    # What is queued would be claimed for those that are to be further.
    for state in sorted(TaskState, key=lambda state: state is TaskState.QUEUED):
        bench.put(state, state.value)
    before = dump(flushed)
    for state in TaskState:
        bench.run(explain(bench.engine, state.value))
    assert dump(flushed) == before


# -- what somebody has to do something about


def test_nobody_works(queue: Any) -> None:
    push(queue, "t")
    found = queue.explain("t")
    assert codes(found)[0] == "no_worker"
    assert (found.workers, found.slots, found.starts_in) == (0, 0, None)
    assert found.text == "Task t of user alice waits: no worker is alive."
    assert found.unknown_because == "no worker is alive"
    assert queue.pop() is not None


def test_pauses_come_first(queue: Any) -> None:
    queue.set_group_policy("acme", GroupPolicy(paused=True))
    queue.set_user_policy("alice", UserPolicy(group="acme", paused=True))
    queue.pop()
    push(queue, "t")
    queue.pause()
    found = queue.explain("t")
    assert codes(found)[:3] == ["queue_paused", "user_paused", "group_paused"]
    assert found.text.startswith(
        "Task t of user alice waits: the whole queue is paused; user alice is paused; group acme is paused"
    )
    assert (found.group, found.starts_in, found.rank) == ("acme", None, None)
    queue.resume()
    queue.resume_user("alice")
    queue.set_group_policy("acme", GroupPolicy())
    assert queue.explain("t").reason == "next"
    queue.delete_task("t")
    queue.set_user_policy("alice", None)
    queue.set_group_policy("acme", None)


@pytest.mark.no_leak_check
def test_a_function_that_nobody_has(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.run(claims.leave(bench.engine, bench.worker.incarnation))
    session = claims.Session(slots=4, functions=("app:known", "app:other"))
    bench.run(claims.join(bench.engine, session))
    for name in ("known", "unknown"):
        task = Task[Any](task_id=name, user_id="u", function=f"app:{name}")
        bench.run(push_one(bench.engine, task))
    found = bench.run(explain(bench.engine, "unknown"))
    assert (found.reason, found.workers, found.workers_that_can) == ("no_function", 1, 0)
    assert "no live worker has the function app:unknown" in found.text
    known = bench.run(explain(bench.engine, "known"))
    assert (known.reason, known.workers_that_can) == ("next", 1)
    # A worker that lacks it gives it back, and it is set aside for others.
    claimed = bench.exchange(session=session, want=2).claimed
    [unknown] = [task for task in claimed if task.task_id == "unknown"]
    bench.exchange(settlement(unknown, "unknown"), session=session)
    found = bench.run(explain(bench.engine, "unknown"))
    assert (found.reason, found.state) == ("no_function", TaskState.SCHEDULED)
    assert "without one it is a dead letter in" in found.text


# -- limits


def test_caps_of_user_group_and_slots(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(clock=clock, max_user_share=0.5)
    queue.set_group_policy("acme", GroupPolicy(max_concurrency=3))
    queue.set_user_policy("alice", UserPolicy(max_concurrency=2, group="acme"))
    for number in range(6):
        push(queue, f"a{number}")
        push(queue, f"b{number}", "bob")
    queue.pop(count=8)
    found = queue.explain("a5")
    assert codes(found)[:2] == ["user_cap", "behind_own"]
    assert "2 of at most 2 tasks of user alice run" in found.text
    limits = {(limit.of, limit.name): (limit.used, limit.limit, limit.blocks) for limit in found.limits}
    assert limits == {
        ("user", "alice"): (2, 2, True),
        ("share", "user alice"): (2, 4, False),
        ("group", "acme"): (2, 3, False),
        ("share", "group acme"): (2, 4, False),
    }
    assert (found.position, found.group, found.rank) == (3, "acme", None)
    bob = queue.explain("b5")
    assert bob.reason == "user_share"
    assert "4 of 8 slots are held by user bob, which may have 4 at most" in bob.text
    queue.set_group_policy("acme", GroupPolicy(max_concurrency=1))
    assert "group_cap" in codes(queue.explain("a5"))


def test_rates_tell_when_the_next_token_comes(timed: Any, clock: Clock) -> None:
    timed.set_user_policy("alice", UserPolicy(rate_limit="30/m", burst=1))
    timed.set_group_policy("acme", GroupPolicy(rate_limit=0.1, burst=1))
    timed.set_user_policy("bob", UserPolicy(group="acme"))
    for user in ("alice", "bob"):
        for number in range(3):
            push(timed, f"{user}{number}", user)
    assert len(timed.pop(count=6)) == 2
    found = timed.explain("alice2")
    assert found.reason == "user_rate"
    assert "user alice may start 0.5 a second, and its next token comes in 2 s" in found.text
    [limit] = found.limits
    assert (limit.kind, limit.limit, limit.blocks) == ("rate", 0.5, True)
    assert limit.opens_in == pytest.approx(2, abs=0.01)
    # One of its tasks comes before it: with the second token from now.
    assert found.starts_in == pytest.approx(4, abs=0.1)
    bob = timed.explain("bob1")
    assert bob.reason == "group_rate"
    assert bob.starts_in == pytest.approx(10, abs=0.1)


def test_a_limiter_names_those_who_use_it(timed: Any, clock: Clock) -> None:
    timed.set_limiter("stripe: api", LimiterPolicy(max_concurrency=2))
    timed.set_limiter("slow", LimiterPolicy(rate_limit=0.5, burst=1))
    for user in ("alice", "bob: {%}"):
        for number in range(3):
            push(timed, f"{user}{number}", user, limiter="stripe: api")
    assert len(timed.pop(count=6)) == 2
    found = timed.explain("alice2")
    assert found.reason == "limiter_cap"
    assert "2 of at most 2 tasks run under limiter stripe: api (alice 1, bob: {%} 1)" in found.text
    assert found.limiter_users == {"alice": 1, "bob: {%}": 1}
    assert found.position == 1
    push(timed, "s1", "carol", limiter="slow")
    push(timed, "s2", "carol", limiter="slow")
    [limit] = timed.explain("s1").limits  # which nobody has used yet
    assert (limit.of, limit.name, limit.blocks, limit.limit) == ("limiter", "slow", False, 0.5)
    assert [task.task_id for task in timed.pop(count=2)] == ["s1"]
    found = timed.explain("s2")
    assert found.reason == "limiter_rate"
    assert found.starts_in == pytest.approx(2, abs=0.1)


# -- its turn


def test_its_place_among_its_users_own(timed: Any, clock: Clock) -> None:
    timed.set_limiter("l", LimiterPolicy(max_concurrency=5))
    timed.pop()
    for number in range(3):
        push(timed, f"n{number}")
    push(timed, "high", priority=Priority.HIGH)
    push(timed, "l0", limiter="l")
    push(timed, "n3")
    for number in range(2):
        push(timed, f"c{number}", priority=Priority.CRITICAL)
    places = {name: timed.explain(name).position for name in ("c0", "c1", "high", "n0", "n2", "l0", "n3")}
    assert places == {"c0": 0, "c1": 1, "high": 2, "n0": 3, "n2": 5, "l0": 6, "n3": 7}
    order = [task.task_id for task in timed.pop(count=8)]
    assert order == ["c0", "c1", "high", "n0", "n1", "n2", "l0", "n3"]


def test_who_is_served_before(timed: Any, clock: Clock) -> None:
    timed.pop()
    timed.set_group_policy("acme", GroupPolicy())
    for user in ("m1", "m2"):
        timed.set_user_policy(user, UserPolicy(group="acme"))
    for user in ("alice", "bob", "m1", "m2"):
        for number in range(3):
            push(timed, f"{user}{number}", user)
    timed.pop(count=2)  # of acme and of alice, whose tags have moved on
    found = timed.explain("alice1")
    assert codes(found) == ["behind_others", "workers_busy", "next"]
    assert (found.rank, found.ready_tenants, found.position, found.rank_in_group) == (2, 3, 0, None)
    assert [(one.name, one.is_group, one.queued, one.running) for one in found.ahead] == [
        ("bob", False, 3, 0), ("acme", True, 5, 1),
    ]  # fmt: skip
    assert [one.tag for one in found.ahead] == sorted(one.tag for one in found.ahead)
    assert found.ahead[0].tag <= found.tag
    assert found.front == found.ahead[0].tag
    assert "those come first who have had less for their weight (a smaller tag): bob (3 queued" in found.text
    member = timed.explain("m11")
    assert (member.group, member.rank_in_group) == ("acme", 1)
    assert member.group_tag is not None
    assert [one.name for one in member.ahead] == ["bob", "m2"]
    # And so they are.
    order = [task.user_id for task in timed.pop(count=10)]
    assert order.index("bob") < order.index("alice")


def test_an_expiry_that_comes_first_is_told(timed: Any, clock: Clock) -> None:
    timed.pop()
    push(timed, "soon", expires_at=moment(clock, 30))
    push(timed, "late", expires_at=moment(clock, 3600))
    assert "It expires in 30 s." in timed.explain("soon").text
    assert "expires" not in timed.explain("late").text
    assert timed.explain("late").expires_at == moment(clock, 3600)


# -- who serves whom


@pytest.mark.no_leak_check
def test_entries_that_serve_others_only(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.run(claims.leave(bench.engine, bench.worker.incarnation))
    entries = [
        WorkerConfig(id="one", assigned_users=["alice"], steal_targets=[]),
        WorkerConfig(id="two", assigned_users=["bob"]),
    ]
    bench.run(assignment.publish(bench.engine, assignment.assignment(entries)))
    one = bench.join("one")
    for user in ("alice", "bob"):
        for number in range(6):
            bench.push(f"{user}{number}", user_id=user)
    found = bench.run(explain(bench.engine, "bob0"))
    assert (found.reason, found.workers_that_can) == ("not_served", 0)
    assert "none serves user bob" in found.text
    assert bench.run(explain(bench.engine, "alice0")).reason == "next"
    bench.exchange(session=one, want=4)
    # Its own worker has no slot left, and others do not serve those whose own they are not at once.
    bench.join("two")
    bench.clock.advance(2)
    found = bench.run(explain(bench.engine, "alice4"))
    assert found.reason == "own_workers_busy"
    assert "have no free slot" in found.text
    assert "it is everybody's in 3 s" in found.text
    assert found.starts_in is None or found.starts_in >= 2.9
    bench.clock.advance(4)
    bench.exchange(session=one)  # from now on it is late
    assert "own_workers_busy" not in codes(bench.run(explain(bench.engine, "alice4")))
    bench.run(claims.leave(bench.engine, one.incarnation))
    for number in range(6):
        bench.push(f"again{number}", user_id="alice")
    found = bench.run(explain(bench.engine, "again5"))
    assert "are not alive" in found.text or found.reason != "own_workers_busy"


# -- bounds


@pytest.mark.no_leak_check
def test_its_cost_does_not_grow_with_what_waits(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    for start in range(0, 3000, 500):
        batch = [
            Task.create(task_id=f"t{number}", payload=1, user_id=f"u{number}")
            for number in range(start, start + 500)
        ]
        bench.run(push_chunk(bench.engine, batch))
    for number in range(200):
        bench.push(f"c{number}", user_id="u0", priority=Priority.CRITICAL)

    def calls() -> int:
        told = bench.client.info("commandstats")
        return sum(value["calls"] for name, value in told.items() if name != "cmdstat_info")

    before = calls()
    found = bench.run(explain(bench.engine, "t2999"))
    assert calls() - before < 250
    assert (found.ready_tenants, len(found.ahead)) == (3000, 5)
    assert found.rank is not None
    assert "and 29" in found.text or found.rank < 3000
    assert bench.run(explain(bench.engine, "c150")).position == 150


# -- when it starts


def test_a_real_worker_starts_it_when_it_was_said(workshop: Workshop) -> None:
    workshop.worker(max_concurrent_tasks=4)
    workshop.push_all(
        worker_tasks.pause.with_options(user_id=f"user{number % 3}")(0.05) for number in range(240)
    )
    handle = workshop.push(worker_tasks.begun_at.with_options(user_id="user1")())
    until(lambda: workshop.count(TaskState.FINISHED) >= 60)
    asked, found = time.monotonic(), workshop.queue.explain(handle.task_id)
    assert found.reason == "behind_own"
    assert found.position is not None
    assert found.starts_in is not None
    took = handle.result(30) - asked
    assert took / 2 - 0.2 <= found.starts_in <= took * 2 + 0.2, (took, found.text)
