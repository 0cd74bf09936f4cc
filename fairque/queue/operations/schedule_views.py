"""Schedules as they are kept on the server, looked at: how far they are, what became of their ticks, who leads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from fairque.core.exceptions import FairQueueError, InvalidTaskError, ScheduleNotFoundError
from fairque.core.keys import decode, encode
from fairque.core.models import Task
from fairque.core.schedules.models import ScheduledTask
from fairque.core.schedules.moments import from_micros, to_micros
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.push import outcome_of
from fairque.queue.operations.tasks import Page

NEVER = "inf"
"""How the server writes the time of a look that is not to come."""
_ROW = 10
_unpack = msgspec.msgpack.Decoder(list[Any], strict=False).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A schedule as the server has it at the time `at`.

    `source`: who declared it, empty for one that was added by hand. `decided_until`: up to there, every tick is
    decided. `last_task_id`: its last run, and `running`: whether that is not over. `look_at`: when the leading
    scheduler looks at it next. `problem`: why a run could not be pushed, while that is so.
    """

    name: str
    definition: bytes
    source: str
    paused: bool
    decided_until: datetime
    last_task_id: str | None
    running: bool
    look_at: datetime | None
    problem: str
    at: datetime
    version: bytes
    """Of what a change is made from; a change that crosses with another is made again."""

    @property
    def schedule(self) -> ScheduledTask:
        """The definition.

        Raises:
            SerializationError, ConfigError: it is malformed, or a newer version wrote it.
        """
        return decoded(self.definition)

    @property
    def next_run(self) -> datetime | None:
        """When its next run is due, in its time zone; None: it is paused, or has ended.

        Raises: as `schedule`.
        """
        runs = [] if self.paused else self.schedule.next_runs(1, self.at)
        return runs[0] if runs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What became of a tick, at the time `at`: a run with its `task_id`, or `count` ticks (1,000: that or more) from
    `first` to `last` that were left out.

    `outcome`: ``run``, ``late`` (a run that makes up for missed ticks), ``asked`` (by somebody), ``existing`` (there
    was a task with the id of the tick already), or why it was left out: ``paused``, ``missed``, ``made_up`` (by a
    later run), ``over_limit``, ``overlap``.
    """

    at: datetime
    outcome: str
    first: datetime
    last: datetime
    count: int
    task_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The scheduler that decides ticks: its name, its fencing token, and the seconds left of its lease."""

    scheduler_id: str
    token: int
    lease_left: float


@dataclass(frozen=True, slots=True)
class Listing:
    """One reply of schedule_list.lua: some schedules, the cursor of the next page, who leads."""

    items: tuple[ScheduleInfo, ...]
    now: datetime
    cursor: str | None
    leader: Leader | None


@lru_cache(maxsize=4096)
def decoded(definition: bytes) -> ScheduledTask:
    """The schedule with this encoding; schedules do not change, so one object serves everybody.

    Raises:
        SerializationError, ConfigError: it is malformed, or a newer version wrote it.
    """
    return ScheduledTask.decode(definition)


def look_text(look: datetime | None) -> str:
    """A time to look as scripts take it."""
    return NEVER if look is None else str(to_micros(look))


def read_look(text: bytes) -> datetime | None:
    """A time to look as scripts tell it."""
    return None if text in (b"", b"inf") else from_micros(round(float(text)))


def name_of(name: Any) -> str:
    """The encoded name.

    Raises:
        InvalidTaskError: it cannot be one.
    """
    return encode(name.name if isinstance(name, ScheduledTask) else name, "schedule name")


def fetch(engine: Engine, names: Iterable[str] = (), cursor: str = "0") -> Flow[Listing]:
    """The schedules with these encoded names, else one page of all; one that is added meanwhile may be missing, or come
    twice."""
    now, following, who, token, deadline, *rows = yield engine.call("schedule_list", cursor, *names)
    at = from_micros(round(float(now)))
    left = (float(deadline) - float(now)) / 1e6
    leader = Leader(scheduler_id=who.decode(), token=int(float(token)), lease_left=left) if who else None
    items = tuple(_info(rows[i : i + _ROW], at) for i in range(0, len(rows), _ROW))
    return Listing(items, at, None if following == b"0" else following.decode(), leader)


