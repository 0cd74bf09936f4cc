"""Tenants in numbers, as `--json` prints them, and as people see them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fairque.cli.words import span

if TYPE_CHECKING:
    from fairque.queue.operations.users import UserStats

COLUMNS = (
    "user", "group", ">queued", ">running", ">delayed", ">finished", ">failed", ">oldest", ">served", ">wait", ">share",
    ">fair", ">weight", "state",
)  # fmt: skip


def stats_data(stats: UserStats) -> dict[str, Any]:
    """A user as JSON has it; shares are from 0 to 1, or null if nothing was served of late."""
    return {**asdict(stats), "queued": stats.queued}


def stats_row(stats: UserStats) -> tuple[object, ...]:
    """A row under `COLUMNS`."""
    return (
        stats.user_id,
        stats.group or "",
        stats.queued,
        stats.running,
        stats.delayed,
        stats.finished,
        stats.failed,
        span(stats.oldest_seconds) if stats.queued else "",
        span(stats.served_seconds),
        span(stats.wait_seconds) if stats.claims else "",
        _percent(stats.actual_share),
        _percent(stats.fair_share),
        f"{stats.weight:g}",
        _state(stats),
    )


def stats_pairs(stats: UserStats) -> list[tuple[str, object]]:
    """All that is known of a user. What was served of late is of the last half to whole minute."""
    late = stats.claims > 0 or stats.actual_share is not None
    return [
        ("state", _state(stats)),
        ("queued", stats.queued),
        ("critical", stats.critical or None),
        ("under limiters", stats.limited or None),
        ("delayed", stats.delayed),
        ("running", stats.running),
        ("oldest waits", span(stats.oldest_seconds) if stats.queued else None),
        ("finished", stats.finished),
        ("failed", stats.failed),
        ("canceled", stats.canceled),
        ("dead letters", stats.dead_letters),
        ("stolen", stats.stolen or None),
        ("waited", span(stats.waited_seconds)),
        ("served", span(stats.served_seconds)),
        ("claimed of late", stats.claims if late else None),
        ("waited of late", f"{span(stats.wait_seconds)} each" if stats.claims else None),
        ("share of late", _percent(stats.actual_share) if late else None),
        ("fair share", _percent(stats.fair_share) if late else None),
        ("tag", f"{stats.tag:g}"),
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _state(stats: UserStats) -> str:
    if stats.broken:
        return f"its {stats.broken} is damaged: fairque users reconcile"
    if stats.paused:
        return "paused"
    if stats.parked:
        return "out of tokens"
    if stats.ready:
        return "ready"
    if stats.queued:
        return "at a limit"
    return "running" if stats.running else "idle"
