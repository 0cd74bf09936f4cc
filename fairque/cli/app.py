"""The program `fairque`: its commands, and the options that all of them have."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from fairque.cli import (
    cleanup,
    config,
    control,
    coverage,
    cron,
    dlq,
    doctor,
    groups,
    limiters,
    pipelines,
    push,
    repair,
    scheduler,
    server,
    spool,
    tasks,
    update,
    users,
    why,
    worker,
)
from fairque.cli.demo import command as demo
from fairque.cli.exits import ExitCode, help_text
from fairque.cli.run import ConfigOption, JsonOption, UrlOption, command

_TASKS, _QUEUE, _TENANTS, _SETUP = "Tasks", "The queue", "Tenants", "Set-up"

app = typer.Typer(
    name="fairque",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=help_text(),
)

command(app, rich_help_panel=_SETUP)(demo.demo)
command(app, rich_help_panel=_QUEUE)(worker.worker)
command(app, rich_help_panel=_QUEUE)(scheduler.scheduler)
command(app, rich_help_panel=_TASKS)(push.push)
command(app, rich_help_panel=_TASKS)(tasks.ls)
command(app, rich_help_panel=_TASKS)(tasks.show)
command(app, rich_help_panel=_TASKS)(tasks.wait)
command(app, rich_help_panel=_TASKS)(why.why)
command(app, rich_help_panel=_TASKS)(tasks.cancel)
command(app, rich_help_panel=_TASKS)(tasks.retry)
command(app, rich_help_panel=_TASKS)(update.update)
app.add_typer(dlq.app, name="dlq", rich_help_panel=_TASKS)
app.add_typer(cron.app, name="cron", rich_help_panel=_TASKS)
app.add_typer(pipelines.app, name="pipelines", rich_help_panel=_TASKS)
app.add_typer(spool.app, name="spool", rich_help_panel=_TASKS)
command(app, rich_help_panel=_QUEUE)(control.stats)
command(app, rich_help_panel=_QUEUE)(control.pause)
command(app, rich_help_panel=_QUEUE)(control.resume)
command(app, rich_help_panel=_QUEUE)(cleanup.cleanup)
app.add_typer(users.app, name="users", rich_help_panel=_TENANTS)
app.add_typer(groups.app, name="groups", rich_help_panel=_TENANTS)
app.add_typer(limiters.app, name="limiters", rich_help_panel=_TENANTS)
command(app, rich_help_panel=_SETUP)(doctor.doctor)
command(app, rich_help_panel=_SETUP)(repair.repair)
command(app, rich_help_panel=_SETUP)(repair.acl)
command(config.app)(coverage.coverage)
app.add_typer(server.app, name="server", rich_help_panel=_SETUP)
app.add_typer(config.app, name="config", rich_help_panel=_SETUP)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("fairque")
        except PackageNotFoundError:
            found = "(not installed)"
        typer.echo(f"fairque {found}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    config: ConfigOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A fair multi-tenant task queue on Redis and Valkey.

    Nothing needs to be configured: without a server, an embedded one is started.
    """
    shared: dict[str, Any] = {"config": config, "url": url, "as_json": as_json}
    ctx.obj = shared


def run() -> int:
    """Run the command of sys.argv; returns the exit code."""
    try:
        app(prog_name="fairque")
    except SystemExit as end:
        code = end.code
        number = code if isinstance(code, int) else ExitCode.OK if code is None else ExitCode.FAILED
    else:
        number = ExitCode.OK
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        number = ExitCode.BROKEN_PIPE
    return int(number)
