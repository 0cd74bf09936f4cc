"""Time zones: found by name, and when their clocks change."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from fairque.core.exceptions import ConfigError
from fairque.core.schedules.moments import SECOND

# They load, but mean another zone on each machine, or count leap seconds, as no other clock here does.
_UNFIT = ("localtime", "posixrules", "Factory")
_UNFIT_FOLDERS = ("posix/", "right/")
_DAY = timedelta(days=1)


def find_zone(name: Any) -> tzinfo:
    """The time zone with this name of the IANA database.

    Raises:
        ConfigError: there is no such zone; the error names the nearest one.
    """
    if not isinstance(name, str):
        raise ConfigError(f"timezone must be a name such as 'Europe/Berlin', not {name!r}")
    if name == "UTC":
        return UTC  # also where no database is installed
    if name not in _UNFIT and not name.startswith(_UNFIT_FOLDERS):
        try:
            return ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            pass
    raise ConfigError(_unknown(name))


def _unknown(name: str) -> str:
    if name in _UNFIT or name.startswith(_UNFIT_FOLDERS):
        plain = name.partition("/")[2]
        way_out = f"use {plain!r}" if plain else "name the zone"
        return f"timezone {name[:60]!r} is not the same, or not a zone, on every machine: {way_out}"
    known = {zone.casefold(): zone for zone in available_timezones() if zone not in _UNFIT}
    if not known:
        return (
            f"timezone {name[:60]!r} is not known, since this machine has no time zone database: "
            "pip install tzdata, or use 'UTC'"
        )
    if name.isupper() and len(name) <= 5:
        return f"timezone {name!r} is not known, and abbreviations mean several: use a name such as 'Europe/Berlin'"
    folded = name[:60].casefold().replace(" ", "_")
    # People know the city and forget the continent.
    cities = {zone.rpartition("/")[2]: zone for zone in sorted(known, reverse=True)}
    near = difflib.get_close_matches(folded, known, n=1, cutoff=0.75)
    near = near or [cities[city] for city in difflib.get_close_matches(folded, cities, n=1, cutoff=0.75)]
    near = near or difflib.get_close_matches(folded, known, n=1, cutoff=0.5)
    hint = f"did you mean {known[near[0]]!r}?" if near else "use a name such as 'Europe/Berlin', or 'UTC'"
    return f"timezone {name[:60]!r} is not known: {hint}"


class Change(NamedTuple):
    """The clocks of a zone change: `at` is the first moment (UTC) that has the offset `after`."""

    at: datetime
    before: timedelta
    after: timedelta


def offset_at(zone: tzinfo, moment: datetime) -> timedelta:
    """What the clocks of `zone` add to UTC at an aware moment."""
    offset = moment.astimezone(zone).utcoffset()
    return timedelta() if offset is None else offset


def moment_of(zone: tzinfo, label: datetime) -> datetime:
    """The moment (UTC) at which the clocks of `zone` show `label`, a datetime without a zone.

    Of a label that is shown twice it is the first, and for one that is skipped the end of the gap.
    """
    early = label.replace(tzinfo=zone, fold=0).astimezone(UTC)
    late = label.replace(tzinfo=zone, fold=1).astimezone(UTC)
    # PEP 495: fold=0 takes the offset before the change, and in a gap that is the smaller one.
    change = first_change(zone, late, early) if early > late else None
    return early if change is None else change.at


def first_change(zone: tzinfo, after: datetime, until: datetime) -> Change | None:
    """The first change later than `after` and not later than `until` (both UTC)."""
    if zone is not UTC:
        for year in range(after.year, until.year + 1):
            for change in _changes(zone, year):
                if change.at > until:
                    return None
                if change.at > after:
                    return change
    return None


def last_change(zone: tzinfo, after: datetime, until: datetime) -> Change | None:
    """The last change later than `after` and not later than `until` (both UTC)."""
    if zone is not UTC:
        for year in range(until.year, after.year - 1, -1):
            for change in reversed(_changes(zone, year)):
                if change.at <= after:
                    return None
                if change.at <= until:
                    return change
    return None


@lru_cache(maxsize=4096)
def _changes(zone: tzinfo, year: int) -> Sequence[Change]:
    """The changes of one year of UTC, in order.

    `zoneinfo` does not tell them, so they are searched: a day whose ends have different offsets is halved
    until the second is found. Two changes within a day that undo each other would be missed; the database has
    none since 1970.
    """
    found: list[Change] = []
    end = datetime(year + 1, 1, 1, tzinfo=UTC) - SECOND
    moment = datetime(year, 1, 1, tzinfo=UTC) - SECOND
    offset = offset_at(zone, moment)
    while moment < end:
        later = min(moment + _DAY, end)
        if offset_at(zone, later) == offset:
            moment = later
            continue
        old, new = moment, later
        while new - old > SECOND:
            middle = old + (new - old) // (2 * SECOND) * SECOND
            if offset_at(zone, middle) == offset:
                old = middle
            else:
                new = middle
        found.append(Change(new, offset, offset_at(zone, new)))
        moment, offset = new, found[-1].after
    return tuple(found)
