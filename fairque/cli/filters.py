"""`--filter`: which tasks a command means, how many these are, and whether it may go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run
from fairque.cli.words import priority, seconds

if TYPE_CHECKING:
    from fairque.core.filters import TaskFilter
    from fairque.queue.operations.bulk import BulkOutcome

NAMES = "function, user, state, error, label.NAME, older_than, younger_than, priority"

FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", "-f",
        metavar="NAME=VALUE",
        help=f"Tasks that fit; may be repeated, and all must. Names: {NAMES}. See docs/dead_letters.md.",
    ),
]  # fmt: skip
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say how many tasks fit.")]
MostOption = Annotated[
    int | None, typer.Option("--most", min=1, help="With --filter: at most so many, the oldest first.")
]


def filter_of(conditions: list[str] | None, user: str | None = None) -> TaskFilter:
    """The filter that was written, for `user` if one is given; with neither, all users'.

    Raises:
        InvalidFilterError: a condition cannot be one.
        typer.BadParameter: it is not written as one.
    """
    from fairque.core.filters import TaskFilter

    if not conditions:
        return TaskFilter(user="*").of_user(user)
    fields: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not value:
            raise typer.BadParameter(f"--filter takes NAME=VALUE, not {condition!r}; the names are {NAMES}")
        if name.startswith("label."):
            labels[condition.partition("=")[0].strip().removeprefix("label.")] = value
            continue
        read = _READERS.get(name)
        if read is None:
            raise typer.BadParameter(f"--filter has no condition {name!r}: there are {NAMES}")
        if name in fields:
            raise typer.BadParameter(
                f"--filter names {name} twice; several states or priorities stand between commas"
            )
        fields[name] = read(value)
    return TaskFilter(**fields, labels=labels).of_user(user)


def _listed(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [read(part.strip()) for part in text.split(",")]


_READERS: dict[str, Callable[[str], Any]] = {
    "function": str,
    "user": str,
    "error": str,
    "state": _listed(str),
    "priority": _listed(priority),
    "older_than": seconds,
    "younger_than": seconds,
}


def carry_out(
    run: Run,
    act: Callable[[bool], BulkOutcome],
    *,
    asked: str,
    done: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Count what fits, ask, do it, and tell. `act(dry_run)` does; `asked` and `done`: as in "Cancel {asked}?" and
    "3 {done}".

    Raises:
        typer.BadParameter: nobody is there to be asked.
        typer.Abort: the answer was no.
    """
    outcome = act(True) if dry_run or not yes else None
    if outcome is not None and not dry_run:
        confirm(outcome.matched, asked)
    if outcome is None or not dry_run:
        outcome = act(False)
    tell(run, outcome, done)


def confirm(count: int, asked: str) -> None:
    """Ask whether to go on with so many tasks; if there are none, there is nothing to ask.

    Raises:
        typer.BadParameter: nobody is there to be asked.
        typer.Abort: the answer was no.
    """
    if count:
        number = f"{count:,} task{'' if count == 1 else 's'}"
        if not _is_asked():
            raise typer.BadParameter(
                f"this is about {number}: add --yes to do it, or --dry-run to only count"
            )
        typer.confirm(f"{asked.format(number)}?", abort=True)


def tell(run: Run, outcome: BulkOutcome, done: str) -> None:
    """What became of the tasks."""
    if run.out.as_json:
        run.out.data(asdict(outcome))
        return
    if outcome.dry_run:
        run.out.line(f"{outcome.matched} fit; nothing was done")
        return
    run.out.line(f"{outcome.done} {done}")
    for count, text in (
        (outcome.asked, "run and were asked to stop"),
        (outcome.changed, "had moved on meanwhile, and were left alone"),
        (outcome.gone, "were gone meanwhile"),
    ):
        if count:
            run.out.line(f"{count} {text}")


def _is_asked() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()
