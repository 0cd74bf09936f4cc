"""What the scheduler promises, on the real scripts in simulated time, with the default settings.

Each row of the table in docs/fairness.md is one test, for 1, 2, 5 and 20 slots where it applies. Every figure is
printed (`pytest -s`) beside what it must be.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

import pytest
import redis

from fairque.core.config import QueueConfig
from tests.model.driver import Driver
from tests.model.simulation import Action, Arrival, OnDone, Report, simulate
from tests.model.values import Job, Outcome, Scheduler
from tests.support.servers import ServerProcess

SLOTS = (1, 2, 5, 20)
MODES = ("round_robin", "worker_time")

every_slots = pytest.mark.parametrize("slots", SLOTS)
both_modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[redis.Redis]:
    """A client of a server that this module has for itself while it runs."""
    client = server.client()
    yield client
    client.flushall()


def run(
    client: redis.Redis,
    mode: str,
    slots: int,
    until: float,
    arrivals: Iterable[Arrival],
    *,
    on_done: OnDone | None = None,
    actions: Iterable[tuple[float, Action]] = (),
) -> Report:
    """One simulation on the real scripts; but for the mode, the configuration is the default one."""
    config = QueueConfig.model_validate({"fairness": mode})
    return simulate(Driver(client, config), slots, until, arrivals, on_done=on_done, actions=tuple(actions))


def show(row: str, mode: str, slots: int, figure: str) -> None:
    print(f"\n{row}, {mode}, {slots} slots: {figure}", end="")


def jain(shares: Iterable[float]) -> float:
    """Jain's index of fairness: 1 if all shares are equal."""
    values = list(shares)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def policy(user: str, *, weight: float = 1, cap: int = 0, paused: bool = False) -> Action:
    """A change of policy as an action."""

    def change(scheduler: Scheduler, now: int) -> None:
        scheduler.set_policy(now, user, weight=round(weight * 1000), cap=cap, paused=paused)

    return change


def fair_for_backlog(slots: int, others: int = 5) -> float:
    """Of 600 starts, what max-min fairness gives one tenant with a backlog beside `others` of one task each."""
    return 600 * max(1 / (others + 1), (slots - others) / slots)


@every_slots
@both_modes
def test_trickle_does_not_starve_a_backlog(client: redis.Redis, mode: str, slots: int) -> None:
    arrivals = [Arrival(0, "B", tasks=700), *(Arrival(0, f"t{i}") for i in range(5))]
    report = run(
        client, mode, slots, 600 / slots, arrivals,
        on_done=lambda user, now: [Arrival(now, user)] if user != "B" else [],
    )  # fmt: skip
    got, total, fair = report.count()["B"], len(report.starts), fair_for_backlog(slots)
    show("trickle", mode, slots, f"{got} of {total}, fair {fair:.0f}")
    assert total == 600
    assert got >= 0.95 * fair


@every_slots
@both_modes
def test_fresh_names_gain_nothing(client: redis.Redis, mode: str, slots: int) -> None:
    fresh = count()
    arrivals = [Arrival(0, "B", tasks=700), *(Arrival(0, f"f{next(fresh)}") for _ in range(5))]
    report = run(
        client, mode, slots, 600 / slots, arrivals,
        on_done=lambda user, now: [Arrival(now, f"f{next(fresh)}")] if user != "B" else [],
    )  # fmt: skip
    got, total, fair = report.count()["B"], len(report.starts), fair_for_backlog(slots)
    show("key minting", mode, slots, f"{got} of {total}, fair {fair:.0f}")
    assert total == 600
    assert got >= 0.95 * fair


@every_slots
@both_modes
def test_long_tasks_against_short_ones(client: redis.Redis, mode: str, slots: int) -> None:
    until = max(600, 6000 / slots)
    arrivals = [Arrival(0, "long", seconds=34, tasks=400), Arrival(0, "short", tasks=7000)]
    report = run(client, mode, slots, until, arrivals)
    seconds = report.seconds()
    share = seconds["long"] / sum(seconds.values())
    show("long against short", mode, slots, f"{share:.1%} of the worker-seconds for the long ones")
    if mode == "worker_time":
        assert 0.48 <= share <= 0.52
    else:
        # Equal numbers of starts: this is what worker_time is for.
        assert 0.96 <= share <= 0.98


@pytest.mark.parametrize("slots", [2, 5, 10, 20])
@both_modes
def test_a_lone_long_task_does_not_hold_virtual_time_back(client: redis.Redis, mode: str, slots: int) -> None:
    arrivals = [
        Arrival(0, "A", seconds=1000, function="long"),
        Arrival(0, "B", tasks=120 * slots),
        Arrival(100, "C", tasks=20 * slots),
    ]
    report = run(client, mode, slots, 120, arrivals)
    got = report.count(since=100)
    share = got["C"] / (got["B"] + got["C"])
    show("A keeps one long task", mode, slots, f"C {got['C']}, B {got['B']}: {share:.1%}")
    assert 0.45 <= share <= 0.55


