"""Graphs of tasks: stored as a whole, looked at, canceled, run again, and what they give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any, Literal, cast

from fairque.core.codec import decode_value
from fairque.core.exceptions import (
    DuplicateTaskError,
    FairQueueError,
    GraphTooLargeError,
    InvalidTaskError,
    QueueUnavailableError,
    TaskCanceledError,
    TaskFailedError,
    TaskNotFoundError,
)
from fairque.core.graph import Graph
from fairque.core.keys import decode, encode
from fairque.core.models import Task
from fairque.core.pipeline import output_of, to_graph
from fairque.core.plain import pack as pack_value
from fairque.core.rebuild import rebuild_value
from fairque.core.references import OutputRef, fill_references, find_references
from fairque.core.states import TaskState
from fairque.queue.operations import push, results, tasks
from fairque.queue.operations.base import Argument, Engine, Flow
from fairque.queue.operations.outputs import get_outputs, referred
from fairque.queue.operations.records import at, to_task
from fairque.queue.operations.results import WATCH_SECONDS

MAX_NODES = 1000
MAX_BYTES = 4 << 20
MAX_EDGES = 10_000
"""What one call stores. A larger graph is staged first."""
STAGE_SECONDS = 600.0
"""How long a stage that nobody goes on with is kept."""
PAGE = 1000

WorkflowState = Literal["running", "finished", "failed", "canceled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow as the server counts it. `ended_at` is None while it runs."""

    workflow_id: str
    name: str
    state: WorkflowState
    total: int
    finished: int
    failed: int
    canceled: int
    created_at: datetime
    ended_at: datetime | None
    output: bytes = b""

    @property
    def progress(self) -> float:
        """How much of it has ended, from 0 to 1."""
        return (self.finished + self.failed + self.canceled) / self.total if self.total else 1.0

    @property
    def is_running(self) -> bool:
        """Whether one of its tasks has not ended."""
        return self.state == "running"


@dataclass(frozen=True, slots=True)
class WorkflowNode:
    """A task of a workflow (None: it is gone), and the ids that it waits for."""

    task_id: str
    task: Task[Any] | None
    depends_on: tuple[str, ...]


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


def not_found(workflow_id: str) -> TaskNotFoundError:
    """The error for a workflow that the server does not know."""
    return TaskNotFoundError(
        f"there is no workflow {workflow_id}: it never existed, or ended longer ago than result_ttl_seconds",
        task_id=workflow_id,
    )


# -- storing


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
    error = push.outcome_of(
        task, push.TAKEN if code in (push.RETURNED, push.THROTTLED) else code, detail
    ).error
    return error or FairQueueError(f"task {task.task_id} was refused ({code})", task_id=task.task_id)


def go_on(engine: Engine) -> Flow[None]:
    """Do what earlier calls have left to do, which workers would do otherwise."""
    while (yield engine.call("go_on")):
        pass


# -- looking


def _workflow(workflow_id: str, flat: Sequence[bytes]) -> Workflow:
    found = dict(zip(flat[::2], flat[1::2], strict=True))
    ended = found.get(b"ended")
    return Workflow(
        workflow_id=workflow_id,
        name=found[b"name"].decode(),
        state=cast(WorkflowState, found[b"state"].decode()),
        total=int(found[b"total"]),
        finished=int(found[b"finished"]),
        failed=int(found[b"failed"]),
        canceled=int(found[b"canceled"]),
        created_at=at(float(found[b"created"])),
        ended_at=at(float(ended)) if ended else None,
        output=found[b"output"],
    )


def get_workflow(engine: Engine, workflow_id: str) -> Flow[Workflow]:
    """The workflow as it stands.

    Raises:
        TaskNotFoundError: there is no such workflow.
    """
    flat = yield engine.call("get_workflow", encoded_id(workflow_id))
    if not flat:
        raise not_found(workflow_id)
    return _workflow(workflow_id, flat)


def list_workflows(engine: Engine, cursor: str | None = None, limit: int = 100) -> Flow[tasks.Page[Workflow]]:
    """One page of workflows: those that run, the newest first, then those that have ended.

    Raises:
        InvalidTaskError: the cursor or the limit is wrong.
    """
    if not 1 <= limit <= PAGE:
        raise InvalidTaskError(f"a page has 1 to {PAGE} workflows, not {limit}")
    if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
        raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
    start = int(cursor or 0)
    reply = yield engine.call("list_workflows", start, limit)
    found = [
        _workflow(decode(name.decode()), flat)
        for name, flat in zip(reply[::2], reply[1::2], strict=True)
        if flat
    ]
    return tasks.Page(tuple(found), str(start + limit) if len(reply) == 2 * limit else None)


