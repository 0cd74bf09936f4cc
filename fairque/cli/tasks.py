"""`fairque ls`, `show`, `wait`, `cancel` and `retry`: tasks that are in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.filters import DryRunOption, FilterOption, MostOption, YesOption, carry_out, filter_of
from fairque.cli.run import Run
from fairque.cli.words import seconds

if TYPE_CHECKING:
    from fairque.core.models import Task
    from fairque.queue.queue import TaskQueue

STATES: tuple[str, ...] = ("started", "queued", "scheduled", "deferred", "failed", "canceled", "finished")
"""In the order in which people look for them."""
SCAN = 1000
"""Tasks looked at in one call when one user's are searched for."""


def ls(
    run: Run,
    state: Annotated[
        str | None, typer.Option("--state", "-s", metavar="STATE", help=f"{', '.join(STATES)}; else all.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this tenant's.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on from where the page before ended.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many.")] = 50,
) -> None:
    """List tasks, those that run first; within a state, the oldest first."""
    from fairque.cli.views import COLUMNS, task_data, task_rows

    with run.queue() as queue:
        tasks, following = _page(queue, state, user, cursor, limit)
    if run.out.as_json:
        run.out.data({"tasks": [task_data(task) for task in tasks], "cursor": following})
        return
    if tasks:
        run.out.table(COLUMNS, task_rows(tasks))
    else:
        run.out.note("there are no such tasks")
    if following:
        run.out.note(f"there are more: --cursor {following}")


def _page(
    queue: TaskQueue, state: str | None, user: str | None, cursor: str | None, limit: int
) -> tuple[list[Task[Any]], str | None]:
    """Up to `limit` tasks, and the cursor for the next: that of the queue, after its state and a colon."""
    from fairque.core.exceptions import InvalidTaskError

    states = list(STATES) if state is None else [state]
    inner: str | None = None
    if cursor is not None:
        at, colon, inner = cursor.partition(":")
        if not colon or at not in states:
            raise InvalidTaskError(
                f"{cursor!r} is no cursor of this list: pass the one that the page before gave"
            )
        states = states[states.index(at) :]
    found: list[Task[Any]] = []
    for name in states:
        at_cursor, inner = inner or None, None
        while True:
            page, at_cursor = _part(queue, name, user, at_cursor, limit - len(found))
            found += page
            if at_cursor is None:
                break
            if len(found) >= limit:
                return found, f"{name}:{at_cursor}"
        if len(found) >= limit:
            rest = states[states.index(name) + 1 :]
            return found, f"{rest[0]}:" if rest else None
    return found, None


def _part(
    queue: TaskQueue, state: str, user: str | None, cursor: str | None, wanted: int
) -> tuple[list[Task[Any]], str | None]:
    """One call's worth. A user's tasks are searched for in long strides, and counted in short ones."""
    stride = SCAN if user is not None else min(wanted, SCAN)
    page = queue.list_tasks(state, user, cursor, stride)
    if len(page) > wanted:
        page = queue.list_tasks(state, user, cursor, min(wanted, SCAN))
    return list(page.items), page.cursor


def show(
    run: Run,
    task_id: Annotated[str, typer.Argument(metavar="ID")],
    attempts: Annotated[
        bool,
        typer.Option("--attempts", "-a", help="Its failed attempts, also of the runs before, as a table."),
    ] = False,
) -> None:
    """Show a task: its record, its progress, every attempt's error, and its result."""
    from fairque.cli.attempts import attempt_data, print_attempts
    from fairque.cli.views import error_data, print_errors, print_task, task_data

    with run.queue() as queue:
        task = queue.get_task(task_id)
        if task is None:
            raise _not_found(task_id)
        errors = queue.get_errors(task_id)
        history = queue.get_attempts(task_id) if attempts else ()
        progress = queue.get_handle(task_id).progress() if task.state == "started" else None
        has_result, result = _result(queue, task)
    if run.out.as_json:
        data = task_data(task)
        data["progress"] = progress and {
            "done": progress.done,
            "total": progress.total,
            "text": progress.text,
        }
        data["errors"] = [error_data(error) for error in errors]
        if attempts:
            data["attempts"] = [attempt_data(attempt) for attempt in history]
        if has_result:
            data["result"] = result
        run.out.data(data)
        return
    print_task(run.out, task)
    if progress is not None:
        total = "" if progress.total is None else f" of {progress.total:g}"
        run.out.pairs([("progress", f"{progress.done:g}{total} {progress.text}".rstrip())])
    if has_result:
        from fairque.cli.output import to_json

        run.out.line("\nresult")
        run.out.line(to_json(result))
    if attempts:
        print_attempts(run.out, history)
    else:
        print_errors(run.out, errors)


def _not_found(task_id: str) -> Exception:
    from fairque.queue.operations.tasks import not_found

    return not_found(task_id)


def _result(queue: TaskQueue, task: Task[Any]) -> tuple[bool, Any]:
    """Whether a result is kept, and what it is."""
    from fairque.core.codec import decode_value
    from fairque.core.exceptions import SerializationError, TaskNotFoundError

    if task.state != "finished":
        return False, None
    try:
        data = queue.wait_for(task.task_id, 0).result
        return data is not None, None if data is None else decode_value(data)
    except (SerializationError, TaskNotFoundError):  # malformed, or just expired
        return False, None


