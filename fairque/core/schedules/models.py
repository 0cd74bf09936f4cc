"""A schedule: what is pushed, when, and what becomes of ticks that were missed or that come too early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, Self, TypeAlias, cast

from fairque.core.checks import check_time, check_whole
from fairque.core.codec import decode_value, encode_value
from fairque.core.decorator import TaskFunction
from fairque.core.exceptions import ConfigError, InvalidTaskError, SerializationError
from fairque.core.models import Task
from fairque.core.options import TaskOptions
from fairque.core.schedules.checks import (
    check_every,
    check_flag,
    check_grace,
    check_jitter,
    check_moment,
    check_moments,
    check_name,
    check_one_of,
)
from fairque.core.schedules.cron import Cron
from fairque.core.schedules.intervals import Dates, Interval
from fairque.core.schedules.jitter import jitter
from fairque.core.schedules.moments import EPOCH, LATEST, MICROSECOND, SECOND, Timing
from fairque.core.schedules.stored import shown_name, to_data, to_fields
from fairque.core.schedules.work import SCHEDULE_LABEL, TICK_LABEL, read_work
from fairque.core.schedules.zones import find_zone

Misfire: TypeAlias = Literal["skip", "run_once", "run_all"]
Overlap: TypeAlias = Literal["allow", "skip", "queue"]
MISFIRES = ("skip", "run_once", "run_all")
OVERLAPS = ("allow", "skip", "queue")

MAX_MISFIRES = 1_000
MAX_NEXT_RUNS = 1_000


def tick_id(name: str, tick: datetime) -> str:
    """The id of the task that the schedule `name` pushes for a tick: one tick, one id, whoever pushes it."""
    tick = tick.astimezone(UTC)
    return f"{name}@{tick:%Y%m%dT%H%M%S}{f'.{tick.microsecond:06}' if tick.microsecond else ''}Z"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class ScheduledTask:
    """Work that is pushed at each tick of a cron pattern, of an interval, or at single dates.

    What is pushed is a `task` as a call of a `@task` function builds it (its id is not used), or a `function`
    (the `@task` function, or its registered name, whose defaults are then not known here) with `args`,
    `kwargs` and `options`, or a `payload` for a `TaskHandler`. When, is one of:

    - `cron`: five fields or a word such as ``@daily``, read in `timezone`;
    - `every`: seconds or a timedelta, counted from `start`, without one from 1970;
    - `at`: a datetime or several.

    `start` and `end` are the first and the last moment of ticks; a date means all of that day. Times without
    a zone are in `timezone`. Each run is pushed up to `jitter_seconds` after its tick, always the same for a
    tick, and never later than the next tick.

    A tick that is not looked at for over `misfire_grace_seconds` was missed. `misfire` says what then: nothing
    (``skip``), one run for all of them (``run_once``), or the last `misfire_limit` of them (``run_all``).
    `overlap` is for a run that is due while the one before is not over: both (``allow``), it is left out
    (``skip``), or waits for it (``queue``). While it is `paused`, its ticks pass without a run.

    Raises:
        ConfigError: a field is of the wrong type, out of range, or contradicts another; the error names the
            schedule, the field, the value, and the way out.
        UnknownFunctionError: the function belongs to a ``__main__`` that no worker can import.
    """

    name: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    payload: Any
    options: dict[str, Any]
    cron: str | None
    every: float | None
    """Seconds."""
    at: tuple[datetime, ...]
    timezone: str
    misfire: Misfire
    misfire_limit: int
    misfire_grace_seconds: float
    overlap: Overlap
    jitter_seconds: float
    start: datetime | None
    end: datetime | None
    paused: bool
    timing: Timing = field(init=False, compare=False)
    """All its ticks, also those before `start` and after `end`."""

    def __init__(
        self,
        name: str,
        task: Task[Any] | None = None,
        *,
        function: TaskFunction[..., Any] | str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        payload: Any = None,
        options: TaskOptions | Mapping[str, Any] | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        at: datetime | Iterable[datetime] | None = None,
        timezone: str = "UTC",
        misfire: Misfire = "run_once",
        misfire_limit: int = 100,
        misfire_grace_seconds: float = 60.0,
        overlap: Overlap = "allow",
        jitter_seconds: float | timedelta = 0.0,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        paused: bool = False,
    ) -> None:
        put = partial(object.__setattr__, self)
        try:
            put("name", check_name(name))
            work = read_work(task, function, args, kwargs, payload, options)
            for part in fields(work):
                put(part.name, getattr(work, part.name))
            zone = find_zone(timezone)
            put("timezone", timezone)
            put("start", None if start is None else check_moment(start, "start", zone))
            put("end", None if end is None else check_moment(end, "end", zone, last=True))
            put("cron", cron)
            distance = None if every is None else check_every(every)
            put("every", None if distance is None else distance / SECOND)
            put("at", () if at in (None, ()) else check_moments(at, zone))
            put("misfire", check_one_of(misfire, "misfire", MISFIRES))
            put("misfire_limit", check_whole(misfire_limit, "misfire_limit", 1, MAX_MISFIRES))
            put("misfire_grace_seconds", check_grace(misfire_grace_seconds))
            put("overlap", check_one_of(overlap, "overlap", OVERLAPS))
            put("jitter_seconds", check_jitter(jitter_seconds, distance))
            put("paused", check_flag(paused, "paused"))
            put("timing", self._read_timing(distance))
            self._check_bounds()
        except (ConfigError, InvalidTaskError) as error:
            raise ConfigError(f"schedule {shown_name(name)}: {error}") from None

    def _read_timing(self, distance: timedelta | None) -> Timing:
        given = [name for name in ("cron", "every", "at") if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            found = "none of them is given" if not given else f"{' and '.join(given)} are given"
            raise ConfigError(f"exactly one of cron, every and at says when it runs, but {found}")
        if self.cron is not None:
            return Cron(self.cron, self.timezone)
        if distance is not None:
            return Interval(distance, EPOCH if self.start is None else self.start)
        return Dates(self.at)

    def _check_bounds(self) -> None:
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ConfigError(
                f"end {self.end.isoformat()} is before start {self.start.isoformat()}: exchange them, or leave one out"
            )
        if (self.start or self.end) is not None and self.first_tick(EPOCH - MICROSECOND) is None:
            raise ConfigError(
                f"it would never run: no tick lies between start ({_shown_moment(self.start)}) and "
                f"end ({_shown_moment(self.end)}); move one of them"
            )

    def first_tick(self, after: datetime) -> datetime | None:
        """The first tick later than the aware moment `after`, in UTC; None if it was the last."""
        if self.start is not None and after < self.start:
            after = self.start - MICROSECOND
        tick = self.timing.next_after(after)
        return None if tick is None or tick > (self.end or LATEST) or tick >= LATEST else tick

    def last_tick(self, until: datetime) -> datetime | None:
        """The last tick not later than the aware moment `until`, in UTC; None if there was none."""
        tick = self.timing.latest(until if self.end is None else min(until, self.end))
        return None if tick is None or (self.start is not None and tick < self.start) else tick

    def due(self, tick: datetime) -> datetime:
        """When the run of a tick is pushed: the tick and its jitter. Never later than the next tick."""
        if not self.jitter_seconds:
            return tick
        limit = timedelta(seconds=self.jitter_seconds)
        following = self.timing.next_after(tick)
        if following is not None:
            limit = min(limit, following - tick)
        return tick + jitter(self.name, tick, limit)

    def last_due(self, now: datetime) -> datetime | None:
        """The last tick whose run is due at the aware moment `now`; None if there was none."""
        tick = self.last_tick(now)
        if tick is not None and self.due(tick) > now:
            # Its jitter is not over. That of the tick before is, as it ends before this tick.
            return self.last_tick(tick - MICROSECOND)
        return tick

    def next_runs(self, n: int, after: datetime) -> list[datetime]:
        """The next `n` (1 to 1,000) times at which a run is due, in its `timezone`; as if it were not paused.

        There are fewer if it ends before. `after` is an aware moment.

        Raises:
            InvalidTaskError: `n` is out of range, or `after` has no zone.
        """
        check_whole(n, "n", 1, MAX_NEXT_RUNS)
        tick = self.last_due(check_time(after, "after"))
        zone = find_zone(self.timezone)
        runs: list[datetime] = []
        tick = self.first_tick(after if tick is None else tick)
        while tick is not None and len(runs) < n:
            runs.append(self.due(tick).astimezone(zone))
            tick = self.first_tick(tick)
        return runs

    def build_task(
        self, tick: datetime, *, task_id: str | None = None, after: str | None = None
    ) -> Task[Any]:
        """The task for a tick, with the id of schedule and tick unless another is given.

        Labels tell it its schedule and its tick. `after` is the id of a task whose end it waits for, however
        that ends.
        """
        options = dict(self.options)
        options["labels"] = {
            **options.get("labels", {}),
            SCHEDULE_LABEL: self.name,
            TICK_LABEL: tick.astimezone(UTC).isoformat(),
        }
        if after is not None:
            options.update(depends_on=(after,), trigger_rule="all_done")
        return Task(
            task_id=tick_id(self.name, tick) if task_id is None else task_id,
            function=self.function,
            args=self.args,
            kwargs=dict(self.kwargs),
            payload=self.payload,
            **options,
        )

    def to_data(self) -> dict[str, Any]:
        """This schedule as plain data: what is not at its default."""
        return to_data(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The schedule in `data`, which is as `to_data` makes it; times may also be text (ISO 8601).

        Raises:
            ConfigError: a key is unknown or missing, or a value is refused; the error names it.
        """
        return cls(**to_fields(data))

    def encode(self) -> bytes:
        """This schedule as bytes, for storage: the same for equal schedules."""
        return encode_value(self.to_data())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The schedule that `encode` made `data` from.

        Raises:
            SerializationError: the bytes are malformed.
            ConfigError: a newer version wrote what this one does not know.
        """
        value = decode_value(data)
        if not isinstance(value, dict):
            raise SerializationError(f"these bytes are no schedule, but {value!r:.60}")
        return cls.from_data(cast("dict[str, Any]", value))

    def digest(self) -> str:
        """16 characters that differ between definitions; whether it is paused does not count.

        A plan was made from the definition with this digest, and a deploy changes what has another.
        """
        data = self.to_data()
        data.pop("paused", None)
        return blake2b(encode_value(data), digest_size=8).hexdigest()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={value!r}" for name, value in self.to_data().items() if name != "name")
        return f"ScheduledTask({self.name!r}, {parts if len(parts) <= 200 else parts[:197] + '...'})"


def _shown_moment(moment: datetime | None) -> str:
    return "not given" if moment is None else moment.isoformat()
