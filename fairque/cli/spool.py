"""`fairque spool`: tasks that wait on this machine for a server that was away when they were pushed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run, command

if TYPE_CHECKING:
    from fairque.core.spool_records import SetAside, SpooledTask

app = typer.Typer(
    no_args_is_help=True,
    help="The local spool: tasks that were pushed while the server was away, in files of this machine.",
)


@command(app)
def ls(run: Run) -> None:
    """List what waits here, in files of all processes, and what the server refused. Asks no server."""
    from fairque.cli.words import ago
    from fairque.core.spool_records import decode_task
    from fairque.queue.spool import spool_for

    spool = spool_for(run.config)
    looks, aside = spool.looks(), spool.aside.items()
    files = [
        {
            "file": look.path.name,
            "process": "alive" if look.held else "gone",
            "tasks": [_task_data(decode_task(payload)) for payload in look.payloads],
            "bytes": look.bytes,
        }
        for look in looks
    ]
    if run.out.as_json:
        shown = [_aside_data(item) for item in aside]
        run.out.data({"directory": str(spool.directory), "files": files, "set_aside": shown})
        return
    if not files and not aside:
        run.out.note(f"nothing waits in {spool.directory}")
        return
    run.out.note(str(spool.directory))
    if files:
        rows = []
        for look, file in zip(looks, files, strict=True):
            oldest = ago(_at(decode_task(look.payloads[0]).at)) if look.payloads else ""
            rows.append((file["file"], file["process"], len(look.payloads), f"{look.bytes:,}", oldest))
        run.out.table(["file", "its process", ">tasks", ">bytes", "oldest"], rows)
    if aside:
        entries = [
            (data["task_id"] or f"({len(item.data)} bytes)", data["user_id"], ago(_at(item.at)), item.reason)
            for item, data in ((item, _aside_data(item)) for item in aside)
        ]
        run.out.table(["set aside", "user", "since", "because"], entries)
        run.out.note(
            "`fairque spool retry` offers them to the server again, `fairque spool purge` removes them"
        )


@command(app)
def drain(run: Run) -> None:
    """Tell the server what processes that are gone have left here. Living ones do so themselves."""
    from dataclasses import asdict

    from fairque.queue.spool import spool_for
    from fairque.queue.spool_drain import SpoolDrain

    spool = spool_for(run.config)
    work = SpoolDrain(spool)
    try:
        drained = work.drain()
    finally:
        work.close()
    held = sum(look.held for look in spool.looks())
    if run.out.as_json:
        run.out.data(asdict(drained) | {"files_of_living_processes": held})
        return
    run.out.line(f"{drained.stored} stored")
    if drained.refused or drained.damaged:
        run.out.line(f"{drained.refused} refused and {drained.damaged} damaged: see `fairque spool ls`")
    if held:
        run.out.note(f"{held} file{' is' if held == 1 else 's are'} being drained by living processes")


@command(app)
def retry(run: Run) -> None:
    """Offer the tasks that the server refused to it again; those that it refuses once more stay."""
    from fairque.core.spool_records import decode_task
    from fairque.queue.spool import spool_for
    from fairque.queue.spool_drain import SpoolDrain

    spool = spool_for(run.config)
    work = SpoolDrain(spool)
    try:
        stored = spool.aside.settle(
            lambda item: item.task and work.push_again(decode_task(item.data)) is None
        )
    finally:
        work.close()
    _tell(run, "stored", stored, "stored")


@command(app)
def purge(run: Run, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Remove for ever what the server refused, or could not be read."""
    from fairque.queue.spool import spool_for

    spool = spool_for(run.config)
    if spool.aside.count() and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("this removes tasks for ever: add --yes")
        typer.confirm("Remove everything that was set aside for ever?", abort=True)
    _tell(run, "purged", spool.aside.settle(lambda _: True), "removed")


def _task_data(task: SpooledTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "user_id": task.user_id,
        "function": task.function,
        "priority": task.priority,
        "spooled_at": _at(task.at),
    }


def _aside_data(item: SetAside) -> dict[str, Any]:
    from fairque.core.spool_records import decode_task

    task = _task_data(decode_task(item.data)) if item.task else {"task_id": None, "user_id": None}
    return task | {"reason": item.reason, "set_aside_at": _at(item.at), "bytes": len(item.data)}


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tell(run: Run, name: str, count: int, done: str) -> None:
    if run.out.as_json:
        run.out.data({name: count})
    else:
        run.out.line(f"{count} {done}")