def wait(
    run: Run,
    task_id: Annotated[str, typer.Argument(metavar="ID")],
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", parser=seconds, metavar="TIME", help="For at most this long: 90, 10m."
        ),
    ] = None,
) -> None:
    """Wait for a task to end, and print its result as JSON. Exit code 1: it failed or was canceled; 5: timeout."""
    with run.queue() as queue:
        print_result(run, queue, task_id, timeout)


def print_result(run: Run, queue: TaskQueue, task_id: str, timeout: float | None) -> None:
    """Wait for a task and print its result; its failure leaves as an error."""
    from fairque.cli.output import to_json

    ending = queue.wait_for(task_id, timeout)
    value = ending.value()
    if run.out.as_json:
        run.out.data({"task_id": task_id, "state": ending.task.state, "result": value})
    elif ending.result is not None:
        run.out.line(to_json(value))
    else:
        run.out.note("it has finished, and left no result")


def cancel(
    run: Run,
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)] = None,
    conditions: FilterOption = None,
    most: MostOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Cancel tasks that wait, and ask those that run to stop. Exit code 6: one had ended already; 4: there is none.

    With --filter, all that fit: it tells how many that are, and asks, unless --yes is given.
    """
    if bool(task_ids) == bool(conditions):
        raise typer.BadParameter("say which: ids, or --filter NAME=VALUE")
    if conditions:
        _cancel_where(run, conditions, most, yes, dry_run)
        return
    _cancel_named(run, task_ids or [])


def _cancel_where(run: Run, conditions: list[str], most: int | None, yes: bool, dry_run: bool) -> None:
    where = filter_of(conditions)
    with run.queue() as queue:
        carry_out(
            run,
            lambda dry: queue.cancel_where(where, dry_run=dry, limit=most),
            asked="Cancel {}",
            done="canceled",
            yes=yes,
            dry_run=dry_run,
        )


def _cancel_named(run: Run, task_ids: list[str]) -> None:
    with run.queue() as queue:
        told = [_cancel_one(queue, task_id) for task_id in task_ids]
    if run.out.as_json:
        run.out.data({"tasks": told})
    else:
        for item in told:
            task_id, state = item["task_id"], item["state"]
            if state is None:
                run.out.note(f"{task_id}: there is no such task", style="yellow")
            elif not item["canceled"]:
                run.out.note(f"{task_id}: it is {state} already", style="yellow")
            else:
                run.out.line(f"{task_id}: {'asked to stop' if state == 'started' else 'canceled'}")
    if any(item["state"] is None for item in told):
        run.finish(ExitCode.NOT_FOUND)
    run.finish(ExitCode.OK if all(item["canceled"] for item in told) else ExitCode.REFUSED)


def _cancel_one(queue: TaskQueue, task_id: str) -> dict[str, Any]:
    """Whether it was canceled (or asked to stop), and its state now; None: there is no such task."""
    from fairque.core.exceptions import TaskNotFoundError

    try:
        done = queue.cancel(task_id)
    except TaskNotFoundError:
        return {"task_id": task_id, "canceled": False, "state": None}
    task = queue.get_task(task_id)
    return {"task_id": task_id, "canceled": done, "state": "canceled" if task is None else task.state}


def retry(
    run: Run,
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the state.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="All of the state of this tenant.")] = None,
    state: Annotated[
        str, typer.Option("--state", "-s", metavar="failed|canceled", help="For --all and --user: which.")
    ] = "failed",
    conditions: FilterOption = None,
    most: MostOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Queue failed or canceled tasks again, as a new run under the same id.

    With --filter, all that fit: it tells how many that are, and asks, unless --yes is given.
    """
    if state not in ("failed", "canceled"):
        raise typer.BadParameter(f"only failed and canceled tasks can be queued again, not {state!r}")
    if conditions:
        if task_ids or everything:
            raise typer.BadParameter("say which: ids, or --all, or --filter NAME=VALUE")
        _retry_where(run, conditions, user, most, yes, dry_run)
        return
    ids = chosen_ids(task_ids, everything=everything, user=user)
    with run.queue() as queue:
        if ids is not None:
            count = queue.dlq.requeue(ids)
        elif state == "failed":
            count = queue.dlq.requeue(user=user)
        else:
            from fairque.core.filters import TaskFilter

            canceled = TaskFilter(user=None if user else "*", state=state).of_user(user)
            count = queue.retry_where(canceled).done
    if run.out.as_json:
        run.out.data({"requeued": count})
    else:
        run.out.line(f"{count} queued again")


def chosen_ids(ids: list[str] | None, *, everything: bool, user: str | None) -> list[str] | None:
    """The ids that were named, or None for all (of `user`). Raises typer.BadParameter unless exactly one is said."""
    if bool(ids) + everything + (user is not None) != 1:
        raise typer.BadParameter("say which: ids, or --user USER, or --all")
    return ids or None


def _retry_where(
    run: Run, conditions: list[str], user: str | None, most: int | None, yes: bool, dry_run: bool
) -> None:
    where = filter_of(conditions, user)
    with run.queue() as queue:
        carry_out(
            run,
            lambda dry: queue.retry_where(where, dry_run=dry, limit=most),
            asked="Queue {} again",
            done="queued again",
            yes=yes,
            dry_run=dry_run,
        )
