"""`fairque scheduler`: decides the ticks of schedules, as its own process."""

from __future__ import annotations

from typing import Annotated

import typer

from fairque.cli.run import Run
from fairque.cli.worker import LEVELS, log_level_of


def scheduler(
    run: Run,
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE]...",
            help="Modules whose schedules are declared by this: ScheduledTask objects, or lists of them.",
            show_default=False,
        ),
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of /healthz and /readyz; 0: any free one.")
    ] = None,
    log_level: Annotated[str, typer.Option(metavar="|".join(LEVELS))] = "info",
) -> None:
    """Push the tasks of schedules when they are due, until SIGTERM or Ctrl-C.

    Any number of these may run: one leads, and another takes over within its lease. What the configuration and the
    modules declare is put on the server at the start, and what they declared before and do not now is removed.
    """
    import logging

    from fairque.cli.targets import import_module
    from fairque.scheduler.scheduler import TaskScheduler
    from fairque.worker.health import HealthServer

    level = log_level_of(log_level)
    names = list(modules or ())
    for name in names:
        import_module(name)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    made = TaskScheduler(run.config, modules=names)
    if health_port is None:
        made.run()
        return
    health = HealthServer(health_port, made.is_healthy, made.is_healthy)
    health.start()
    logging.getLogger(__name__).info("health on port %d", health.port)
    try:
        made.run()
    finally:
        health.close()
