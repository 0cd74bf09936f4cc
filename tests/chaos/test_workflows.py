"""Workflows whose workers are killed: every node ends, each after what it waits for, and once on record."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from fairque.core.graph import Graph
from fairque.core.models import Task
from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.pipeline import Group
from fairque.core.states import TaskState
from fairque.core.triggers import decide
from fairque.queue.operations.workflows import WorkflowNode
from fairque.queue.workflows import WorkflowHandle
from tests.support.worker_tasks import Ledger, flaky, work
from tests.support.workers import Supervised, WorkerProcess, Workshop, until

MINUTES = float(os.environ.get("FAIRQUE_CHAOS_MINUTES", "0"))
GRAPHS = 1000 if MINUTES else 60
"""How many; `make chaos` runs them all."""
BATCH = 50
"""How many run at once."""
NODES = 50 if MINUTES else 25
PAUSES = (0, 0, 0.005, 0.02) if MINUTES else (0, 0.02, 0.1, 0.3)
"""How long tasks run: where there are few, long enough to be killed."""
SLOTS = 4
NOWHERE = "/nowhere/at/all"
"""A ledger that nobody can write to: whoever tries fails."""
ENDED = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED)
ALL_ENDED = ("all_success", "all_done", "none_failed")
"""The rules that let a task run only when all that it waits for has ended."""


def random_graph(chance: random.Random, path: str, name: str) -> Group[object]:
    """Some tasks, each waiting for some of those before; a few fail at once, or the first time."""
    tasks: list[Task[object]] = []
    for number in range(chance.randint(2, NODES)):
        before = chance.sample(tasks, min(len(tasks), chance.choice((0, 1, 1, 2, 5))))
        rule = cast(TriggerRule, chance.choice((*("all_success",) * 4, *TRIGGER_RULES)))
        key, kind = f"{name}-{number}", chance.random()
        options: dict[str, Any] = {"depends_on": before, "trigger_rule": rule}
        if kind < 0.05:
            tasks.append(flaky.with_options(**options, max_retries=1)(path, key, 1))
        else:
            where, seconds = path if kind > 0.1 else NOWHERE, chance.choice(PAUSES)
            tasks.append(work.with_options(**options, max_retries=0)(where, key, seconds))
    return Group(tuple(tasks))


class Killer:
    """Kills the processes of a fleet, one at a time and at random moments, and has them replaced."""

    def __init__(self, workshop: Workshop, chance: random.Random) -> None:
        self._workshop, self._chance = workshop, chance
        self._supervised: Supervised = workshop.supervise(2, max_concurrent_tasks=SLOTS)
        self._alone: WorkerProcess = workshop.process(max_concurrent_tasks=SLOTS)
        self._over = threading.Event()
        self.killed: set[int] = set()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._chance.uniform(0.1, 0.8)):
                # Who is killed has lived: were none of them ready for a lease, nobody would miss the dead.
                if (
                    len(self._supervised.supervisor.pids()) < 2
                    or len(self._workshop.alive("supervised1")) < 2
                ):
                    continue
                if self._chance.random() < 0.15:
                    # One without a supervisor: its lease has to run out.
                    self.killed.add(self._alone.pid)
                    self._alone.kill_all()
                    self._alone = self._workshop.process(max_concurrent_tasks=SLOTS)
                else:
                    pid = self._chance.choice(self._supervised.supervisor.pids())
                    self.killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test raises it
            self.error = error

    @contextmanager
    def killing(self) -> Generator[None, None, None]:
        """Kills inside of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            if self.error is not None:
                raise self.error


