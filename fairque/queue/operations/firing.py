"""What the leading scheduler asks of the server: the office, what is due, and to take its decisions.

A leader is told by its name and a fencing token. All that it writes is refused once somebody else has the office, or
its lease is over; and a decision is taken only if the schedule is still as it was when the leader looked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from fairque.core.exceptions import FairQueueError
from fairque.core.keys import decode, encode
from fairque.core.models import Task
from fairque.core.schedules.models import ScheduledTask
from fairque.core.schedules.moments import from_micros, to_micros
from fairque.core.schedules.planner import Plan, Run, Skipped
from fairque.queue.operations.base import Argument, Engine, Flow
from fairque.queue.operations.push import CHUNK_BYTES, STORED, outcome_of, pack
from fairque.queue.operations.schedule_views import decoded, look_text, name_of, read_look

PAGE = 100
AGAIN_SECONDS = 5.0
"""After a run could not be pushed; what the server refuses, it has tried again as soon (schedule_fire.lua)."""
NO_TOKEN = 0
NEWS = "scheduler"
"""Whose wake list the leader blocks on."""
MAX_PROBLEM_CHARS = 500
_ROW = 5
_WAITS, _EXISTED = "w", "e"

Prepare: TypeAlias = Callable[[Task[Any]], Task[Any]]


@dataclass(frozen=True, slots=True)
class Office:
    """Who leads, as the server says: the caller (`leads`, with its `token`), or `leader`, until `lease_left` seconds.

    `next_look` is when something is to be looked at next; `complete`: whether every schedule has such a time.
    """

    scheduler_id: str
    leads: bool
    token: int
    leader: str
    lease_left: float
    now: datetime
    next_look: datetime | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule to plan for: its definition, its cursor, its last run if that is not over (`active`)."""

    name: str
    version: bytes
    active: str | None
    cursor: datetime
    definition: bytes

    @property
    def schedule(self) -> ScheduledTask:
        """The definition.

        Raises:
            SerializationError, ConfigError: it is malformed, or a newer version wrote it.
        """
        return decoded(self.definition)


@dataclass(frozen=True, slots=True)
class Look:
    """What is due at the server's time `now`, and when the next of the others is.

    `lost`: names whose definition is gone, though nobody removed them.
    """

    now: datetime
    next_look: datetime | None
    items: tuple[Due, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was taken, with the task of a run, which `waits` for the one before, or `existed` already."""

    decision: Run | Skipped
    task: Task[Any] | None
    waits: bool = False
    existed: bool = False


@dataclass(frozen=True, slots=True)
class Fired:
    """The decisions that were taken (None: the schedule has changed, so look again), and why the next was not."""

    decided: tuple[Decided, ...] | None
    refusal: FairQueueError | None = None


def lead(engine: Engine, scheduler_id: str, token: int, lease_seconds: float) -> Flow[Office]:
    """Take the office if nobody has it, or renew the lease if it is one's own."""
    reply = yield engine.call("scheduler_lead", "take", scheduler_id, token, round(lease_seconds * 1e6))
    leads, current, now, leader, deadline, nearest, count, due = reply
    return Office(
        scheduler_id=scheduler_id,
        leads=bool(leads),
        token=int(float(current)),
        leader=leader.decode(),
        lease_left=max(0.0, (float(deadline) - float(now)) / 1e6),
        now=from_micros(round(float(now))),
        next_look=read_look(nearest),
        complete=due >= count,
    )


def resign(engine: Engine, scheduler_id: str, token: int) -> Flow[None]:
    """Give the office up, so that another scheduler has it at once.

    Raises:
        NotLeaderError: it is not one's own, or no longer.
    """
    # Not sent again: the second would be told that it does not lead.
    yield engine.call("scheduler_lead", "resign", scheduler_id, token, 0, resend=False)


def look(engine: Engine, office: Office, names: Iterable[str] = (), limit: int = PAGE) -> Flow[Look]:
    """What is due, at most `limit`; with `names`, those schedules, due or not.

    Raises:
        NotLeaderError: the office is lost.
    """
    wanted = [name_of(name) for name in names]
    now, following, lost, *rows = yield engine.call(
        "schedule_look", office.scheduler_id, office.token, limit, *wanted
    )
    items = tuple(_due(rows[i : i + _ROW]) for i in range(0, len(rows), _ROW))
    names = tuple(decode(name.decode()) for name in lost)
    return Look(from_micros(round(float(now))), read_look(following), items, names)


def _due(row: list[Any]) -> Due:
    name, version, active, cursor, definition = row
    return Due(
        name=decode(name.decode()),
        version=version,
        active=decode(active.decode()) if active else None,
        cursor=from_micros(round(float(cursor))),
        definition=definition,
    )


def fire(
    engine: Engine, office: Office, due: Due, plan: Plan, now: datetime, prepare: Prepare
) -> Flow[Fired]:
    """Have a plan taken, as far as one call goes. `prepare`: what a task goes through before it is pushed.

    Raises:
        NotLeaderError: the office is lost; nothing is written.
        QueueFullError: the server has no memory; nothing is written.
    """
    argv: list[Argument] = []
    steps: list[tuple[Run | Skipped, Task[Any] | None]] = []
    error: FairQueueError | None = None
    size, cursor, following = 0, plan.cursor, plan.look_at
    for decision in plan.decisions:
        try:
            task, item = _item(engine, due.schedule, decision, prepare)
        except FairQueueError as refused:
            error, following = refused, now + timedelta(seconds=AGAIN_SECONDS)
            break
        size += len(item[5])
        if size > CHUNK_BYTES and steps:
            following = now  # the rest at once
            break
        argv += item
        steps.append((decision, task))
        cursor = decision.tick if isinstance(decision, Run) else decision.last
    reply = yield engine.call(
        "schedule_fire", office.scheduler_id, office.token, name_of(due.name), due.version, os.urandom(8),
        to_micros(cursor), look_text(following), ("" if error is None else str(error))[:MAX_PROBLEM_CHARS], *argv,
    )  # fmt: skip
    if not reply[0]:
        return Fired(None)
    _, letters, code, detail = reply
    decided = tuple(
        Decided(decision, task, letter == _WAITS, letter == _EXISTED)
        for (decision, task), letter in zip(steps, letters.decode(), strict=False)
    )
    if code != STORED and len(decided) < len(steps):
        task = steps[len(decided)][1] or Task()
        error = outcome_of(task, code, detail).error
    return Fired(decided, error)


def postpone(
    engine: Engine, office: Office, due: Due, look_at: datetime | None, problem: str = ""
) -> Flow[None]:
    """Decide nothing, and look again then (None: not before it is changed).

    Raises:
        NotLeaderError: the office is lost.
    """
    yield engine.call(
        "schedule_fire", office.scheduler_id, office.token, name_of(due.name), due.version, os.urandom(8),
        to_micros(due.cursor), look_text(look_at), problem[:MAX_PROBLEM_CHARS],
    )  # fmt: skip


def _item(
    engine: Engine, schedule: ScheduledTask, decision: Run | Skipped, prepare: Prepare
) -> tuple[Task[Any] | None, tuple[Any, ...]]:
    if isinstance(decision, Skipped):
        first, last = to_micros(decision.first), to_micros(decision.last)
        return None, (decision.reason.value, first, last, decision.count, "", b"", "")
    task = prepare(schedule.build_task(decision.tick))
    task_id, data, *_ = pack(engine, task)
    tick = to_micros(decision.tick)
    after = encode(decision.after, "task_id") if decision.after else ""
    return task, ("late" if decision.missed else "run", tick, tick, 1, task_id, data, after)
