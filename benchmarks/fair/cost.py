"""What limits cost: the server's time for a claim (with the settle of the one before) under all of them, against none.

Each set of limits has a server of its own. Blocks of claims take turns between them, and the time is the server's own
(`INFO commandstats`), so what is compared is the scripts and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from fairque.core.config import QueueConfig
from fairque.core.models import Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims, policies, push
from fairque.queue.operations.base import Engine
from tests.support.servers import ServerProcess

LIMIT = 1.3
TENANTS, GROUPS = 100, 10
BLOCK = 50


@dataclass(frozen=True)
class Limits:
    """Which limits are in force, none of which is ever reached."""

    user: Mapping[str, Any]
    group: bool = False
    limiter: bool = False
    share: float = 1.0


NONE = Limits({})
ALL = Limits(
    {"weight": 2.0, "max_concurrency": 1000, "rate_limit": 1e6, "burst": 1000, "max_queued": 10_000_000},
    group=True,
    limiter=True,
    share=0.9,
)
SETS: dict[str, Limits] = {
    "none": NONE,
    "weight": Limits({"weight": 2.0}),
    "max_concurrency": Limits({"max_concurrency": 1000}),
    "rate_limit": Limits({"rate_limit": 1e6, "burst": 1000}),
    "max_queued": Limits({"max_queued": 10_000_000}),
    "organisation": Limits({}, group=True),
    "max_user_share": Limits({}, share=0.9),
    "limiter": Limits({}, limiter=True),
    "all but organisation and limiter": Limits(ALL.user, share=0.9),
    "all": ALL,
}


class Queue:
    """A queue with backlogs of 100 tenants under a set of limits, and who claims from it."""

    def __init__(self, client: redis.Redis, limits: Limits, batch: int) -> None:
        self.client: Any = client
        self.limits, self.batch = limits, batch
        self.engine = Engine(QueueConfig(max_user_share=limits.share))
        self.manager = LuaScriptManager(client)
        self.session = claims.Session(slots=batch)
        self.manager.run(claims.join(self.engine, self.session))
        self.held: tuple[Task[Any], ...] = ()
        self._set()

    def _set(self) -> None:
        run: Callable[[Any], Any] = self.manager.run
        if self.limits.group:
            for number in range(GROUPS):
                # The organisation is limited as its users are.
                run(policies.set_group_policy(self.engine, f"group{number}", GroupPolicy(**self.limits.user)))
        if self.limits.limiter:
            limiter = LimiterPolicy(max_concurrency=1000, rate_limit=1e6, burst=1000)
            run(policies.set_limiter(self.engine, "limiter", limiter))
        for number in range(TENANTS):
            fields = dict(self.limits.user)
            if self.limits.group:
                fields["group"] = f"group{number % GROUPS}"
            if fields:
                run(policies.set_user_policy(self.engine, f"user{number}", UserPolicy(**fields)))

    def fill(self, tasks: int) -> None:
        """Push so many tasks in all."""
        limiter = "limiter" if self.limits.limiter else None
        made = (
            Task.create(user_id=f"user{number % TENANTS}", payload=number, limiter=limiter)
            for number in range(tasks)
        )
        while chunk := push.take_chunk(made):
            self.manager.run(push.push_chunk(self.engine, chunk))

    def block(self, calls: int) -> float:
        """Settle and claim so often; returns the server's µs for each task."""
        before = self._micros()
        for _ in range(calls):
            settled = [claims.Settlement(t.task_id, claims.token_of(t), "finish", 0.001) for t in self.held]
            exchange = self.manager.run(
                claims.settle_and_claim(self.engine, self.session, want=self.batch, settlements=settled)
            )
            assert len(exchange.claimed) == self.batch, "the queue ran dry"
            self.held = exchange.claimed
        return (self._micros() - before) / (calls * self.batch)

    def _micros(self) -> int:
        stats = self.client.info("commandstats")
        return int(stats.get("cmdstat_fcall", {"usec": 0})["usec"])


def costs(binary: Path, names: list[str], batch: int, blocks: int) -> dict[str, float]:
    """Median µs for each task under each set of limits."""
    times: dict[str, list[float]] = {name: [] for name in names}
    calls = max(1, BLOCK // batch)
    with ExitStack() as stack:
        queues: dict[str, Queue] = {}
        for name in names:
            server = stack.enter_context(ServerProcess(binary))
            queues[name] = Queue(server.client(), SETS[name], batch)
            queues[name].fill((blocks + 12) * calls * batch)
        for number in range(-10, blocks):
            # Whoever is first in one block is last in the next.
            for name in names if number % 2 else reversed(names):
                took = queues[name].block(calls)
                if number >= 0:
                    times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}