def _info(row: list[Any], at: datetime) -> ScheduleInfo:
    name, version, paused, cursor, last, active, source, look, problem, definition = row
    return ScheduleInfo(
        name=decode(name.decode()),
        definition=definition,
        source=source.decode(),
        paused=bool(paused),
        decided_until=from_micros(round(float(cursor))),
        last_task_id=decode(last.decode()) if last else None,
        running=bool(active),
        look_at=read_look(look),
        problem=_problem_text(problem.decode("utf-8", "replace"), definition),
        at=at,
        version=version,
    )


def _problem_text(kept: str, definition: bytes) -> str:
    """What was kept of a refusal: the text of an error, or a code and its detail as push.lua has them."""
    if not kept.startswith("#"):
        return kept
    code, _, detail = kept[1:].partition(" ")
    try:
        options = decoded(definition).options
    except FairQueueError:
        options = {}
    task = Task(user_id=options.get("user_id", "default"), limiter=options.get("limiter"))
    return str(outcome_of(task, int(code), detail.encode()).error)


def get(engine: Engine, name: str) -> Flow[ScheduleInfo | None]:
    """The schedule as the server has it, or None."""
    listing = yield from fetch(engine, [name_of(name)])
    return listing.items[0] if listing.items else None


def require(engine: Engine, name: str) -> Flow[ScheduleInfo]:
    """As `get`.

    Raises:
        ScheduleNotFoundError: there is none.
    """
    found = yield from get(engine, name)
    if found is None:
        raise ScheduleNotFoundError(schedule=name)
    return found


def list_page(engine: Engine, cursor: str | None = None) -> Flow[Page[ScheduleInfo]]:
    """One page of schedules, in no order.

    Raises:
        InvalidTaskError: the cursor is wrong.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
    listing = yield from fetch(engine, cursor=cursor or "0")
    return Page(listing.items, listing.cursor)


def all_of(engine: Engine) -> Flow[dict[str, ScheduleInfo]]:
    """Every schedule, by name."""
    found: dict[str, ScheduleInfo] = {}
    cursor: str | None = "0"
    while cursor is not None:
        listing = yield from fetch(engine, cursor=cursor)
        found.update((info.name, info) for info in listing.items)
        cursor = listing.cursor
    return found


def leader(engine: Engine) -> Flow[Leader | None]:
    """The scheduler that decides ticks now, or None."""
    listing = yield from fetch(engine, ["-"])
    return listing.leader


def history(engine: Engine, name: str) -> Flow[tuple[Firing, ...]]:
    """What became of the last ticks, newest first: at most 50 entries.

    Raises:
        ScheduleNotFoundError: there is no such schedule.
    """
    known, *entries = yield engine.call("schedule_history", name_of(name))
    if not known:
        raise ScheduleNotFoundError(schedule=name)
    return tuple(_firing(_unpack(entry)) for entry in entries)


def _firing(entry: list[Any]) -> Firing:
    at, outcome, first, last, count, task_id = entry
    return Firing(
        at=from_micros(round(at)),
        outcome=outcome,
        first=from_micros(round(first)),
        last=from_micros(round(last)),
        count=count,
        task_id=decode(task_id) if task_id else None,
    )


def next_runs(engine: Engine, name: str, n: int = 5) -> Flow[list[datetime]]:
    """The next `n` times at which a run is due, as if it were not paused.

    Raises:
        ScheduleNotFoundError: there is no such schedule.
        InvalidTaskError: `n` is not from 1 to 1,000.
    """
    info = yield from require(engine, name)
    return info.schedule.next_runs(n, info.at)
