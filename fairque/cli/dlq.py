"""`fairque dlq`: dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.filters import (
    DryRunOption,
    FilterOption,
    MostOption,
    YesOption,
    carry_out,
    confirm,
    filter_of,
)
from fairque.cli.run import Run, command
from fairque.cli.tasks import chosen_ids

if TYPE_CHECKING:
    from fairque.core.filters import TaskFilter
    from fairque.core.models import DLQEntry, Task
    from fairque.queue.queue import TaskQueue

app = typer.Typer(no_args_is_help=True, help="Dead letters: tasks that have failed for good.")

UserOption = Annotated[str | None, typer.Option("--user", "-u", help="Only this tenant's.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)]


@command(app, "list", hidden=True)
@command(app)
def ls(
    run: Run,
    user: UserOption = None,
    conditions: FilterOption = None,
    cursor: Annotated[str | None, typer.Option(help="Go on from where the page before ended.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
) -> None:
    """List dead letters, the oldest first."""
    from fairque.cli.views import dead_data, what
    from fairque.cli.words import ago

    where = filter_of(conditions, user)
    with run.queue() as queue:
        entries, following = _page(queue, where, cursor, limit)
    if run.out.as_json:
        letters = [dead_data(entry.task, entry.errors) for entry in entries]
        run.out.data({"dead_letters": letters, "cursor": following})
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
        for entry in entries
    ]
    if rows:
        run.out.table(["id", "user", "what", "since", ">tries", "reason", "last error"], rows)
    else:
        run.out.note("there are no such dead letters" if conditions or user else "there are no dead letters")
    if following:
        run.out.note(f"there are more: --cursor {following}")


def _page(
    queue: TaskQueue, where: TaskFilter, cursor: str | None, limit: int
) -> tuple[list[DLQEntry], str | None]:
    """Up to `limit` dead letters that fit; the pages of a filter that few fit are short."""
    found: list[DLQEntry] = []
    while True:
        page = queue.dlq.list(None, cursor, limit - len(found), where=where)
        found += page.items
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            return found, cursor


@command(app)
def users(
    run: Run,
    cursor: Annotated[str | None, typer.Option(help="Go on from where the page before ended.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
) -> None:
    """List who has dead letters, those with most first."""
    from dataclasses import asdict

    from fairque.cli.words import ago

    with run.queue() as queue:
        page = queue.dlq.users(cursor, limit)
    if run.out.as_json:
        run.out.data({"users": [asdict(one) for one in page.items], "cursor": page.cursor})
        return
    if page.items:
        rows = [(one.user_id, one.count, ago(one.oldest)) for one in page.items]
        run.out.table(["user", ">dead letters", "oldest"], rows)
    else:
        run.out.note("there are no dead letters")
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
    task_ids: IdsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="All of this tenant.")] = None,
    conditions: FilterOption = None,
    most: MostOption = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Of one: other arguments, a JSON list.")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Of one: other named arguments, a JSON object.")
    ] = None,
    payload: Annotated[str | None, typer.Option(metavar="JSON", help="Of one: another payload.")] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Queue dead letters again, as a new run.

    With --filter, all that fit: it tells how many that are, and asks, unless --yes is given.
    """
    changes = dict(_changes(args, kwargs, payload))
    if changes and (len(task_ids or []) != 1 or conditions or everything or user):
        raise typer.BadParameter("--args, --kwargs and --payload are for one dead letter: name its id")
    if conditions or dry_run:
        _check_choice(task_ids, everything, conditions, user)
        where = filter_of(conditions, user)
        with run.queue() as queue:
            carry_out(
                run,
                lambda dry: queue.dlq.requeue(where, dry_run=dry, limit=most),
                asked="Queue {} again",
                done="queued again",
                yes=yes,
                dry_run=dry_run,
            )
        return
    ids = chosen_ids(task_ids, everything=everything, user=user)
    with run.queue() as queue:
        if changes and ids:
            count = queue.dlq.requeue(ids[0], **changes)
        else:
            count = queue.dlq.requeue(ids, user=user)
    _tell(run, "requeued", count, "queued again")


def _changes(args: str | None, kwargs: str | None, payload: str | None) -> Iterator[tuple[str, Any]]:
    from fairque.cli.targets import parse_json, parse_mapping

    if args is not None:
        values = parse_json(args, "--args")
        if not isinstance(values, list):
            raise typer.BadParameter("--args takes a JSON list, as in '[1, \"a\"]'")
        yield "args", values
    if kwargs is not None:
        yield "kwargs", parse_mapping(kwargs, "--kwargs")
    if payload is not None:
        yield "payload", parse_json(payload, "--payload")


@command(app)
def purge(
    run: Run,
    task_ids: IdsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="All of this tenant.")] = None,
    conditions: FilterOption = None,
    most: MostOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove dead letters for ever, with their payloads and errors.

    Unless ids are named it tells how many that are, and asks, unless --yes is given.
    """
    if conditions or dry_run:
        _check_choice(task_ids, everything, conditions, user)
        where = filter_of(conditions, user)
        with run.queue() as queue:
            carry_out(
                run,
                lambda dry: queue.dlq.purge(where, dry_run=dry, limit=most),
                asked="Remove {} for ever",
                done="removed",
                yes=yes,
                dry_run=dry_run,
            )
        return
    ids = chosen_ids(task_ids, everything=everything, user=user)
    with run.queue() as queue:
        if ids is None and not yes:
            confirm(queue.dlq.count(user=user), "Remove {} for ever")
        if ids is not None:
            _dead(queue, ids)
        count = queue.dlq.purge(ids, user=user)
    _tell(run, "purged", count, "removed")


def _check_choice(
    ids: list[str] | None, everything: bool, conditions: list[str] | None, user: str | None
) -> None:
    """Raises typer.BadParameter unless a filter, a user or all are meant, and no ids."""
    if ids or (everything and (conditions or user)) or not (everything or conditions or user):
        raise typer.BadParameter("say which: ids, or --filter NAME=VALUE, or --user USER, or --all")


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
