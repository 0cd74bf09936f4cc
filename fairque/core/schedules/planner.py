"""What to do with the ticks of a schedule now: a pure function of what is stored and of the time.

Its *cursor* is stored with a schedule: the moment up to which every tick has been decided. A leader looks
(`plan`), and the server takes the plan in one step: if the leader's token is the current one, and definition
and cursor are still those that the plan was made from, it moves the cursor and enqueues the runs. So a tick
is decided by the first plan that is taken, and a plan of a leader that lost its office, or was asleep, changes
nothing. The ids of the tasks are made of schedule and tick, which makes a second push of a tick a duplicate
even if the cursor were lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.schedules.moments import MICROSECOND

MAX_RUNS = 500
"""What one plan enqueues at most, as one script call does; the rest is for the next look, at once."""
MAX_COUNTED = 1_000


class SkipReason(StrEnum):
    """Why a tick was left out."""

    PAUSED = "paused"
    MISSED = "missed"
    """Nobody looked in time, and misfire is "skip"."""
    MADE_UP = "made_up"
    """It was missed, and the next decision is the run for it and for all that were."""
    OVER_LIMIT = "over_limit"
    """It was missed, and later ones use up the misfire_limit."""
    OVERLAP = "overlap"
    """The run before was not over, and overlap is "skip"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A task to enqueue. `due` is its tick with the jitter; `after` the id of a task that it waits for."""

    task_id: str
    tick: datetime
    due: datetime
    missed: bool = False
    """It makes up for what was missed."""
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Neighbouring ticks, from `first` to `last`, that are left out for one reason.

    `count` is how many; 1,000 stands for that or more.
    """

    first: datetime
    last: datetime
    count: int
    reason: SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The decisions of one look. They hold if the schedule's cursor still is `cursor` when they are taken.

    `decisions` are in the order of their ticks, `new_cursor` is where they move the cursor to, and `look_at`
    is when to look again: in the past if more is due already, None if there are no more ticks.
    """

    schedule: str
    digest: str
    """Of the definition that it was made from."""
    cursor: datetime
    new_cursor: datetime
    decisions: tuple[Run | Skipped, ...] = ()
    look_at: datetime | None

    @property
    def runs(self) -> tuple[Run, ...]:
        """What to enqueue, in order."""
        return tuple(item for item in self.decisions if isinstance(item, Run))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What is left out, in order."""
        return tuple(item for item in self.decisions if isinstance(item, Skipped))

    @property
    def last_task_id(self) -> str | None:
        """The last run, whose state the next look asks for; None if the one that is stored stays."""
        runs = self.runs
        return runs[-1].task_id if runs else None


def plan(
    schedule: ScheduledTask,
    *,
    cursor: datetime,
    now: datetime,
    active: str | None = None,
    limit: int = MAX_RUNS,
) -> Plan:
    """Decide the ticks after `cursor` that are due at `now` (both aware), at most `limit` runs of them.

    `active` is the task id of the schedule's last run if that is not over; also one that still waits is not.
    """
    last = schedule.last_due(now)
    decisions: list[Run | Skipped] = []
    if last is not None and last > cursor:
        steps = (
            _skip(schedule, cursor, last, SkipReason.PAUSED)
            if schedule.paused
            else _steps(schedule, cursor, last, now)
        )
        decisions = _resolve_overlaps(schedule, steps, active, limit)
    new_cursor = cursor
    if decisions:
        end = decisions[-1]
        new_cursor = end.tick if isinstance(end, Run) else end.last
    following = schedule.first_tick(new_cursor)
    return Plan(
        schedule=schedule.name,
        digest=schedule.digest(),
        cursor=cursor,
        new_cursor=new_cursor,
        decisions=tuple(decisions),
        look_at=None if following is None else schedule.due(following),
    )


def rebase(old: ScheduledTask | None, new: ScheduledTask, cursor: datetime | None, now: datetime) -> datetime:
    """The cursor for a definition that takes the place of `old` (None: there was none) at `now`.

    Ticks that a schedule did not have, or had while it was paused, are not missed: a new schedule, one that
    had other ticks since the cursor, and one that is resumed, begin now. Otherwise the cursor stays, so that a
    deploy loses no tick.
    """
    if old is None or cursor is None:
        return now
    if now <= cursor:
        return cursor
    resumed = old.paused and not new.paused
    same = old.timing == new.timing and _between(old, cursor, now) == _between(new, cursor, now)
    return now if resumed or not same else cursor


