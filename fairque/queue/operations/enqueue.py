"""new -> queued | scheduled | deferred: a graph of tasks, all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairque.core.exceptions import (
    DuplicateTaskError,
    FairQueueError,
    GraphTooLargeError,
    InvalidTaskError,
    QueueUnavailableError,
)
from fairque.core.graph import Graph
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.pipeline import output_of, to_graph
from fairque.core.plain import pack as pack_value
from fairque.core.references import OutputRef
from fairque.queue.operations import push
from fairque.queue.operations.base import Argument, Engine, Flow

MAX_NODES = 1000
MAX_BYTES = 4 << 20
MAX_EDGES = 10_000
"""What one call stores. A larger graph is staged first."""
STAGE_SECONDS = 600.0
"""How long a stage that nobody goes on with is kept."""


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """What `enqueue` stores: the tasks in an order in which they can run, what each waits for, and what it gives."""

    graph: Graph
    tasks: tuple[Task[Any], ...]
    output: Any

    @property
    def returns(self) -> str:
        """The function whose result is the workflow's, or nothing if that is put together."""
        whole = type(self.output) is OutputRef and not self.output.path
        return self.graph.nodes[self.output.task_id].function if whole else ""

    @classmethod
    def of(cls, work: Any) -> NewWorkflow:
        """Of a task, a group, a pipeline or a list of them.

        Raises:
            CycleError, GraphTooLargeError, InvalidTaskError: it can never run, is too large, or is none of these.
        """
        graph = to_graph(work)
        if not graph.nodes:
            raise InvalidTaskError("there is no task in this workflow")
        for task in graph.nodes.values():
            if task.on_duplicate == "return":
                raise InvalidTaskError(
                    f"task {task.task_id} has on_duplicate='return', and a workflow cannot take over a task that is "
                    "there already: name that in depends_on",
                    task_id=task.task_id,
                    user_id=task.user_id,
                )
        return cls(graph, graph.tasks(), output_of(work))


def encoded_id(workflow_id: str) -> str:
    return encode(workflow_id, "workflow_id")


def enqueue(engine: Engine, new: NewWorkflow, sent: Sequence[Task[Any]]) -> Flow[None]:
    """Store a workflow, all of it or nothing. `sent`: its tasks as middleware left them, in the order of `new`.

    Raises:
        InvalidTaskError: (or one below it) a task cannot be stored as it is.
        DuplicateTaskError: the id of a task, or of the workflow, is taken.
        QuotaExceededError, UnknownLimiterError, UnknownDependencyError: of a task.
        QueueFullError: the server has no memory for it.
    """
    graph = new.graph
    items: list[bytes] = []
    size = edges = 0
    for task in sent:
        packed = push.pack(engine, task)
        near, far = graph.upstream[task.task_id], graph.outside.get(task.task_id, ())
        if len(near) + len(far) > push.MAX_DEPENDENCIES:
            raise GraphTooLargeError(
                f"task {task.task_id} waits for {len(near) + len(far):,} others; {push.MAX_DEPENDENCIES:,} are "
                "allowed: put tasks in between that each wait for some",
                task_id=task.task_id,
                user_id=task.user_id,
            )
        items.append(push.pack_node(task, packed, near, far))
        size += len(items[-1])
        edges += len(near) + len(far)
    workflow, name = encoded_id(graph.workflow_id), graph.name or ""
    output = pack_value(new.output, "the workflow's output")
    op = os.urandom(8)
    if len(items) <= MAX_NODES and size <= MAX_BYTES and edges <= MAX_EDGES:
        reply = yield engine.call("push_graph", workflow, name, output, op, *items)
        for task, code, detail in zip(sent, reply[::2], reply[1::2], strict=True):
            if code not in (push.STORED, push.KEPT_OUT):
                raise _refusal(task, code, detail, graph)
        return
    yield from _stage(engine, sent, items, workflow, graph)
    users: dict[str, int] = {}
    for task in sent:
        users[task.user_id] = users.get(task.user_id, 0) + 1
    counts: list[Argument] = [part for user, count in users.items() for part in (encode(user), count)]
    code, detail = yield engine.call("commit", workflow, name, output, op, len(items), *counts)
    if code == 0:
        raise QueueUnavailableError(
            f"workflow {graph.workflow_id} was not stored, because that took too long: enqueue it again",
            task_id=graph.workflow_id,
        )
    if code != push.STORED:
        raise _refusal(sent[0], code, detail, graph)
    yield from go_on(engine)


def _stage(
    engine: Engine, sent: Sequence[Task[Any]], items: Sequence[bytes], workflow: str, graph: Graph
) -> Flow[None]:
    ttl = round(STAGE_SECONDS * 1e3)
    start, backwards = 0, list(zip(reversed(sent), reversed(items), strict=True))
    while start < len(items):
        end = start
        size = 0
        while end < len(items) and end - start < MAX_NODES:
            size += len(backwards[end][1])
            if size > MAX_BYTES and end > start:
                break
            end += 1
        chunk = backwards[start:end]
        refusal = yield engine.call("stage", workflow, start, ttl, *(item for _, item in chunk))
        if refusal:
            code, detail, *index = refusal
            raise _refusal(chunk[index[0] if index else 0][0], code, detail, graph)
        start = end


def _refusal(task: Task[Any], code: int, detail: bytes, graph: Graph) -> FairQueueError:
    if code == push.TAKEN_WORKFLOW:
        return DuplicateTaskError(
            f"there is a workflow {graph.workflow_id} already: choose another workflow_id",
            task_id=graph.workflow_id,
        )
    error = push.outcome_of(task, push.TAKEN if code == push.RETURNED else code, detail).error
    return error or FairQueueError(f"task {task.task_id} was refused ({code})", task_id=task.task_id)


def go_on(engine: Engine) -> Flow[None]:
    """Do what earlier calls have left to do, which workers would do otherwise."""
    while (yield engine.call("go_on")):
        pass
