"""`fairque cron`: schedules, and what became of their ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run, command
from fairque.cli.schedule_views import firing_data, firing_rows, info_data, info_pairs, info_rows
from fairque.cli.words import moment, seconds

if TYPE_CHECKING:
    from fairque.queue.operations.schedule_views import ScheduleInfo
    from fairque.queue.queue import TaskQueue

app = typer.Typer(
    no_args_is_help=True,
    help="Schedules: tasks that are pushed at the ticks of a cron pattern, of an interval, or at dates.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]
NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME...")]


@command(app)
def ls(run: Run) -> None:
    """List all schedules: when they run, when next, and how they are."""
    with run.queue() as queue:
        found = _all(queue)
        leader = queue.schedules.leader()
    if run.out.as_json:
        run.out.data(
            {
                "schedules": [info_data(info) for info in found],
                "leader": leader.scheduler_id if leader else None,
            }
        )
        return
    if found:
        run.out.table(["name", "when", "what", "next run", "last run", "state"], info_rows(found))
    else:
        run.out.note("there are no schedules")
    if found and leader is None:
        run.out.note(
            "nobody decides their ticks: start `fairque scheduler`, or a worker with --scheduler",
            style="yellow",
        )


@command(app)
def show(run: Run, name: NameArgument) -> None:
    """Show a schedule: what it pushes, when, and how far it is."""
    from fairque.core.exceptions import ScheduleNotFoundError

    with run.queue() as queue:
        info = queue.schedules.get(name)
    if info is None:
        raise ScheduleNotFoundError(schedule=name)
    if run.out.as_json:
        run.out.data(info_data(info))
    else:
        run.out.pairs(info_pairs(info))


@command(app)
def add(
    run: Run,
    name: NameArgument,
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:FUNCTION]", help="A @task function.", show_default=False)
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]...", help="Its arguments, each as JSON.", show_default=False),
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Five fields, or a word such as @daily.")
    ] = None,
    every: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="A fixed interval: 90, 10m, 2h.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="DATE", help="A single date, 2025-03-31T09:00; may be repeated."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", "-z", metavar="ZONE", help="As Europe/Berlin [default: UTC].")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Named arguments, a JSON object.")
    ] = None,
    payload: Annotated[
        str | None, typer.Option(metavar="JSON", help="A payload for a TaskHandler, instead of a function.")
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option("--module", "-m", help="Import this first; for functions with a name of their own."),
    ] = None,
    options: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Options of each task: \'{"user_id": "alice", "priority": 5}\'.'),
    ] = None,
    misfire: Annotated[
        str | None, typer.Option(metavar="skip|run_once|run_all", help="What becomes of missed ticks.")
    ] = None,
    misfire_limit: Annotated[int | None, typer.Option(help="With run_all: of at most so many.")] = None,
    misfire_grace: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="How late a tick is not missed yet.")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="allow|skip|queue", help="If the run before is not over.")
    ] = None,
    jitter: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="Push up to so much later.")
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="DATE", help="No ticks before.")] = None,
    end: Annotated[str | None, typer.Option(metavar="DATE", help="No ticks after.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Without runs until it is resumed.")] = False,
) -> None:
    """Add a schedule, or replace the one of that name, and print its next runs.

    The module is imported, so that the function, its options and its arguments are checked before anything is
    written. A negative number as an argument goes after `--`.
    """
    from fairque.cli.targets import parse_mapping
    from fairque.core.schedules.models import ScheduledTask

    fields: dict[str, Any] = {
        "cron": cron,
        "every": every,
        "at": at or None,
        "timezone": timezone,
        "misfire": misfire,
        "misfire_limit": misfire_limit,
        "misfire_grace_seconds": misfire_grace,
        "overlap": overlap,
        "jitter_seconds": jitter,
        "start": start,
        "end": end,
        "paused": paused or None,
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    work = _work(
        target, args or [], kwargs, payload, module or [], parse_mapping(options or "{}", "--options")
    )
    schedule = ScheduledTask.from_data({"name": name, **work, **fields})
    with run.queue() as queue:
        change = queue.schedules.add(schedule)
        runs = queue.schedules.next_runs(name)
    if run.out.as_json:
        run.out.data({"name": name, "change": change.value, "next_runs": list(runs)})
        return
    run.out.line(f"schedule {name} is {'as it was' if change == 'unchanged' else change.value}")
    for when in runs:
        run.out.line(_when(when))


def _work(
    target: str | None,
    args: list[str],
    kwargs: str | None,
    payload: str | None,
    modules: list[str],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What each run is, as fields of a ScheduledTask."""
    from fairque.cli.targets import find_function, parse_json, parse_mapping
    from fairque.core.schedules.work import as_fields

    if (target is None) == (payload is None):
        raise typer.BadParameter("give either MODULE:FUNCTION or --payload")
    if payload is not None:
        if args or kwargs is not None:
            raise typer.BadParameter(
                "--payload is the whole input of a handler: it has no arguments beside it"
            )
        return {"payload": parse_json(payload, "--payload"), "options": options}
    values = [parse_json(text, f"argument {number}") for number, text in enumerate(args, start=1)]
    named = {} if kwargs is None else parse_mapping(kwargs, "--kwargs")
    function = find_function(str(target), modules)
    return as_fields(function.with_options(**options)(*values, **named))


