"""Checks of a schedule's fields. Each error names the field, its value, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from fairque.core.checks import check_number, check_seconds, check_text, check_time
from fairque.core.exceptions import ConfigError
from fairque.core.keys import MAX_PART_BYTES, encode
from fairque.core.schedules.moments import MICROSECOND, SECOND
from fairque.core.schedules.zones import moment_of

MAX_NAME_BYTES = MAX_PART_BYTES - len("@20250331T013000.500000Z-now")
"""What a tick leaves of a task id."""
MAX_AT = 1_000
LEAST_EVERY = 0.1
"""Seconds: a leader that looks more often would do little else."""
_DAY = timedelta(days=1)


def check_name(name: Any) -> str:
    """`name`, which stands in the id of each run.

    Raises:
        InvalidTaskError: it is no text, empty, or too long.
    """
    check_text(name, "name", MAX_NAME_BYTES)
    size = len(encode(name, "name").encode())
    if size > MAX_NAME_BYTES:
        raise ConfigError(
            f"name {name[:40]!r}... takes {size} bytes as a key part; the limit is {MAX_NAME_BYTES}"
        )
    return str(name)


def check_one_of(value: Any, what: str, allowed: tuple[str, ...]) -> Any:
    """`value`, one of `allowed`.

    Raises:
        ConfigError: it is another.
    """
    if value not in allowed:
        raise ConfigError(f"{what} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value


def check_every(value: Any) -> timedelta:
    """The distance of ticks, as a timedelta: at least 0.1 s.

    Raises:
        ConfigError: it is shorter.
        InvalidTaskError: it is no number of seconds, or over 100 years.
    """
    length = check_seconds(value, "every", zero=False)
    if length < LEAST_EVERY:
        raise ConfigError(
            f"every must be at least {LEAST_EVERY:g} s, not {length:g}: push a batch of tasks each time"
        )
    return timedelta(seconds=length)


def check_moment(value: Any, what: str, zone: tzinfo, *, last: bool = False) -> datetime:
    """`value` in UTC. Without a zone of its own it is in `zone`.

    A date without a time is the beginning of that day, with `last` its last µs. A time that the clocks skip
    is the end of the gap; of one that they show twice, the first counts.

    Raises:
        ConfigError: it is not from 1970 to 2199.
        InvalidTaskError: it is neither.
    """
    if isinstance(value, date) and not 1970 <= value.year <= 2199:
        # Beyond, arithmetic with offsets may overflow.
        raise ConfigError(f"{what} must be from 1970 to 2199, not {value.isoformat()}")
    if isinstance(value, date) and not isinstance(value, datetime):
        if last:
            return check_time(_moment(value + _DAY, zone), what) - MICROSECOND
        value = _moment(value, zone)
    elif isinstance(value, datetime) and value.utcoffset() is None:
        # moment_of looks for changes by the second; fractions are not touched by any.
        rest = timedelta(microseconds=value.microsecond)
        value = moment_of(zone, value.replace(microsecond=0, tzinfo=None)) + rest
    return check_time(value, what).astimezone(UTC)


def _moment(day: date, zone: tzinfo) -> datetime:
    return moment_of(zone, datetime.combine(day, time()))


def check_moments(value: Any, zone: tzinfo) -> tuple[datetime, ...]:
    """The dates of `at`: one or several, each once, in order.

    Raises:
        ConfigError: it is no datetime, there are none, or over 1,000, or one is not from 1970 to 2199.
    """
    if isinstance(value, datetime):
        value = (value,)
    if isinstance(value, str | date) or not isinstance(value, Iterable):
        raise ConfigError(f"at must be a datetime (a date with a time) or several, not {value!r}")
    found: set[datetime] = set()
    for item in value:
        if not isinstance(item, datetime):
            raise ConfigError(f"at must be datetimes (dates with a time), not {item!r}")
        found.add(check_moment(item, "at", zone))
    if not 1 <= len(found) <= MAX_AT:
        raise ConfigError(f"at takes 1 to {MAX_AT} dates, not {len(found)}: use cron= or every= for more")
    return tuple(sorted(found))


def check_jitter(value: Any, every: timedelta | None) -> float:
    """The upper limit of the jitter, in seconds: at most a day, and less than the distance of ticks.

    Raises:
        ConfigError: it is not less than `every`.
        InvalidTaskError: it is no number of seconds from 0 to a day.
    """
    if isinstance(value, timedelta):
        value = value / SECOND
    length = check_number(value, "jitter_seconds", 0, _DAY / SECOND)
    if every is not None and length >= every / SECOND:
        raise ConfigError(
            f"jitter_seconds {length:g} must be less than every ({every / SECOND:g}), "
            "or a run could come after the next"
        )
    return length


def check_grace(value: Any) -> float:
    """How late a tick may be looked at, in seconds: 1 to a year.

    Raises:
        InvalidTaskError: it is no number of seconds in that range.
    """
    if isinstance(value, timedelta):
        value = value / SECOND
    return check_number(value, "misfire_grace_seconds", 1, 366 * _DAY / SECOND)


def check_flag(value: Any, what: str) -> bool:
    """`value`, true or false.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{what} must be true or false, not {value!r}")
    return value
