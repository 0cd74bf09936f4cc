"""Keys are deleted, one after the other, while workers are busy: each is found again, and everything runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import ConfigError
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from fairque.scheduler.scheduler import TaskScheduler
from fairque.worker.supervisor import Supervisor
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.servers import ServerProcess
from tests.support.workers import Workshop, until

USERS = 6
TASKS = 2400
PAUSE = 0.15
"""Seconds between two losses: about a sweep (a twelfth of a lease)."""

KEYS = (
    "clock", "ready:all", "ahead", "ready:sparse", "parked", "users", "users:backlog", "user:u0", "user:u1", "user::g",
    "ready::g", "limiter:l", "limiter:l:blocked", "user:u2:limiters", "queue:user:u0:normal", "queue:user:u1:normal",
    "queue:user:u2:limited:l", "state:queued", "state:started", "waiters", "stats", "meta", "holders", "clock",
)  # fmt: skip


def test_any_key_is_lost_under_load(make_workshop: Callable[..., Workshop]) -> None:
    workshop = make_workshop(max_user_share=0.6)
    queue = workshop.queue
    queue.set_group_policy("g", GroupPolicy(weight=2))
    queue.set_limiter("l", LimiterPolicy(max_concurrency=3))
    queue.set_user_policy("u1", UserPolicy(group="g"))
    queue.set_user_policy("u3", UserPolicy(group="g", max_concurrency=2))
    queue.set_user_policy("u4", UserPolicy(rate_limit=200))
    workshop.push_all(
        worker_tasks.work.with_options(
            task_id=f"t{number}", user_id=f"u{number % USERS}", limiter="l" if number % USERS == 2 else None
        )(workshop.path, f"t{number}", 0.02)
        for number in range(TASKS)
    )
    workers = [workshop.process(max_concurrent_tasks=4) for _ in range(2)]
    until(lambda: workshop.count(TaskState.FINISHED) > 50)
    held = [f"worker:{name}:tasks" for name in workshop.alive("process1")]
    for key in (*KEYS, *held):
        workshop.client.delete(f"fq:{key}")
        time.sleep(PAUSE)
    assert workshop.count(TaskState.FINISHED) < TASKS, "there was too little to do"
    workshop.wait_until_done(TASKS)
    begun = workshop.ledger.count("begin")
    assert set(begun) == {f"t{number}" for number in range(TASKS)}
    # Only what a worker was told that it does not hold any more can have begun again.
    assert sum(begun.values()) - TASKS <= 8
    queue.reconcile()
    assert queue.reconcile().repaired == ()
    workshop.assert_settled()
    assert all(worker.popen.poll() is None for worker in workers)


def test_nobody_serves_a_queue_on_a_server_that_evicts(new_server: Callable[..., ServerProcess]) -> None:
    """A full server would throw tasks away, with or without a TTL. Who looks, or pushes, is not kept out."""
    server = new_server(options={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"})
    client = server.client()
    config = FairQueueConfig.from_dict({"redis": {"url": server.url}})
    for policy in ("allkeys-lru", "volatile-ttl"):
        client.config_set("maxmemory-policy", policy)
        for start in (Worker(config).start, Supervisor(config).run, TaskScheduler(config).start):
            with pytest.raises(ConfigError, match=f"maxmemory-policy is {policy}.*noeviction"):
                start()
    with TaskQueue(config) as queue:
        assert queue.get_stats().states[TaskState.QUEUED] == 0
        client.config_set("maxmemory-policy", "noeviction")
        worker = Worker(config)
        worker.start()
        assert queue.push(worker_tasks.quick(1)).result(10) == 1
        assert worker.stop(1)
