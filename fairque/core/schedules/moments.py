"""Moments as the planner reads them: aware datetimes in UTC, exact to the µs that the server counts in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""No tick lies at or after it: up to here, times in µs are exact in the server's doubles."""
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)


class Timing(Protocol):
    """The ticks of a schedule: an ordered set of moments, which anybody who asks finds the same."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick later than `moment`, in UTC; None if there is none."""
        ...

    def latest(self, moment: datetime) -> datetime | None:
        """The last tick not later than `moment`, in UTC; None if there is none."""
        ...


def to_micros(moment: datetime) -> int:
    """An aware datetime in µs since 1970, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """µs since 1970 as a datetime in UTC, exactly."""
    return EPOCH + timedelta(microseconds=micros)
