"""Memory of FairQueue on the server: for a task in each state, and for a tenant.

Each figure twice: by the growth of used_memory, and by the sum of MEMORY USAGE over all keys.
"""

from __future__ import annotations

import time
from typing import Any

from bench.alone.hands import Hands, config_of
from bench.plan import Bench, series

NAME = "footprint"
SYSTEM = ("fairque", "FairQueue")
USED, SUMMED = "by used_memory", "by MEMORY USAGE"
QUEUED, RUNNING, FINISHED = "queued task", "running task", "finished task, no result kept"
KEPT = "finished task, kept for a day"
TENANT = "tenant with a queued task, beside the task"
IDLE = "tenant that is idle"
GONE = "tenant whose counters have expired"
CASES = (QUEUED, RUNNING, FINISHED, KEPT, TENANT, IDLE, GONE)
TASKS = 20_000
SCAN_COUNT = 1000
SHORT_SECONDS = 1
CLAIM = 500


class Weight:
    """The memory of the server now."""

    def __init__(self, client: Any) -> None:
        self.used = int(client.info("memory")["used_memory"])
        self.summed = 0
        keys: list[Any] = list(client.scan_iter(count=SCAN_COUNT))
        for start in range(0, len(keys), SCAN_COUNT):
            with client.pipeline(transaction=False) as pipe:
                for key in keys[start : start + SCAN_COUNT]:
                    pipe.memory_usage(key, samples=0)
                self.summed += sum(filter(None, pipe.execute()))  # a key may expire in between

    def since(self, before: Weight, count: int) -> dict[str, float]:
        """Bytes for each of `count` things that came since."""
        return {USED: (self.used - before.used) / count, SUMMED: (self.summed - before.summed) / count}


def run(bench: Bench) -> None:
    """Once, since memory does not vary."""
    if bench.has_fairque:
        count = bench.count(TASKS)
        bench.interleave(series(NAME, SYSTEM, USED, CASES, lambda: weigh(bench, count)), 1)


def weigh(bench: Bench, count: int) -> dict[str, dict[str, float]]:
    """Bytes of each case."""
    found = _tasks(bench, count, {})
    kept = _tasks(bench, count, {"result_ttl_seconds": 86_400})
    found[KEPT] = kept[FINISHED]
    return found | _tenants(bench, count, found[QUEUED])


def _tasks(bench: Bench, count: int, queue: dict[str, Any]) -> dict[str, dict[str, float]]:
    stage = bench.stage
    stage.reset(1)
    with Hands(config_of(stage.url, **queue), slots=count) as hands:
        hands.push_many(10)
        hands.drain()
        empty = Weight(stage.client)
        hands.push_many(count)
        queued = Weight(stage.client).since(empty, count)
        for start in range(0, count, CLAIM):
            hands.claim(min(CLAIM, count - start))
        running = Weight(stage.client).since(empty, count)
        while hands.held:
            hands.settle(CLAIM)
        finished = Weight(stage.client).since(empty, count)
    return {QUEUED: queued, RUNNING: running, FINISHED: finished}


def _tenants(bench: Bench, count: int, queued: dict[str, float]) -> dict[str, dict[str, float]]:
    """As many tenants, with one task each, then idle, then (with counters that are kept for a second) gone."""
    stage = bench.stage
    stage.reset(1)
    users = [f"user{number}" for number in range(count)]
    with Hands(config_of(stage.url)) as hands:
        hands.push_many(10)
        hands.drain()
        empty = Weight(stage.client)
        hands.push_many(count, users)
        with_task = Weight(stage.client).since(empty, count)
        hands.drain()
        idle = Weight(stage.client).since(empty, count)
    stage.reset(1)
    with Hands(config_of(stage.url, user_ttl_seconds=SHORT_SECONDS)) as hands:
        hands.push_many(10)
        hands.drain()
        empty = Weight(stage.client)
        hands.push_many(count, users)
        hands.drain()
        deadline = time.monotonic() + 10 * SHORT_SECONDS
        before = -1
        while time.monotonic() < deadline and (keys := stage.client.dbsize()) != before:
            before = keys
            time.sleep(1.5 * SHORT_SECONDS)
            hands.queue.cleanup_expired_tasks()
        gone = Weight(stage.client).since(empty, count)
    return {
        TENANT: {metric: with_task[metric] - queued[metric] for metric in queued},
        IDLE: idle,
        GONE: gone,
    }