def share_of_next(report: Report, user: str, since: float, tasks: int) -> float:
    """The user's part of the first `tasks` starts since a time."""
    users = [start.user for start in report.starts if start.at >= since][:tasks]
    assert len(users) == tasks
    return users.count(user) / tasks


@every_slots
@both_modes
def test_idling_earns_no_credit(client: redis.Redis, mode: str, slots: int) -> None:
    tasks = 100 * slots + 800
    arrivals = [Arrival(0, "y", tasks=tasks), Arrival(100, "x", tasks=800)]
    report = run(client, mode, slots, 101 + 1200 / slots, arrivals)
    share = share_of_next(report, "x", 100, 1200)
    show("idle 100 s, then both busy", mode, slots, f"{share:.1%}")
    assert 0.48 <= share <= 0.52


@every_slots
@both_modes
@pytest.mark.parametrize("how", ["capped", "paused"])
def test_being_held_back_earns_no_credit(client: redis.Redis, mode: str, slots: int, how: str) -> None:
    tasks = 100 * slots + 800
    arrivals = [Arrival(0, "x", tasks=tasks), Arrival(0, "y", tasks=tasks)]
    held = policy("x", cap=1) if how == "capped" else policy("x", paused=True)
    report = run(client, mode, slots, 101 + 1000 / slots, arrivals, actions=[(0, held), (100, policy("x"))])
    share = share_of_next(report, "x", 100, 1000)
    show(f"{how} for 100 s, then freed", mode, slots, f"{share:.1%}")
    assert 0.45 <= share <= 0.55


def service(report: Report, mode: str, since: float, before: float) -> dict[str, float]:
    """What each user got in a span of time: starts, or the run time of what was started then."""
    got: dict[str, float] = defaultdict(float)
    for start in report.starts:
        if since <= start.at < before:
            got[start.user] += start.cost if mode == "round_robin" else start.seconds
    return got


def weighted(
    client: redis.Redis,
    mode: str,
    slots: int,
    half: float,
    first: Mapping[str, float],
    then: Mapping[str, float],
    arrivals: Iterable[Arrival],
) -> float:
    """Jain's index over service ÷ weight under weights that change half-way, added up over both halves."""
    actions = [(0.0, policy(user, weight=weight)) for user, weight in first.items()]
    actions += [(half, policy(user, weight=weight)) for user, weight in then.items()]
    report = run(client, mode, slots, 2 * half, arrivals, actions=actions)
    before, after = service(report, mode, 0, half), service(report, mode, half, 2 * half)
    return jain(before[user] / first[user] + after[user] / then[user] for user in first)


@every_slots
@both_modes
def test_weights_divide_the_service(client: redis.Redis, mode: str, slots: int) -> None:
    first, then = {"a": 1, "b": 2, "c": 5}, {"a": 5, "b": 1, "c": 2}
    index = weighted(
        client, mode, slots, 400 / slots, first, then, [Arrival(0, user, tasks=800) for user in first]
    )  # fmt: skip
    show("weights 1, 2, 5, changed half-way", mode, slots, f"Jain {index:.4f}")
    assert index >= 0.99


@every_slots
@both_modes
def test_extreme_weights_divide_the_service(client: redis.Redis, mode: str, slots: int) -> None:
    first = {"small": 1, "b": 2, "c": 5, "rises": 0.01, "falls": 100}
    then = {"small": 0.01, "b": 5, "c": 2, "rises": 100, "falls": 1}
    half = round(10 * sum(first.values()) / slots)
    # At weight 0.01 a tenth of a task of 1 s is due in each half, so it takes small tasks to show that it is given.
    # (Who has just been served 1 s at weight 100 and falls to 0.01 owes that second: it waits for 100 s of others.)
    arrivals = [Arrival(0, "small", seconds=0.01, cost=0.01, function="small", tasks=1200)]
    arrivals += [Arrival(0, user, tasks=200) for user in ("b", "c")]
    arrivals += [Arrival(0, "falls", tasks=1200)]
    arrivals += [Arrival(0, "rises", seconds=0.01, cost=0.01, function="small", tasks=100)]
    # Not behind what was meant for the other weight.
    arrivals += [Arrival(half, "rises", tasks=1200, priority=6)]
    index = weighted(client, mode, slots, half, first, then, arrivals)
    show("weights 0.01 to 100, changed half-way", mode, slots, f"Jain {index:.4f}")
    assert index >= 0.99


