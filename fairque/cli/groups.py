"""`fairque groups`: what organisations get, whatever their number of users."""

from __future__ import annotations

from typing import Annotated

import typer

from fairque.cli.policies import (
    BurstOption,
    CapOption,
    PausedOption,
    QueuedOption,
    RateOption,
    WeightOption,
    changed,
    changes,
    list_named,
    print_named,
    tell_removed,
)
from fairque.cli.run import Run, command

app = typer.Typer(no_args_is_help=True, help="Groups of users: an organisation counts as one tenant.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


@command(app)
def ls(run: Run) -> None:
    """List all groups."""
    from fairque.core.policies import GroupPolicy

    list_named(run, "group", GroupPolicy)


@command(app)
def show(run: Run, name: NameArgument) -> None:
    """Show what the users of a group get together."""
    from fairque.core.exceptions import UnknownGroupError

    with run.queue() as queue:
        policy = queue.get_group_policy(name)
    if policy is None:
        raise UnknownGroupError(group=name)
    print_named(run, "group", name, policy)


@command(app, "set")
def set_(
    run: Run,
    name: NameArgument,
    weight: WeightOption = None,
    max_concurrency: CapOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    max_queued: QueuedOption = None,
    paused: PausedOption = None,
) -> None:
    """Make a group, or change what its users get together; what is not given stays. It acts at once."""
    from fairque.core.policies import GroupPolicy

    given = changes(
        weight=weight,
        max_concurrency=max_concurrency,
        rate=rate,
        burst=burst,
        max_queued=max_queued,
        paused=paused,
    )
    with run.queue() as queue:
        policy = changed(GroupPolicy, queue.get_group_policy(name), given)
        queue.set_group_policy(name, policy)
    print_named(run, "group", name, policy)


@command(app)
def rm(run: Run, name: NameArgument) -> None:
    """Remove a group. It is refused while a member has tasks that wait or run."""
    from fairque.core.exceptions import UnknownGroupError

    with run.queue() as queue:
        if queue.get_group_policy(name) is None:
            raise UnknownGroupError(group=name)
        queue.set_group_policy(name, None)
    tell_removed(run, "group", name)
