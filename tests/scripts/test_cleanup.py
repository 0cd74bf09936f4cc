"""The clean-up: steps, leases, what is left behind without its other half, and how long a call takes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import redis

from fairque.core.states import TaskState
from fairque.queue.operations import cleanup
from fairque.queue.operations.cleanup import DONE
from fairque.queue.operations.records import micros
from tests.support.bench import Bench
from tests.support.invariants import assert_consistent, dump

PUT = sorted(TaskState, key=lambda state: state is TaskState.QUEUED)
"""All states, in an order in which no claim takes what shall stay queued."""


@pytest.fixture
def bench(flushed: redis.Redis) -> Bench:
    return Bench(flushed)


def round_of(bench: Bench) -> dict[str, int]:
    """What a whole round did, without the zeros."""
    done: dict[str, int] = bench.run(cleanup.sweep(bench.engine))
    assert set(done) == set(DONE)
    return {name: count for name, count in done.items() if count}


def turn(bench: Bench, owner: str, every: float = 60.0, again: float = 3600.0) -> cleanup.Turn:
    found: cleanup.Turn = bench.run(cleanup.take_turn(bench.engine, owner, every, again))
    return found


def go_round(bench: Bench, owner: str = "one") -> int:
    """Turns until the round is over."""
    turns = 1
    while not turn(bench, owner).over:
        turns += 1
        assert turns < 1000
    return turns


# -- what is left behind


LEFT_BEHIND: dict[str, tuple[str, bytes]] = {
    "errors of no task": ("rpush", b"fq:errors:nothing"),
    "a result of no task": ("set", b"fq:result:nothing"),
    "watchers of no task": ("sadd", b"fq:watchers:nothing"),
    "a dedup key that no task holds": ("set", b"fq:dedup:u:key"),
    "limiters of no user": ("sadd", b"fq:user:nobody:limiters"),
    "a wake list of nobody": ("rpush", b"fq:wake:ABCDEFGHIJK"),
    "an entry of a queued task": ("zadd", b"fq:state:queued"),
    "an entry of a scheduled task": ("zadd", b"fq:state:scheduled"),
    "an entry of a deferred task": ("zadd", b"fq:state:deferred"),
    "an entry of a failed task": ("zadd", b"fq:state:failed"),
    "an entry of a finished task": ("zadd", b"fq:state:finished"),
    "an entry of a canceled task": ("zadd", b"fq:state:canceled"),
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_is_left_behind_goes(bench: Bench, flushed: redis.Redis, name: str) -> None:
    command, key = LEFT_BEHIND[name]
    getattr(flushed, command)(key, {"nothing": bench.clock() + 1e9} if command == "zadd" else "nothing")
    assert round_of(bench)["orphans"] >= 1
    assert not flushed.exists(key)
    assert round_of(bench) == {}


def test_dead_letters_without_a_task_leave_their_user(bench: Bench, flushed: redis.Redis) -> None:
    bench.put(TaskState.FAILED, "stays", user_id="a")
    for number in range(3):
        flushed.zadd("fq:dlq:a", {f"gone{number}": 1})
        flushed.zadd("fq:dlq:b", {f"gone{number}": 1})
    assert round_of(bench)["orphans"] >= 1
    round_of(bench)  # (a user that was in no list is found by the last step)
    assert flushed.zrange("fq:dlq:a", 0, -1) == [b"stays"]
    assert not flushed.exists("fq:dlq:b")
    assert flushed.zrange("fq:users:dead", 0, -1, withscores=True) == [(b"a", 1.0)]
    flushed.delete("fq:users:dead")
    assert round_of(bench) == {"orphans": 1}
    assert_consistent(flushed)
    bench.call("delete", "stays")


def test_a_record_in_no_registry_is_registered_again(bench: Bench, flushed: redis.Redis) -> None:
    for state in PUT:
        bench.put(state, f"t-{state}")
    for state in TaskState:
        if state is not TaskState.STARTED:
            flushed.delete(f"fq:state:{state}")
    flushed.delete("fq:dlq:default", "fq:users:dead")
    assert round_of(bench)["orphans"] >= 6
    assert_consistent(flushed)
    assert round_of(bench) == {}


def test_a_worker_whom_nobody_knows_is_buried_and_its_tasks_go_back(
    bench: Bench, flushed: redis.Redis
) -> None:
    task = bench.put(TaskState.STARTED)
    assert task is not None
    flushed.zrem("fq:workers", bench.worker.incarnation)
    assert round_of(bench)["orphans"] >= 1
    other = bench.join()
    for _ in range(4):
        bench.clock.advance(5)
        bench.exchange(session=other, holding=[])
    assert bench.state() is TaskState.QUEUED
    bench.call("delete", "t")


def test_queues_of_a_user_without_a_record_are_served_again(bench: Bench, flushed: redis.Redis) -> None:
    bench.push("t", user_id="u")
    flushed.delete("fq:user:u", "fq:users")
    assert round_of(bench)["orphans"] >= 1
    assert_consistent(flushed)
    bench.call("delete", "t")


def test_while_nothing_is_amiss_nothing_is_written(bench: Bench, flushed: redis.Redis) -> None:
    for state in PUT:
        bench.put(state, f"t-{state}", user_id=f"u{state.code}")
    round_of(bench)
    before = dump(flushed)
    assert round_of(bench) == {}
    after = dump(flushed)
    for kept in (before, after):
        kept.pop(b"fq:clock")
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set()


# -- whose turn it is


def test_one_at_a_time_goes_round_and_the_next_one_waits(bench: Bench) -> None:
    assert not turn(bench, "one").over
    refused = turn(bench, "two")
    assert refused.over
    assert 14 < refused.wait <= 15
    go_round(bench)
    assert turn(bench, "two").over
    assert 59 < turn(bench, "two").wait <= 60
    bench.clock.advance(61)
    assert not turn(bench, "two").over
    assert turn(bench, "one").over


def test_another_one_goes_on_where_a_dead_one_was(bench: Bench, flushed: redis.Redis) -> None:
    for _ in range(3):
        turn(bench, "one")
    kept = flushed.hgetall("fq:cleanup")
    assert kept[b"step"] == b"letters"
    assert kept[b"owner"] == b"one"
    bench.clock.advance(14)
    assert turn(bench, "two").over
    bench.clock.advance(2)
    assert not turn(bench, "two").over
    kept = flushed.hgetall("fq:cleanup")
    assert kept[b"step"] == b"caps"
    assert kept[b"owner"] == b"two"
    assert turn(bench, "one").over, "the dead one was only away, and is told so"


def test_orphans_are_looked_for_once_an_hour(bench: Bench) -> None:
    whole = go_round(bench)
    bench.clock.advance(61)
    short = go_round(bench)
    assert short == 5 < whole
    bench.clock.advance(3600)
    assert go_round(bench) == whole


def test_a_round_of_a_caller_leaves_the_queues_own_alone(bench: Bench, flushed: redis.Redis) -> None:
    turn(bench, "one")
    kept = flushed.hgetall("fq:cleanup")
    round_of(bench)
    assert flushed.hgetall("fq:cleanup") == kept
    with pytest.raises(Exception, match="FQ_STEP nonsense"):
        bench.call("sweep", "", 0, 0, "nonsense", "0")


# -- in pieces


def finished(flushed: Any, count: int, score: float, kept: int = 0) -> None:
    """Entries of finished tasks whose records have expired; every `kept`th has one still."""
    record = struct.pack(">BB", 1, TaskState.FINISHED.code) + bytes(54)
    with flushed.pipeline(transaction=False) as pipe:
        for start in range(0, count, 5000):
            names = [f"f{number:07}" for number in range(start, min(count, start + 5000))]
            pipe.zadd("fq:state:finished", dict.fromkeys(names, score))
            for name in names[::kept] if kept else ():
                pipe.set(f"fq:task:{name}", record, ex=1000)
        pipe.execute()


def processor_seconds(client: Any) -> float:
    """What the server has used."""
    found = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


@pytest.mark.no_leak_check
def test_a_hundred_thousand_go_in_pieces_that_nobody_feels(bench: Bench, flushed: Any) -> None:
    finished(flushed, 100_000, bench.clock() - 2 * 86_400e6, kept=10)
    flushed.config_resetstat()
    used = processor_seconds(flushed)
    done = round_of(bench)
    assert done == {"forgotten": 90_000}
    # Of the processor's time: others may keep the server from it.
    calls = flushed.info("commandstats")["cmdstat_fcall"]["calls"]
    assert calls >= 100_000 / 500
    assert (processor_seconds(flushed) - used) / calls < 0.01
    assert flushed.zcard("fq:state:finished") == 10_000


def test_the_end_of_a_page_is_found_though_its_last_entry_is_gone(bench: Bench, flushed: redis.Redis) -> None:
    """Of equal times, behind names of every kind."""
    from fairque.core.filters import TaskFilter
    from fairque.queue.operations import bulk

    names = sorted(["a", "aa", "ab", "b", "B", "é", "z~", "0", "_", "%25"], key=str.encode)
    for name in names:
        bench.push(name.replace("%25", "%"), delay=10)
    for name in names:
        raw = flushed.get(f"fq:task:{name}")
        assert raw is not None
        flushed.setrange(f"fq:task:{name}", 40, struct.pack(">d", 1e15))
        flushed.zadd("fq:state:scheduled", {name: 1e15})
    where = TaskFilter(user="*")
    for index in range(len(names) - 1):
        page = bench.run(bulk.find_page(bench.engine, where, TaskState.SCHEDULED, None, index + 1))
        assert [one.task_id for one in page.seen] == names[: index + 1]
        removed = flushed.zrem("fq:state:scheduled", names[index])
        assert removed == 1
        following = bench.run(bulk.find_page(bench.engine, where, TaskState.SCHEDULED, page.place, 100))
        assert [one.task_id for one in following.seen] == names[index + 1 :]
        flushed.zadd("fq:state:scheduled", {names[index]: 1e15})
    bench.run(bulk.delete_where(bench.engine, TaskFilter(state="scheduled")))


def test_a_bulk_call_that_is_sent_again_does_nothing_a_second_time(bench: Bench) -> None:
    """As after a reply that was lost."""
    bench.put(TaskState.FAILED, "dead")
    bench.push("waits")
    dead, waits = bench.get("dead"), bench.get("waits")
    for action, task, after in (("requeue", dead, TaskState.QUEUED), ("cancel", waits, TaskState.CANCELED)):
        assert task is not None
        assert task.state is not None
        assert task.entered_at is not None
        item = (task.task_id, task.state.code, micros(task.entered_at))
        assert bench.call("bulk", action, *item) == [1]
        assert bench.call("bulk", action, *item) == [-1]
        assert bench.call("bulk", action, "nothing", 1, 1) == [0]
        assert bench.state(task.task_id) is after
    again = bench.get("dead")
    assert again is not None
    assert again.run == 1
    bench.call("delete", "dead")


def test_what_somebody_has_put_in_the_place_of_dead_letters_stops_no_round(
    bench: Bench, flushed: redis.Redis
) -> None:
    bench.put(TaskState.FAILED, "t", user_id="u")
    flushed.set("fq:dlq:u", "nonsense")
    round_of(bench)
    flushed.delete("fq:dlq:u")
    assert round_of(bench) == {"orphans": 1}
    assert_consistent(flushed)
    bench.call("delete", "t")
