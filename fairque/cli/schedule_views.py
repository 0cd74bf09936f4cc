"""Schedules and their history as `--json` prints them, and as people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fairque.cli.views import what
from fairque.cli.words import ago, moment, span

if TYPE_CHECKING:
    from fairque.core.schedules.models import ScheduledTask
    from fairque.queue.operations.schedule_views import Firing, ScheduleInfo

_OUTCOMES = {
    "run": "pushed",
    "late": "pushed, for missed ticks",
    "asked": "pushed, by hand",
    "existing": "its task was there",
    "paused": "left out: paused",
    "missed": "left out: missed",
    "made_up": "left out: one run for all",
    "over_limit": "left out: over misfire_limit",
    "overlap": "left out: the run before was not over",
}


def when_text(schedule: ScheduledTask) -> str:
    """When it runs, in a few words."""
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    if schedule.cron is not None:
        return schedule.cron + zone
    if schedule.every is not None:
        return f"every {span(schedule.every)}"
    first, *rest = schedule.at
    return f"at {first.isoformat(sep=' ')}" + (f" and {len(rest)} more" if rest else "")


def info_data(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule as JSON has it: its fields that are not at their defaults under `definition`."""
    from fairque.core.exceptions import FairQueueError

    data: dict[str, Any] = {
        "name": info.name,
        "source": info.source or None,
        "paused": info.paused,
        "decided_until": info.decided_until,
        "last_task_id": info.last_task_id,
        "running": info.running,
        "problem": info.problem or None,
    }
    try:
        return {**data, "next_run": info.next_run, "definition": info.schedule.to_data()}
    except FairQueueError as error:
        return {**data, "next_run": None, "definition": None, "problem": str(error)}


def info_rows(found: Iterable[ScheduleInfo]) -> list[tuple[str, ...]]:
    """Rows of name, when, what, next run, last run, state."""
    from fairque.core.exceptions import FairQueueError

    rows: list[tuple[str, ...]] = []
    for info in found:
        try:
            schedule, following = info.schedule, info.next_run
        except FairQueueError as error:
            rows.append((info.name, "", "", "", "", f"unreadable: {error}"))
            continue
        task = schedule.build_task(info.at)
        state = "paused" if info.paused else "" if following else "ended"
        if info.problem:
            state = f"refused: {info.problem}"
        last = (info.last_task_id or "").rpartition("@")[2] + (" (not over)" if info.running else "")
        rows.append((info.name, when_text(schedule), what(task, 40), ago(following, info.at), last, state))
    return rows


def info_pairs(info: ScheduleInfo) -> list[tuple[str, object]]:
    """All that is known of a schedule, for people.

    Raises:
        SerializationError, ConfigError: its definition cannot be read.
    """
    schedule = info.schedule
    task = schedule.build_task(info.at)
    data = schedule.to_data()
    shown = ("name", "function", "args", "kwargs", "payload", "options", "cron", "every", "at", "paused")
    rest = [(name.replace("_", " "), value) for name, value in data.items() if name not in shown]
    options = ", ".join(f"{name}={value}" for name, value in schedule.options.items())
    following = info.next_run
    return [
        ("name", info.name),
        ("when", when_text(schedule)),
        ("call" if schedule.function else "payload", what(task, 2000)),
        ("options", options),
        *rest,
        ("state", "paused" if info.paused else "" if following else "ended"),
        ("declared by", info.source),
        ("next run", moment(following)),
        ("last run", f"{info.last_task_id} (not over)" if info.running else info.last_task_id),
        ("decided until", moment(info.decided_until)),
        ("refused", info.problem),
    ]


def firing_data(firing: Firing) -> dict[str, Any]:
    """One entry of a history as JSON has it."""
    return {
        "at": firing.at,
        "outcome": firing.outcome,
        "first": firing.first,
        "last": firing.last,
        "count": firing.count,
        "task_id": firing.task_id,
    }


def firing_rows(found: Iterable[Firing]) -> list[tuple[object, ...]]:
    """Rows of decided, outcome, tick, ticks, task."""
    return [
        (
            moment(item.at),
            _OUTCOMES.get(item.outcome, item.outcome),
            item.last.isoformat(sep=" "),
            f"{item.count}{'+' if item.count >= 1000 else ''}",
            item.task_id or "",
        )
        for item in found
    ]
