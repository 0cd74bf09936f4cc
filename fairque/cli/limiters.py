"""`fairque limiters`: limits that tasks share by name."""

from __future__ import annotations

from typing import Annotated

import typer

from fairque.cli.policies import (
    BurstOption,
    CapOption,
    RateOption,
    changed,
    changes,
    list_named,
    print_named,
    tell_removed,
)
from fairque.cli.run import Run, command

app = typer.Typer(
    no_args_is_help=True, help="Limits by name, for all tasks together that name them, whoever pushed them."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


@command(app)
def ls(run: Run) -> None:
    """List all limiters."""
    from fairque.core.policies import LimiterPolicy

    list_named(run, "limiter", LimiterPolicy)


@command(app)
def show(run: Run, name: NameArgument) -> None:
    """Show what the tasks of a limiter may use together."""
    from fairque.core.exceptions import UnknownLimiterError

    with run.queue() as queue:
        policy = queue.get_limiter(name)
    if policy is None:
        raise UnknownLimiterError(limiter=name)
    print_named(run, "limiter", name, policy)


@command(app, "set")
def set_(
    run: Run,
    name: NameArgument,
    rate: RateOption = None,
    burst: BurstOption = None,
    max_concurrency: CapOption = None,
) -> None:
    """Make a limiter, or change its limits; what is not given stays. It acts at once."""
    from fairque.core.policies import LimiterPolicy

    given = changes(max_concurrency=max_concurrency, rate=rate, burst=burst)
    with run.queue() as queue:
        policy = changed(LimiterPolicy, queue.get_limiter(name), given)
        queue.set_limiter(name, policy)
    print_named(run, "limiter", name, policy)


@command(app)
def rm(run: Run, name: NameArgument) -> None:
    """Remove a limiter."""
    from fairque.core.exceptions import UnknownLimiterError

    with run.queue() as queue:
        if queue.get_limiter(name) is None:
            raise UnknownLimiterError(limiter=name)
        queue.set_limiter(name, None)
    tell_removed(run, "limiter", name)