def check_ends(graph: Graph, nodes: tuple[WorkflowNode, ...]) -> None:
    """What became of each is what its rule says, given what became of those that it waits for."""
    found = {node.task_id: node.task for node in nodes if node.task is not None}
    assert found.keys() == graph.nodes.keys()
    for task_id, task in graph.nodes.items():
        ran = found[task_id]
        assert ran.state in ENDED, ran
        before = [found[other].state for other in graph.upstream[task_id]]
        decision = decide(
            task.trigger_rule,
            succeeded=before.count(TaskState.FINISHED),
            failed=before.count(TaskState.FAILED),
            canceled=before.count(TaskState.CANCELED),
            pending=0,
        )
        if decision.action == "never":
            # It was decided as soon as it was certain: a cancellation that came before a failure counts.
            early = TaskState.CANCELED in before and TaskState.FAILED in before
            assert ran.state is decision.state or early, (task.trigger_rule, before)
            assert ran.attempt == 0, (task.trigger_rule, before)
        else:
            assert ran.attempt >= 1, (task.trigger_rule, before)
            fails = task.args[0] == NOWHERE or "crashed" in ran.reason
            assert ran.state is (TaskState.FAILED if fails else TaskState.FINISHED), ran


class Lines:
    """What the ledger says of each key: where its lines stand, and which processes began it."""

    def __init__(self, ledger: Ledger) -> None:
        self.places: dict[str, list[int]] = defaultdict(list)
        self.began: dict[str, list[int]] = defaultdict(list)
        self.ended: Counter[str] = Counter()
        for place, (word, key, pid) in enumerate(ledger.lines()):
            self.places[key].append(place)
            if word == "begin":
                self.began[key].append(pid)
            else:
                self.ended[key] += 1

    def check(self, graph: Graph, nodes: tuple[WorkflowNode, ...], killed: set[int]) -> None:
        """Each ran after all that its rule makes it wait for, and again only if a killed process had it."""
        states = {node.task_id: node.task.state for node in nodes if node.task is not None}
        for task_id, task in graph.nodes.items():
            if task.args[0] == NOWHERE:
                continue
            key = task.args[1]
            began = self.began[key]
            retries = 1 if task.function.endswith("flaky") else 0
            assert len(began) <= 1 + retries + len(killed.intersection(began)), (key, began)
            if states[task_id] is TaskState.FINISHED:
                assert began, key
            elif states[task_id] is TaskState.CANCELED:
                assert not began, key
            if not began or task.trigger_rule not in ALL_ENDED:
                continue
            for other in graph.upstream[task_id]:
                lines = self.places[graph.nodes[other].args[1]]
                assert not lines or lines[-1] < self.places[key][0], (key, graph.nodes[other].args[1])


@pytest.mark.timeout(150 + 120 * MINUTES + 900 * bool(MINUTES))
def test_random_graphs_end_in_order_while_workers_are_killed(
    make_workshop: Callable[..., Workshop],
) -> None:
    workshop = make_workshop(lease_seconds=5)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    killer = Killer(workshop, random.Random(seed + 1))
    ran: list[tuple[Graph, WorkflowHandle[Any]]] = []
    with killer.killing():
        for start in range(0, GRAPHS, BATCH):
            batch: list[tuple[Graph, WorkflowHandle[Any]]] = []
            for number in range(start, min(start + BATCH, GRAPHS)):
                group = random_graph(chance, workshop.path, f"g{number}")
                batch.append((group.graph(), workshop.queue.enqueue(group)))
            waiting = dict(enumerate(batch))

            def all_ended(waiting: dict[int, tuple[Graph, WorkflowHandle[Any]]] = waiting) -> bool:
                for number, (_, handle) in list(waiting.items()):
                    if not handle.info().is_running:
                        del waiting[number]
                return not waiting

            until(all_ended, 180, lambda: (seed, killer.error, workshop.stats()))
            ran += batch
    lines, total, again = Lines(workshop.ledger), 0, 0
    for graph, handle in ran:
        info = handle.info()
        assert info.finished + info.failed + info.canceled == info.total == len(graph.nodes), (seed, info)
        total += info.total
        nodes = handle.tree()
        try:
            check_ends(graph, nodes)
            lines.check(graph, nodes, killer.killed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        again += sum(len(lines.began[task.args[1]]) > 1 for task in graph.nodes.values())
    print(f"{len(ran)} graphs of {total} tasks, {len(killer.killed)} kills, {again} tasks ran more than once")
    assert len(killer.killed) > 1, seed
    user = workshop.queue.get_user_stats("default")
    assert user.finished + user.failed + user.canceled == total, seed
    workshop.assert_settled()