@command(app)
def rm(run: Run, names: NamesArgument) -> None:
    """Remove schedules; their runs that were pushed stay. Exit code 4: there is none of that name."""
    with run.queue() as queue:
        removed = {name: queue.schedules.remove(name) for name in names}
    if run.out.as_json:
        run.out.data({"removed": [name for name, there in removed.items() if there]})
    else:
        for name, there in removed.items():
            if there:
                run.out.line(f"schedule {name} is no more")
            else:
                run.out.note(f"{name}: there is no such schedule", style="yellow")
    if not all(removed.values()):
        run.finish(ExitCode.NOT_FOUND)


@command(app)
def pause(run: Run, names: NamesArgument) -> None:
    """Let the ticks of schedules pass without a run."""
    with run.queue() as queue:
        for name in names:
            queue.schedules.pause(name)
    _tell_paused(run, names, True)


@command(app)
def resume(run: Run, names: NamesArgument) -> None:
    """Let paused schedules go on with their next tick."""
    with run.queue() as queue:
        for name in names:
            queue.schedules.resume(name)
    _tell_paused(run, names, False)


def _tell_paused(run: Run, names: list[str], paused: bool) -> None:
    if run.out.as_json:
        run.out.data({"paused": paused, "schedules": names})
    else:
        for name in names:
            run.out.line(f"schedule {name} {'is paused' if paused else 'goes on'}")


@command(app)
def trigger(
    run: Run,
    name: NameArgument,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print that.")] = False,
    wait_timeout: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="With --wait: for at most this long.")
    ] = None,
) -> None:
    """Push a run now, outside the ticks, and print its id."""
    with run.queue() as queue:
        handle = queue.schedules.trigger(name)
        if wait:
            from fairque.cli.tasks import print_result

            run.out.note(f"task {handle.task_id}")
            print_result(run, queue, handle.task_id, wait_timeout)
        elif run.out.as_json:
            run.out.data({"schedule": name, "task_id": handle.task_id})
        else:
            run.out.line(handle.task_id)


@command(app)
def history(
    run: Run,
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=50, help="At most so many.")] = 50,
) -> None:
    """List what became of a schedule's last ticks, newest first: runs, and why others were left out."""
    with run.queue() as queue:
        found = queue.schedules.history(name)[:limit]
    if run.out.as_json:
        run.out.data({"schedule": name, "history": [firing_data(item) for item in found]})
    elif found:
        run.out.table(["decided", "outcome", "tick", ">ticks", "task"], firing_rows(found))
    else:
        run.out.note("nothing was decided yet")


@command(app, "next")
def next_(
    run: Run,
    name: NameArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="So many.")] = 5,
) -> None:
    """Print the next times at which a schedule runs, in its time zone."""
    with run.queue() as queue:
        runs = queue.schedules.next_runs(name, count)
        info = queue.schedules.get(name)
    if run.out.as_json:
        run.out.data({"schedule": name, "next_runs": list(runs)})
        return
    for when in runs:
        run.out.line(_when(when))
    if not runs:
        run.out.note("it has ended")
    elif info is not None and info.paused:
        run.out.note("it is paused: none of them comes before it is resumed", style="yellow")


def _when(when: Any) -> str:
    return f"{when.isoformat(sep=' ')}  {moment(when).rpartition('(')[2].rstrip(')')}"


def _all(queue: TaskQueue) -> list[ScheduleInfo]:
    found: dict[str, ScheduleInfo] = {}
    cursor: str | None = None
    while True:
        page = queue.schedules.list(cursor)
        found.update((info.name, info) for info in page.items)
        cursor = page.cursor
        if cursor is None:
            return [found[name] for name in sorted(found)]
