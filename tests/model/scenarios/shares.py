"""Tenants of equal weight share alike, whatever they do: trickle, change names, keep long tasks, idle, are held
back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import count

from tests.model.scenarios.base import Ground, Result, policy, run, scenario, share_of_next
from tests.model.simulation import Action, Arrival, Report


def _fair_for_backlog(slots: int, others: int = 5) -> float:
    """Of 600 starts, what max-min fairness gives one tenant with a backlog beside `others` of one task each."""
    return 600 * max(1 / (others + 1), (slots - others) / slots)


def _beside_a_backlog(
    ground: Ground, mode: str, slots: int, first: Iterable[str], following: Callable[[str], str]
) -> Result:
    """What a backlog gets of 600 starts beside five tasks, each of which is followed by another one when it ends."""
    arrivals = [Arrival(0, "backlog", tasks=700), *(Arrival(0, user) for user in first)]
    report = run(
        ground, mode, slots, 600 / slots, arrivals,
        on_done=lambda user, now: [] if user == "backlog" else [Arrival(now, following(user))],
    )  # fmt: skip
    got, fair = report.count()["backlog"], _fair_for_backlog(slots)
    assert len(report.starts) == 600, "a slot was idle"
    share = got / fair
    return Result(f"{got} of 600", share >= 0.95, share, f">= {0.95 * fair:.0f}", {"": report})


@scenario(
    "trickle", "trickle: a backlog against five tenants that each keep one task",
    "what the backlog gets of 600 starts", ">= 0.95 of fair", plain=True,
)  # fmt: skip
def trickle(ground: Ground, mode: str, slots: int) -> Result:
    """Who always comes back with one task is no newcomer each time."""
    return _beside_a_backlog(
        ground, mode, slots, (f"trickle{i}" for i in range(1, 6)), following=lambda user: user
    )


@scenario(
    "minting", "key minting: a backlog against a fresh tenant for each task, five at a time",
    "what the backlog gets of 600 starts", ">= 0.95 of fair", plain=True,
)  # fmt: skip
def minting(ground: Ground, mode: str, slots: int) -> Result:
    """Fresh names gain nothing."""
    fresh = (f"fresh{number}" for number in count(1))
    first = [next(fresh) for _ in range(5)]
    return _beside_a_backlog(ground, mode, slots, first, following=lambda user: next(fresh))


@scenario(
    "lone-long-task", "A keeps one long task, B has a backlog, C comes at 100 s",
    "C's part of what B and C start in the next 20 s", "45% to 55%", slots=(2, 5, 10, 20), plain=True,
)  # fmt: skip
def lone_long_task(ground: Ground, mode: str, slots: int) -> Result:
    """A tenant that runs, but wants nothing more, does not hold virtual time back."""
    arrivals = [
        Arrival(0, "A", seconds=1000, function="long"),
        Arrival(0, "B", tasks=120 * slots),
        Arrival(100, "C", tasks=20 * slots),
    ]
    report = run(ground, mode, slots, 120, arrivals)
    got = report.count(since=100)
    share = got["C"] / (got["B"] + got["C"])
    return Result(f"{share:.1%}", 0.45 <= share <= 0.55, share, reports={"": report})


@scenario(
    "equal-backlogs", "three tenants with equal backlogs",
    "the order of 300 starts", "A, B, C, A, B, C ...", modes=("round_robin",), plain=True,
)  # fmt: skip
def equal_backlogs(ground: Ground, mode: str, slots: int) -> Result:
    """With equal costs and weights it is round robin."""
    report = run(ground, mode, slots, 300 / slots, [Arrival(0, user, tasks=100) for user in "ABC"])
    starts = "".join(start.user for start in report.starts)
    same = next(
        (n for n, pair in enumerate(zip(starts, "ABC" * 100, strict=False)) if len(set(pair)) > 1), 300
    )
    return Result(f"{same} in turn", starts == "ABC" * 100, same, reports={"": report})


def _long_against_short(ground: Ground, mode: str, slots: int) -> tuple[float, Report]:
    """The part of the worker-seconds that a tenant with tasks of 34 s gets beside one with tasks of 1 s."""
    until = max(600, 6000 / slots)
    arrivals = [Arrival(0, "long", seconds=34, tasks=400), Arrival(0, "short", tasks=7000)]
    report = run(ground, mode, slots, until, arrivals)
    seconds = report.seconds()
    return seconds["long"] / sum(seconds.values()), report


_LONG = "tasks of 34 s against tasks of 1 s"
_WORKER_SECONDS = "worker-seconds of the long ones"


@scenario("long-tasks", _LONG, _WORKER_SECONDS, "97% (shown)", modes=("round_robin",), plain=True)
def long_tasks(ground: Ground, mode: str, slots: int) -> Result:
    """Equal numbers of starts: this is what `worker_time` is for."""
    share, report = _long_against_short(ground, mode, slots)
    return Result(f"{share:.1%}", 0.96 <= share <= 0.98, share, reports={"": report})


@scenario("long-tasks-in-seconds", _LONG, _WORKER_SECONDS, "48% to 52%", modes=("worker_time",), plain=True)
def long_tasks_in_seconds(ground: Ground, mode: str, slots: int) -> Result:
    """Equal worker-seconds."""
    share, report = _long_against_short(ground, mode, slots)
    return Result(f"{share:.1%}", 0.48 <= share <= 0.52, share, reports={"": report})


def _largest_lag(report: Report, one: str, other: str) -> float:
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


@scenario(
    "lag", "a tenth of the tasks 100 s, the others 1 s, against tasks of 1 s",
    "largest lag of service", "within the bound", modes=("worker_time",),
)  # fmt: skip
def lag(ground: Ground, mode: str, slots: int) -> Result:
    """Estimates are often wrong here; the bound has that in it."""
    dice = random.Random(11)
    mixed = [Arrival(0, "mixed", seconds=100 if dice.random() < 0.1 else 1) for _ in range(1000)]
    report = run(
        ground, mode, slots, max(500, 4000 / slots), [*mixed, Arrival(0, "even", tasks=6000)]
    )  # fmt: skip
    assert report.count()["mixed"] < 1000, "the workload is too small"
    assert report.count()["even"] < 6000, "the workload is too small"
    found, bound = _largest_lag(report, "mixed", "even"), (2 * slots + 1) * (100 + 1)
    return Result(f"{found:.0f} s", found <= bound, found, f"<= {bound} s", {"": report})


def _held_back(how: str, held: Action) -> None:
    """Enter the row of a tenant that is held back in some way."""

    @scenario(
        f"{how}-then-freed", f"a tenant that was {how} for 100 s, then freed",
        "its part of the next 1,000 starts", "45% to 55%",
    )  # fmt: skip
    def held_back(ground: Ground, mode: str, slots: int) -> Result:
        tasks = 100 * slots + 800
        arrivals = [Arrival(0, "x", tasks=tasks), Arrival(0, "y", tasks=tasks)]
        actions = [(0.0, held), (100.0, policy("x"))]
        report = run(ground, mode, slots, 101 + 1000 / slots, arrivals, actions=actions)
        share = share_of_next(report, "x", 100, 1000)
        return Result(f"{share:.1%}", 0.45 <= share <= 0.55, share, reports={"": report})


_held_back("capped", policy("x", cap=1))
_held_back("paused", policy("x", paused=True))
_held_back("parked", policy("x", rate=0.2))


@scenario(
    "idle", "idle for 100 s, then both busy", "its part of the next 1,200 starts", "48% to 52%", plain=True
)
def idle(ground: Ground, mode: str, slots: int) -> Result:
    """Idling earns no credit."""
    arrivals = [Arrival(0, "y", tasks=100 * slots + 800), Arrival(100, "x", tasks=800)]
    report = run(ground, mode, slots, 101 + 1200 / slots, arrivals)
    share = share_of_next(report, "x", 100, 1200)
    return Result(f"{share:.1%}", 0.48 <= share <= 0.52, share, reports={"": report})
