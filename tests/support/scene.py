"""A queue in the middle of everything: tenants that are ready, capped, out of tokens, blocked by a limiter, members of
an organisation; tasks that run, wait and are delayed; two workers. For tests that damage it."""

from __future__ import annotations

from typing import Any

import redis

from fairque.core.config import WorkerConfig
from fairque.core.exceptions import WorkerDeadError
from fairque.core.models import Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations import assignment, claims, policies
from fairque.queue.operations.claims import Session
from tests.support.bench import LEASE, Bench, settlement
from tests.support.invariants import Snapshot

USERS = ("plain", "capped", "rated", "member", "colleague", "limited", "slowed", "last")
TASKS_EACH = 4


class Scene:
    """`bench` has the queue. `assigned`: entries of workers name users."""

    def __init__(self, client: redis.Redis, *, assigned: bool = False, **config: Any) -> None:
        self.bench = Bench(client, **{"max_user_share": 0.5} | config)
        self.client: Any = client
        bench, engine = self.bench, self.bench.engine
        bench.run(policies.set_group_policy(engine, "g", GroupPolicy(weight=2)))
        bench.run(policies.set_limiter(engine, "l", LimiterPolicy(max_concurrency=1)))
        bench.run(policies.set_limiter(engine, "r", LimiterPolicy(rate_limit=1)))
        for user, policy in (
            ("capped", UserPolicy(max_concurrency=1)),
            ("rated", UserPolicy(rate_limit=1, burst=1)),
            ("member", UserPolicy(group="g")),
            ("colleague", UserPolicy(group="g", weight=3)),
        ):
            bench.run(policies.set_user_policy(engine, user, policy))
        if assigned:
            one = WorkerConfig(id="one", assigned_users=["plain", "member"])
            two = WorkerConfig(id="two", steal_targets=["plain"])
            bench.run(assignment.publish(engine, assignment.assignment([one, two])))
        self.workers = [bench.worker, bench.join("two" if assigned else "")]
        self.holds: dict[str, dict[bytes, Task[Any]]] = {}
        for user in ("plain", "colleague"):
            bench.push(f"{user} before", user_id=user)
            worker = self.workers[assigned and user == "colleague"]
            task = bench.claim(worker)
            bench.clock.advance(2.5)
            bench.exchange(settlement(task, "finish"), session=worker)
        for user in USERS:
            for number in range(TASKS_EACH):
                limiter = {"limited": "l", "slowed": "r"}.get(user)
                critical = number == 3 or (user == "colleague" and number == 2)
                bench.push(f"{user}{number}", user_id=user, priority=6 if critical else 3, limiter=limiter)
        for user in ("plain", "member"):
            bench.push(f"{user} later", user_id=user, delay=40)
        for worker, want in zip(self.workers, (3, 4), strict=True):
            self._keep(worker, bench.exchange(session=worker, want=want).claimed)
        self.count = len(USERS) * TASKS_EACH + 4

    def _keep(self, worker: Session, tasks: tuple[Task[Any], ...]) -> None:
        self.holds[worker.incarnation] = {claims.token_of(task): task for task in tasks}

    def beat(self, times: int = 10) -> None:
        """Heartbeats of all workers, one lease of them."""
        for _ in range(times):
            self.bench.clock.advance(LEASE / 10)
            for number, worker in enumerate(self.workers):
                try:
                    held = self.bench.exchange(
                        session=worker, holding=list(self.holds[worker.incarnation])
                    ).held
                except WorkerDeadError:
                    self._begin_again(number)
                else:
                    if held is not None:
                        self._keep(worker, held)

    def _begin_again(self, number: int) -> None:
        self.workers[number] = self.bench.join(self.workers[number].entry)
        self.holds[self.workers[number].incarnation] = {}

    def drain(self) -> None:
        """Everything is claimed and finished, with time for rates and delays to pass."""
        for _ in range(70):
            self.bench.clock.advance(LEASE / 11)
            for number, worker in enumerate(self.workers):
                mine = self.holds[worker.incarnation].values()
                try:
                    exchange = self.bench.exchange(
                        *(settlement(task, "finish") for task in mine), session=worker, want=4
                    )
                except WorkerDeadError:
                    self._begin_again(number)
                else:
                    self._keep(worker, exchange.claimed)

    def left(self) -> dict[str, TaskState]:
        """Tasks that have not finished."""
        tasks = Snapshot(self.client).tasks
        return {name: rec.state for name, rec in tasks.items() if rec.state is not TaskState.FINISHED}

    def counters(self) -> dict[str, int]:
        """Those of repairs."""
        found = self.client.hgetall(self.bench.keys.stats)
        return {
            name: int(found[name.encode()])
            for name in ("healed", "reconciled", "broken")
            if name.encode() in found
        }

    def key(self, name: str) -> str:
        """A key by its name below the prefix; `WORKER` in it is the first worker."""
        return f"fq:{name.replace('WORKER', self.workers[0].incarnation)}"
