"""`fairque server`: the embedded server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run, command
from fairque.cli.words import size, span

if TYPE_CHECKING:
    from fairque.queue.embedded import ServerStatus

app = typer.Typer(
    no_args_is_help=True, help="The embedded server: started by itself when nothing is configured."
)

DataDirOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its data [default: FAIRQUE_DATA_DIR, else ~/.local/share/fairque]."),
]


def _data_dir(run: Run, chosen: Path | None) -> Path | None:
    """The data directory that is meant; None for the default one.

    Raises:
        ConfigError: the configuration names another server.
    """
    if chosen is not None:
        return chosen
    from fairque.core.exceptions import ConfigError

    address = run.config.redis.address
    if address.kind != "embedded":
        raise ConfigError(
            f"the configuration names {address}, and these commands are for the embedded server: leave redis.url out, "
            "or name its data with --data-dir"
        )
    return Path(address.path) if address.path else None


@command(app)
def status(run: Run, data_dir: DataDirOption = None) -> None:
    """Show the embedded server. Exit code 3: none runs."""
    from fairque.queue.embedded import server_status

    found = server_status(_data_dir(run, data_dir))
    if found is None:
        if run.out.as_json:
            run.out.data({"running": False})
        else:
            run.out.line("no embedded server runs; it starts when it is first needed")
        run.finish(ExitCode.NO_SERVER)
        return
    if run.out.as_json:
        run.out.data(_data(found))
        return
    run.out.pairs(
        [
            ("server", f"{found.software or 'it'} {found.version}" if found.ready else "not ready"),
            ("process", found.pid or "unknown"),
            ("socket", found.socket_path),
            ("data", found.data_dir),
            ("log", found.log_path),
            ("uptime", span(found.uptime_seconds)),
            ("memory", size(found.used_memory_bytes)),
            ("keys", found.keys),
        ]
    )


def _data(found: ServerStatus) -> dict[str, object]:
    return {
        "running": True,
        "ready": found.ready,
        "pid": found.pid,
        "software": found.software,
        "version": found.version,
        "socket_path": found.socket_path,
        "data_dir": str(found.data_dir),
        "log_path": str(found.log_path),
        "uptime_seconds": found.uptime_seconds,
        "used_memory_bytes": found.used_memory_bytes,
        "keys": found.keys,
    }


@command(app)
def start(run: Run, data_dir: DataDirOption = None) -> None:
    """Start the embedded server, if it does not run, and print its URL."""
    from fairque.queue.embedded import ensure_server

    server = ensure_server(_data_dir(run, data_dir))
    if run.out.as_json:
        run.out.data(
            {
                "url": server.url,
                "socket_path": server.socket_path,
                "data_dir": str(server.data_dir),
                "pid": server.pid,
                "started": server.started,
            }
        )
        return
    run.out.line(server.url)
    run.out.note(f"process {server.pid}, {'started' if server.started else 'was running already'}")


@command(app)
def stop(run: Run, data_dir: DataDirOption = None) -> None:
    """Stop the embedded server; its data is on disk. Exit code 3: none ran."""
    from fairque.queue.embedded import stop_server

    stopped = stop_server(_data_dir(run, data_dir))
    if run.out.as_json:
        run.out.data({"stopped": stopped})
    else:
        run.out.line("stopped" if stopped else "no embedded server runs")
    run.finish(ExitCode.OK if stopped else ExitCode.NO_SERVER)
