"""Ticks at a fixed distance, and ticks at single dates."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fairque.core.schedules.moments import EPOCH


@dataclass(frozen=True, slots=True)
class Interval:
    """A tick each `every`, of which one is at `anchor`.

    Each tick is computed from the anchor, not from the one before, so that nothing drifts, whenever and
    wherever it is computed. From 1970, a tick of an interval of hours is at the full hour of UTC.
    """

    every: timedelta
    anchor: datetime = EPOCH

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick later than the aware `moment`, in UTC."""
        return self._tick((moment - self.anchor) // self.every + 1)

    def latest(self, moment: datetime) -> datetime | None:
        """The last tick not later than the aware `moment`, in UTC."""
        return self._tick((moment - self.anchor) // self.every)

    def _tick(self, number: int) -> datetime:
        return (self.anchor + self.every * number).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Dates:
    """Ticks at these moments, which are in order and in UTC."""

    moments: tuple[datetime, ...]

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick later than the aware `moment`; None after the last."""
        index = bisect_right(self.moments, moment)
        return self.moments[index] if index < len(self.moments) else None

    def latest(self, moment: datetime) -> datetime | None:
        """The last tick not later than the aware `moment`; None before the first."""
        index = bisect_right(self.moments, moment)
        return self.moments[index - 1] if index else None
