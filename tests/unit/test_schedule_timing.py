"""Zones, intervals, dates and jitter: what a schedule's ticks are made of."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.exceptions import ConfigError
from fairque.core.schedules.intervals import Dates, Interval
from fairque.core.schedules.jitter import jitter
from fairque.core.schedules.moments import EPOCH, from_micros, to_micros
from fairque.core.schedules.zones import Change, find_zone, first_change, last_change, moment_of, offset_at

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
moments = st.integers(0, 229 * 365 * 86_400_000_000).map(from_micros)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(moments)
def test_moments_and_micros_are_the_same(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment
    assert to_micros(moment.astimezone(ZoneInfo("Asia/Kathmandu"))) == to_micros(moment)


# Zones.


def test_utc_needs_no_database() -> None:
    assert find_zone("UTC") is UTC
    assert find_zone("Europe/Berlin") is ZoneInfo("Europe/Berlin")


def test_without_a_database_the_error_says_how_to_get_one() -> None:
    program = (
        "import zoneinfo; zoneinfo.reset_tzpath([])\n"
        "import sys; sys.modules['tzdata'] = None\n"
        "from fairque.core.schedules.zones import find_zone\n"
        "find_zone('UTC')\n"
        "find_zone('Europe/Berlin')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "this machine has no time zone database: pip install tzdata, or use 'UTC'" in run.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Europe/Berlim", "timezone 'Europe/Berlim' is not known: did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Berlin", "did you mean 'Europe/Berlin'?"),
        ("New York", "did you mean 'America/New_York'?"),
        ("US/Eastren", "did you mean 'US/Eastern'?"),
        ("CEST", "abbreviations mean several: use a name such as 'Europe/Berlin'"),
        ("", "timezone '' is not known: use a name such as 'Europe/Berlin', or 'UTC'"),
        ("+02:00", "use a name such as 'Europe/Berlin', or 'UTC'"),
        ("../etc/passwd", "timezone '../etc/passwd' is not known"),
        ("Europe", "timezone 'Europe' is not known"),
        ("Europe/Berlin\0", "did you mean 'Europe/Berlin'?"),
        ("localtime", "timezone 'localtime' is not the same, or not a zone, on every machine: name the zone"),
        ("right/Europe/Berlin", "on every machine: use 'Europe/Berlin'"),
        (None, "timezone must be a name such as 'Europe/Berlin', not None"),
        (UTC, "timezone must be a name such as 'Europe/Berlin', not datetime.timezone.utc"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_one(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        find_zone(name)


def test_changes_of_clocks_are_found_to_the_second() -> None:
    zone = ZoneInfo("Europe/Berlin")
    spring = Change(utc("2024-03-31T01:00"), HOUR, 2 * HOUR)
    autumn = Change(utc("2024-10-27T01:00"), 2 * HOUR, HOUR)

    assert first_change(zone, utc("2024-01-01"), utc("2024-12-31")) == spring
    assert last_change(zone, utc("2024-01-01"), utc("2024-12-31")) == autumn
    # Later than the first moment, not later than the second.
    assert first_change(zone, spring.at, autumn.at) == last_change(zone, spring.at, autumn.at) == autumn
    assert first_change(zone, spring.at, autumn.at - MICROSECOND) is None
    assert last_change(zone, spring.at, autumn.at - MICROSECOND) is None
    assert last_change(zone, utc("1990-01-01"), utc("1991-03-01")) == Change(
        utc("1990-09-30T01:00"), 2 * HOUR, HOUR
    )
    assert first_change(UTC, utc("2000-01-01"), utc("2100-01-01")) is None


@pytest.mark.parametrize(
    "name", ["Africa/Casablanca", "Europe/Dublin", "Pacific/Apia", "America/Caracas", "Asia/Gaza"]
)
def test_between_changes_the_offset_stays(name: str) -> None:
    zone, end = ZoneInfo(name), utc("2020-01-01")
    moment, changes = utc("2000-01-01"), 0
    while change := first_change(zone, moment, end):
        assert offset_at(zone, change.at - MICROSECOND) == change.before != change.after
        assert offset_at(zone, change.at) == change.after
        middle = moment + (change.at - moment) / 2
        assert offset_at(zone, middle) == change.before
        moment, changes = change.at, changes + 1
    assert changes >= 2


def test_a_label_stands_for_one_moment() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for label, moment in {
        "2024-03-31T01:59": "2024-03-31T00:59",
        "2024-03-31T02:00": "2024-03-31T01:00",  # skipped: the end of the gap
        "2024-03-31T02:59": "2024-03-31T01:00",
        "2024-03-31T03:00": "2024-03-31T01:00",
        "2024-10-27T02:30": "2024-10-27T00:30",  # shown twice: the first
        "2024-10-27T03:00": "2024-10-27T02:00",
    }.items():
        assert moment_of(zone, datetime.fromisoformat(label)) == utc(moment)


# Intervals and dates.


@given(st.integers(100_000, 10**13), st.integers(-(10**15), 10**15), moments)
def test_ticks_of_an_interval_are_exact_multiples_around_any_moment(
    every: int, anchor: int, moment: datetime
) -> None:
    interval = Interval(timedelta(microseconds=every), EPOCH + timedelta(microseconds=anchor))

    latest, following = interval.latest(moment), interval.next_after(moment)

    assert latest is not None
    assert following is not None
    assert latest <= moment < following
    assert following - latest == interval.every
    assert (to_micros(latest) - anchor) % every == 0
    assert interval.latest(following) == following
    assert latest.tzinfo is following.tzinfo is UTC


def test_an_interval_of_an_hour_is_at_full_hours() -> None:
    assert Interval(HOUR).next_after(utc("2024-05-01T12:34")) == utc("2024-05-01T13:00")


def test_dates_come_in_order_and_end() -> None:
    first, second = utc("2024-05-01T09:00"), utc("2024-06-01T09:00")
    dates = Dates((first, second))

    assert dates.next_after(first - MICROSECOND) == first
    assert dates.next_after(first) == second
    assert dates.next_after(second) is None
    assert dates.latest(first - MICROSECOND) is None
    assert dates.latest(first) == dates.latest(second - MICROSECOND) == first
    assert dates.latest(utc("2030-01-01")) == second


# Jitter.


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), moments, st.integers(0, 86_400_000_000)
)
def test_jitter_is_the_same_for_everybody_and_below_its_limit(name: str, tick: datetime, limit: int) -> None:
    bound = timedelta(microseconds=limit)
    delay = jitter(name, tick, bound)
    assert delay == jitter(name, tick.astimezone(ZoneInfo("America/Havana")), bound)
    assert timedelta() <= delay < bound or limit == 0 == to_micros(EPOCH + delay)


def test_jitter_is_the_same_in_another_process_and_version() -> None:
    # The figures are part of the contract: a leader of another version must find the same.
    tick = utc("2024-05-01T09:00")
    assert to_micros(EPOCH + jitter("nightly-report", tick, HOUR)) == 3410140710
    assert to_micros(EPOCH + jitter("nightly-report", tick, HOUR / 2)) == 3410140710 // 2


def test_jitter_spreads_evenly() -> None:
    limit = timedelta(seconds=1_000)
    delays = [jitter("a", EPOCH + HOUR * index, limit) for index in range(2_000)]
    delays += [jitter(f"name {index}", EPOCH, limit) for index in range(2_000)]
    for tenth in range(10):
        share = sum(limit * tenth / 10 <= delay < limit * (tenth + 1) / 10 for delay in delays)
        assert 320 < share < 480