def _between(schedule: ScheduledTask, cursor: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The part of the time from `cursor` to `now` in which the schedule may have ticks."""
    return max(schedule.start or cursor, cursor), min(schedule.end or now, now)


def run_now(schedule: ScheduledTask, now: datetime, active: str | None = None) -> Run:
    """A run outside the ticks, because somebody asks for it. It moves no cursor and no policy stops it.

    With overlap "queue" it waits for `active`, as a tick would.
    """
    after = active if schedule.overlap == "queue" else None
    return Run(task_id=f"{tick_id(schedule.name, now)}-now", tick=now, due=now, after=after)


def _steps(
    schedule: ScheduledTask, cursor: datetime, last: datetime, now: datetime
) -> Iterator[Run | Skipped]:
    """Decisions for the ticks after `cursor` up to `last`, as if no run were ever active."""
    grace = timedelta(seconds=schedule.misfire_grace_seconds)
    missed = schedule.last_due(now - grace - MICROSECOND)
    if missed is not None and missed > cursor:
        yield from _misfires(schedule, cursor, missed, last)
        cursor = missed
    yield from _runs(schedule, cursor, last)


def _misfires(
    schedule: ScheduledTask, cursor: datetime, missed: datetime, last: datetime
) -> Iterator[Run | Skipped]:
    """Decisions for the ticks after `cursor` up to `missed`. Those after that, up to `last`, are in time."""
    if schedule.misfire == "skip":
        yield from _skip(schedule, cursor, missed, SkipReason.MISSED)
    elif schedule.misfire == "run_all":
        begin = _back(schedule, cursor, missed, schedule.misfire_limit)
        yield from _skip(schedule, cursor, begin, SkipReason.OVER_LIMIT)
        yield from _runs(schedule, begin, missed, missed=True)
    else:
        # A run that is in time serves for those before it too; without one, the last that was missed does.
        begin = missed if last > missed else _back(schedule, cursor, missed, 1)
        yield from _skip(schedule, cursor, begin, SkipReason.MADE_UP)
        yield from _runs(schedule, begin, missed, missed=True)


def _back(schedule: ScheduledTask, cursor: datetime, tick: datetime, count: int) -> datetime:
    """The tick after which `count` are left up to `tick`; `cursor` if there are not so many after it."""
    for _ in range(count):
        before = schedule.last_tick(tick - MICROSECOND)
        if before is None or before <= cursor:
            return cursor
        tick = before
    return tick


def _runs(
    schedule: ScheduledTask, after: datetime, last: datetime, *, missed: bool = False
) -> Iterator[Run | Skipped]:
    tick = schedule.first_tick(after)
    while tick is not None and tick <= last:
        yield Run(task_id=tick_id(schedule.name, tick), tick=tick, due=schedule.due(tick), missed=missed)
        tick = schedule.first_tick(tick)


def _skip(
    schedule: ScheduledTask, after: datetime, last: datetime, reason: SkipReason
) -> Iterator[Run | Skipped]:
    first = tick = schedule.first_tick(after)
    count = 0
    while tick is not None and tick <= last and count < MAX_COUNTED:
        count += 1
        tick = schedule.first_tick(tick)
    if first is not None and count:
        yield Skipped(first=first, last=last, count=count, reason=reason)


def _resolve_overlaps(
    schedule: ScheduledTask, steps: Iterator[Run | Skipped], active: str | None, limit: int
) -> list[Run | Skipped]:
    """The first decisions of `steps`, up to `limit` runs, with the overlap policy applied to each in turn."""
    decisions: list[Run | Skipped] = []
    considered = 0
    for step in steps:
        if isinstance(step, Run):
            if considered == limit:
                break
            considered += 1
            if active is not None and schedule.overlap == "skip":
                step = Skipped(first=step.tick, last=step.tick, count=1, reason=SkipReason.OVERLAP)
            else:
                if schedule.overlap == "queue":
                    step = replace(step, after=active)
                active = step.task_id
        before = decisions[-1] if decisions else None
        if isinstance(step, Skipped) and isinstance(before, Skipped) and before.reason == step.reason:
            count = min(before.count + step.count, MAX_COUNTED)
            step = replace(before, last=step.last, count=count)
            decisions.pop()
        decisions.append(step)
    return decisions
