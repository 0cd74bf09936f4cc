"""What would be mended is told without a single write."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import redis

from fairque.core.keys import Keys
from fairque.queue.operations.reconcile import Report, reconcile
from tests.scripts.test_reconcile import KEYS, UNSEEN
from tests.support.bench import Bench
from tests.support.invariants import assert_consistent, dump
from tests.support.scene import Scene

DAMAGED = [key for key in KEYS if key not in (*UNSEEN, "worker:WORKER")]


def examined(bench: Bench, tasks: bool = True) -> Report:
    report: Report = bench.run(reconcile(bench.engine, tasks=tasks, dry_run=True))
    return report


def test_a_queue_in_order_has_nothing_to_tell(flushed: redis.Redis) -> None:
    scene = Scene(flushed)
    before = dump(flushed)
    report = examined(scene.bench)
    assert report.repaired == ()
    assert report.checked > 30
    assert dump(flushed) == before


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_lost_is_told_and_left_alone(flushed: redis.Redis, name: str) -> None:
    """Whatever reconcile() would find, and in the same words as far as one page does not follow from another."""
    scene = Scene(flushed)
    flushed.delete(scene.key(name))
    before = dump(flushed)
    told = examined(scene.bench)
    assert told.repaired
    assert dump(flushed) == before
    mended: Report = scene.bench.run(reconcile(scene.bench.engine))
    assert {one.what for one in mended.repaired} & {one.what for one in told.repaired}
    assert examined(scene.bench).repaired == ()
    assert_consistent(flushed)


@pytest.mark.parametrize("key", ["queue:user:plain:normal", "queue:user:member:critical", "dlq:plain"])
def test_what_was_put_in_the_place_of_a_queue_is_told(flushed: redis.Redis, key: str) -> None:
    scene = Scene(flushed)
    flushed.delete(f"fq:{key}")
    flushed.hset(f"fq:{key}", "put", "by hand")
    before = dump(flushed)
    assert examined(scene.bench).repaired
    assert dump(flushed) == before
    scene.bench.run(reconcile(scene.bench.engine))
    assert examined(scene.bench).repaired == ()


def test_a_pretended_call_leaves_nothing_behind_for_the_next(flushed: redis.Redis) -> None:
    """The library's locals outlive a call: a push that comes after it must write."""
    scene = Scene(flushed)
    flushed.delete(scene.key("clock"), scene.key("state:started"))
    examined(scene.bench)
    scene.bench.push("new", user_id="plain")
    assert flushed.exists("fq:task:new")
    scene.bench.run(reconcile(scene.bench.engine))
    assert_consistent(flushed)


def test_counts_only_are_looked_at_if_asked(flushed: redis.Redis) -> None:
    scene = Scene(flushed)
    data = bytearray(_clock(flushed))
    struct.pack_into(">d", data, 5 * 8, 99.0)  # all_running
    flushed.set(Keys("fq").clock, bytes(data))
    told = examined(scene.bench, tasks=False)
    assert "all_running of queue" in {one.what for one in told.repaired}
    assert told.checked < examined(scene.bench).checked


def test_a_replica_can_be_examined(flushed: redis.Redis, new_server: Any) -> None:
    scene = Scene(flushed)
    server = new_server()
    copy = server.client()
    copy.function_load(scene.bench.manager.library.text.decode())
    for key in flushed.keys("*"):
        copy.restore(key, 0, flushed.dump(key))
    copy.execute_command("REPLICAOF", "127.0.0.1", "1")
    scene.bench.manager.client = copy
    scene.bench.manager._pool = copy.connection_pool
    assert examined(scene.bench).repaired == ()


def _clock(client: redis.Redis) -> bytes:
    data: Any = client.get(Keys("fq").clock)
    return bytes(data)
