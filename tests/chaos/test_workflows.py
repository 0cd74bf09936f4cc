"""Workflows whose workers are killed: every node ends, each after what it waits for, and once on record."""

from __future__ import annotations

import os
import random
import signal
import time
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
from tests.support.worker_tasks import work
from tests.support.workers import MODULES, Workshop, until

MINUTES = float(os.environ.get("FAIRQUE_CHAOS_MINUTES", "0"))
ENDED = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED)


def random_graph(chance: random.Random, path: str, name: str) -> Group[object]:
    """Up to 50 tasks, each waiting for some of those before; a few fail at once."""
    tasks: list[Task[object]] = []
    for number in range(chance.randint(2, 50)):
        before = chance.sample(tasks, min(len(tasks), chance.choice((0, 1, 1, 2, 5))))
        rule = cast(TriggerRule, chance.choice((*("all_success",) * 4, *TRIGGER_RULES)))
        task = work.with_options(depends_on=before, trigger_rule=rule, max_retries=0, labels={"rule": rule})
        seconds = chance.choice((0, 0, 0.005, 0.02))
        failing = chance.random() < 0.05
        tasks.append(task(path if not failing else "/nowhere/at/all", f"{name}-{number}", seconds))
    return Group(tuple(tasks))


def check_ends(graph: Graph, nodes: tuple[WorkflowNode, ...]) -> None:
    """What became of each is what its rule says, given what became of those that it waits for."""
    states = {node.task_id: node.task.state for node in nodes if node.task is not None}
    assert states.keys() == graph.nodes.keys()
    for task_id, task in graph.nodes.items():
        assert states[task_id] in ENDED, states[task_id]
        before = [states[other] for other in graph.upstream[task_id]]
        decision = decide(
            task.trigger_rule,
            succeeded=before.count(TaskState.FINISHED),
            failed=before.count(TaskState.FAILED),
            canceled=before.count(TaskState.CANCELED),
            pending=0,
        )
        ran = next(node.task for node in nodes if node.task_id == task_id)
        assert ran is not None
        if decision.action == "never":
            # It was decided as soon as it was certain: a cancellation that came before a failure counts.
            early = TaskState.CANCELED in before and TaskState.FAILED in before
            assert states[task_id] is decision.state or early, (task.trigger_rule, before)
            assert ran.attempt == 0
        else:
            assert ran.attempt >= 1, (task.trigger_rule, before)


@pytest.mark.timeout(120 + 120 * MINUTES)
def test_random_graphs_end_in_order_while_workers_are_killed(workshop: Workshop) -> None:
    count = round(30 + 1000 * MINUTES)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    graphs: list[tuple[Graph, WorkflowHandle[Any]]] = []
    supervised = workshop.supervise(2, modules=MODULES, max_concurrent_tasks=4)
    for number in range(count):
        group = random_graph(chance, workshop.path, f"g{number}")
        graphs.append((group.graph(), workshop.queue.enqueue(group)))
    kills = 0
    while any(handle.info().is_running for _, handle in graphs) and kills < 6:
        until(lambda: len(supervised.supervisor.pids()) == 2)
        time.sleep(chance.uniform(0.05, 0.4))
        os.kill(chance.choice(supervised.supervisor.pids()), signal.SIGKILL)
        kills += 1
        time.sleep(0.05)
    until(
        lambda: not any(handle.info().is_running for _, handle in graphs),
        60,
        lambda: (seed, workshop.stats()),
    )
    assert kills > 1, seed
    lines = workshop.ledger.lines()
    first_begin: dict[str, int] = {}
    ends: dict[str, int] = {}
    for position, (word, key, _pid) in enumerate(lines):
        if word == "begin":
            first_begin.setdefault(key, position)
        else:
            ends.setdefault(key, position)
    total = 0
    for graph, handle in graphs:
        info = handle.info()
        assert info.finished + info.failed + info.canceled == info.total == len(graph.nodes), (seed, info)
        total += info.total
        nodes = handle.tree()
        check_ends(graph, nodes)
        states = {node.task_id: node.task.state for node in nodes if node.task is not None}
        for task_id, task in graph.nodes.items():
            key = task.args[1]
            if task.trigger_rule != "all_success" or key not in first_begin:
                continue
            for other in graph.upstream[task_id]:
                assert states[other] is TaskState.FINISHED, seed
                assert ends[graph.nodes[other].args[1]] < first_begin[key], seed
    user = workshop.queue.get_user_stats("default")
    assert user.finished + user.failed + user.canceled == total, seed
    workshop.assert_settled()
