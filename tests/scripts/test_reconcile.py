"""What is stored twice is compared and mended, whatever key was lost or overwritten."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
import redis

from fairque.core.exceptions import FairQueueError
from fairque.core.models import Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.states import TaskState
from fairque.core.tenant import BASE, unpack_tenant
from fairque.queue.operations import admin, claims, policies, push, users
from fairque.queue.operations.explain import explain
from fairque.queue.operations.reconcile import Report, reconcile
from tests.scripts.test_random_walk import GROUPS, LIMITERS, Walker
from tests.support.bench import LEASE, Bench, settlement
from tests.support.invariants import Snapshot, assert_consistent, dump
from tests.support.scene import USERS, Scene

_CLOCK = struct.Struct(">34d")
_ALL_RUNNING, _LANE, _SLOTS, _WEIGHT = 5, 8, 10, 3


def run(scene: Scene | Bench) -> Report:
    bench = scene.bench if isinstance(scene, Scene) else scene
    report: Report = bench.run(reconcile(bench.engine))
    return report


# -- keys that are lost

KEYS = (
    "clock", "ready:all", "ready:sparse", "ahead", "parked", "holders", "users", "users:backlog", "users:service",
    "users:wait", "waiters", "workers", "worker:WORKER", "worker:WORKER:tasks", "meta", "stats",
    "limiter:l", "limiter:l:blocked", "limiter:r",
    *(f"user:{user}" for user in USERS), "user::g", "ready::g", "ahead::g", "user:limited:limiters",
    "queue:user:plain:normal", "queue:user:member:normal", "queue:user:colleague:critical",
    "queue:user:limited:limited:l", "state:queued", "state:scheduled", "state:started",
)  # fmt: skip
ASSIGNMENT_KEYS = (
    "fresh", "assign", "assign:entries", "assigned:1", "ready:for::oone", "ready:for::u", "ready:for::ttwo",
    "ready:for::g:oone", "ready:for::g:u", "user::g:words",
)  # fmt: skip
UNSEEN = ("meta", "stats", "waiters", "ready:sparse", "ahead::g", "ready:for::ttwo", "users:wait")
"""Keys that did not exist, or that nothing depends on."""


@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
@pytest.mark.parametrize("name", KEYS)
def test_any_one_key_is_found_again(flushed: redis.Redis, name: str, fairness: str) -> None:
    scene = Scene(flushed, fairness=fairness)
    flushed.delete(scene.key(name))
    scene.beat()
    assert_consistent(flushed)
    found = scene.counters()
    assert found or name in UNSEEN
    scene.drain()
    assert scene.left() == {}
    assert_consistent(flushed)
    assert len(Snapshot(flushed).tasks) == scene.count


@pytest.mark.parametrize("name", [*ASSIGNMENT_KEYS, "clock", "ready:all", "user:plain", "user::g", "users"])
def test_any_one_key_is_found_again_while_entries_name_users(flushed: redis.Redis, name: str) -> None:
    scene = Scene(flushed, assigned=True)
    flushed.delete(scene.key(name))
    scene.beat()
    assert_consistent(flushed)
    scene.drain()
    assert scene.left() == {}
    assert_consistent(flushed)


@pytest.mark.parametrize("name", [key for key in KEYS if key not in (*UNSEEN, "worker:WORKER")])
def test_a_caller_finds_and_reports_it_at_once(flushed: redis.Redis, name: str) -> None:
    scene = Scene(flushed)
    before = Snapshot(flushed).tasks
    flushed.delete(scene.key(name))
    report = run(scene)
    assert report.repaired
    assert report.checked > len(USERS)
    assert_consistent(flushed)
    assert run(scene).repaired == ()
    assert {task_id: rec.state for task_id, rec in Snapshot(flushed).tasks.items()} == {
        task_id: rec.state for task_id, rec in before.items()
    }


def test_several_keys_at_once(flushed: redis.Redis) -> None:
    rng = random.Random(1)
    for _ in range(4):
        flushed.flushall()
        scene = Scene(flushed, assigned=True)
        names = rng.sample([*KEYS, *ASSIGNMENT_KEYS], 3)
        for name in names:
            flushed.delete(scene.key(name))
            scene.beat(3)
        scene.beat(20)
        run(scene)
        assert_consistent(flushed)
        scene.drain()
        assert scene.left() == {}, names


def test_a_pause_outlives_the_clock(bench: Bench) -> None:
    bench.push()
    bench.run(admin.pause(bench.engine, True))
    bench.client.delete(bench.keys.clock)
    assert bench.exchange(want=1).claimed == ()
    bench.run(admin.pause(bench.engine, False))
    bench.client.delete(bench.keys.clock)
    bench.clock.advance(1)
    assert [task.task_id for task in bench.exchange(want=1).claimed] == ["t"]


def test_rules_outlive_the_clock(bench: Bench) -> None:
    bench.run(policies.set_policy_rules(bench.engine, {"u*": UserPolicy(max_concurrency=1)}))
    for number in range(3):
        bench.push(f"t{number}", user_id="user")
    bench.client.delete(bench.keys.clock)
    assert len(bench.exchange(want=3).claimed) == 1
    bench.push("new", user_id="u2")
    bench.push("new2", user_id="u2")
    assert len(bench.exchange(want=3).claimed) == 1


def test_tokens_do_not_begin_again_with_the_clock(bench: Bench) -> None:
    seen: set[bytes] = set()
    for number in range(4):
        bench.push(f"t{number}")
        token = claims.token_of(bench.claim())
        assert token[:8] not in seen
        seen.add(token[:8])
        if number % 2:
            bench.client.delete(bench.keys.clock)
            bench.clock.advance(1)


# -- counts that are wrong


def set_clock(client: Any, index: int, value: float) -> None:
    fields = list(_CLOCK.unpack(client.get("fq:clock")))
    fields[index] = value
    client.set("fq:clock", _CLOCK.pack(*fields))


@pytest.mark.parametrize("index", [_ALL_RUNNING, _LANE, _SLOTS, _WEIGHT])
@pytest.mark.parametrize("by", [-1, 3])
def test_wrong_sums_are_counted_again(flushed: redis.Redis, index: int, by: int) -> None:
    scene = Scene(flushed)
    value = _CLOCK.unpack(scene.client.get("fq:clock"))[index]
    set_clock(flushed, index, max(0, value + by))
    scene.beat(2)
    assert_consistent(flushed)
    set_clock(flushed, index, max(0, value + by))
    if index != _LANE or value + by >= 0:
        run(scene)
    assert_consistent(flushed)


def set_tenant(client: Any, user: str, field: int, value: int) -> None:
    data = client.get(f"fq:user:{user}")
    values = list(BASE.unpack_from(data))
    values[field] = value
    client.set(f"fq:user:{user}", BASE.pack(*values) + data[BASE.size :])


COUNTS = {"critical": 8, "normal": 9, "limited": 10, "running": 12}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("user", ["plain", "member", "limited"])
def test_a_users_counts_follow_from_queues_and_claims(
    flushed: redis.Redis, user: str, name: str, value: int
) -> None:
    for explicit in (False, True):
        flushed.flushall()
        scene = Scene(flushed)
        set_tenant(flushed, user, COUNTS[name], value)
        if explicit:
            run(scene)
            assert_consistent(flushed)
        else:
            scene.beat(2)
            run(scene)  # what an organisation counts of waiting tasks is added up here
        assert_consistent(flushed)


@pytest.mark.parametrize("name", ["normal", "running"])
def test_an_organisations_counts_are_added_up(flushed: redis.Redis, name: str) -> None:
    scene = Scene(flushed)
    set_tenant(flushed, ":g", COUNTS[name], 30)
    report = run(scene)
    assert any("group g" in one.what for one in report.repaired)
    assert_consistent(flushed)


def test_members_that_are_pushed_to_meanwhile_are_no_difference(flushed: redis.Redis) -> None:
    """Organisations are added up while others push: what differs once is not believed."""
    scene = Scene(flushed)
    bench = scene.bench
    flow = reconcile(bench.engine)
    call = next(flow)
    report: Report | None = None
    number = 0
    while report is None:
        reply = bench.manager.execute(call)
        number += 1
        bench.push(f"new{number}", user_id="member")
        try:
            call = flow.send(reply)
        except StopIteration as stop:
            report = stop.value
    assert report.repaired == ()
    assert_consistent(flushed)


def test_a_limiters_ghosts_leave(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.run(policies.set_limiter(bench.engine, "l", LimiterPolicy(max_concurrency=1)))
    bench.push("one", limiter="l")
    bench.claim()
    # Its worker is forgotten as if it had never been.
    for key in (
        bench.keys.held(bench.worker.incarnation),
        bench.keys.state("started"),
        bench.keys.task("one"),
    ):
        bench.client.delete(key)
    bench.push("two", limiter="l")
    assert bench.exchange(want=1).claimed == ()
    bench.clock.advance(LEASE / 10)
    bench.exchange(want=1)
    bench.clock.advance(0.1)
    bench.exchange(want=1)
    assert bench.state("two") is TaskState.STARTED
    assert_consistent(flushed)


def test_claims_that_contradict_their_records_are_dropped(bench: Bench) -> None:
    for name in ("gone", "other", "right"):
        bench.push(name)
    bench.exchange(want=3)
    held = bench.keys.held(bench.worker.incarnation)
    bench.client.delete(bench.keys.task("gone"))
    entry = bench.client.hget(held, "other")
    bench.client.hset(held, "other", bytes(16) + entry[16:])
    bench.client.hset(held, "ghost", entry)
    report = run(bench)
    assert {one.what for one in report.repaired} >= {
        "holder of task gone",
        "holder of task ghost",
        "all_running of queue",
    }
    assert set(bench.client.hkeys(held)) == {b"other", b"right"}
    assert_consistent(bench.client)


def test_what_a_live_worker_held_is_held_again_and_runs_once(bench: Bench) -> None:
    bench.push("t", user_id="u")
    task = bench.claim()
    bench.client.delete(bench.keys.held(bench.worker.incarnation))
    bench.clock.advance(LEASE / 10)
    # The next heartbeat mends it before it compares: the worker is not told that it holds nothing.
    assert bench.exchange(holding=[claims.token_of(task)]).held is None
    assert bench.exchange(settlement(task, "finish")).codes == (claims.Settled.FINISHED,)
    assert_consistent(bench.client)


def test_what_an_unknown_worker_held_goes_back_to_its_queue(bench: Bench) -> None:
    bench.push("t", user_id="u")
    bench.claim()
    bench.client.zrem(bench.keys.workers, bench.worker.incarnation)
    other = bench.join()
    bench.clock.advance(LEASE / 10)
    bench.exchange(session=other)
    assert bench.state() is TaskState.QUEUED
    assert_consistent(bench.client)
    assert [task.task_id for task in bench.exchange(session=other, want=1).claimed] == ["t"]


def test_nobody_spins_on_who_is_not_ready(flushed: redis.Redis) -> None:
    """Names in the sets that do not belong there are served by nobody, and leave."""
    bench = Bench(flushed)
    bench.run(policies.set_group_policy(bench.engine, "g", GroupPolicy()))
    bench.run(policies.set_user_policy(bench.engine, "member", UserPolicy(group="g")))
    bench.run(policies.set_user_policy(bench.engine, "paused", UserPolicy(paused=True)))
    for user in ("member", "paused", "served"):
        bench.push(user, user_id=user)
    flushed.zadd("fq:ready:all", {"paused": -9.0, "nobody": -8.0, "member": -7.0, ":none": -6.0})
    flushed.zadd("fq:ready:sparse", {"paused": -9.0, "nobody": -8.0, ":g": -7.0})
    flushed.zadd("fq:ready::g", {"served": -9.0})
    claimed = bench.exchange(want=5).claimed
    assert {task.task_id for task in claimed} == {"member", "served"}
    bench.clock.advance(LEASE / 10)
    bench.exchange()
    assert flushed.zrange("fq:ready:all", 0, -1) == []
    assert flushed.zrange("fq:ready:sparse", 0, -1) == []
    assert_consistent(flushed)


# -- keys that are no queues any more


BROKEN = {
    "queue:user:plain:normal": "plain",
    "queue:user:colleague:critical": "colleague",
    "queue:user:limited:limited:l": "limited",
    "user:limited:limiters": "limited",
    "queue:user:member:normal": "member",
}


@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_queue_sets_its_user_aside(flushed: redis.Redis, name: str, fairness: str) -> None:
    scene = Scene(flushed, fairness=fairness)
    bench, user = scene.bench, BROKEN[name]
    flushed.delete(f"fq:{name}")
    flushed.set(f"fq:{name}", "no queue")
    scene.beat()
    # It can be pushed to, alone and among others, and what it has can be canceled.
    limiter = "l" if user == "limited" else None
    priority = 6 if "critical" in name else 3
    new = [
        Task.create(task_id=f"new {one}", payload=1, user_id=one, limiter=limiter, priority=priority)
        for one in (user, "last")
    ]
    assert all(pushed.ok for pushed in bench.run(push.push_chunk(bench.engine, new)))
    waiting = sorted(task_id for task_id, state in scene.left().items() if state is TaskState.QUEUED)
    assert bench.call("cancel", next(name for name in waiting if name.startswith(user)))[0] == 1
    scene.drain()
    left = scene.left()
    assert f"new {user}" in left
    assert {Snapshot(flushed).tasks[task_id].user for task_id in left} == {user}
    assert scene.counters()["broken"] > 0
    stats = bench.run(users.get_user_stats(bench.engine, user))
    assert stats.broken
    assert bench.run(users.list_users(bench.engine)).items
    why = bench.run(explain(bench.engine, f"new {user}"))
    assert why.reason == "broken"
    assert "fairque users reconcile" in why.text
    report = run(scene)
    assert any(f"user {user}" in one.what for one in report.repaired)
    assert_consistent(flushed)
    assert bench.run(users.get_user_stats(bench.engine, user)).broken == ""
    scene.drain()
    assert set(scene.left().values()) <= {TaskState.CANCELED}
    assert_consistent(flushed)


@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
@pytest.mark.parametrize("name", ["user:plain", "user:member", "user::g", "limiter:l", "user:plain:costs"])
def test_records_that_are_none_are_made_anew(flushed: redis.Redis, name: str, fairness: str) -> None:
    scene = Scene(flushed, fairness=fairness)
    flushed.delete(f"fq:{name}")
    flushed.rpush(f"fq:{name}", "no record")
    scene.beat()
    assert_consistent(flushed)
    scene.drain()
    assert scene.left() == {}
    assert_consistent(flushed)


# -- in good order


@pytest.mark.parametrize("seed", [12, 13])
@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
def test_in_good_order_nothing_is_mended(flushed: redis.Redis, fairness: str, seed: int) -> None:
    """Whatever happens, neither sweeps nor callers ever find anything amiss, and they write nothing."""
    bench = Bench(flushed, fairness=fairness, max_user_share=0.6 if seed % 2 else 1)
    for name in GROUPS:
        bench.run(policies.set_group_policy(bench.engine, name, GroupPolicy()))
    for name in LIMITERS:
        bench.run(policies.set_limiter(bench.engine, name, LimiterPolicy(max_concurrency=2)))
    walker = Walker(bench, seed)
    for step in range(200):
        walker.step()
        if step % 20 == 0:
            before = dump(flushed)
            report = run(bench)
            assert report.repaired == ()
            after = dump(flushed)
            del before[b"fq:clock"], after[b"fq:clock"]
            for key in before.keys() | after.keys():
                if not key.startswith((b"fq:wake", b"fq:waiters", b"fq:user:", b"fq:ahead")):
                    assert before.get(key) == after.get(key), key
    counters = flushed.hgetall("fq:stats")
    assert {b"healed", b"reconciled", b"broken"} & counters.keys() == set()


def test_only_a_sweep_looks(bench: Bench) -> None:
    """The calls in between cost nothing more."""
    bench.push("t1")
    bench.exchange(want=1)
    bench.client.config_resetstat()
    bench.push("t2")
    bench.exchange(want=1)
    bench.run(claims.renew(bench.engine, bench.worker))
    told = bench.client.info("commandstats")
    assert not {"cmdstat_zrandmember", "cmdstat_hrandfield", "cmdstat_hvals"} & told.keys()
    bench.clock.advance(LEASE / 10)
    bench.run(claims.renew(bench.engine, bench.worker))
    told = bench.client.info("commandstats")
    assert {"cmdstat_zrandmember", "cmdstat_hrandfield", "cmdstat_hvals"} <= told.keys()


def test_it_takes_many_users_in_bounded_calls(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    for start in range(0, 2000, 500):
        batch = [
            Task.create(task_id=f"t{number}", payload=1, user_id=f"u{number}")
            for number in range(start, start + 500)
        ]
        bench.run(push.push_chunk(bench.engine, batch))
    flushed.delete("fq:ready:all")
    for number in range(0, 2000, 7):
        flushed.delete(f"fq:user:u{number}")
    bench.manager.client.execute_command("SLOWLOG", "RESET")
    report = run(bench)
    assert len({one.what for one in report.repaired}) > 2000 / 7
    assert_consistent(flushed)
    assert run(bench).repaired == ()
    claimed = 0
    while tasks := bench.exchange(want=500).claimed:
        claimed += len(tasks)
        bench.exchange(*(settlement(task, "finish") for task in tasks))
    assert claimed == 2000


# -- users whose records have expired


def test_lists_lose_those_whose_records_have_expired(flushed: redis.Redis) -> None:
    bench = Bench(flushed, user_ttl_seconds=60)
    for start in range(0, 600, 300):
        batch = [
            Task.create(task_id=f"t{number}", payload=1, user_id=f"u{number}")
            for number in range(start, start + 300)
        ]
        bench.run(push.push_chunk(bench.engine, batch))
    bench.push("kept", user_id="kept", delay=100_000)
    while tasks := bench.exchange(want=500).claimed:
        bench.clock.advance(0.1)
        bench.exchange(*(settlement(task, "finish") for task in tasks))
    lists = (bench.keys.users, bench.keys.by_backlog, bench.keys.by_service, bench.keys.by_wait)
    assert flushed.zcard(bench.keys.users) == 601
    assert flushed.zcard(bench.keys.by_service) == 600
    for number in range(600):  # as their time to live would
        flushed.delete(bench.keys.user(f"u{number}"))
    sizes = []
    for _ in range(40):
        bench.clock.advance(LEASE / 10)
        bench.run(claims.renew(bench.engine, bench.worker))
        sizes.append(flushed.zcard(bench.keys.users))
    assert sizes[0] >= 600 - 250  # never all at once
    assert [flushed.zcard(key) for key in lists] == [1, 0, 0, 0]
    assert bench.client.hgetall(bench.keys.stats).get(b"healed") is None
    assert unpack_tenant(flushed.get(bench.keys.user("kept"))).delayed == 1  # type: ignore[arg-type]


def test_idle_records_are_not_kept_alive_by_being_looked_at(flushed: redis.Redis) -> None:
    bench = Bench(flushed, user_ttl_seconds=60)
    bench.push(user_id="u")
    bench.exchange(settlement(bench.claim(), "finish"))
    before: Any = flushed.pttl(bench.keys.user("u"))
    flushed.pexpire(bench.keys.user("u"), before - 30_000)
    for _ in range(3):
        bench.clock.advance(LEASE / 10)
        bench.run(claims.renew(bench.engine, bench.worker))
    run(bench)
    after: Any = flushed.pttl(bench.keys.user("u"))
    assert 0 < after <= before - 30_000


def test_an_unknown_step_is_an_error(bench: Bench) -> None:
    with pytest.raises(FairQueueError):
        bench.call("reconcile", "tasks", "no cursor")
