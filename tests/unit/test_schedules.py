"""`ScheduledTask`: what it pushes and when, how it is stored, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import doctest
import inspect
import pickle
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairque
from fairque.core.codec import encode_value
from fairque.core.decorator import task
from fairque.core.exceptions import ConfigError, InvalidTaskError, SerializationError, UnknownFunctionError
from fairque.core.keys import MAX_PART_BYTES, encode
from fairque.core.models import Priority, Task
from fairque.core.registry import Registry
from fairque.core.retry import exponential
from fairque.core.schedules.checks import MAX_NAME_BYTES
from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.schedules.planner import run_now
from fairque.core.schedules.stored import DEFAULTS

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"
MICROSECOND = timedelta(microseconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


registry = Registry()


@task(registry=registry, name="report", timeout=60, priority=Priority.HIGH, labels={"team": "a"})
def report(kind: str, pages: int = 1) -> str:
    return f"{kind}: {pages}"


def test_it_is_a_public_name() -> None:
    assert fairque.ScheduledTask is ScheduledTask


def test_the_examples_of_the_docs_work() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, globs={"__name__": "docs"})
    assert failed == 0
    assert tried >= 5


@pytest.mark.parametrize("line", re.findall(r"^schedule '.*$", PAGE.read_text(), re.MULTILINE))
def test_the_errors_of_the_docs_are_said(line: str) -> None:
    pattern = re.search(r"\(in '(.*)'\)", line)
    zone = re.search(r"timezone '(.*?)'", line)
    with pytest.raises(ConfigError) as caught:
        ScheduledTask(
            "nightly-report",
            payload=1,
            cron=pattern[1] if pattern else "@daily",
            timezone=zone[1] if zone else "UTC",
        )
    assert str(caught.value) == line


# What is pushed.


def test_a_call_of_a_task_function_is_pushed_with_its_options() -> None:
    schedule = ScheduledTask("nightly", report("full", pages=3), cron="@daily")

    assert (schedule.function, schedule.args, schedule.kwargs) == ("report", ("full",), {"pages": 3})
    assert schedule.options == {"timeout": 60.0, "priority": Priority.HIGH, "labels": {"team": "a"}}


def test_function_arguments_and_options_say_the_same() -> None:
    options: fairque.core.options.TaskOptions = {"user_id": "alice", "timeout": timedelta(minutes=2)}
    one = ScheduledTask("nightly", report.with_options(**options)("full", pages=3), cron="@daily")
    other = ScheduledTask(
        "nightly", function=report, args=["full"], kwargs={"pages": 3}, options=options, cron="@daily"
    )

    assert one == other
    assert one.options["timeout"] == 120
    assert one.options["user_id"] == "alice"


def test_a_function_that_is_only_named_has_the_options_that_are_given() -> None:
    schedule = ScheduledTask("nightly", function="report", args=("full",), options={"cost": 2}, cron="@daily")

    assert schedule.function == "report"
    assert schedule.options == {"cost": 2.0}


def test_a_payload_is_pushed_for_a_handler() -> None:
    built = ScheduledTask("mail", payload={"to": "bob"}, options={"user_id": "bob"}, every=60).build_task(
        utc("2024-05-01T09:00")
    )

    assert (built.function, built.payload, built.user_id) == ("", {"to": "bob"}, "bob")


def test_the_task_of_a_tick_knows_its_schedule_and_its_tick() -> None:
    schedule = ScheduledTask("nightly", report("full"), cron="@daily", timezone="Europe/Berlin")
    tick = utc("2024-05-01T22:00")

    built = schedule.build_task(tick.astimezone(ZoneInfo("Europe/Berlin")))

    assert built.task_id == tick_id("nightly", tick) == "nightly@20240501T220000Z"
    assert built.labels == {"team": "a", "schedule": "nightly", "tick": "2024-05-01T22:00:00+00:00"}
    assert (built.function, built.args, built.timeout, built.priority) == (
        "report",
        ("full",),
        60.0,
        Priority.HIGH,
    )
    assert (built.state, built.depends_on, built.delay) == (None, (), None)


def test_the_task_of_a_tick_can_wait_for_another() -> None:
    built = ScheduledTask("nightly", report("full"), cron="@daily").build_task(
        utc("2024-05-01"), after="nightly@1"
    )

    assert built.depends_on == ("nightly@1",)
    assert built.trigger_rule == "all_done"


def test_ticks_within_a_second_have_ids_of_their_own() -> None:
    ticks = [utc("2024-05-01") + timedelta(seconds=0.1) * index for index in range(25)]
    assert len({tick_id("a", tick) for tick in ticks}) == 25
    assert tick_id("a", ticks[1]) == "a@20240501T000000.100000Z"


def test_the_longest_name_leaves_room_for_the_longest_id() -> None:
    schedule = ScheduledTask("x" * MAX_NAME_BYTES, payload=1, every=1)
    run = run_now(schedule, utc("2024-05-01") + MICROSECOND)

    assert len(encode(run.task_id)) == MAX_PART_BYTES
    assert schedule.build_task(run.tick, task_id=run.task_id).task_id == run.task_id


# When.


def runs(schedule: ScheduledTask, after: str, n: int = 3) -> list[str]:
    return [moment.isoformat(timespec="minutes") for moment in schedule.next_runs(n, utc(after))]


def test_next_runs_are_in_the_zone_of_the_schedule() -> None:
    schedule = ScheduledTask("a", payload=1, cron="30 2 * * *", timezone="Europe/Berlin")

    assert runs(schedule, "2024-03-29T12:00") == [
        "2024-03-30T02:30+01:00",
        "2024-03-31T03:00+02:00",
        "2024-04-01T02:30+02:00",
    ]


def test_next_runs_are_later_than_the_given_moment() -> None:
    schedule = ScheduledTask("a", payload=1, every=60)
    assert runs(schedule, "2024-05-01T09:00", 2) == ["2024-05-01T09:01+00:00", "2024-05-01T09:02+00:00"]


def test_an_interval_is_counted_from_its_start() -> None:
    schedule = ScheduledTask("a", payload=1, every=timedelta(hours=1), start=utc("2024-05-01T09:17"))

    assert runs(schedule, "2020-01-01", 2) == ["2024-05-01T09:17+00:00", "2024-05-01T10:17+00:00"]
    assert runs(schedule, "2024-05-02", 1) == ["2024-05-02T00:17+00:00"]


def test_single_dates_run_once_each_and_end() -> None:
    later, sooner = utc("2024-06-01T09:00"), utc("2024-05-01T09:00")
    schedule = ScheduledTask("a", payload=1, at=[later, sooner, later])

    assert schedule.at == (sooner, later)
    assert runs(schedule, "2024-01-01") == ["2024-05-01T09:00+00:00", "2024-06-01T09:00+00:00"]
    assert runs(schedule, "2024-06-01T09:00") == []
    assert ScheduledTask("a", payload=1, at=sooner).at == (sooner,)


def test_start_and_end_are_ticks_themselves() -> None:
    schedule = ScheduledTask(
        "a", payload=1, cron="@hourly", start=utc("2024-05-01T09:00"), end=utc("2024-05-01T11:00")
    )

    assert [text[11:16] for text in runs(schedule, "2024-01-01", 9)] == ["09:00", "10:00", "11:00"]
    assert schedule.last_tick(utc("2025-01-01")) == utc("2024-05-01T11:00")
    assert schedule.last_tick(utc("2024-05-01T08:59")) is None
    assert schedule.first_tick(utc("2024-05-01T11:00")) is None


def test_a_date_means_all_of_that_day_in_the_zone() -> None:
    schedule = ScheduledTask(
        "a", payload=1, every=1800, start=date(2024, 3, 31), end=date(2024, 3, 31), timezone="Europe/Berlin"
    )

    moments = schedule.next_runs(100, utc("2024-01-01"))
    assert moments[0].isoformat() == "2024-03-31T00:00:00+01:00"
    assert moments[-1].isoformat() == "2024-03-31T23:30:00+02:00"
    assert len(moments) == 46  # the day has 23 hours


def test_times_without_a_zone_are_in_that_of_the_schedule() -> None:
    wall = datetime.fromisoformat("2024-07-01T09:00:00.5")
    schedule = ScheduledTask("a", payload=1, at=wall, start=wall, end=wall, timezone="Europe/Berlin")
    assert schedule.at == (schedule.start,) == (schedule.end,) == (utc("2024-07-01T07:00:00.5"),)

    skipped = datetime.fromisoformat("2024-03-31T02:30")
    assert ScheduledTask("a", payload=1, at=skipped, timezone="Europe/Berlin").at == (
        utc("2024-03-31T01:00"),
    )


def test_no_tick_is_later_than_what_the_server_counts_exactly() -> None:
    schedule = ScheduledTask("a", payload=1, cron="@yearly")
    assert runs(schedule, "2198-06-01", 5) == ["2199-01-01T00:00+00:00"]


def test_next_runs_show_the_jitter_and_stay_in_order() -> None:
    schedule = ScheduledTask("a", payload=1, every=60, jitter_seconds=59.9)
    after = utc("2024-05-01T09:00:30")

    found = schedule.next_runs(500, after)

    assert found == sorted(set(found))
    assert found[0] > after
    for earlier, moment in zip([after, *found], found, strict=False):
        # Nothing is left out: between two of them lies no other.
        assert schedule.next_runs(1, earlier) == [moment]
    assert len({moment.second for moment in found}) == 60


def test_jitter_never_reaches_the_next_tick() -> None:
    schedule = ScheduledTask("a", payload=1, cron="*/5 * * * *", jitter_seconds=86_400)
    tick = schedule.first_tick(utc("2024-05-01"))
    delays: list[timedelta] = []
    while tick is not None and len(delays) < 200:
        delays.append(schedule.due(tick) - tick)
        tick = schedule.first_tick(tick)
    assert max(delays) < timedelta(minutes=5)
    assert max(delays) > timedelta(minutes=4)


@given(st.integers(0, 3_000_000_000), st.sampled_from([0.0, 10.0, 59.0]))
def test_the_last_due_tick_is_due_and_the_next_is_not(offset: int, jitter_seconds: float) -> None:
    schedule = ScheduledTask("a", payload=1, every=60, jitter_seconds=jitter_seconds)
    now = utc("2024-05-01") + timedelta(microseconds=offset)

    last = schedule.last_due(now)

    assert last is not None
    following = schedule.first_tick(last)
    assert following is not None
    assert schedule.due(last) <= now < schedule.due(following)


@pytest.mark.parametrize("n", [0, 1001, "5", True])
def test_how_many_next_runs_is_checked(n: Any) -> None:
    with pytest.raises(InvalidTaskError, match="n must be"):
        ScheduledTask("a", payload=1, every=60).next_runs(n, utc("2024-05-01"))


def test_next_runs_need_a_zone() -> None:
    with pytest.raises(InvalidTaskError, match="after 2024-05-01T00:00:00 has no time zone"):
        ScheduledTask("a", payload=1, every=60).next_runs(1, datetime.fromisoformat("2024-05-01"))


# Plain data.

FULL = ScheduledTask(
    "nightly",
    function="report",
    args=[1, "two", [3, {"four": Decimal("4.5")}], utc("2024-01-01"), b"six"],
    kwargs={"at": date(2024, 1, 1)},
    options={
        "user_id": "alice:1",
        "priority": 6,
        "retry": exponential(2, 30, retry_on=OSError),
        "max_retries": 5,
        "labels": {"a": "b"},
        "limiter": "api",
    },
    cron="30 2 * * MON-FRI",
    timezone="America/New_York",
    misfire="run_all",
    misfire_limit=7,
    misfire_grace_seconds=30,
    overlap="queue",
    jitter_seconds=timedelta(minutes=1),
    start=date(2024, 1, 1),
    end=datetime.fromisoformat("2024-12-31T12:00"),
    paused=True,
)
EXAMPLES = [
    FULL,
    ScheduledTask("a", payload=None, function="f", every=0.1),
    ScheduledTask("b", payload=[1, 2], at=[utc("2024-05-01"), utc("2024-05-02")]),
    ScheduledTask("c:{%}ü", report("full"), cron="@daily"),
]


@pytest.mark.parametrize("schedule", EXAMPLES, ids=lambda schedule: schedule.name)
def test_a_schedule_comes_back_from_its_bytes_and_its_data(schedule: ScheduledTask) -> None:
    for again in (
        ScheduledTask.decode(schedule.encode()),
        ScheduledTask.from_data(schedule.to_data()),
        dataclasses.replace(schedule),
        pickle.loads(pickle.dumps(schedule)),  # noqa: S301 - our own
        copy.deepcopy(schedule),
    ):
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again.encode() == schedule.encode()
        assert again.digest() == schedule.digest()
        assert again.timing == schedule.timing
        assert again.build_task(utc("2024-05-01")) == schedule.build_task(utc("2024-05-01"))


def test_data_holds_what_is_no_default() -> None:
    assert ScheduledTask("a", payload=1, every=60).to_data() == {"name": "a", "payload": 1, "every": 60.0}
    assert set(FULL.to_data()) == {"name", *DEFAULTS} - {"payload", "every", "at"}


def test_the_defaults_are_those_of_the_constructor() -> None:
    parameters = inspect.signature(ScheduledTask).parameters
    assert list(parameters) == ["name", "task", *DEFAULTS]
    for name, value in DEFAULTS.items():
        # None, too, is an argument that was not given.
        assert (parameters[name].default or None) == (value or None)
    assert [item.name for item in dataclasses.fields(ScheduledTask)] == ["name", *DEFAULTS, "timing"]


def test_times_in_data_may_be_text() -> None:
    schedule = ScheduledTask.from_data(
        {
            "name": "a",
            "payload": 1,
            "at": ["2024-05-01T09:00", "2024-06-01T09:00+02:00"],
            "start": "2024-05-01",
            "end": "2024-06-01",
            "timezone": "Europe/Berlin",
        }
    )
    assert schedule.at == (utc("2024-05-01T07:00"), utc("2024-06-01T07:00"))
    assert schedule.start == utc("2024-04-30T22:00")
    assert schedule.end == utc("2024-06-01T22:00") - MICROSECOND


def test_the_digest_tells_definitions_apart_but_not_whether_it_is_paused() -> None:
    schedule = ScheduledTask("a", payload=1, every=60)

    assert len(schedule.digest()) == 16
    assert dataclasses.replace(schedule, paused=True).digest() == schedule.digest()
    changes: list[dict[str, Any]] = [
        {"name": "b"}, {"payload": 2}, {"every": 61}, {"jitter_seconds": 1}, {"overlap": "skip"},
    ]  # fmt: skip
    others = {dataclasses.replace(schedule, **change).digest() for change in changes}
    assert len(others | {schedule.digest()}) == len(changes) + 1


def test_a_schedule_does_not_change_with_what_it_was_made_of() -> None:
    argument = {"a": [1]}
    schedule = ScheduledTask("a", function="f", args=[argument], every=60)
    before = schedule.encode()

    argument["a"].append(2)

    assert schedule.encode() == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.paused = True  # type: ignore[misc]


def test_its_text_says_what_is_no_default() -> None:
    assert repr(ScheduledTask("a", payload=1, every=60)) == "ScheduledTask('a', payload=1, every=60.0)"
    assert len(repr(FULL)) < 250


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a schedule must be a mapping, not []"),
        ({"every": 5}, "a schedule has no name"),
        ({"name": "a", "corn": "@daily"}, "schedule 'a': 'corn' is not known: did you mean 'cron'?"),
        ({"name": "a", "x": 1}, "schedule 'a': 'x' is not known: there are function, args"),
        ({"name": "a", "task": 1}, "schedule 'a': 'task' is not known"),
        (
            {"name": "a", "payload": 1, "at": "soon"},
            "schedule 'a': at 'soon' is no time: write it as 2025-03-31T09:00",
        ),
        (
            {"name": "a", "payload": 1, "every": 5, "options": {"retry": ["sometimes", 1]}},
            "schedule 'a': options retry ['sometimes', 1] is no retry policy: ",
        ),
        (
            {"name": "a", "payload": 1, "every": 5, "options": {"retry": 3}},
            "schedule 'a': retry must be a policy made by",
        ),
    ],
)
def test_bad_data_is_refused_with_the_key(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        ScheduledTask.from_data(data)


def test_bytes_that_are_no_schedule_are_refused() -> None:
    with pytest.raises(SerializationError, match="malformed"):
        ScheduledTask.decode(b"\xc1")
    with pytest.raises(SerializationError, match="these bytes are no schedule, but 5"):
        ScheduledTask.decode(encode_value(5))


# What is refused.


def daily(**fields: Any) -> Callable[[], ScheduledTask]:
    return lambda: ScheduledTask("n", **{"payload": 1, "cron": "@daily", **fields})


def hourly(**fields: Any) -> Callable[[], ScheduledTask]:
    return lambda: ScheduledTask("n", **{"payload": 1, "every": 3600, **fields})


REFUSED: list[tuple[Callable[[], ScheduledTask], str]] = [
    (lambda: ScheduledTask("", payload=1, every=5), "schedule '': name must take 1 to 228 bytes, not 0"),
    (lambda: ScheduledTask("x" * 229, payload=1, every=5), "name must take 1 to 228 bytes, not 229"),
    (lambda: ScheduledTask(":" * 80, payload=1, every=5), "takes 240 bytes as a key part; the limit is 228"),
    (lambda: ScheduledTask(5, payload=1, every=5), "schedule 5: name must be a string, not 5 (int)"),  # type: ignore[arg-type]
    # what
    (lambda: ScheduledTask("n", every=5), "nothing says what to push: give task=, function= or payload="),
    (lambda: ScheduledTask("n", report, every=5), "task must be a Task, not <TaskFunction report"),  # type: ignore[arg-type]
    (lambda: ScheduledTask("n", "report", every=5), "task must be a Task, not 'report'"),  # type: ignore[arg-type]
    (lambda: ScheduledTask("n", report("a"), args=[1], every=5), "task brings its function, arguments"),
    (lambda: ScheduledTask("n", report("a"), options={"cost": 2}, every=5), "use task.with_options()"),
    (
        lambda: ScheduledTask("n", Task._restore(task_id="t", state=fairque.TaskState.QUEUED), every=5),
        "task t came from the server: use a copy, task.with_options()",
    ),
    (hourly(function="f"), "a run has a function or a payload, not both"),
    (hourly(args=[1]), "args and kwargs are for a function"),
    (hourly(payload=None, function=report.fn), "function must be a @task function or the name"),
    (hourly(payload=None, function="f", args="ab"), "args must be a list or a tuple, not 'ab'"),
    (hourly(payload=None, function="f", args=5), "args must be a list or a tuple, not 5"),
    (hourly(payload=None, function="f", kwargs=[1]), "kwargs must map names to values, not [1]"),
    (hourly(payload=None, function="f", kwargs={1: 2}), "kwargs must map names to values, not {1: 2}"),
    (hourly(payload=None, function=report, args=[1]), "report() argument 'kind' must be str, not 1"),
    (hourly(payload=None, function=report), "missing a required argument: 'kind'"),
    (hourly(payload=None, function="f", args=[object()]), "args[0] is of type object, which is no data"),
    (hourly(payload={"a": open}), "payload['a'] is of type builtin_function_or_method, which is no data"),
    (hourly(options=5), "options must map names to values, not 5"),
    (hourly(options={"pirority": 1}), "a task has no option 'pirority': did you mean 'priority'?"),
    (hourly(options={"priority": 9}), "priority must be from 1 to 6, not 9"),
    (hourly(options={"task_id": "a"}), "options task_id: each run has an id of its own"),
    (hourly(options={"delay": 5}), "options delay 5.0: the schedule says when its tasks are due"),
    (hourly(options={"execute_after": utc("2024-05-01")}), "the schedule says when its tasks are due"),
    (hourly(options={"expires_at": utc("2024-05-01")}), "it would be the same for every run: use timeout="),
    (hourly(options={"depends_on": "a"}), "options depends_on ('a',): no task is there to wait for"),
    (hourly(options={"trigger_rule": "all_done"}), "options trigger_rule 'all_done'"),
    (hourly(options={"dedup_key": "a"}), "options dedup_key 'a': each tick is pushed once"),
    (
        hourly(options={"on_duplicate": "return"}),
        "each tick has an id of its own, so there are no duplicates",
    ),
    (hourly(options={"labels": {"tick": "1"}}), "options labels 'tick': each run gets this label by itself"),
    # when
    (
        lambda: ScheduledTask("n", payload=1),
        "exactly one of cron, every and at says when it runs, but none of them",
    ),
    (daily(every=5), "exactly one of cron, every and at says when it runs, but cron and every are given"),
    (daily(cron="99 * * * *"), "schedule 'n': cron minute '99' must be from 0 to 59 (in '99 * * * *')"),
    (daily(cron=5), "cron must be a pattern"),
    (daily(timezone="Europe/Berlim"), "timezone 'Europe/Berlim' is not known: did you mean 'Europe/Berlin'?"),
    (hourly(every=0.01), "every must be at least 0.1 s, not 0.01"),
    (hourly(every=0), "every must be more than 0"),
    (hourly(every=float("nan")), "every must be more than 0"),
    (hourly(every="5m"), "every must be a number of seconds or a timedelta, not '5m' (str)"),
    (hourly(every=None, at=[]), "at takes 1 to 1000 dates, not 0"),
    (hourly(every=None, at=date(2024, 5, 1)), "at must be a datetime (a date with a time) or several"),
    (hourly(every=None, at=[5]), "at must be datetimes (dates with a time), not 5"),
    (hourly(every=None, at=5), "at must be a datetime (a date with a time) or several, not 5"),
    (
        hourly(every=None, at=datetime(1, 1, 1, tzinfo=UTC)),
        "at must be from 1970 to 2199, not 0001-01-01T00:00:00+00:00",
    ),
    (hourly(start=date.max), "start must be from 1970 to 2199, not 9999-12-31"),
    (hourly(start="2024-05-01"), "start must be a datetime with a time zone, not '2024-05-01' (str)"),
    (
        daily(start=date(2024, 5, 2), end=date(2024, 5, 1)),
        "is before start 2024-05-02T00:00:00+00:00: exchange them",
    ),
    (
        daily(cron="@yearly", start=date(2024, 5, 2), end=date(2024, 6, 1)),
        "it would never run: no tick lies between start",
    ),
    (
        hourly(every=None, at=utc("2024-05-01"), start=date(2024, 5, 2)),
        "and end (not given); move one of them",
    ),
    # how
    (daily(misfire="all"), "misfire must be one of 'skip', 'run_once', 'run_all', not 'all'"),
    (daily(misfire_limit=0), "misfire_limit must be from 1 to 1000, not 0"),
    (daily(misfire_limit=1.5), "misfire_limit must be a whole number from 1 to 1000, not 1.5 (float)"),
    (daily(misfire_grace_seconds=0.5), "misfire_grace_seconds must be from 1 to 3.16224e+07, not 0.5"),
    (daily(overlap="forbid"), "overlap must be one of 'allow', 'skip', 'queue', not 'forbid'"),
    (daily(jitter_seconds=-1), "jitter_seconds must be from 0 to 86400, not -1"),
    (daily(jitter_seconds="1"), "jitter_seconds must be a number from 0 to 86400, not '1' (str)"),
    (hourly(jitter_seconds=3600), "jitter_seconds 3600 must be less than every (3600)"),
    (daily(paused="no"), "paused must be true or false, not 'no'"),
]


@pytest.mark.parametrize(("build", "said"), REFUSED, ids=[said[:50] for _, said in REFUSED])
def test_a_bad_field_is_refused_with_schedule_field_and_value(
    build: Callable[[], ScheduledTask], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        build()
    assert str(caught.value).startswith("schedule ")


def test_a_function_that_no_worker_can_import_is_refused() -> None:
    with pytest.raises(UnknownFunctionError, match=r"report\(\) is defined in a __main__"):
        ScheduledTask("n", function="__main__:report", every=5)


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_name_is_kept_exactly_or_refused(name: str) -> None:
    try:
        schedule = ScheduledTask(name, payload=1, every=5)
    except ConfigError:
        assert not name or len(encode(name)) > MAX_NAME_BYTES
    else:
        built = schedule.build_task(utc("2024-05-01"))
        assert ScheduledTask.decode(schedule.encode()).name == name
        assert built.task_id == f"{name}@20240501T000000Z"
        assert len(encode(built.task_id)) <= MAX_PART_BYTES