@every_slots
@both_modes
def test_a_newcomer_gets_the_first_free_slot(client: redis.Redis, mode: str, slots: int) -> None:
    dice = random.Random(7)
    # Unequal tasks, so that slots get free one by one.
    heavies = [
        Arrival(0, f"h{i}", seconds=round(dice.uniform(0.5, 1.5), 3)) for i in range(200) for _ in range(20)
    ]
    # By then each of the 200 has been served, so that none of them is new itself.
    comes = 1000.3 / slots
    report = run(client, mode, slots, 1200 / slots, [*heavies, Arrival(comes, "new")])
    free = min(start.at for start in report.starts if start.at >= comes) - comes
    (wait,) = report.waits("new")
    show(
        "newcomer among 200 backlogs", mode, slots, f"waits {wait:.3f} s, first free slot after {free:.3f} s"
    )
    assert wait == pytest.approx(free)


@every_slots
def test_equal_backlogs_alternate(client: redis.Redis, slots: int) -> None:
    report = run(client, "round_robin", slots, 300 / slots, [Arrival(0, user, tasks=100) for user in "ABC"])
    starts = "".join(start.user for start in report.starts)
    show("equal backlogs", "round_robin", slots, f"starts {starts[:12]}...")
    assert starts == "ABC" * 100


@every_slots
def test_batches_decide_one_task_at_a_time(client: redis.Redis, slots: int) -> None:
    driver = Driver(client, QueueConfig())
    worker = driver.join(0, slots)
    driver.push(0, [Job(f"{user}{i}", user) for user in "ABC" for i in range(100)])
    starts = ""
    outcomes: list[Outcome] = []
    for now in range(1, 44):
        claimed = driver.exchange(now * 1_000_000, worker, outcomes, want=7).claimed
        starts += "".join(claim.user for claim in claimed)
        outcomes = [Outcome(claim.task_id, "finish", 1.0) for claim in claimed]
    show("equal backlogs in batches of 7", "round_robin", slots, f"starts {starts[:12]}...")
    assert starts == "ABC" * 100


LIGHT = [f"light{i}" for i in range(20)]


def light_waits(
    client: redis.Redis, mode: str, slots: int, at: float, noise: int, before: Iterable[Arrival] = ()
) -> float:
    """The p99 wait of 20 light tenants with 10 tasks each, that come 10 ms after `noise` tasks of a noisy one."""
    arrivals = [*before, Arrival(at, "noisy", seconds=0.001, tasks=noise)]
    arrivals += [Arrival(at + 0.01, user, seconds=0.001, tasks=10) for user in LIGHT]
    report = run(client, mode, slots, at + 2, arrivals)
    waits = sorted(start.waited for start in report.starts if start.user in LIGHT and start.at >= at)
    assert len(waits) == 200
    return waits[197]


@every_slots
@both_modes
def test_a_noisy_neighbour_is_not_heard(client: redis.Redis, mode: str, slots: int) -> None:
    # worker_time knows what such tasks take: each tenant has been measured before.
    known = [Arrival(0, user, seconds=0.001, tasks=10) for user in ["noisy", *LIGHT]]
    p99 = light_waits(client, mode, slots, 10, 5000, known if mode == "worker_time" else [])
    limit = 2 * 200 * 0.001 / slots
    show("noisy neighbour", mode, slots, f"light tenants' p99 wait {p99:.4f} s, limit {limit:.4f} s")
    assert p99 <= limit


@every_slots
def test_a_noisy_neighbour_with_an_unknown_function(client: redis.Redis, slots: int) -> None:
    """Tasks of a function that was never seen are taken to cost 1 s: the bound of a newcomer's wait has that in it."""
    p99 = light_waits(client, "worker_time", slots, 0, 2500)
    bound = 20 * (1 + 1) / slots
    show(
        "noisy neighbour, unknown function",
        "worker_time",
        slots,
        f"p99 wait {p99:.4f} s, bound {bound:.1f} s",
    )
    assert p99 <= bound


def largest_lag(report: Report, one: str, other: str) -> float:
    """The most that the difference of service of two users changed within any interval, in worker-seconds."""
    turns: list[tuple[float, int]] = []
    for start in report.starts:
        sign = 1 if start.user == one else -1 if start.user == other else 0
        turns += [(start.at, sign), (min(start.at + start.seconds, report.until), -sign)]
    lag = rate = before = lowest = highest = 0.0
    for at, change in sorted(turns):
        lag += rate * (at - before)
        before, rate = at, rate + change
        lowest, highest = min(lowest, lag), max(highest, lag)
    return highest - lowest


@every_slots
def test_lag_stays_within_the_published_bound(client: redis.Redis, slots: int) -> None:
    dice = random.Random(11)
    mixed = [Arrival(0, "mixed", seconds=100 if dice.random() < 0.1 else 1) for _ in range(1000)]
    until = max(500, 4000 / slots)
    report = run(client, "worker_time", slots, until, [*mixed, Arrival(0, "even", tasks=6000)])
    assert report.count()["mixed"] < 1000
    assert report.count()["even"] < 6000
    lag, bound = largest_lag(report, "mixed", "even"), (2 * slots + 1) * (100 + 1)
    show("0.1 of 100 s + 0.9 of 1 s against 1 s", "worker_time", slots, f"lag {lag:.0f} s, bound {bound} s")
    assert lag <= bound
