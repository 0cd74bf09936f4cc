"""`fairque why`: why a task has not started."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.queue.operations.explain import Explanation
    from fairque.queue.operations.reasons import Limit


def why(run: Run, task_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Explain why a task waits: what comes before it, which limits hold, and when it should start.

    Exit code 4: there is no such task.
    """
    from fairque.queue.operations.tasks import not_found

    with run.queue() as queue:
        found = queue.explain(task_id)
    if found.state is None:
        raise not_found(task_id)
    if run.out.as_json:
        run.out.data(_data(found))
    else:
        _print(run, found)
    run.finish(ExitCode.OK)


def _data(found: Explanation) -> dict[str, Any]:
    return {**asdict(found), "reason": found.reason}


def _print(run: Run, found: Explanation) -> None:
    from fairque.cli.words import moment

    run.out.line(found.text)
    if found.state != "queued":
        return
    run.out.line("")
    run.out.pairs(
        [
            ("reasons", ", ".join(reason.code for reason in found.reasons)),
            ("before it", _before(found)),
            ("rank", _rank(found.rank, found.ready_tenants)),
            ("rank in group", found.rank_in_group if found.group is not None else None),
            ("tag", f"{found.tag:g}" if found.tag is not None else None),
            ("tag of group", f"{found.group_tag:g}" if found.group_tag is not None else None),
            ("virtual time", f"{found.virtual_time:g} (front {found.front:g})"),
            ("workers", f"{found.workers_that_can} of {found.workers} can run it"),
            ("slots", f"{found.running} of {found.slots} in use"),
            ("expires", moment(found.expires_at)),
        ]
    )
    if found.limits:
        run.out.line("")
        run.out.table(
            ["limit", "of", ">used", ">at most", ">opens in"], [_limit_row(one) for one in found.limits]
        )
    if found.ahead:
        run.out.line("")
        rows = [
            (
                f"group {one.name}" if one.is_group else one.name,
                f"{one.tag:g}",
                one.queued,
                one.running,
                f"{one.weight:g}",
            )
            for one in found.ahead
        ]
        run.out.table(["served before", ">tag", ">queued", ">running", ">weight"], rows)


def _before(found: Explanation) -> str:
    own = "many" if found.position is None else str(found.position)
    everybody = "" if found.tasks_before is None else f", about {found.tasks_before} of all users"
    return f"{own} of its user{everybody}"


def _rank(rank: int | None, ready: int) -> str:
    return (
        f"not ready ({ready} tenants are)" if rank is None else f"{rank} of {ready} ready tenants come first"
    )


def _limit_row(limit: Limit) -> tuple[object, ...]:
    from fairque.cli.words import span

    if limit.kind == "rate":
        opens = span(limit.opens_in) if limit.opens_in else ""
        return "rate", f"{limit.of} {limit.name}", "", f"{limit.limit:.4g}/s", opens
    kind = "share of slots" if limit.of == "share" else "at once"
    return (
        kind,
        limit.name if limit.of == "share" else f"{limit.of} {limit.name}",
        limit.used,
        f"{limit.limit:g}",
        "",
    )
