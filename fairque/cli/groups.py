"""`fairque groups`: what organisations get, whatever their number of users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fairque.cli.policies import (
    BurstOption,
    CapOption,
    PausedOption,
    QueuedOption,
    RateOption,
    WeightOption,
    all_policies,
    changed,
    changes,
    policy_data,
    policy_pairs,
    policy_table,
)
from fairque.cli.run import Run, command

if TYPE_CHECKING:
    from fairque.core.policies import GroupPolicy

app = typer.Typer(no_args_is_help=True, help="Groups of users: an organisation counts as one tenant.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


@command(app)
def ls(run: Run) -> None:
    """List all groups."""
    from fairque.core.policies import GroupPolicy

    with run.queue() as queue:
        found = all_policies(queue, "group")
    if run.out.as_json:
        run.out.data({"groups": [{"name": name, **policy_data(policy)} for name, policy in found]})
    elif found:
        run.out.table(*policy_table(GroupPolicy, found, "group"))
    else:
        run.out.note("there are no groups")


@command(app)
def show(run: Run, name: NameArgument) -> None:
    """Show what the users of a group get together."""
    from fairque.core.exceptions import UnknownGroupError

    with run.queue() as queue:
        policy = queue.get_group_policy(name)
    if policy is None:
        raise UnknownGroupError(group=name)
    _print(run, name, policy)


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
    _print(run, name, policy)


@command(app)
def rm(run: Run, name: NameArgument) -> None:
    """Remove a group. It is refused while a member has tasks that wait or run."""
    from fairque.core.exceptions import UnknownGroupError

    with run.queue() as queue:
        if queue.get_group_policy(name) is None:
            raise UnknownGroupError(group=name)
        queue.set_group_policy(name, None)
    if run.out.as_json:
        run.out.data({"removed": name})
    else:
        run.out.line(f"group {name} is no more")


def _print(run: Run, name: str, policy: GroupPolicy) -> None:
    if run.out.as_json:
        run.out.data({"name": name, **policy_data(policy)})
    else:
        run.out.pairs([("group", name), *policy_pairs(policy)])
