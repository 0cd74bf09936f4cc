"""`fairque pipelines`: workflows, as trees of their tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run, command

if TYPE_CHECKING:
    from fairque.queue.operations.workflows import Workflow, WorkflowNode

app = typer.Typer(
    no_args_is_help=True, help="Workflows: pipelines, groups and lists that were enqueued as one."
)

MOST_LINES = 500
WATCH_SECONDS = 1.0
_MARKS = {
    "queued": ".", "started": ">", "deferred": "-", "scheduled": "@", "finished": "+", "failed": "x", "canceled": "/",
}  # fmt: skip

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The workflow's id.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TASK", help="Only this task and all behind it.")
]


def _data(workflow: Workflow) -> dict[str, Any]:
    return {
        "workflow_id": workflow.workflow_id,
        "name": workflow.name,
        "state": workflow.state,
        "total": workflow.total,
        "finished": workflow.finished,
        "failed": workflow.failed,
        "canceled": workflow.canceled,
        "progress": workflow.progress,
        "created_at": workflow.created_at,
        "ended_at": workflow.ended_at,
    }


@command(app)
def ls(
    run: Run,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
) -> None:
    """List workflows: those that run, the newest first, then those that have ended."""
    with run.queue() as queue:
        found = list(queue.list_workflows(limit=limit))
    if run.out.as_json:
        run.out.data({"workflows": [_data(workflow) for workflow in found]})
    elif found:
        run.out.table(
            ["workflow", "name", "state", "done", "tasks", "failed", "canceled", "created"],
            [
                (
                    one.workflow_id,
                    one.name,
                    one.state,
                    f"{one.progress:.0%}",
                    one.total,
                    one.failed,
                    one.canceled,
                    f"{one.created_at:%Y-%m-%d %H:%M:%S}",
                )
                for one in found
            ],
        )
    else:
        run.out.note("there are no workflows")


@command(app)
def show(
    run: Run,
    workflow_id: IdArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until it has ended.")] = False,
) -> None:
    """Show a workflow's tasks as a tree; `--watch` shows it anew each second."""
    with run.queue() as queue:
        handle = queue.get_workflow(workflow_id)
        while True:
            workflow, nodes = handle.info(), handle.tree()
            if run.out.as_json:
                run.out.data(_data(workflow) | {"tasks": [_node_data(node) for node in nodes]})
            else:
                run.out.line(
                    f"{workflow.name or 'workflow'} {workflow.workflow_id}: {workflow.state}, "
                    f"{workflow.finished + workflow.failed + workflow.canceled} of {workflow.total} tasks have ended"
                    + (f", {workflow.failed} failed" if workflow.failed else "")
                )
                for line in tree_lines(nodes):
                    run.out.line(line)
            if not watch or not workflow.is_running:
                return
            time.sleep(WATCH_SECONDS)


def _node_data(node: WorkflowNode) -> dict[str, Any]:
    task = node.task
    return {
        "task_id": node.task_id,
        "function": task.function if task else "",
        "user_id": task.user_id if task else "",
        "state": task.state if task else None,
        "reason": task.reason if task else "gone",
        "attempt": task.attempt if task else 0,
        "depends_on": list(node.depends_on),
    }


def tree_lines(nodes: Sequence[WorkflowNode]) -> list[str]:
    """The tasks as a tree: each below the last of those that it waits for, which it names if there are others."""
    known = {node.task_id: node for node in nodes}
    place = {node.task_id: index for index, node in enumerate(nodes)}
    below: dict[str, list[WorkflowNode]] = {}
    roots: list[WorkflowNode] = []
    for node in nodes:
        # What a mapped task has made stands below it, not above.
        before = [
            other for other in node.depends_on if other in known and not other.startswith(f"{node.task_id}.")
        ]
        pattern = node.task_id.rpartition(".")[0]
        if pattern in known and node.task_id in known[pattern].depends_on:
            before = [pattern]
        if before:
            below.setdefault(max(before, key=place.__getitem__), []).append(node)
        else:
            roots.append(node)
    lines: list[str] = []
    stack = [(node, "", index == len(roots) - 1) for index, node in reversed(list(enumerate(roots)))]
    while stack:
        node, indent, is_last = stack.pop()
        if len(lines) == MOST_LINES:
            lines.append(f"... {len(nodes) - MOST_LINES} more tasks: use --json")
            break
        lines.append(f"{indent}{'`-' if is_last else '|-'} {_line(node, known)}")
        children = below.get(node.task_id, [])
        deeper = indent + ("   " if is_last else "|  ")
        stack += [
            (child, deeper, index == len(children) - 1)
            for index, child in reversed(list(enumerate(children)))
        ]
    return lines


def _line(node: WorkflowNode, known: dict[str, WorkflowNode]) -> str:
    task = node.task
    if task is None:
        return f"? {node.task_id} gone"
    name = task.function.rpartition(":")[2] if task.function else "payload"
    text = f"{_MARKS[str(task.state)]} {name} {node.task_id} {task.state}"
    if task.reason:
        text += f" ({task.reason})"
    others = [other for other in node.depends_on if other in known]
    if len(others) > 1:
        text += f" after {len(others)}"
    return text


@command(app)
def cancel(run: Run, workflow_id: IdArgument) -> None:
    """Cancel the tasks of a workflow that wait, and ask those that run to stop."""
    with run.queue() as queue:
        canceled = queue.cancel_workflow(workflow_id)
    if run.out.as_json:
        run.out.data({"workflow_id": workflow_id, "canceled": canceled})
    else:
        run.out.line(f"workflow {workflow_id} " + ("is being canceled" if canceled else "had ended"))


@command(app)
def retry(run: Run, workflow_id: IdArgument, from_: FromOption = None) -> None:
    """Run again what failed or was canceled; what has finished is not run again."""
    with run.queue() as queue:
        count = queue.retry_workflow(workflow_id, from_)
    if run.out.as_json:
        run.out.data({"workflow_id": workflow_id, "requeued": count})
    else:
        run.out.line(f"{count} tasks of workflow {workflow_id} run again")
