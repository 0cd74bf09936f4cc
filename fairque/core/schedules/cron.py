"""Cron patterns: five fields in a time zone, with a rule for the days on which its clocks change.

Which labels of a clock match a pattern is `cronsim`'s to say. It is only asked about clocks that never
change: which moment such a label stands for is decided here, by the rule of Debian's cron. A pattern whose
minute or hour begins with ``*`` runs by elapsed time: whenever the clock shows a matching label, which is
never in an hour that is skipped and twice in one that is repeated. Any other pattern names fixed times, each
of which comes once: those that are skipped, together, right after the gap, and those that are repeated at
their first occurrence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from fairque.core.exceptions import ConfigError
from fairque.core.schedules.cron_text import read_pattern
from fairque.core.schedules.moments import MICROSECOND, SECOND
from fairque.core.schedules.zones import find_zone, first_change, last_change, moment_of, offset_at

# From here, each pattern that ever comes does so within the 50 years for which cronsim looks.
_ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
_LONGEST_REPEAT = timedelta(days=2)
"""Clocks that were put back show a label twice within less than this; a whole day is the most there was."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The ticks of a cron pattern in a time zone (a name of the IANA database).

    Raises:
        ConfigError: the pattern is none, it never comes, or the zone is unknown. The error names the field,
            the value and what is allowed.
    """

    pattern: str = field(compare=False)
    timezone: str = "UTC"
    _fields: str = field(init=False, repr=False)  # two ways to write the same pattern are equal
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _elapsed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = read_pattern(self.pattern)
        object.__setattr__(self, "_fields", " ".join(fields))
        object.__setattr__(self, "_zone", find_zone(self.timezone))
        object.__setattr__(self, "_elapsed", fields[0].startswith("*") or fields[1].startswith("*"))
        try:
            comes = self.next_after(_ANY_MOMENT) is not None
        except CronSimError:  # it knows that no month is long enough
            comes = False
        if not comes:
            raise ConfigError(
                f"cron day of month {fields[2]!r} never comes in month {fields[3]!r} (in {self.pattern!r}): "
                "name a day that the month has; L is its last"
            )

    @property
    def zone(self) -> tzinfo:
        """The time zone that the pattern is read in."""
        return self._zone

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick later than the aware `moment`, in UTC; None if there is none within 50 years."""
        moment = moment.astimezone(UTC)
        return self._next_elapsed(moment) if self._elapsed else self._next_fixed(moment)

    def latest(self, moment: datetime) -> datetime | None:
        """The last tick not later than the aware `moment`, in UTC; None if there is none within 50 years."""
        moment = moment.astimezone(UTC)
        return self._latest_elapsed(moment) if self._elapsed else self._latest_fixed(moment)

    def describe(self) -> str:
        """The pattern in English, without the zone."""
        return CronSim(self._fields, _label(_ANY_MOMENT)).explain()

    def _next_fixed(self, moment: datetime) -> datetime | None:
        label: datetime | None = _label(moment + offset_at(self._zone, moment))
        while label is not None:
            label = self._label_after(label)
            # Labels that were skipped share a tick; those of a repeated hour have had theirs in its first pass.
            if label is not None and (tick := moment_of(self._zone, label)) > moment:
                return tick
        return None

    def _latest_fixed(self, moment: datetime) -> datetime | None:
        label = _label(moment + offset_at(self._zone, moment))
        if moment.astimezone(self._zone).fold:
            # In the second pass, all labels of the first have had their ticks.
            change = last_change(self._zone, moment - _LONGEST_REPEAT, moment)
            if change is not None:
                label = _label(change.at + change.before) - MICROSECOND
        found = self._label_until(label)
        return None if found is None else moment_of(self._zone, found)

    def _next_elapsed(self, moment: datetime) -> datetime | None:
        offset = offset_at(self._zone, moment)
        label = _label(moment + offset)
        while True:
            found = self._label_after(label)
            if found is None:
                return None
            tick = found.replace(tzinfo=UTC) - offset
            change = first_change(self._zone, moment, tick)
            if change is None:
                return tick
            # The clocks change before they show that label: look again from there, with the new offset.
            moment, offset = change.at, change.after
            label = _label(moment + offset) - SECOND

    def _latest_elapsed(self, moment: datetime) -> datetime | None:
        offset = offset_at(self._zone, moment)
        label = _label(moment + offset)
        while True:
            found = self._label_until(label)
            if found is None:
                return None
            tick = found.replace(tzinfo=UTC) - offset
            change = last_change(self._zone, tick, moment)
            if change is None:
                return tick
            moment, offset = change.at - MICROSECOND, change.before
            label = _label(moment + offset)

    def _label_after(self, label: datetime) -> datetime | None:
        return next(CronSim(self._fields, label), None)

    def _label_until(self, label: datetime) -> datetime | None:
        # cronsim's search backwards leaves out the second that it starts from.
        return next(CronSim(self._fields, label.replace(microsecond=0) + SECOND, reverse=True), None)


def _label(moment: datetime) -> datetime:
    """What a clock shows that reads `moment` as if it were UTC."""
    return moment.replace(tzinfo=None)
