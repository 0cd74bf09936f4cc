"""What the commands about users, groups and limiters share: limits as people write them, and as they see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from fairque.cli.run import Run
    from fairque.core.policies import AnyPolicy, GroupPolicy, LimiterPolicy, UserPolicy
    from fairque.queue.operations.policies import Kind
    from fairque.queue.queue import TaskQueue

    PolicyT = TypeVar("PolicyT", UserPolicy, GroupPolicy, LimiterPolicy)

_NONE = "none"

WeightOption = Annotated[
    float | None, typer.Option("--weight", help="Share against the others' weights, 0.01 to 100.")
]
CapOption = Annotated[
    str | None,
    typer.Option("--max-concurrency", metavar="N|none", help="How many tasks may run at once."),
]
RateOption = Annotated[
    str | None,
    typer.Option(
        "--rate", metavar="RATE|none", help="How many may start: 50 (a second), 100/m, 1000/h, 5000/d."
    ),
]
BurstOption = Annotated[
    str | None,
    typer.Option(metavar="N|none", help="How many may start at once after a quiet time."),
]
QueuedOption = Annotated[
    str | None,
    typer.Option("--max-queued", metavar="N|none", help="How many tasks may wait before pushes are refused."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--retry-budget", metavar="PART|none", help="Which part of all starts may be retries: 0.2."),
]
MinimumOption = Annotated[
    str | None,
    typer.Option(
        "--retry-minimum", metavar="RATE|none", help="How many retries may start all the same: 1, 10/m."
    ),
]
PausedOption = Annotated[
    bool | None, typer.Option("--paused/--no-paused", help="Keep tasks waiting.", show_default=False)
]


def changes(
    *,
    weight: float | None = None,
    max_concurrency: str | None = None,
    rate: str | None = None,
    burst: str | None = None,
    max_queued: str | None = None,
    paused: bool | None = None,
    group: str | None = None,
    retry_budget: str | None = None,
    retry_minimum: str | None = None,
) -> dict[str, Any]:
    """The fields that options set; `none` takes a limit away.

    Raises:
        typer.BadParameter: a number is none.
    """
    found: dict[str, Any] = {"weight": weight, "paused": paused}
    found = {name: value for name, value in found.items() if value is not None}
    for name, text in (("max_concurrency", max_concurrency), ("burst", burst), ("max_queued", max_queued)):
        if text is not None:
            found[name] = _whole(text, name)
    if rate is not None:
        found["rate_limit"] = _rate(rate)
        if found["rate_limit"] is None:
            found.setdefault("burst", None)
    if retry_minimum is not None:
        found["retry_minimum"] = _rate(retry_minimum)
    if retry_budget is not None:
        found["retry_budget"] = _rate(retry_budget)
        if found["retry_budget"] is None:
            found.setdefault("retry_minimum", None)
    if group is not None:
        found["group"] = None if group.lower() == _NONE else group
    return found


def changed(kind: type[PolicyT], policy: PolicyT | None, changed: Mapping[str, Any]) -> PolicyT:
    """The policy, or if there is none a new one, with these fields.

    Raises:
        ConfigError: one is out of range, or they do not go together.
    """
    before = asdict(policy) if policy is not None else {}
    return kind(**{**before, **changed})


def _whole(text: str, name: str) -> int | None:
    if text.strip().lower() == _NONE:
        return None
    try:
        return int(text)
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(
            f"{option} takes a whole number, or none for no limit, not {text!r}"
        ) from None


def _rate(text: str) -> float | str | None:
    """A number, or what the policy reads itself."""
    if text.strip().lower() == _NONE:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def policy_data(policy: AnyPolicy) -> dict[str, Any]:
    """A policy as JSON has it; the rate is per second."""
    return asdict(policy)


def policy_pairs(policy: AnyPolicy) -> list[tuple[str, str]]:
    """The limits of a policy, for people."""
    return [(field.name.replace("_", " "), _shown(policy, field.name)) for field in fields(policy)]


def policy_table(
    kind: type[AnyPolicy], named: Iterable[tuple[str, AnyPolicy]], first: str
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of several policies of one kind, without the columns that are empty in all."""
    items = list(named)
    names = [
        field.name
        for field in fields(kind)
        if field.name in ("weight", "rate_limit", "max_concurrency")
        or any(_shown(policy, field.name) for _, policy in items)
    ]
    texts = ("group", "paused")
    columns = [first, *(("" if name in texts else ">") + name.replace("_", " ") for name in names)]
    return columns, [[name, *(_shown(policy, column) for column in names)] for name, policy in items]


def _shown(policy: AnyPolicy, name: str) -> str:
    from fairque.core.policies import default_burst, rate_text

    value = getattr(policy, name)
    if name in ("rate_limit", "retry_minimum") and value is not None:
        text = rate_text(value)
        return text if isinstance(text, str) else f"{text}/s"
    if name == "burst" and value is None and policy.rate_limit is not None:
        return str(default_burst(policy.rate_limit))
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def all_policies(queue: TaskQueue, kind: Kind) -> list[tuple[str, Any]]:
    """Every policy of a kind, by name; one that came twice while others were set, once."""
    found: dict[str, AnyPolicy] = {}
    cursor: str | None = None
    while True:
        page = queue.list_policies(kind, cursor)
        found.update(page.items)
        cursor = page.cursor
        if cursor is None:
            return sorted(found.items())


def list_named(run: Run, kind: Kind, policy_type: type[PolicyT]) -> None:
    """Print every policy of a kind that people name."""
    with run.queue() as queue:
        found = all_policies(queue, kind)
    if run.out.as_json:
        run.out.data({f"{kind}s": [{"name": name, **policy_data(policy)} for name, policy in found]})
    elif found:
        run.out.table(*policy_table(policy_type, found, kind))
    else:
        run.out.note(f"there are no {kind}s")


def print_named(run: Run, kind: Kind, name: str, policy: AnyPolicy) -> None:
    """Print one policy under its name."""
    if run.out.as_json:
        run.out.data({"name": name, **policy_data(policy)})
    else:
        run.out.pairs([(kind, name), *policy_pairs(policy)])


def tell_removed(run: Run, kind: Kind, name: str) -> None:
    """Say that a policy is gone."""
    if run.out.as_json:
        run.out.data({"removed": name})
    else:
        run.out.line(f"{kind} {name} is no more")
