"""`fairque worker`: worker processes under a supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.core.config import FairQueueConfig

LEVELS = ("debug", "info", "warning", "error")


def worker(
    run: Run,
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE]...", help="Modules that define @task functions.", show_default=False
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", "-n", min=1, max=1024, help="Worker processes.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", "-t", help="Tasks at a time in each (max_concurrent_tasks).")
    ] = None,
    handler: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="The TaskHandler for tasks with a payload.")
    ] = None,
    worker_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The entry of the configuration [default: the first].")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(help="Port of /healthz and /readyz; 0: any free one.")
    ] = None,
    scheduler: Annotated[
        bool, typer.Option("--scheduler", help="Also decide the ticks of schedules, in turn with others.")
    ] = False,
    log_level: Annotated[str, typer.Option(metavar="|".join(LEVELS))] = "info",
) -> None:
    """Run tasks until SIGTERM or Ctrl-C; a second one gives everything back at once.

    A supervisor keeps the processes running, and gives back at once what a dead one held.
    """
    import logging
    import sys

    from fairque.cli.targets import see_current_directory
    from fairque.worker.supervisor import Supervisor

    level = log_level_of(log_level)
    see_current_directory()
    names = tuple(modules or ())
    _check_places(names, handler)
    config = _with_changes(run.config, worker_id, max_concurrent_tasks=threads, health_port=health_port)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    supervisor = Supervisor(
        config,
        worker_id,
        modules=names,
        processes=processes,
        handler=handler,
        path=[path for path in sys.path if path],
        log_level=level,
        scheduler=scheduler,
    )
    run.finish(ExitCode.OK if supervisor.run() == 0 else ExitCode.FAILED)


def log_level_of(text: str) -> int:
    """The number of a log level. Raises typer.BadParameter."""
    import logging

    if text.lower() not in LEVELS:
        raise typer.BadParameter(f"there is no log level {text!r}: there are {', '.join(LEVELS)}")
    return int(getattr(logging, text.upper()))


def _check_places(modules: Sequence[str], handler: str | None) -> None:
    """Say at once what a child would only find when it starts. The modules are found, not imported: what they
    do when imported belongs into the children.

    Raises:
        ConfigError: nothing is named, a module is missing, or the handler is not named as ``module:Class``.
    """
    import importlib.util

    from fairque.cli.targets import nearest_module
    from fairque.core.exceptions import ConfigError

    if not modules and handler is None:
        raise ConfigError(
            "name a MODULE that defines @task functions, or a --handler: this worker would know none"
        )
    wanted = list(modules)
    if handler is not None:
        module, colon, name = handler.partition(":")
        if not (module and colon and name):
            raise ConfigError(f"--handler takes MODULE:CLASS, not {handler!r}")
        wanted.append(module)
    for name in wanted:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError as error:
            missing = error.name or name
            raise ConfigError(f"there is no module {missing!r}{nearest_module(missing)}") from None
        except Exception as error:  # noqa: BLE001 - its package is imported, and that can raise anything
            raise ConfigError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from None
        if found is None:
            hint = f": the module is {name.partition(':')[0]!r}" if ":" in name else nearest_module(name)
            raise ConfigError(f"there is no module {name!r}{hint}")


def _with_changes(config: FairQueueConfig, worker_id: str | None, **changes: Any) -> FairQueueConfig:
    """The configuration with another version of the worker entry.

    Raises:
        ConfigError: there is no such entry, or a value is out of range.
    """
    from fairque.core.config import WorkerConfig

    entry = config.worker(worker_id)
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return config
    changed = WorkerConfig(**{**entry.model_dump(exclude_unset=True), **given})
    return config.model_copy(
        update={"workers": [changed if item is entry else item for item in config.workers]}
    )
