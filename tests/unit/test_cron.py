"""Cron patterns: the table of the docs, every minute against a plain reference, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairque.core.exceptions import ConfigError
from fairque.core.schedules.cron import Cron
from fairque.core.schedules.cron_text import ALIASES, FIELDS
from fairque.core.schedules.zones import Change, first_change, offset_at

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def forward(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    """The ticks from `start` to `end`, both included, as `next_after` finds them."""
    found: list[datetime] = []
    tick = cron.next_after(start - MICROSECOND)
    while tick is not None and tick <= end:
        found.append(tick)
        tick = cron.next_after(tick)
    return found


def backward(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    """The same, as `latest` finds them."""
    found: list[datetime] = []
    tick = cron.latest(end)
    while tick is not None and tick >= start:
        found.append(tick)
        tick = cron.latest(tick - MICROSECOND)
    return found[::-1]


# The table of the docs.


def rows(section: str) -> Iterator[tuple[str, str, str, str, str]]:
    text = (
        PAGE.read_text().partition(f"<!-- {section}: begin -->")[2].partition(f"<!-- {section}: end -->")[0]
    )
    zone = day = clock = ""
    for line in text.strip().splitlines()[2:]:
        where, change, pattern, runs = (cell.strip() for cell in line.strip("|").split("|"))
        if where:
            zone, day = where.split(", ")
            clock = change
        yield zone, day, clock, pattern.strip("`"), runs


TABLE = [*rows("forward"), *rows("back")]


def change_on(day: str, zone: ZoneInfo) -> Change:
    midnight = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    change = first_change(zone, midnight - HOUR, midnight + 24 * HOUR)
    assert change is not None
    return change


def shown(tick: datetime, zone: ZoneInfo) -> str:
    local = tick.astimezone(zone)
    return f"{local:%H:%M}{'²' if local.fold else ''}"


def test_the_table_has_four_zones_with_four_patterns_around_both_changes() -> None:
    assert len(TABLE) == len(set(TABLE)) == 4 * 4 * 2
    assert len({(zone, day) for zone, day, *_ in TABLE}) == 4 * 2
    assert len({zone for zone, *_ in TABLE}) == 4


@pytest.mark.parametrize(("zone", "day", "clock", "pattern", "runs"), TABLE)
def test_the_table_of_the_docs(zone: str, day: str, clock: str, pattern: str, runs: str) -> None:
    info = ZoneInfo(zone)
    change = change_on(day, info)
    start, end = change.at - HOUR, change.at + HOUR
    cron = Cron(pattern, zone)

    assert f"{change.at + change.before:%H:%M} to {change.at + change.after:%H:%M}" == clock
    assert [shown(tick, info) for tick in forward(cron, start, end)] == runs.split()
    assert backward(cron, start, end) == forward(cron, start, end)


@pytest.mark.parametrize(("zone", "day"), sorted({(zone, day) for zone, day, *_ in TABLE}))
def test_a_fixed_time_runs_once_a_day_and_a_wildcard_by_elapsed_time(zone: str, day: str) -> None:
    info = ZoneInfo(zone)
    at = change_on(day, info).at
    start, end = at - 72 * HOUR, at + 72 * HOUR
    for hour in range(24):
        ticks = forward(Cron(f"25 {hour} * * *", zone), start, end)
        days = [tick.astimezone(info).date() for tick in ticks]
        around = [datetime.fromisoformat(day).date() + timedelta(days=step) for step in (-1, 0, 1)]
        assert [days.count(date) for date in around] == [1, 1, 1]
    halves = forward(Cron("*/30 * * * *", zone), start, end)
    assert {later - earlier for earlier, later in pairwise(halves)} == {HOUR / 2}


# Every minute, against a reference that shares nothing with the code.

CLOCKS = {
    "UTC": "2024-03-31T01:00",
    "Europe/Berlin": "2024-03-31T01:00",
    "Europe/London": "2024-10-27T01:00",
    "America/New_York": "2024-11-03T06:00",
    "America/Havana": "2024-03-10T05:00",
    "America/Santiago": "2024-04-07T03:00",  # 24:00 to 23:00: the day before is repeated
    "Australia/Lord_Howe": "2024-04-06T15:00",  # half an hour
    "Antarctica/Troll": "2024-03-31T01:00",  # two hours
    "Asia/Kathmandu": "2024-03-31T01:00",  # no change, and an offset of 5:45
    "Africa/Casablanca": "2024-03-10T02:00",
    "Pacific/Apia": "2011-12-30T10:00",  # a day is skipped
    "Pacific/Kwajalein": "1969-09-30T13:00",  # a day is repeated, but for an hour
}
LONG = ("Pacific/Apia", "Pacific/Kwajalein")


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """A field and the values that it stands for."""
    kind = draw(st.sampled_from(["*", "*/", "list", "range", "range/"]))
    step = draw(st.integers(1, high))
    first, last = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    if kind == "*":
        return "*", frozenset(range(low, high + 1))
    if kind == "*/":
        return f"*/{step}", frozenset(range(low, high + 1, step))
    if kind == "range":
        return f"{first}-{last}", frozenset(range(first, last + 1))
    if kind == "range/":
        return f"{first}-{last}/{step}", frozenset(range(first, last + 1, step))
    values = draw(st.sets(st.integers(low, high), min_size=1, max_size=4))
    return ",".join(map(str, sorted(values))), frozenset(values)


@settings(max_examples=100, deadline=None)
@given(
    zone=st.sampled_from(sorted(CLOCKS)),
    minute=fields(0, 59),
    hour=fields(0, 23),
    weekday=st.sampled_from(
        [("*", frozenset(range(7))), ("SUN", frozenset({6})), ("1-5", frozenset(range(5)))]
    ),
)
def test_every_minute_around_a_change_is_as_the_rule_says(
    zone: str,
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    weekday: tuple[str, frozenset[int]],
) -> None:
    info, at = ZoneInfo(zone), utc(CLOCKS[zone])
    span = (30 if zone in LONG else 4) * HOUR
    start, end = at - span, at + span
    cron = Cron(f"{minute[0]} {hour[0]} * * {weekday[0]}", zone)

    def matches(clock: datetime) -> bool:
        return clock.minute in minute[1] and clock.hour in hour[1] and clock.weekday() in weekday[1]

    moments = [start + MINUTE * index for index in range((end - start) // MINUTE + 1)]
    if minute[0].startswith("*") or hour[0].startswith("*"):
        expected = [moment for moment in moments if matches(moment.astimezone(info))]
    else:
        # Walk with the clock: the labels that a step jumps over are those that are skipped.
        expected = []
        reached = (moments[0] - MINUTE).astimezone(info).replace(tzinfo=None)
        for moment in moments:
            clock = moment.astimezone(info).replace(tzinfo=None)
            labels = [reached + MINUTE * step for step in range(1, (clock - reached) // MINUTE + 1)]
            if any(map(matches, labels)):
                expected.append(moment)
            reached = max(reached, clock)

    assert forward(cron, start, end) == expected
    assert backward(cron, start, end) == expected


@settings(max_examples=100, deadline=None)
@given(
    zone=st.sampled_from(sorted(CLOCKS)),
    pattern=st.sampled_from(
        ["@hourly", "@daily", "30 2 * * *", "*/20 1-2 * * *", "0,30 0-3 * * SUN", "5 4 L * *"]
    ),
    offset=st.integers(-(10**12), 10**12),
)
def test_next_after_and_latest_are_each_others_inverse(zone: str, pattern: str, offset: int) -> None:
    cron, moment = Cron(pattern, zone), utc(CLOCKS[zone]) + timedelta(microseconds=offset)

    following, latest = cron.next_after(moment), cron.latest(moment)

    assert following is not None
    assert latest is not None
    assert latest <= moment < following
    assert cron.next_after(latest) == following
    assert cron.latest(following - MICROSECOND) == latest
    assert cron.latest(following) == following


def test_offsets_of_seconds_are_no_obstacle() -> None:
    # Until January 1972 the clocks of Monrovia were 44 minutes and 30 seconds late.
    zone = ZoneInfo("Africa/Monrovia")
    assert offset_at(zone, utc("1971-06-01T00:00")) == -timedelta(minutes=44, seconds=30)

    for pattern in ("30 2 * * *", "*/30 2 * * *"):
        cron = Cron(pattern, "Africa/Monrovia")
        tick = cron.next_after(utc("1971-06-01T03:00"))
        assert tick == datetime(1971, 6, 1, 3, 14, 30, tzinfo=UTC)
        assert cron.latest(tick) == tick


def test_a_rare_day_is_found_years_away() -> None:
    cron = Cron("0 12 29 2 *", "Europe/Berlin")

    assert cron.next_after(utc("2096-03-01T00:00")) == utc("2104-02-29T11:00")
    assert cron.latest(utc("2104-02-28T00:00")) == utc("2096-02-29T11:00")


# Words and names.


@pytest.mark.parametrize(("word", "pattern"), ALIASES.items())
def test_a_word_stands_for_a_pattern(word: str, pattern: str) -> None:
    assert Cron(word.upper(), "Europe/Berlin") == Cron(pattern, "Europe/Berlin")


@pytest.mark.parametrize(
    ("pattern", "after", "tick"),
    [
        ("30 2 * * MON", "2024-05-01", "2024-05-06T02:30"),
        ("30 2 * * mon-fri", "2024-05-03T12:00", "2024-05-06T02:30"),
        ("0 0 1 JAN *", "2024-05-01", "2025-01-01"),
        ("0 0 1 feb,nov *", "2024-05-01", "2024-11-01"),
        ("0 0 * * 0", "2024-05-01", "2024-05-05"),
        ("0 0 * * 7", "2024-05-01", "2024-05-05"),
        ("0 0 L * *", "2024-02-01", "2024-02-29"),
        ("0 0 LW * *", "2024-03-01", "2024-03-29"),
        ("0 0 * * MON#2", "2024-05-01", "2024-05-13"),
        ("0 0 * * 5L", "2024-05-01", "2024-05-31"),
        ("0 0 13 * FRI", "2024-05-01", "2024-05-03"),  # either day is enough
        ("0 0 */2 * FRI", "2024-05-01", "2024-05-03"),  # with a star, both must match
        ("5/20 3 * * *", "2024-05-01T03:06", "2024-05-01T03:25"),
        ("5-5/20 3 * * *", "2024-05-01T03:06", "2024-05-02T03:05"),
        ("  0   12 * * *  ", "2024-05-01", "2024-05-01T12:00"),
    ],
)
def test_what_patterns_mean(pattern: str, after: str, tick: str) -> None:
    assert Cron(pattern).next_after(utc(after)) == utc(tick)


def test_a_pattern_is_told_in_words() -> None:
    assert Cron("30 2 * * MON-FRI").describe() == "At 02:30 on Monday through Friday"


# What is refused, and how.


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("61 * * * *", "cron minute '61' must be from 0 to 59 (in '61 * * * *')"),
        ("* 24 * * *", "cron hour '24' must be from 0 to 23"),
        ("* * 0 * *", "cron day of month '0' must be from 1 to 31"),
        ("* * * 13 *", "cron month '13' must be from 1 to 12, or JAN to DEC"),
        ("* * * JAM *", "cron month 'JAM' must be from 1 to 12, or JAN to DEC; did you mean 'JAN'?"),
        ("* * * * 8", "cron day of week '8' must be from 0 to 7, or SUN to SAT"),
        ("* * * * MON,TEU", "cron day of week 'TEU' must be from 0 to 7, or SUN to SAT; did you mean 'TUE'?"),
        ("0-99 * * * *", "cron minute '0-99' must be from 0 to 59"),
        ("0 22-2 * * *", "cron hour '22-2' runs backwards: write 22-23,0-2"),
        ("* * * * FRI-SUN", "cron day of week 'FRI-SUN' runs backwards: write FRI-6,SUN"),
        ("* * 31-1 * *", "cron day of month '31-1' runs backwards: write 31,1"),
        ("*/0 * * * *", "cron minute '*/0' has a step of 0, which must be from 1 to 59"),
        ("*/90 * * * *", "for longer intervals use every="),
        ("*-5 * * * *", "cron minute '*-5' is a range that begins with *"),
        ("1,,2 * * * *", "cron minute '' is empty"),
        ("-5 * * * *", "cron minute '-5' is no value, list (1,2), range (1-5) or step (*/5)"),
        ("5/ * * * *", "cron minute '5/' is no value"),
        ("* * ? * *", "cron day of month '?' is no value"),
        ("* * * * MON#6", "cron day of week 'MON#6' asks for week 6 of a month, which must be from 1 to 5"),
        ("* * * * FRIL", "cron day of week 'FRIL' must be the number of a day and L: write 5L"),
        ("* * * * 9L", "cron day of week '9L' must be from 0 to 7"),
        ("* * * * L", "cron day of week 'L' must be from 0 to 7"),
        ("* * * *", "has 4 fields; there must be 5: minute, hour, day of month, month, day of week"),
        (
            "0 * * * * *",
            "has 6 fields; there must be 5: minute, hour, day of month, month, day of week. For seconds",
        ),
        ("", "cron '' has 0 fields"),
        ("@dayly", "cron '@dayly' is not known: did you mean '@daily'?"),
        ("@every 5m", "cron '@every 5m' is not known: there are @hourly, @daily"),
        ("@reboot", "names no time: use @on_worker_start"),
        ("0 0 30 2 *", "cron day of month '30' never comes in month '2' (in '0 0 30 2 *')"),
        ("* * 31 4,6,9,11 *", "cron day of month '31' never comes in month '4,6,9,11'"),
        ("1," * 200 + "1 * * * *", "has 409 characters; the limit is 256"),
        (5, "cron must be a pattern such as '30 2 * * MON-FRI', not 5"),
        (None, "not None"),
    ],
)
def test_a_bad_pattern_is_refused_with_field_value_and_what_is_allowed(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Cron(pattern)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text("0123456789*,-/#LWMONFRIJA@ ", max_size=8)
        | st.sampled_from(["*", "*/2", "1-5", "MON#1", "L", "LW", "5L", "JAN", "SUN"]),
        min_size=4,
        max_size=6,
    ).map(" ".join)
)
def test_whatever_is_written_is_a_pattern_or_refused_clearly(pattern: str) -> None:
    try:
        cron = Cron(pattern)
    except ConfigError as error:
        assert str(error).startswith("cron ")  # noqa: PT017 - most are refused, and some are not
    else:
        moment = utc("2024-01-01")
        assert (cron.next_after(moment) or moment) > moment


def test_the_fields_cover_what_cron_has() -> None:
    assert [(field.low, field.high) for field in FIELDS] == [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
