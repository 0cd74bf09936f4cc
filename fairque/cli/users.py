"""`fairque users`: what single tenants may use, and how they are doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli import control
from fairque.cli.exits import ExitCode
from fairque.cli.filters import YesOption
from fairque.cli.policies import (
    BudgetOption,
    BurstOption,
    CapOption,
    MinimumOption,
    PausedOption,
    QueuedOption,
    RateOption,
    WeightOption,
    changed,
    changes,
    policy_data,
    policy_pairs,
    policy_table,
)
from fairque.cli.run import Run, command

if TYPE_CHECKING:
    from fairque.core.policies import UserPolicy
    from fairque.queue.queue import TaskQueue

app = typer.Typer(no_args_is_help=True, help="Tenants: what each may use, and how it is doing.")

UserArgument = Annotated[str, typer.Argument(metavar="ID")]


@command(app)
def show(run: Run, user: UserArgument) -> None:
    """Show what a user may use, where that comes from, and how the user is doing."""
    from fairque.cli.tenants import stats_data, stats_pairs

    with run.queue() as queue:
        policy, source = _in_effect(queue, user)
        group = queue.get_group_policy(policy.group) if policy.group else None
        stats = queue.get_user_stats(user)
    if run.out.as_json:
        data = _data(user, policy, source)
        run.out.data(data | {"group": policy_data(group) if group else None, "stats": stats_data(stats)})
        return
    run.out.pairs([("user", user), ("policy", source), *policy_pairs(policy)])
    if group is not None:
        run.out.line("")
        run.out.pairs([("group", policy.group), *policy_pairs(group)])
    run.out.line("")
    run.out.pairs(stats_pairs(stats))


@command(app)
def ls(
    run: Run,
    by: Annotated[
        str, typer.Option("--by", metavar="backlog|service|wait", help="What the largest comes first of.")
    ] = "backlog",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on from where the page before ended.")] = None,
) -> None:
    """List users, those with the largest backlog first, or with the most service or the longest wait of late."""
    from fairque.cli.tenants import COLUMNS, stats_data, stats_row

    with run.queue() as queue:
        page = queue.list_users(by, cursor, limit)  # type: ignore[arg-type]  # refused by name if it is another
    if run.out.as_json:
        run.out.data({"users": [stats_data(stats) for stats in page], "cursor": page.cursor})
        return
    if len(page):
        run.out.table(COLUMNS, [stats_row(stats) for stats in page])
    else:
        run.out.note("there are no such users")
    if page.cursor:
        run.out.note(f"there are more: --cursor {page.cursor}")


@command(app)
def reconcile(
    run: Run,
    tasks: Annotated[
        bool, typer.Option("--tasks/--no-tasks", help="Go through all stored tasks, too.")
    ] = True,
) -> None:
    """Prove that all counts agree with what workers hold and queues contain, and mend what does not.

    Exit code 1: something had to be mended. Workers do a little of this all the time.
    """
    with run.queue() as queue:
        report = queue.reconcile(tasks=tasks)
    if run.out.as_json:
        repaired = [{"what": one.what, "was": one.was, "now": one.now} for one in report.repaired]
        run.out.data({"checked": report.checked, "repaired": repaired})
    else:
        for one in report.repaired:
            run.out.line(f"mended  {one.what}: was {one.was}, is {one.now}", style="yellow")
        count = len(report.repaired)
        told = "all of it agrees" if not count else f"{count} thing{'' if count == 1 else 's'} mended"
        run.out.line(f"{report.checked} looked at: {told}")
    run.finish(ExitCode.FAILED if report.repaired else ExitCode.OK)


@command(app, "set")
def set_(
    run: Run,
    user: UserArgument,
    weight: WeightOption = None,
    max_concurrency: CapOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    max_queued: QueuedOption = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME|none", help="The organisation that the user belongs to.")
    ] = None,
    retry_budget: BudgetOption = None,
    retry_minimum: MinimumOption = None,
    paused: PausedOption = None,
) -> None:
    """Change what a user may use; what is not given stays as it is in effect. It acts at once, on the backlog too.

    The user then has a policy of its own, which the rules of the configuration no longer change.
    """
    from fairque.core.policies import UserPolicy

    given = changes(
        weight=weight, max_concurrency=max_concurrency, rate=rate, burst=burst, max_queued=max_queued,
        paused=paused, group=group, retry_budget=retry_budget, retry_minimum=retry_minimum,
    )  # fmt: skip
    if not given:
        raise typer.BadParameter(
            "there is nothing to change: give --weight, --max-concurrency, --rate or another"
        )
    with run.queue() as queue:
        before, _source = _in_effect(queue, user)
        policy = changed(UserPolicy, before, given)
        queue.set_user_policy(user, policy)
    if run.out.as_json:
        run.out.data(_data(user, policy, _OWN))
    else:
        run.out.pairs([("user", user), *policy_pairs(policy)])


@command(app)
def reset(run: Run, user: UserArgument) -> None:
    """Forget a user's own policy, a pause included: the rules, or the defaults, are in effect again."""
    with run.queue() as queue:
        queue.set_user_policy(user, None)
        policy, source = _in_effect(queue, user)
    if run.out.as_json:
        run.out.data(_data(user, policy, source))
    else:
        run.out.line(f"user {user} has no policy of its own any more; in effect: {source}")


