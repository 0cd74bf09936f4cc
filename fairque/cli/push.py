"""`fairque push`: from a command line to a task in the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run
from fairque.cli.words import priority as parse_priority
from fairque.cli.words import seconds

if TYPE_CHECKING:
    from fairque.core.models import Task


_FOUND = {
    "returned": "it was there already",
    "throttled": "dropped: this one was pushed within the window",
    "debounced": "it waits, and does what this push says from now on",
}


def push(
    run: Run,
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE:FUNCTION", help="A @task function.", show_default=False)
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]...", help="Its arguments, each as JSON.", show_default=False),
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Named arguments, a JSON object.")
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Push a payload for a TaskHandler, instead of a function."),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option("--module", "-m", help="Import this first; for functions with a name of their own."),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="The tenant.")] = None,
    task_id: Annotated[str | None, typer.Option("--id", help="The task's id; random if left out.")] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", "-p", parser=parse_priority, metavar="PRIORITY", help="Name or 1 to 6."),
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Start it in this time: 90, 250ms, 10m, 2h."),
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Cancel it if it has not started by then."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="How long an attempt may run.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="Retries after failures.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option(help="Only one task of the user with this key is taken at a time.")
    ] = None,
    dedup_window: Annotated[
        float | None,
        typer.Option(
            parser=seconds, metavar="TIME", help="How long the key counts; else until the task has ended."
        ),
    ] = None,
    dedup_max_wait: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="With debounce: put it off for at most this long."),
    ] = None,
    on_duplicate: Annotated[
        str | None,
        typer.Option(
            metavar="reject|return|throttle|debounce",
            help="If the id or key is taken. throttle: drop this one; debounce: it replaces the one that waits.",
        ),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print that.")] = False,
    wait_timeout: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="With --wait: for at most this long.")
    ] = None,
) -> None:
    """Push a task and print its id.

    The module is imported, so that the function, its options and its arguments are checked before anything is
    written. A negative number as an argument goes after `--`: fairque push app:add -- -1 2
    """
    if (target is None) == (payload is None):
        raise typer.BadParameter("give either MODULE:FUNCTION or --payload")
    if payload is not None and (args or kwargs is not None):
        raise typer.BadParameter("--payload is the whole input of a handler: it has no arguments beside it")
    options: dict[str, Any] = {
        "user_id": user,
        "task_id": task_id,
        "priority": priority,
        "delay": delay,
        "expires_at": None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in),
        "timeout": timeout,
        "max_retries": max_retries,
        "dedup_key": dedup_key,
        "dedup_window": dedup_window,
        "dedup_max_wait": dedup_max_wait,
        "on_duplicate": on_duplicate,
        "labels": read_labels(label or []),
    }
    options = {name: value for name, value in options.items() if value not in (None, {})}
    if payload is not None:
        task = _payload_task(payload, options)
    else:
        task = _function_task(str(target), args or [], kwargs, module or [], options)
    with run.queue() as queue:
        handle = queue.push(task)
        if not wait:
            if run.out.as_json:
                run.out.data(
                    {
                        "task_id": handle.task_id,
                        "user_id": task.user_id,
                        "existing": handle.existing,
                        "outcome": handle.outcome,
                    }
                )
            else:
                run.out.line(handle.task_id)
                if handle.existing:
                    run.out.note(_FOUND[handle.outcome])
            return
        run.out.note(f"task {handle.task_id}")
        from fairque.cli.tasks import print_result

        print_result(run, queue, handle.task_id, wait_timeout)


def read_labels(pairs: list[str]) -> dict[str, str]:
    """Labels as they are given. Raises typer.BadParameter."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--label takes NAME=VALUE, not {pair!r}")
        labels[name] = value
    return labels


def _payload_task(payload: str, options: dict[str, Any]) -> Task[Any]:
    from fairque.cli.targets import parse_json
    from fairque.core.models import Task

    return Task.create(payload=parse_json(payload, "--payload"), **options)


def _function_task(
    target: str, args: list[str], kwargs: str | None, modules: list[str], options: dict[str, Any]
) -> Task[Any]:
    from fairque.cli.targets import find_function, parse_json, parse_mapping

    values = [parse_json(text, f"argument {number}") for number, text in enumerate(args, start=1)]
    named = {} if kwargs is None else parse_mapping(kwargs, "--kwargs")
    function = find_function(target, modules)
    return function.with_options(**options)(*values, **named)