def watch(engine: Engine, workflow_id: str, client: str) -> Flow[bool]:
    """Whether it has ended; news of that is put on the client's list from now on.

    Raises:
        TaskNotFoundError: there is no such workflow.
    """
    state = yield engine.call("watch_workflow", encoded_id(workflow_id), client, round(WATCH_SECONDS * 1e3))
    if not state:
        raise not_found(workflow_id)
    return bool(state != b"running")


def subject(workflow_id: str) -> str:
    """Under what a listener hears of a workflow: no task's encoded id has a colon."""
    return f":{encoded_id(workflow_id)}"


def get_nodes(engine: Engine, workflow_id: str) -> Flow[tuple[WorkflowNode, ...]]:
    """The tasks of a workflow, each behind those that it waits for; without their arguments.

    Raises:
        TaskNotFoundError: there is no such workflow.
    """
    encoded = encoded_id(workflow_id)
    nodes: list[WorkflowNode] = []
    start = 0
    while start >= 0:
        start, *flat = yield engine.call("list_nodes", encoded, start)
        for task_id, data, others in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            task = to_task(task_id, data, body=False) if data else None
            waits = tuple(decode(other.decode()) for other in others if other)
            nodes.append(WorkflowNode(decode(task_id.decode()), task, waits))
    if not nodes:
        yield from get_workflow(engine, workflow_id)
    return tuple(nodes)


# -- changing


def cancel(engine: Engine, workflow_id: str) -> Flow[bool]:
    """Cancel what has not ended of a workflow. False: all had.

    Raises:
        TaskNotFoundError: there is no such workflow.
    """
    code = yield engine.call("cancel_workflow", encoded_id(workflow_id))
    if code < 0:
        raise not_found(workflow_id)
    yield from go_on(engine)
    return bool(code)


def retry(engine: Engine, workflow_id: str, from_: str | Task[Any] | None = None) -> Flow[int]:
    """Run again what failed or was canceled, or of that only `from_` and what waits for it; returns how many tasks.

    What has finished is not run again: its results stand.

    Raises:
        TaskNotFoundError: there is no such workflow, or no such task in it.
    """
    nodes = yield from get_nodes(engine, workflow_id)
    chosen: set[str] | None = None
    if from_ is not None:
        first = from_.task_id if isinstance(from_, Task) else from_
        if all(node.task_id != first for node in nodes):
            raise TaskNotFoundError(f"workflow {workflow_id} has no task {first}", task_id=first)
        chosen = {first}
        waiting = TopologicalSorter({node.task_id: node.depends_on for node in nodes}).static_order()
        before_it = {node.task_id: node.depends_on for node in nodes}
        for task_id in waiting:
            if not chosen.isdisjoint(before_it.get(task_id, ())):
                chosen.add(task_id)
    again = [
        node.task_id
        for node in nodes
        if node.task is not None
        and node.task.state in (TaskState.FAILED, TaskState.CANCELED)
        and (chosen is None or node.task_id in chosen)
    ]
    if again:
        # What a mapped task waits for was made after it.
        before = {node.task_id: node.depends_on for node in nodes}
        wanted = set(again)
        order = TopologicalSorter({task_id: wanted.intersection(before[task_id]) for task_id in again})
        yield from tasks.requeue(engine, list(order.static_order()))
    return len(again)


# -- results


def get_result(engine: Engine, workflow_id: str, result_type: Any = None) -> Flow[Any]:
    """What a workflow that has ended gives: the output of its last part; of a group, the list of outputs. Rebuilt as
    `result_type` if given.

    Raises:
        TaskFailedError, TaskCanceledError: there is no such output, for that reason.
        TaskNotFoundError: it is gone.
    """
    workflow = yield from get_workflow(engine, workflow_id)
    output = decode_value(workflow.output)
    outputs = yield from get_outputs(engine, referred(find_references(output)))
    try:
        value = fill_references(output, outputs)
        return value if result_type is None else rebuild_value(value, result_type)
    except InvalidTaskError as error:
        missing = error
    if workflow.failed:
        culprit = yield from _culprit(engine, workflow_id)
        if culprit is not None:
            ending = yield from results.get_ending(engine, culprit)
            if ending is not None:
                ending.value()
        raise TaskFailedError(
            f"workflow {workflow_id} failed: {workflow.failed} of {workflow.total} tasks", task_id=workflow_id
        )
    if workflow.canceled:
        raise TaskCanceledError(
            f"workflow {workflow_id} was canceled: {workflow.canceled} of {workflow.total} tasks",
            task_id=workflow_id,
            reason="canceled",
        )
    raise missing


def _culprit(engine: Engine, workflow_id: str) -> Flow[str | None]:
    """The first task that failed by itself."""
    nodes = yield from get_nodes(engine, workflow_id)
    failed = [node for node in nodes if node.task is not None and node.task.state is TaskState.FAILED]
    own = [node for node in failed if node.task is not None and "dependency" not in node.task.reason]
    return next((node.task_id for node in (*own, *failed)), None)
