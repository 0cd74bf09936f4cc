"""Anything in any order: after each step the keys must not contradict each other, and nothing may be lost."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from fairque.core.config import WorkerConfig
from fairque.core.exceptions import (
    CycleError,
    FairQueueError,
    InvalidStateError,
    QuotaExceededError,
    TaskNotFoundError,
    UnknownDependencyError,
    WorkerDeadError,
)
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.options import TRIGGER_RULES
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations import (
    admin,
    assignment,
    claims,
    cleanup,
    enqueue,
    policies,
    push,
    tasks,
    workflows,
)
from fairque.queue.operations.claims import Session, Settled
from fairque.queue.operations.update import update_task
from tests.support.bench import LEASE, SETTLE_KINDS, Bench, settlement
from tests.support.invariants import Snapshot, assert_consistent

USERS = ("a", "b: {%}", "c")
GROUPS = ("g", "a: {%}")
LIMITERS = ("l", "a: {%}")
ENTRIES = ("", "one", "two")
STEPS = 400


class Walker:
    """Makes random calls, and keeps its own ledger of what must have come of them."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.number = 0
        self.known: set[str] = set()
        self.workers: list[Session] = [bench.worker]
        self.held: dict[bytes, tuple[Session, Task[Any]]] = {}
        self.workflows: list[str] = []
        self.steps = [
            (8, self.push), (2, self.push_many), (8, self.claim), (8, self.settle), (2, self.settle_late),
            (2, self.cancel), (1, self.bury), (1, self.delete), (2, self.requeue), (3, self.policy), (1, self.group),
            (1, self.limiter), (1, self.assign), (1, self.rules), (1, self.pause),
            (3, self.advance), (1, self.join), (1, self.leave), (2, self.renew), (2, self.sweep),
            (1, self.compare), (1, self.repeat), (4, self.update),
            (4, self.enqueue), (2, self.expand), (1, self.cancel_workflow), (1, self.retry_workflow),
        ]  # fmt: skip

    def step(self) -> None:
        weights, steps = zip(*self.steps, strict=True)
        [chosen] = self.random.choices(steps, weights)
        try:
            chosen()
        except WorkerDeadError:
            self._forget_the_dead()

    def _forget_the_dead(self) -> None:
        alive = {name.decode() for name in self.bench.client.zrange(self.bench.keys.workers, 0, -1)}
        self.workers = [worker for worker in self.workers if worker.incarnation in alive]
        if not self.workers:
            self.join()

    def _task(self) -> Task[Any]:
        self.number += 1
        chance, options = self.random.random(), dict[str, Any]()
        now = datetime.fromtimestamp(self.bench.clock.seconds, UTC)
        if chance < 0.2:
            options["delay"] = self.random.randint(1, 30)
        if chance > 0.8:
            options["expires_at"] = now + timedelta(seconds=self.random.randint(-1, 30))
        if self.random.random() < 0.3:
            options["limiter"] = self.random.choice(LIMITERS)
        if self.random.random() < 0.2:
            options |= self.random.choice((
                {"on_duplicate": "return"},
                {"on_duplicate": "throttle", "dedup_window": 5},
                {"on_duplicate": "debounce", "dedup_window": self.random.choice((0.001, 5)), "delay": None},
                {"on_duplicate": "debounce", "dedup_window": 3, "dedup_max_wait": 4, "delay": None},
            ))  # fmt: skip
            options["dedup_key"] = self.random.choice("xyz")
        if self.random.random() < 0.3 and options.get("on_duplicate") != "debounce":
            options |= self._waiting()
        return Task.create(
            task_id=f"t{self.number}", payload=self.number, user_id=self.random.choice(USERS),
            priority=self.random.randint(1, 6), max_retries=self.random.randint(0, 3),
            cost=self.random.choice((0.5, 1, 4)), **options,
        )  # fmt: skip

    def _waiting(self) -> dict[str, Any]:
        """Options of one that waits: for some of the last tasks, or for one that may come, or never does."""
        others = {
            f"t{max(1, self.number - self.random.randint(1, 9))}" for _ in range(self.random.randint(1, 3))
        }
        if self.random.random() < 0.3:
            others.add(f"t{self.number + self.random.randint(1, 5)}")
        options: dict[str, Any] = {
            "depends_on": tuple(sorted(others)),
            "trigger_rule": self.random.choice(TRIGGER_RULES),
        }
        if self.random.random() < 0.8:
            options["await_missing_seconds"] = self.random.choice((1, 20, 60))
        return options

    def push(self) -> None:
        try:
            pushed = self.bench.run(push.push(self.bench.engine, self._task()))
        except (QuotaExceededError, UnknownDependencyError, CycleError):
            return
        self.known.add(pushed.task_id)

    def push_many(self) -> None:
        for pushed in self.bench.run(push.push_chunk(self.bench.engine, [self._task() for _ in range(5)])):
            if pushed.ok:
                self.known.add(pushed.task_id)
            else:
                assert isinstance(pushed.error, QuotaExceededError | UnknownDependencyError | CycleError)

    def _node(self, *others: Task[Any]) -> Task[Any]:
        self.number += 1
        return Task.create(
            task_id=f"t{self.number}", payload=self.number, user_id=self.random.choice(USERS),
            depends_on=tuple(other.task_id for other in others), max_retries=self.random.randint(0, 1),
            trigger_rule=self.random.choice(TRIGGER_RULES), delay=self.random.choice((None, None, 5)),
        )  # fmt: skip

    def enqueue(self) -> None:
        nodes: list[Task[Any]] = []
        for _ in range(self.random.randint(2, 8)):
            nodes.append(self._node(*self.random.sample(nodes, min(len(nodes), self.random.randint(0, 3)))))
        new = enqueue.NewWorkflow.of(nodes)
        try:
            self.bench.run(enqueue.enqueue(self.bench.engine, new, new.tasks))
        except QuotaExceededError:
            return
        self.known |= {node.task_id for node in nodes}
        self.workflows.append(new.graph.workflow_id)

    def expand(self) -> None:
        """A claimed task makes others, and waits for them, as a mapped one does."""
        for token, (_, task) in list(self.held.items()):
            if self.bench.client.exists(self.bench.keys.upstream(task.task_id)):
                there = self.bench.call("expand", encode(task.task_id), token)
                if there < 0:
                    continue
                made = [
                    Task.create(task_id=f"{task.task_id}.{n}", payload=n) for n in range(there, there + 2)
                ]
                nodes = [push.pack_node(one, push.pack(self.bench.engine, one), (), ()) for one in made]
                assert self.bench.call("expand", encode(task.task_id), token, *nodes) == there + 2
                self.known |= {one.task_id for one in made}
                del self.held[token]
                return

    def cancel_workflow(self) -> None:
        if self.workflows:
            self.bench.run(workflows.cancel(self.bench.engine, self.random.choice(self.workflows)))

    def retry_workflow(self) -> None:
        if self.workflows:
            self.bench.run(workflows.retry(self.bench.engine, self.random.choice(self.workflows)))

    def claim(self) -> None:
        worker = self.random.choice(self.workers)
        users = self.random.choice(((), (), (), USERS[:2]))
        park = self.random.random() < 0.5
        exchange = self.bench.exchange(session=worker, want=self.random.randint(1, 4), users=users, park=park)
        for task in exchange.claimed:
            assert task.task_id in self.known
            assert not users or task.user_id in users
            self.held[claims.token_of(task)] = worker, task

    def _held(self, worker: Session) -> list[Task[Any]]:
        return [task for holder, task in self.held.values() if holder is worker]

    def settle(self) -> None:
        worker = self.random.choice(self.workers)
        chosen = [task for task in self._held(worker) if self.random.random() < 0.7]
        settlements = [settlement(task, self.random.choice(SETTLE_KINDS)) for task in chosen]
        exchange = self.bench.exchange(*settlements, session=worker, want=self.random.randint(0, 2))
        assert len(exchange.codes) == len(settlements)
        for task in chosen:
            del self.held[claims.token_of(task)]
        for task in exchange.claimed:
            self.held[claims.token_of(task)] = worker, task

    def settle_late(self) -> None:
        """A claim that was settled, lost or buried long ago, or one that another worker holds."""
        if not self.held:
            return
        holder, task = self.random.choice(list(self.held.values()))
        before = self.bench.get(task.task_id)
        live = before is not None and before.claim == task.claim
        [code] = self.bench.exchange(
            settlement(task, "finish"), session=self.random.choice(self.workers)
        ).codes
        if live:
            assert code in (Settled.FINISHED, Settled.CANCELED)
        elif before is None or before.state is not TaskState.FINISHED:
            assert self.bench.state(task.task_id) is not TaskState.FINISHED
        del self.held[claims.token_of(task)]
        assert holder is not None

    def _any(self) -> str:
        return self.random.choice(sorted(self.known) or ["none"])

    def cancel(self) -> None:
        try:
            self.bench.run(tasks.cancel(self.bench.engine, self._any()))
        except FairQueueError:
            pass

    def bury(self) -> None:
        try:
            self.bench.call("bury_task", self._any(), b"")
        except FairQueueError:
            pass

    def update(self) -> None:
        changes: dict[str, Any] = {}
        for name, values in (
            ("priority", range(1, 7)), ("delay", (0, 1, 20)), ("max_retries", (0, 5)), ("labels", ({}, {"a": "b"})),
            ("expires_at", (None, datetime.fromtimestamp(self.bench.clock.seconds + 9, UTC))),
        ):  # fmt: skip
            if self.random.random() < 0.4:
                changes[name] = self.random.choice(values)
        if not changes:
            return
        task_id = self._any()
        before = self.bench.get(task_id)
        try:
            state = self.bench.run(update_task(self.bench.engine, task_id, changes))
        except InvalidStateError:
            assert before is not None
            assert before.state is not None
            assert before.state is TaskState.STARTED or before.state.is_terminal
        except TaskNotFoundError:
            assert before is None
        else:
            after = self.bench.get(task_id)
            assert after is not None
            assert after.state is state
            for name in ("priority", "max_retries", "labels", "expires_at"):
                if name in changes:
                    assert getattr(after, name) == changes[name]
                else:
                    assert before is None or getattr(after, name) == getattr(before, name)

    def delete(self) -> None:
        task_id = self._any()
        [code] = self.bench.call("delete", task_id)
        if code > 0:
            self.known.discard(task_id)

    def requeue(self) -> None:
        self.bench.call("requeue", *{self._any() for _ in range(3)})

    def policy(self) -> None:
        policy = self.random.choice((
            None,
            UserPolicy(weight=self.random.choice((0.5, 1, 3))),
            UserPolicy(max_concurrency=self.random.randint(1, 3)),
            UserPolicy(paused=True),
            UserPolicy(rate_limit=self.random.choice((0.2, 5)), burst=self.random.randint(1, 3)),
            UserPolicy(max_queued=5),
            UserPolicy(retry_budget=0.1, retry_minimum=0.1),
            UserPolicy(group=self.random.choice(GROUPS)),
            UserPolicy(group=self.random.choice(GROUPS), weight=2, max_concurrency=2),
        ))  # fmt: skip
        self.bench.run(policies.set_user_policy(self.bench.engine, self.random.choice(USERS), policy))

    def group(self) -> None:
        policy = self.random.choice((
            GroupPolicy(), GroupPolicy(weight=2), GroupPolicy(max_concurrency=2), GroupPolicy(paused=True),
            GroupPolicy(rate_limit=1), GroupPolicy(max_queued=8),
        ))  # fmt: skip
        self.bench.run(policies.set_group_policy(self.bench.engine, self.random.choice(GROUPS), policy))

    def limiter(self) -> None:
        policy = self.random.choice((
            LimiterPolicy(max_concurrency=1), LimiterPolicy(max_concurrency=3), LimiterPolicy(rate_limit=0.5),
            LimiterPolicy(rate_limit=20, burst=5, max_concurrency=2),
        ))  # fmt: skip
        self.bench.run(policies.set_limiter(self.bench.engine, self.random.choice(LIMITERS), policy))

    def rules(self) -> None:
        rules = self.random.choice(
            ({}, {"b*": UserPolicy(weight=3)}, {"default": UserPolicy(max_concurrency=2)})
        )
        self.bench.run(policies.set_policy_rules(self.bench.engine, rules))

    def assign(self) -> None:
        """Who serves whom; every user remains somebody's, at least to steal from."""
        one, two = WorkerConfig(id="one"), WorkerConfig(id="two")
        if self.random.random() < 0.7:
            one = WorkerConfig(id="one", assigned_users=list(self.random.sample(USERS, 2)))
            rest = [user for user in USERS if user not in one.assigned_users]
            targets = self.random.choice(("*", one.assigned_users[:1]))
            two = WorkerConfig(id="two", assigned_users=rest, steal_targets=targets)
        self.bench.run(assignment.publish(self.bench.engine, assignment.assignment([one, two])))

    def pause(self) -> None:
        self.bench.run(admin.pause(self.bench.engine, self.random.random() < 0.3))

    def advance(self) -> None:
        self.bench.clock.advance(self.random.choice((0.001, 0.5, 3, LEASE / 3, LEASE)))

    def join(self) -> None:
        self.workers.append(self.bench.join(self.random.choice(ENTRIES)))

    def leave(self) -> None:
        if len(self.workers) > 1:
            worker = self.workers.pop(self.random.randrange(len(self.workers)))
            mine = self._held(worker)
            begun = self.random.choice((None, (), [claims.token_of(task) for task in mine[:1]]))
            self.bench.run(claims.leave(self.bench.engine, worker.incarnation, begun))

    def renew(self) -> None:
        worker = self.random.choice(self.workers)
        self.bench.run(claims.renew(self.bench.engine, worker, self._held(worker)))

    def sweep(self) -> None:
        self.bench.run(cleanup.sweep(self.bench.engine))

    def compare(self) -> None:
        """A heartbeat: afterwards both sides hold the same."""
        worker = self.random.choice(self.workers)
        exchange = self.bench.exchange(
            session=worker, holding=[claims.token_of(task) for task in self._held(worker)]
        )
        if exchange.held is not None:
            for task in self._held(worker):
                del self.held[claims.token_of(task)]
            self.held |= {claims.token_of(task): (worker, task) for task in exchange.held}

    def repeat(self) -> None:
        """The last call's reply was lost: said again, it changes nothing."""
        worker = self.random.choice(self.workers)
        if worker.sequence:
            before = Snapshot(self.bench.client).tasks
            worker.sequence -= 1
            self.bench.exchange(session=worker, want=4)
            assert Snapshot(self.bench.client).tasks == before


