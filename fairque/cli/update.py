"""`fairque update`: a task that waits gets another place, another time, or other options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from fairque.cli.push import read_labels
from fairque.cli.run import Run
from fairque.cli.words import priority as parse_priority
from fairque.cli.words import seconds


def update(
    run: Run,
    task_id: Annotated[str, typer.Argument(metavar="ID")],
    priority: Annotated[
        int | None,
        typer.Option("--priority", "-p", parser=parse_priority, metavar="PRIORITY", help="Name or 1 to 6."),
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Start it in this time: 0 (now), 90, 10m, 2h."),
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Cancel it if it has not started by then."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="How long an attempt may run.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="Retries after failures, in all.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="In place of all labels it has; may be repeated."),
    ] = None,
) -> None:
    """Change a task that has not started. What is not given stays as it is.

    Exit code 4: there is none; 6: it runs, or has ended.
    """
    given: dict[str, Any] = {
        "priority": priority,
        "delay": delay,
        "expires_at": None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in),
        "timeout": timeout,
        "max_retries": max_retries,
        "labels": read_labels(label) if label else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("there is nothing to change: give --priority, --delay or another")
    with run.queue() as queue:
        state = queue.update_task(task_id, **changes)
        task = queue.get_task(task_id)
    if run.out.as_json:
        from fairque.cli.views import task_data

        run.out.data(task_data(task) if task is not None else {"task_id": task_id, "state": state})
    else:
        from fairque.cli.words import moment

        due = task.execute_after if task is not None else None
        run.out.line(f"{task_id}: {state}{f', due {moment(due)}' if due is not None else ''}")
