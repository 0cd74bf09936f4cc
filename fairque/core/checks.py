"""Checks of single values, shared by options, policies and exceptions.

Each error names what is wrong, the value, and the limit.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fairque.core.exceptions import InvalidTaskError

MAX_SECONDS = 100 * 365.25 * 86_400.0
"""100 years: with it, times in µs stay exact in the server's doubles."""
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def check_number(value: Any, what: str, low: float, high: float) -> float:
    """`value` as a float between `low` and `high`, both included.

    Raises:
        InvalidTaskError: it is not a number, is NaN, or lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTaskError(f"{what} must be a number from {low:g} to {high:g}, not {_kind(value)}")
    # Written so that NaN, which compares false with everything, is refused.
    if not low <= value <= high:
        raise InvalidTaskError(f"{what} must be from {low:g} to {high:g}, not {value!r}")
    return float(value)


def check_whole(value: Any, what: str, low: int, high: int) -> int:
    """`value` as an int between `low` and `high`, both included.

    Raises:
        InvalidTaskError: it is not a whole number, or lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTaskError(f"{what} must be a whole number from {low} to {high}, not {_kind(value)}")
    if not low <= value <= high:
        raise InvalidTaskError(f"{what} must be from {low} to {high}, not {value!r}")
    return int(value)


def check_seconds(value: Any, what: str, *, zero: bool = True) -> float:
    """`value` (a number of seconds, or a timedelta) as seconds, at most 100 years; 0 only if `zero`.

    Raises:
        InvalidTaskError: it is neither, or lies outside.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTaskError(f"{what} must be a number of seconds or a timedelta, not {_kind(value)}")
    if not (0 <= value <= MAX_SECONDS) or (value == 0 and not zero):
        least = "at least 0" if zero else "more than 0"
        raise InvalidTaskError(f"{what} must be {least} and at most 100 years of seconds, not {value!r}")
    return float(value)


def check_time(value: Any, what: str) -> datetime:
    """`value`, an aware datetime between the years 1970 and 2200.

    Raises:
        InvalidTaskError: it is no datetime, has no time zone, or lies outside.
    """
    if not isinstance(value, datetime):
        raise InvalidTaskError(f"{what} must be a datetime with a time zone, not {_kind(value)}")
    if value.utcoffset() is None:
        raise InvalidTaskError(
            f"{what} {value.isoformat()} has no time zone, so each machine would read it differently: "
            "use datetime.now(UTC), or .astimezone() for local time"
        )
    if not _EARLIEST <= value < _LATEST:
        raise InvalidTaskError(f"{what} must be from 1970 to 2199, not {value.isoformat()}")
    return value


def check_text(value: Any, what: str, limit: int) -> str:
    """`value`, a string of 1 to `limit` bytes of UTF-8.

    Raises:
        InvalidTaskError: it is no string, empty, too long, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidTaskError(f"{what} must be a string, not {_kind(value)}")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidTaskError(
            f"{what} {value[:40]!r} holds a lone surrogate: use valid Unicode text"
        ) from None
    if not 1 <= size <= limit:
        raise InvalidTaskError(f"{what} must take 1 to {limit} bytes, not {size}: {value[:40]!r}")
    return value


def _kind(value: Any) -> str:
    """How an error names a value of the wrong type."""
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"