@pytest.mark.parametrize("fairness", ["round_robin", "worker_time"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_keys_agree(flushed: redis.Redis, fairness: str, seed: int) -> None:
    bench = Bench(flushed, fairness=fairness, max_user_share=0.6 if seed % 2 else 1)
    for name in GROUPS:
        bench.run(policies.set_group_policy(bench.engine, name, GroupPolicy()))
    for name in LIMITERS:
        bench.run(policies.set_limiter(bench.engine, name, LimiterPolicy(max_concurrency=2)))
    walker = Walker(bench, seed)
    for step in range(STEPS):
        walker.step()
        if step % 10 == 0:
            assert_consistent(flushed)
    assert walker.number > 100
    # Everything that was pushed and not deleted is still there, in some state.
    assert set(Snapshot(flushed).tasks) == walker.known
    # And everybody who waits can be served: nobody was forgotten on the way.
    bench.run(admin.pause(bench.engine, False))
    for limiter in LIMITERS:
        bench.run(policies.set_limiter(bench.engine, limiter, LimiterPolicy(max_concurrency=2)))
    for group in GROUPS:
        bench.run(policies.set_group_policy(bench.engine, group, GroupPolicy()))
    bench.run(policies.set_policy_rules(bench.engine, {}))
    for user in USERS:
        bench.run(policies.set_user_policy(bench.engine, user, None))
    for worker in walker.workers[1:]:
        bench.run(claims.leave(bench.engine, worker.incarnation))
    last = bench.join()
    for _ in range(100):
        bench.clock.advance(LEASE / 3)
        claimed = bench.exchange(session=last, want=100).claimed
        bench.exchange(*(settlement(task, "finish") for task in claimed), session=last)
    assert_consistent(flushed)
    left = {rec.state for rec in Snapshot(flushed).tasks.values()}
    assert left <= {TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED}
