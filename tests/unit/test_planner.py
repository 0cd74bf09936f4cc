"""Plans: examples of each policy, and what holds for any leaders that look at any times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairque.core.schedules.models import MISFIRES, OVERLAPS, ScheduledTask, tick_id
from fairque.core.schedules.moments import from_micros, to_micros
from fairque.core.schedules.planner import MAX_COUNTED, MAX_RUNS, Plan, Run, SkipReason, plan, rebase, run_now

NINE = datetime(2024, 5, 1, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


def hourly(**fields: Any) -> ScheduledTask:
    return ScheduledTask("a", payload=1, **{"cron": "@hourly", **fields})


def hours(plan: Plan) -> list[int]:
    return [run.tick.hour for run in plan.runs]


def skips(plan: Plan) -> list[tuple[str, int, int, int]]:
    return [(item.reason.value, item.first.hour, item.last.hour, item.count) for item in plan.skipped]


# Examples.


def test_before_a_tick_there_is_nothing_but_the_time_to_look() -> None:
    found = plan(hourly(), cursor=NINE, now=NINE + 59 * MINUTE)

    assert found.decisions == ()
    assert found.new_cursor == found.cursor == NINE
    assert found.look_at == NINE + HOUR


def test_a_tick_that_is_due_is_enqueued_and_the_cursor_moves_to_it() -> None:
    schedule = hourly()
    found = plan(schedule, cursor=NINE, now=NINE + HOUR + SECOND)

    assert found == Plan(
        schedule="a",
        digest=schedule.digest(),
        cursor=NINE,
        new_cursor=NINE + HOUR,
        decisions=(Run(task_id="a@20240501T100000Z", tick=NINE + HOUR, due=NINE + HOUR),),
        look_at=NINE + 2 * HOUR,
    )
    assert found.last_task_id == "a@20240501T100000Z"
    assert plan(schedule, cursor=found.new_cursor, now=NINE + HOUR + SECOND).decisions == ()


def test_ticks_within_the_grace_all_run() -> None:
    schedule = ScheduledTask("a", payload=1, every=1, misfire="skip")
    found = plan(schedule, cursor=NINE, now=NINE + 60 * SECOND)

    assert [run.tick for run in found.runs] == [NINE + SECOND * index for index in range(1, 61)]
    assert not any(run.missed for run in found.runs)


def test_skip_leaves_out_what_was_missed() -> None:
    schedule = hourly(misfire="skip")

    found = plan(schedule, cursor=NINE, now=NINE + 5 * HOUR + 2 * MINUTE)
    assert hours(found) == []
    assert skips(found) == [("missed", 10, 14, 5)]
    assert found.new_cursor == NINE + 5 * HOUR

    found = plan(schedule, cursor=NINE, now=NINE + 5 * HOUR + SECOND)
    assert hours(found) == [14]
    assert skips(found) == [("missed", 10, 13, 4)]


def test_run_once_makes_up_for_what_was_missed_by_one_run() -> None:
    schedule = hourly(misfire="run_once")

    found = plan(schedule, cursor=NINE, now=NINE + 5 * HOUR + 2 * MINUTE)
    assert skips(found) == [("made_up", 10, 13, 4)]
    assert hours(found) == [14]
    assert found.runs[0].missed

    # The run that is due in time serves for all.
    found = plan(schedule, cursor=NINE, now=NINE + 5 * HOUR + SECOND)
    assert skips(found) == [("made_up", 10, 13, 4)]
    assert hours(found) == [14]
    assert not found.runs[0].missed


def test_run_all_runs_the_last_ones_up_to_its_limit() -> None:
    schedule = hourly(misfire="run_all", misfire_limit=2)
    found = plan(schedule, cursor=NINE, now=NINE + 5 * HOUR + SECOND)

    assert skips(found) == [("over_limit", 10, 11, 2)]
    assert hours(found) == [12, 13, 14]
    assert [run.missed for run in found.runs] == [True, True, False]


def test_a_single_date_that_was_missed_still_runs() -> None:
    schedule = ScheduledTask("a", payload=1, at=NINE)
    found = plan(schedule, cursor=NINE - HOUR, now=NINE + 100 * HOUR)

    assert [run.tick for run in found.runs] == [NINE]
    assert found.look_at is None


def test_after_the_end_there_is_nothing_to_look_at() -> None:
    schedule = hourly(end=NINE + HOUR)

    assert plan(schedule, cursor=NINE, now=NINE + HOUR).look_at is None
    assert plan(schedule, cursor=NINE + HOUR, now=NINE + 9 * HOUR).decisions == ()


def test_before_the_start_it_is_looked_at_when_that_comes() -> None:
    schedule = hourly(start=date(2024, 6, 1))
    assert plan(schedule, cursor=NINE, now=NINE + HOUR).look_at == datetime(2024, 6, 1, tzinfo=UTC)


def test_a_paused_schedule_lets_its_ticks_pass() -> None:
    found = plan(hourly(paused=True), cursor=NINE, now=NINE + 2 * HOUR)

    assert skips(found) == [("paused", 10, 11, 2)]
    assert found.new_cursor == NINE + 2 * HOUR
    assert found.look_at == NINE + 3 * HOUR


def test_overlap_allow_runs_beside_the_run_before() -> None:
    found = plan(hourly(), cursor=NINE, now=NINE + HOUR, active="a@before")
    assert [(run.tick.hour, run.after) for run in found.runs] == [(10, None)]


def test_overlap_skip_leaves_out_a_tick_while_the_run_before_is_active() -> None:
    schedule = hourly(overlap="skip")

    found = plan(schedule, cursor=NINE, now=NINE + HOUR, active="a@before")
    assert skips(found) == [("overlap", 10, 10, 1)]
    assert found.last_task_id is None

    assert hours(plan(schedule, cursor=NINE, now=NINE + HOUR)) == [10]


def test_overlap_skip_lets_one_of_several_ticks_run() -> None:
    schedule = hourly(overlap="skip", misfire="run_all")
    found = plan(schedule, cursor=NINE, now=NINE + 4 * HOUR)

    assert hours(found) == [10]
    assert skips(found) == [("overlap", 11, 13, 3)]


def test_overlap_queue_lets_each_run_wait_for_the_one_before() -> None:
    schedule = hourly(overlap="queue", misfire="run_all")

    found = plan(schedule, cursor=NINE, now=NINE + 2 * HOUR, active="a@before")
    assert [run.after for run in found.runs] == ["a@before", tick_id("a", NINE + HOUR)]

    found = plan(schedule, cursor=NINE, now=NINE + 2 * HOUR)
    assert [run.after for run in found.runs] == [None, tick_id("a", NINE + HOUR)]


def test_a_plan_enqueues_what_one_call_may_and_is_looked_at_again_at_once() -> None:
    schedule = ScheduledTask("a", payload=1, every=0.1)
    now = NINE + 55 * SECOND

    first = plan(schedule, cursor=NINE, now=now)
    assert len(first.runs) == MAX_RUNS
    assert first.look_at is not None
    assert first.look_at <= now

    second = plan(schedule, cursor=first.new_cursor, now=now)
    assert len(second.runs) == 550 - MAX_RUNS
    assert second.look_at == now + 0.1 * SECOND
    assert [run.tick for run in (*first.runs, *second.runs)] == [
        NINE + SECOND * n / 10 for n in range(1, 551)
    ]


def test_a_year_of_missed_minutes_is_one_decision() -> None:
    schedule = ScheduledTask("a", payload=1, cron="* * * * *", timezone="Europe/Berlin")
    found = plan(schedule, cursor=NINE, now=NINE + 366 * 24 * HOUR + 30 * SECOND)

    [skipped] = found.skipped
    assert skipped.first == NINE + MINUTE
    assert skipped.last == NINE + 366 * 24 * HOUR - MINUTE
    assert skipped.count == MAX_COUNTED == 1_000
    assert [run.tick for run in found.runs] == [NINE + 366 * 24 * HOUR]


def test_a_clock_that_is_behind_the_cursor_decides_nothing() -> None:
    found = plan(hourly(), cursor=NINE + 5 * HOUR, now=NINE)

    assert (found.decisions, found.new_cursor, found.look_at) == ((), NINE + 5 * HOUR, NINE + 6 * HOUR)


def test_across_a_change_of_clocks_each_tick_has_an_id_of_its_own() -> None:
    schedule = ScheduledTask("a", payload=1, cron="*/30 * * * *", timezone="Europe/Berlin", misfire="run_all")
    start = datetime(2024, 10, 26, 22, tzinfo=UTC)
    found = plan(schedule, cursor=start, now=start + 5 * HOUR)

    assert len({run.task_id for run in found.runs}) == len(found.runs) == 10


def test_run_now_is_a_run_beside_the_ticks() -> None:
    moment = NINE + 90 * SECOND

    assert run_now(hourly(overlap="skip"), moment, "a@before") == Run(
        task_id="a@20240501T090130Z-now", tick=moment, due=moment
    )
    assert run_now(hourly(overlap="queue"), moment, "a@before").after == "a@before"


# A definition that takes the place of another.


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        (None, hourly(), False),
        (hourly(), hourly(), True),
        (hourly(), hourly(cron="0 * * * *", overlap="skip", jitter_seconds=5), True),
        (hourly(), hourly(cron="30 * * * *"), False),
        (hourly(), hourly(timezone="Europe/Berlin"), False),
        (hourly(), hourly(cron=None, every=3600), False),
        (hourly(paused=True), hourly(), False),
        (hourly(), hourly(paused=True), True),
        # An end or a start that is elsewhere counts only if it changes what was due since the cursor.
        (hourly(end=NINE + 50 * HOUR), hourly(), True),
        (hourly(end=NINE + HOUR), hourly(), False),
        (hourly(start=NINE - HOUR), hourly(start=NINE - 2 * HOUR), True),
        (hourly(start=NINE + HOUR), hourly(), False),
    ],
)
def test_a_deploy_loses_no_tick_and_invents_none(
    old: ScheduledTask | None, new: ScheduledTask, stays: bool
) -> None:
    now = NINE + 5 * HOUR
    assert rebase(old, new, NINE, now) == (NINE if stays else now)


def test_the_cursor_never_goes_back() -> None:
    assert rebase(hourly(), hourly(cron="@daily"), NINE + HOUR, NINE) == NINE + HOUR
    assert rebase(hourly(), hourly(), None, NINE) == NINE


# Any leaders, any delays.

BASES = {
    "UTC": NINE,
    "Europe/Berlin": datetime(2024, 10, 26, 22, tzinfo=UTC),
    "America/New_York": datetime(2024, 3, 10, 4, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2024, 4, 6, 12, tzinfo=UTC),
}


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ScheduledTask, datetime]:
    """A schedule, and the moment at which it is registered."""
    zone = draw(st.sampled_from(sorted(BASES)))
    base = BASES[zone]
    fields: dict[str, Any] = {
        "timezone": zone,
        "misfire": draw(st.sampled_from(MISFIRES)),
        "misfire_limit": draw(st.integers(1, 12)),
        "misfire_grace_seconds": draw(st.sampled_from([1, 60, 3_600, 20_000])),
        "overlap": draw(st.sampled_from(OVERLAPS)),
        "paused": draw(st.booleans()) and draw(st.booleans()),
    }
    kind = draw(st.sampled_from(["cron", "every", "at"]))
    if kind == "cron":
        patterns = ["*/7 * * * *", "@hourly", "30 1,2 * * *", "0,20,40 0-5 * * *", "*/15 2 * * *"]
        fields["cron"] = draw(st.sampled_from(patterns))
    elif kind == "every":
        fields["every"] = from_micros(draw(st.integers(200 * 10**6, 10**10))) - from_micros(0)
    else:
        offsets = draw(st.sets(st.integers(0, 10**11), min_size=1, max_size=20))
        fields["at"] = [base + MICROSECOND * offset for offset in offsets]
    if draw(st.booleans()):
        fields["jitter_seconds"] = draw(st.sampled_from([1, 150, 3_600])) if kind != "every" else 150
    if kind != "at" and draw(st.booleans()):
        fields["start"] = base + draw(st.integers(-5, 10)) * HOUR
        fields["end"] = fields["start"] + draw(st.integers(3, 30)) * HOUR
        if kind == "cron":
            fields["end"] += 24 * HOUR  # so that there is a tick of each pattern
    return ScheduledTask(draw(st.sampled_from(["a", "b", "c"])), payload=1, **fields), base


@dataclass
class Server:
    """What a server does with plans: it takes one if the cursor is still where the plan starts."""

    cursor: datetime
    last_task_id: str | None = None
    taken: list[Plan] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)

    def take(self, plan: Plan, digest: str) -> bool:
        if (plan.cursor, plan.digest) != (self.cursor, digest):
            return False
        self.cursor = plan.new_cursor
        self.taken.append(plan)
        self.pushed += [run.task_id for run in plan.runs]
        self.last_task_id = plan.last_task_id or self.last_task_id
        return True


@dataclass(frozen=True)
class Look:
    """A leader looks `after` the look before, with the state and the plan of `lag` looks ago if it was asleep."""

    after: timedelta
    lag: int
    active: bool
    limit: int


looks = st.builds(
    Look,
    after=st.sampled_from([SECOND, MINUTE, 10 * MINUTE, HOUR, 7 * HOUR, 30 * HOUR])
    | st.integers(0, 10**10).map(lambda micros: MICROSECOND * micros),
    lag=st.sampled_from([0, 0, 0, 1, 2]),
    active=st.booleans(),
    limit=st.sampled_from([MAX_RUNS, MAX_RUNS, 1, 3]),
)


def ticks_of(schedule: ScheduledTask, after: datetime, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    tick = schedule.first_tick(after)
    while tick is not None and tick <= until:
        found.append(tick)
        tick = schedule.first_tick(tick)
    return found


def told(plan: Plan, ticks: Sequence[datetime]) -> list[tuple[datetime, SkipReason | None, str | None]]:
    """Each tick that the plan decides: why it is left out, or None, and what its run waits for."""
    found: list[tuple[datetime, SkipReason | None, str | None]] = []
    for item in plan.decisions:
        if isinstance(item, Run):
            assert item.task_id == tick_id(plan.schedule, item.tick)
            found.append((item.tick, None, item.after))
        else:
            covered = [tick for tick in ticks if item.first <= tick <= item.last]
            assert (covered[0], covered[-1]) == (item.first, item.last)
            assert item.count == min(len(covered), MAX_COUNTED)
            found += [(tick, item.reason, None) for tick in covered]
    return found


def expected(
    schedule: ScheduledTask, due: Sequence[datetime], now: datetime, active: str | None, limit: int
) -> list[tuple[datetime, SkipReason | None, str | None]]:
    """The same, tick by tick as the docs say it."""
    if schedule.paused:
        return [(tick, SkipReason.PAUSED, None) for tick in due]
    grace = timedelta(seconds=schedule.misfire_grace_seconds)
    missed = [tick for tick in due if now - schedule.due(tick) > grace]
    in_time = [tick for tick in due if tick not in missed]
    reasons: dict[datetime, SkipReason] = {}
    if schedule.misfire == "skip":
        reasons = dict.fromkeys(missed, SkipReason.MISSED)
    elif schedule.misfire == "run_once":
        reasons = dict.fromkeys(missed if in_time else missed[:-1], SkipReason.MADE_UP)
    else:
        reasons = dict.fromkeys(missed[: -schedule.misfire_limit], SkipReason.OVER_LIMIT)
    found: list[tuple[datetime, SkipReason | None, str | None]] = []
    for tick in due:
        if tick in reasons:
            found.append((tick, reasons[tick], None))
            continue
        if limit == 0:
            break
        limit -= 1
        if schedule.overlap == "skip" and active is not None:
            found.append((tick, SkipReason.OVERLAP, None))
            continue
        found.append((tick, None, active if schedule.overlap == "queue" else None))
        active = tick_id(schedule.name, tick)
    return found


@settings(max_examples=200, deadline=None)
@given(schedules(), st.lists(looks, min_size=1, max_size=12))
def test_each_tick_is_decided_once_and_in_order_whoever_looks_whenever(
    made: tuple[ScheduledTask, datetime], steps: list[Look]
) -> None:
    schedule, now = made
    begin = now
    server = Server(cursor=begin)
    ticks = ticks_of(schedule, begin, begin + sum((step.after for step in steps), timedelta()))
    plans: list[Plan] = []
    for step in steps:
        now += step.after
        due = [tick for tick in ticks if tick > server.cursor and schedule.due(tick) <= now]
        active = server.last_task_id if step.active else None
        made_now = plan(schedule, cursor=server.cursor, now=now, active=active, limit=step.limit)
        plans.append(made_now)

        # The policies hold, tick by tick.
        assert told(made_now, ticks) == expected(schedule, due, now, active, step.limit)
        # It is looked at again when the next tick is due that is not decided.
        undecided = schedule.first_tick(made_now.new_cursor)
        assert made_now.look_at == (None if undecided is None else schedule.due(undecided))
        assert all(run.due <= now for run in made_now.runs)

        late = plans[max(0, len(plans) - 1 - step.lag)]
        before = server.cursor
        taken = server.take(late, schedule.digest())
        assert taken == (late.cursor == before)
        # The same plan a second time changes nothing, unless it decides nothing.
        if taken and late.decisions:
            assert not server.take(late, schedule.digest())

    decided = [entry[0] for taken in server.taken for entry in told(taken, ticks)]
    assert decided == [tick for tick in ticks if tick <= server.cursor]
    assert len(server.pushed) == len(set(server.pushed))


@settings(max_examples=100, deadline=None)
@given(
    every=st.integers(100_000, 10**9),
    anchor=st.integers(0, 10**9),
    jitter=st.floats(0, 0.09),
    delays=st.lists(st.integers(0, 10**7), min_size=5, max_size=50),
)
def test_an_interval_never_drifts_however_late_its_leaders_are(
    every: int, anchor: int, jitter: float, delays: list[int]
) -> None:
    start = NINE + MICROSECOND * anchor
    schedule = ScheduledTask(
        "a", payload=1, every=MICROSECOND * every, start=start, jitter_seconds=jitter, misfire="run_all"
    )
    cursor, now = NINE - SECOND, NINE
    ticks: list[datetime] = []
    for delay in delays:
        found = plan(schedule, cursor=cursor, now=now)
        ticks += [run.tick for run in found.runs]
        cursor = found.new_cursor
        assert found.look_at is not None
        now = max(now, found.look_at) + MICROSECOND * delay
    assert ticks == [start + MICROSECOND * every * index for index in range(len(ticks))]
    assert all((to_micros(tick) - to_micros(start)) % every == 0 for tick in ticks)


@settings(max_examples=100, deadline=None)
@given(schedules(), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_leader_that_looks_when_it_should_runs_each_tick_at_its_time(
    made: tuple[ScheduledTask, datetime], delays: list[int]
) -> None:
    schedule, begin = made
    schedule = dataclasses.replace(schedule, paused=False, overlap="allow", misfire_grace_seconds=1_000)
    cursor = now = begin
    ran: list[datetime] = []
    for delay in delays:
        found = plan(schedule, cursor=cursor, now=now)
        assert found.skipped == ()
        ran += [run.tick for run in found.runs]
        cursor = found.new_cursor
        if found.look_at is None:
            break
        # Up to the grace late: every tick still runs, whatever the misfire policy says.
        now = max(now, found.look_at) + MICROSECOND * delay
    assert ran == ticks_of(schedule, begin, cursor)
