"""`fairque dlq`: dead letters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run, command
from fairque.cli.tasks import chosen_ids

if TYPE_CHECKING:
    from fairque.core.models import Task
    from fairque.queue.queue import TaskQueue

app = typer.Typer(no_args_is_help=True, help="Dead letters: tasks that have failed for good.")


@command(app, "list")
def list_(
    run: Run,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this tenant's.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on from where the page before ended.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
) -> None:
    """List dead letters, the oldest first."""
    from fairque.cli.views import dead_data, what
    from fairque.cli.words import ago

    with run.queue() as queue:
        page = queue.dlq.list(user, cursor, limit)
    if run.out.as_json:
        run.out.data(
            {
                "dead_letters": [dead_data(entry.task, entry.errors) for entry in page.items],
                "cursor": page.cursor,
            }
        )
        return
    rows = [
        (
            entry.task.task_id,
            entry.task.user_id,
            what(entry.task, 40),
            ago(entry.entered_at),
            entry.task.attempt,
            entry.reason,
            f"{entry.errors[-1].type}: {entry.errors[-1].message}"[:80] if entry.errors else "",
        )
        for entry in page.items
    ]
    if rows:
        run.out.table(["id", "user", "what", "since", ">tries", "reason", "last error"], rows)
    else:
        run.out.note("there are no dead letters" + (f" of user {user}" if user else ""))
    if page.cursor:
        run.out.note(f"there are more: --cursor {page.cursor}")


@command(app)
def show(run: Run, task_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show a dead letter with its payload and every attempt's error."""
    from fairque.cli.views import dead_data, print_errors, print_task

    with run.queue() as queue:
        [task] = _dead(queue, [task_id])
        errors = queue.get_errors(task_id)
    if run.out.as_json:
        run.out.data(dead_data(task, errors))
        return
    print_task(run.out, task)
    print_errors(run.out, errors)


@command(app)
def requeue(
    run: Run,
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="All of this tenant.")] = None,
) -> None:
    """Queue dead letters again, as a new run."""
    ids = chosen_ids(task_ids, everything=everything, user=user)
    with run.queue() as queue:
        count = queue.dlq.requeue(ids, user=user)
    _tell(run, "requeued", count, "queued again")


@command(app)
def purge(
    run: Run,
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="All of this tenant.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for ever, with their payloads and errors."""
    ids = chosen_ids(task_ids, everything=everything, user=user)
    if ids is None and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("this removes many dead letters for ever: add --yes")
        typer.confirm(f"Remove all dead letters{f' of user {user}' if user else ''} for ever?", abort=True)
    with run.queue() as queue:
        if ids is not None:
            _dead(queue, ids)
        count = queue.dlq.purge(ids, user=user)
    _tell(run, "purged", count, "removed")


def _dead(queue: TaskQueue, task_ids: list[str]) -> list[Task[Any]]:
    """The dead letters with these ids.

    Raises:
        TaskNotFoundError, InvalidStateError: one is not there, or is no dead letter.
    """
    from fairque.core.exceptions import InvalidStateError
    from fairque.queue.operations.tasks import not_found

    found: list[Task[Any]] = []
    for task_id in task_ids:
        task = queue.get_task(task_id)
        if task is None:
            raise not_found(task_id)
        if task.state != "failed":
            raise InvalidStateError(
                f"task {task_id} is {task.state}, so it is no dead letter",
                task_id=task_id,
                user_id=task.user_id,
                state=task.state,
            )
        found.append(task)
    return found


def _tell(run: Run, name: str, count: int, done: str) -> None:
    if run.out.as_json:
        run.out.data({name: count})
    else:
        run.out.line(f"{count} {done}")