@command(app)
def pause(run: Run, user: UserArgument) -> None:
    """Keep a user's tasks waiting. What runs goes on, and pushes are taken."""
    control.pause(run, user)


@command(app)
def resume(run: Run, user: UserArgument) -> None:
    """Let a paused user go on."""
    control.resume(run, user)


@command(app)
def rules(run: Run) -> None:
    """Show the policies of users that have none of their own, by pattern; the first that fits is theirs."""
    from fairque.core.policies import UserPolicy

    with run.queue() as queue:
        found = queue.get_policy_rules()
    if run.out.as_json:
        run.out.data({"rules": [{"pattern": glob, **policy_data(policy)} for glob, policy in found.items()]})
    elif found:
        run.out.table(*policy_table(UserPolicy, found.items(), "pattern"))
    else:
        run.out.note(
            "there are no rules: they are the patterns and `default` under `users` in a worker's file"
        )


_OWN = "its own"


def _in_effect(queue: TaskQueue, user: str) -> tuple[UserPolicy, str]:
    """The user's policy, and where it comes from."""
    from fairque.queue.operations.policies import policy_in_effect

    found = queue.run(policy_in_effect(queue.engine, user))
    rule = f"rule {found.rule}" if found.rule is not None else "the defaults"
    return found.policy, _OWN if found.own else rule


def _data(user: str, policy: UserPolicy, source: str) -> dict[str, Any]:
    return {"user_id": user, "policy": policy_data(policy), "source": source}


@command(app)
def delete(
    run: Run,
    user: UserArgument,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also what waits; what runs is asked to stop. Exit code 6: some still runs."
        ),
    ] = False,
    yes: YesOption = False,
) -> None:
    """Remove a user for ever: policy, counters, dead letters and kept tasks. Refused while it has work."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("this removes all that is kept of the user for ever: add --yes")
        typer.confirm(f"Remove all that is kept of user {user} for ever?", abort=True)
    with run.queue() as queue:
        outcome = queue.delete_user(user, force=force)
    if run.out.as_json:
        run.out.data({"done": outcome.done, "tasks": outcome.tasks, "running": outcome.running})
    elif outcome.done:
        run.out.line(f"user {user} is gone, with {outcome.tasks} tasks")
    else:
        run.out.line(
            f"{outcome.tasks} tasks are gone; {outcome.running} still run and were asked to stop: try again"
        )
    run.finish(ExitCode.OK if outcome.done else ExitCode.REFUSED)
