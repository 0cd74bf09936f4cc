"""What a scenario is: a workload, what is measured of it, and what that must be.

Each is defined once, for the tests (test_scenarios.py) and for the benchmark that prints them all as a table. It runs
on a `Ground`: the real scripts in simulated time, or something else to compare with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis

from fairque.core.config import QueueConfig
from tests.model.driver import Driver
from tests.model.simulation import Action, Arrival, Due, OnDone, Report, Staff, simulate
from tests.model.values import Limits, Permits, Scheduler

SLOTS = (1, 2, 5, 20)
MODES = ("round_robin", "worker_time")


class Ground(Protocol):
    """Where scenarios run."""

    def open(self, config: Mapping[str, Any]) -> tuple[Scheduler, Due | None]:
        """An empty queue under a configuration (what is left out is the default), and when it has something due."""
        ...


class Scripts:
    """The real scripts, on the server of `client`, which each scenario empties."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def open(self, config: Mapping[str, Any]) -> tuple[Scheduler, Due]:
        """As of `Ground`."""
        driver = Driver(self._client, QueueConfig.model_validate(dict(config)))
        parked = driver.engine.keys.parked

        def due() -> float | None:
            first = self._client.zrange(parked, 0, 0, withscores=True)
            return float(first[0][1]) if first else None

        return driver, due


@dataclass(frozen=True, slots=True)
class Result:
    """What one case came to: the figure in words, whether it is inside the limit, and what else is worth drawing.

    `limit`: of this case, where it depends on the number of slots.
    """

    figure: str
    passed: bool
    value: float
    limit: str = ""
    reports: Mapping[str, Report] = field(default_factory=dict)


Measure = Callable[[Ground, str, int], Result]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload in each of its modes, with each of its numbers of slots.

    `plain`: it needs no policies, so that any scheduler can run it.
    """

    name: str
    workload: str
    measured: str
    limit: str
    measure: Measure
    modes: Sequence[str]
    slots: Sequence[int]
    plain: bool

    def cases(self) -> Iterator[Case]:
        """All modes with all numbers of slots."""
        for mode in self.modes:
            for slots in self.slots:
                yield Case(self, mode, slots)


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario in one mode, with one number of slots."""

    scenario: Scenario
    mode: str
    slots: int

    def run(self, ground: Ground) -> Result:
        """Measure it."""
        return self.scenario.measure(ground, self.mode, self.slots)

    def __str__(self) -> str:
        return f"{self.scenario.name}-{self.mode}-{self.slots}"


ENTERED: dict[str, list[Scenario]] = defaultdict(list)
"""Those of each module."""


def scenario(
    name: str,
    workload: str,
    measured: str,
    limit: str,
    *,
    modes: Sequence[str] = MODES,
    slots: Sequence[int] = SLOTS,
    plain: bool = False,
) -> Callable[[Measure], Measure]:
    """Enter a function that measures one case among those of its module."""

    def enter(measure: Measure) -> Measure:
        entered = Scenario(name, workload, measured, limit, measure, modes, slots, plain)
        ENTERED[measure.__module__].append(entered)
        return measure

    return enter


def run(
    ground: Ground,
    mode: str,
    staff: int | Sequence[Staff],
    until: float,
    arrivals: Iterable[Arrival],
    *,
    on_done: OnDone | None = None,
    actions: Iterable[tuple[float, Action]] = (),
    **config: Any,
) -> Report:
    """One simulation; but for the mode and `config`, the configuration is the default one."""
    scheduler, due = ground.open({"fairness": mode, **config})
    return simulate(scheduler, staff, until, arrivals, on_done=on_done, actions=tuple(actions), due=due)


def policy(user: str, *, weight: float = 1, **limits: Any) -> Action:
    """A change of a user's policy as an action."""

    def change(scheduler: Scheduler, now: int) -> None:
        scheduler.set_policy(now, user, Limits(weight=round(weight * 1000), **limits))

    return change


def group(name: str) -> Action:
    """An organisation comes to be."""

    def change(scheduler: Scheduler, now: int) -> None:
        scheduler.set_group(now, name, Limits())

    return change


def limiter(name: str, permits: Permits) -> Action:
    """A named limiter gets its limits."""

    def change(scheduler: Scheduler, now: int) -> None:
        scheduler.set_limiter(now, name, permits)

    return change


def jain(shares: Iterable[float]) -> float:
    """Jain's index of fairness: 1 if all shares are equal."""
    values = list(shares)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def share_of_next(report: Report, user: str, since: float, tasks: int) -> float:
    """The user's part of the first `tasks` starts since a time."""
    users = [start.user for start in report.starts if start.at >= since][:tasks]
    assert len(users) == tasks, "the workload is too small for what is measured"
    return users.count(user) / tasks


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
