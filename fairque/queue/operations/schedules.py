"""Schedules added, changed, removed, declared by a deploy, and run when somebody asks for it.

A schedule is stored as its own encoding, with a cursor: up to there every tick is decided. Changes carry the version
of what they were made from, so that one of two that cross is made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from fairque.core.exceptions import ConfigError, FairQueueError
from fairque.core.keys import encode
from fairque.core.schedules.models import ScheduledTask
from fairque.core.schedules.moments import to_micros
from fairque.core.schedules.planner import rebase, run_now
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.push import TAKEN, Pushed, outcome_of, pack
from fairque.queue.operations.schedule_views import (
    ScheduleInfo,
    all_of,
    fetch,
    look_text,
    name_of,
    require,
)

BY_HAND = ""
"""The source of schedules that nobody declares, which a deploy leaves alone."""
ALL_SOURCES = "*"
_ATTEMPTS = 20
_NAMES_A_CALL = 100


class Change(StrEnum):
    """What adding a schedule did."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What a deploy did, by names. `taken_over`: those of them that another source had declared."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    taken_over: tuple[str, ...] = ()


def add(engine: Engine, schedule: ScheduledTask, source: str = BY_HAND) -> Flow[Change]:
    """Keep a schedule, in place of the one with its name.

    Raises:
        ConfigError: it is no ScheduledTask.
    """
    return (yield from _put(engine, _checked(schedule), source))


def _checked(schedule: Any) -> ScheduledTask:
    if not isinstance(schedule, ScheduledTask):
        raise ConfigError(f"a schedule must be a ScheduledTask, not {schedule!r:.60}")
    return schedule


def _put(
    engine: Engine,
    wanted: ScheduledTask,
    source: str,
    *,
    found: ScheduleInfo | None = None,
    deployed: bool = False,
) -> Flow[Change]:
    """`found`: what is there, as the caller has just seen. `deployed`: a pause by an operator stays."""
    name = name_of(wanted)
    for _ in range(_ATTEMPTS):
        if found is None:
            listing = yield from fetch(engine, [name])
            now, found = listing.now, listing.items[0] if listing.items else None
        else:
            now = found.at
        if deployed and found is not None and found.paused:
            wanted = with_pause(wanted, True)
        definition = wanted.encode()
        if found is not None and (found.definition, found.source) == (definition, source):
            return Change.UNCHANGED
        cursor = rebase(_readable(found), wanted, found.decided_until if found else None, now)
        taken = yield engine.call(
            "schedule_put", name, found.version if found else b"", wanted.digest(), int(wanted.paused),
            to_micros(cursor), source, look_text(_look(wanted, cursor)), definition,
        )  # fmt: skip
        if taken:
            return Change.CHANGED if found else Change.ADDED
        found = None
    raise FairQueueError(f"schedule {wanted.name!r} is being changed all the time: try again")


def _readable(info: ScheduleInfo | None) -> ScheduledTask | None:
    try:
        return info.schedule if info else None
    except FairQueueError:
        return None  # it begins anew


def _look(schedule: ScheduledTask, cursor: datetime) -> datetime | None:
    following = None if schedule.paused else schedule.first_tick(cursor)
    return None if following is None else schedule.due(following)


def with_pause(schedule: ScheduledTask, paused: bool) -> ScheduledTask:
    """The schedule, paused or not."""
    if schedule.paused == paused:
        return schedule
    return ScheduledTask.from_data({**schedule.to_data(), "paused": paused})


def pause(engine: Engine, name: str, paused: bool) -> Flow[bool]:
    """Let its ticks pass without a run, or go on with the next one. False: it was so already.

    Raises:
        ScheduleNotFoundError: there is no such schedule.
    """
    for _ in range(_ATTEMPTS):
        info = yield from require(engine, name)
        if info.paused == paused:
            return False
        wanted = with_pause(info.schedule, paused)
        cursor = rebase(info.schedule, wanted, info.decided_until, info.at)
        taken = yield engine.call(
            "schedule_put", name_of(name), info.version, wanted.digest(), int(paused), to_micros(cursor), info.source,
            look_text(_look(wanted, cursor)), wanted.encode(),
        )  # fmt: skip
        if taken:
            return True
    raise FairQueueError(f"schedule {name!r} is being changed all the time: try again")


def remove(engine: Engine, names: Iterable[str], source: str = ALL_SOURCES) -> Flow[int]:
    """Schedules are no more; returns how many there were. Their runs that were pushed stay."""
    wanted = [name_of(name) for name in names]
    removed = 0
    for start in range(0, len(wanted), _NAMES_A_CALL):
        removed += sum((yield engine.call("schedule_remove", source, *wanted[start : start + _NAMES_A_CALL])))
    return removed


def reconcile(engine: Engine, schedules: Iterable[ScheduledTask], source: str) -> Flow[Reconciled]:
    """Have what `source` declares, and no more of what it declared before. The rest stays; so does a pause.

    Raises:
        ConfigError: the source has no name, something is no ScheduledTask, or two have one name.
    """
    given: object = source
    if not isinstance(given, str) or given in (BY_HAND, ALL_SOURCES):
        raise ConfigError(f"the source of declared schedules must be a name, not {source!r}")
    declared: dict[str, ScheduledTask] = {}
    for schedule in schedules:
        if declared.setdefault(_checked(schedule).name, schedule) is not schedule:
            raise ConfigError(
                f"schedule {schedule.name!r} is declared twice by {source}: give one another name"
            )
    found = yield from all_of(engine)
    names: dict[Change, list[str]] = {change: [] for change in Change}
    for name, schedule in declared.items():
        change = yield from _put(engine, schedule, source, found=found.get(name), deployed=True)
        names[change].append(name)
    gone = [name for name, info in found.items() if info.source == source and name not in declared]
    yield from remove(engine, gone, source)
    return Reconciled(
        added=tuple(names[Change.ADDED]),
        changed=tuple(names[Change.CHANGED]),
        unchanged=tuple(names[Change.UNCHANGED]),
        removed=tuple(gone),
        taken_over=tuple(
            name for name in declared if name in found and found[name].source not in (source, BY_HAND)
        ),
    )


# -- a run by hand


def trigger(engine: Engine, name: str) -> Flow[Pushed]:
    """Push a run now, outside its ticks, also while it is paused. With overlap "queue" it waits for the run before.

    Raises:
        ScheduleNotFoundError: there is no such schedule.
        QuotaExceededError, UnknownLimiterError, QueueFullError: it is refused, as any push.
    """
    for _ in range(_ATTEMPTS):
        info = yield from require(engine, name)
        run = run_now(info.schedule, info.at, info.last_task_id if info.running else None)
        task = info.schedule.build_task(run.tick, task_id=run.task_id)
        task_id, data, *_ = pack(engine, task)
        after = encode(run.after, "task_id") if run.after else ""
        code, detail = yield engine.call(
            "schedule_run", name_of(name), task_id, data, after, to_micros(run.tick)
        )
        if code != TAKEN:  # else somebody else asked within the same microsecond
            pushed = outcome_of(task, code, detail)
            if pushed.error:
                raise pushed.error
            return pushed
    raise FairQueueError(f"schedule {name!r} could not be run: its ids are taken")
