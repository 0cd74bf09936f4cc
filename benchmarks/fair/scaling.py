"""The last row of the table: time per claim from 10 tenants to 1,000,000, 1,000 of them with work; in real time.

Two servers, one for each load. Claims of one task (each settles the one before, as a busy worker does) take
turns between the two, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from fair.report import Growth
from fairque.core.config import QueueConfig
from fairque.core.models import Task
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims, push
from fairque.queue.operations.base import Engine
from tests.support.servers import ServerProcess

FEW = 10
LIMIT = 1.5
PIPELINE = 10_000


class Load:
    """A queue with `known` tenants, of which `active` have tasks for so many claims."""

    def __init__(self, client: redis.Redis, mode: str, known: int, active: int, wanted: int) -> None:
        self.client: Any = client
        self.engine = Engine(QueueConfig.model_validate({"fairness": mode}))
        self.manager = LuaScriptManager(client)
        self.session = claims.Session(slots=1)
        self.manager.run(claims.join(self.engine, self.session))
        self.last: Task[Any] | None = None
        self._make_known(known, active)
        per_tenant = -(-wanted // active)
        tasks = (Task.create(user_id=f"user{i}", payload=i) for _ in range(per_tenant) for i in range(active))
        while chunk := push.take_chunk(tasks):
            self.manager.run(push.push_chunk(self.engine, chunk))

    def _make_known(self, known: int, active: int) -> None:
        """What the server keeps of a tenant that was served: as the scripts leave it for one, copied for the others."""
        self.manager.run(push.push(self.engine, Task.create(user_id="user0", payload=0)))
        self.claim()
        self.claim(want=0)
        keys = self.engine.keys
        template: bytes = self.client.get(keys.user("user0"))
        # What its tasks took; in worker_time only.
        costs: bytes | None = self.client.dump(keys.costs("user0"))
        ttl = round(self.engine.config.user_ttl_seconds * 1000)
        since: float = self.client.zscore(keys.users, "user0")
        for start in range(active, known, PIPELINE):
            names = [f"user{i}" for i in range(start, min(start + PIPELINE, known))]
            with self.client.pipeline(transaction=False) as pipe:
                pipe.zadd(keys.users, dict.fromkeys(names, since))
                for name in names:
                    pipe.set(keys.user(name), template, px=ttl)
                    if costs:
                        pipe.restore(keys.costs(name), ttl, costs)
                pipe.execute()

    def claim(self, want: int = 1) -> float:
        """Settle the task of the last claim and claim the next; returns the seconds that it took."""
        settlements = []
        if self.last is not None and self.last.claim is not None:
            settlements = [claims.Settlement(self.last.task_id, self.last.claim.token, "finish", 0.001)]
        flow = claims.settle_and_claim(self.engine, self.session, want=want, settlements=settlements)
        began = time.perf_counter()
        exchange = self.manager.run(flow)
        took = time.perf_counter() - began
        assert len(exchange.claimed) == want, "the queue ran dry"
        self.last = exchange.claimed[0] if want else None
        return took


def pairs(few: Load, many: Load, count: int) -> Iterator[tuple[float, float]]:
    """Pairs of times, after a tenth of the claims as warm-up; who goes first alternates."""
    for number in range(-(count // 10), count):
        if number % 2:
            first, second = few.claim(), many.claim()
        else:
            second, first = many.claim(), few.claim()
        if number >= 0:
            yield first, second


def growth(binary: Path, largest: int, active: int, claims_each: int) -> Iterator[Growth]:
    """Time per claim with more and more tenants, and with the most in the other mode too."""
    known = sorted({number for number in (1000, 100_000, largest) if number <= largest})
    for mode, sizes in (("round_robin", known), ("worker_time", known[-1:])):
        for many in sizes:
            yield measured(binary, mode, many, min(active, many), claims_each)


def measured(binary: Path, mode: str, many: int, active: int, claims_each: int) -> Growth:
    """Medians of claims that take turns between two servers."""
    wanted = claims_each + claims_each // 10 + 1
    with ServerProcess(binary) as one, ServerProcess(binary) as other:
        few_load = Load(one.client(), mode, FEW, FEW, wanted)
        many_load = Load(other.client(), mode, many, active, wanted)
        times = list(pairs(few_load, many_load, claims_each))
    few_seconds, many_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    return Growth(mode, FEW, many, active, few_seconds * 1e6, many_seconds * 1e6, LIMIT)
