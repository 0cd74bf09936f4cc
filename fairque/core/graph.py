"""Tasks and what each of them waits for: duplicates, cycles, and an order in which they can run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from fairque.core.exceptions import CycleError, InvalidTaskError
from fairque.core.models import Task, new_task_id
from fairque.core.references import EachRef, find_references

SHOWN_OF_A_CYCLE = 10


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """A workflow as it is stored: `nodes` by id in the order in which they were first named.

    `upstream` has for each id the nodes that it waits for, in that same order; `outside` the ids it waits for
    that are no nodes here, as far as there are any.
    """

    nodes: Mapping[str, Task[Any]]
    upstream: Mapping[str, tuple[str, ...]]
    outside: Mapping[str, tuple[str, ...]]
    name: str | None = None
    workflow_id: str = field(default_factory=new_task_id)

    @classmethod
    def build(cls, tasks: Iterable[Task[Any]], edges: Iterable[tuple[str, str]] = ()) -> Graph:
        """The graph of `tasks`, where each of `edges` is (the id that comes first, the id that waits for it).

        To them come each task's `depends_on`, and the tasks whose output is among its arguments.

        Raises:
            InvalidTaskError: two tasks have one id, or a task came from the server.
        """
        nodes: dict[str, Task[Any]] = {}
        for task in tasks:
            if nodes.setdefault(task.task_id, task) is not task:
                raise InvalidTaskError(
                    f"two tasks have the id {task.task_id}: {task_name(nodes[task.task_id])} and {task_name(task)}; "
                    "leave task_id out, or give each its own",
                    task_id=task.task_id,
                    user_id=task.user_id,
                )
            if task.state is not None:
                raise InvalidTaskError(
                    f"task {task.task_id} came from the server, so it cannot be part of a new workflow: name it in "
                    "depends_on, or use a copy, task.with_options()",
                    task_id=task.task_id,
                    user_id=task.user_id,
                )
        # By number, so that what a task waits for can be put in the order of the nodes.
        ids = tuple(nodes)
        number = {task_id: index for index, task_id in enumerate(ids)}
        waits: list[set[int]] = [set() for _ in ids]
        outside: dict[str, tuple[str, ...]] = {}
        for first, then in edges:
            waits[number[then]].add(number[first])
        for index, task in enumerate(nodes.values()):
            named = dependencies_of(task)
            waits[index].update(number[other] for other in named if other in number)
            if others := tuple(other for other in named if other not in number):
                outside[task.task_id] = others
        upstream = {
            task_id: tuple(ids[other] for other in sorted(some))
            for task_id, some in zip(ids, waits, strict=True)
        }
        return cls(MappingProxyType(nodes), MappingProxyType(upstream), MappingProxyType(outside))

    @property
    def edge_count(self) -> int:
        """How many pairs of nodes there are of which one waits for the other."""
        return sum(map(len, self.upstream.values()))

    @property
    def sources(self) -> tuple[Task[Any], ...]:
        """The nodes that wait for no other node."""
        return tuple(self.nodes[task_id] for task_id, before in self.upstream.items() if not before)

    @property
    def sinks(self) -> tuple[Task[Any], ...]:
        """The nodes that no other node waits for."""
        awaited = {other for before in self.upstream.values() for other in before}
        return tuple(task for task_id, task in self.nodes.items() if task_id not in awaited)

    def dependencies(self, task_id: str) -> tuple[str, ...]:
        """Every id that the node waits for: the nodes first, then those outside."""
        return self.upstream[task_id] + self.outside.get(task_id, ())

    def downstream(self) -> dict[str, list[str]]:
        """For each node those that wait for it."""
        after: dict[str, list[str]] = {task_id: [] for task_id in self.nodes}
        for task_id, before in self.upstream.items():
            for other in before:
                after[other].append(task_id)
        return after

    def order(self) -> tuple[Task[Any], ...]:
        """The nodes so that each comes after those it waits for; otherwise as they were first named.

        Raises:
            CycleError: some wait for each other; the error names them.
        """
        after = self.downstream()
        missing = {task_id: len(before) for task_id, before in self.upstream.items()}
        ready = deque(task_id for task_id, count in missing.items() if not count)
        found: list[Task[Any]] = []
        while ready:
            task_id = ready.popleft()
            found.append(self.nodes[task_id])
            for other in after[task_id]:
                missing[other] -= 1
                if not missing[other]:
                    ready.append(other)
        if len(found) < len(self.nodes):
            raise self._cycle_error({task_id for task_id, count in missing.items() if count})
        return tuple(found)

    def tasks(self) -> tuple[Task[Any], ...]:
        """As `order`, each with all that it waits for as its `depends_on`: what is to be stored.

        Raises:
            CycleError: some wait for each other; the error names them.
        """
        return tuple(
            task
            if (merged := self.dependencies(task.task_id)) == task.depends_on
            else msgspec.structs.replace(task, depends_on=merged)
            for task in self.order()
        )

    def _cycle_error(self, stuck: set[str]) -> CycleError:
        # Each of the stuck waits for another one of them, so a walk against the edges must come back.
        task_id = next(iter(task_id for task_id in self.nodes if task_id in stuck))
        seen: dict[str, None] = {}
        while task_id not in seen:
            seen[task_id] = None
            task_id = next(other for other in self.upstream[task_id] if other in stuck)
        walk = list(seen)
        ids = tuple(reversed(walk[walk.index(task_id) :]))
        # From the first that was named on, as whoever wrote it reads it.
        first = next(iter(task_id for task_id in self.nodes if task_id in set(ids)))
        ids = ids[ids.index(first) :] + ids[: ids.index(first)]
        shown = [f"{task_name(self.nodes[task_id])} ({task_id})" for task_id in (*ids, ids[0])]
        if len(ids) > SHOWN_OF_A_CYCLE:
            shown[SHOWN_OF_A_CYCLE - 1 : -2] = [f"... {len(ids) - SHOWN_OF_A_CYCLE} more ..."]
        return CycleError(
            f"tasks wait for each other, so none of them could run: {' -> '.join(shown)}",
            task_id=ids[0],
            user_id=self.nodes[ids[0]].user_id,
            cycle=ids,
        )

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return (
            f"<Graph {self.workflow_id!r}{name} of {len(self.nodes)} tasks, {self.edge_count} dependencies>"
        )


def dependencies_of(task: Task[Any]) -> tuple[str, ...]:
    """The ids that a task itself waits for: its `depends_on`, and the tasks whose output it is given.

    Raises:
        SerializationError: its arguments are nested too deeply, or contain themselves.
    """
    references = find_references(task.args, task.kwargs, task.payload)
    if not references:
        return task.depends_on
    used = [ref.of.task_id if isinstance(ref, EachRef) else ref.task_id for ref in references]
    return tuple(dict.fromkeys((*task.depends_on, *used)))


def is_mapped(task: Task[Any]) -> bool:
    """Whether the task is a pattern, of which there will be one for each item of an output."""
    return bool(task.args) and type(task.args[0]) is EachRef


def task_name(task: Task[Any]) -> str:
    """How errors and pictures call a task: its function without the module."""
    return task.function.rpartition(":")[2] if task.function else "payload"
