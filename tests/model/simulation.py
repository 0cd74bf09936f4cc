"""Workers, tasks and time without waiting: a discrete-event loop around the model or around the real scripts.

Workers work as the real ones do: what ended at one instant is settled, and the free slots are claimed, in one call;
a heartbeat comes three times a lease; who has a free slot calls again when something is due. Times are seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from tests.model.values import SECOND, Job, Outcome, Scheduler

HEARTBEAT = 5.0
"""A third of the default lease."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """`tasks` tasks of a user at a time, each of which runs for `seconds` and costs `cost`."""

    at: float
    user: str
    seconds: float = 1.0
    tasks: int = 1
    function: str = "f"
    priority: int = 3
    cost: float = 1.0
    limiter: str = ""


@dataclass(frozen=True, slots=True)
class Staff:
    """One worker process of a worker entry. From `dies` on it is silent, and what it holds never ends."""

    slots: int
    entry: str = ""
    dies: float = math.inf


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a task: when, whose, how long it had waited, how long it will run, its cost, and which worker (from
    0) has it."""

    at: float
    user: str
    waited: float
    seconds: float
    cost: float
    worker: int = 0
    limiter: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All starts in their order."""

    starts: list[Start]
    until: float

    def count(self, since: float = 0.0, before: float | None = None) -> Counter[str]:
        """Starts of each user in a span of time."""
        end = self.until if before is None else before
        return Counter(start.user for start in self.starts if since <= start.at < end)

    def seconds(self, since: float = 0.0, before: float | None = None) -> dict[str, float]:
        """Worker-seconds that each user got within a span of time."""
        end = self.until if before is None else before
        got: dict[str, float] = defaultdict(float)
        for start in self.starts:
            got[start.user] += max(0.0, min(start.at + start.seconds, end) - max(start.at, since))
        return got

    def waits(self, user: str) -> list[float]:
        """How long each task of a user that has started had waited."""
        return [start.waited for start in self.starts if start.user == user]

    def most_at_once(self, chosen: Callable[[Start], bool]) -> int:
        """The most of the chosen tasks that ran at one time."""
        turns: list[tuple[float, int]] = []
        for start in filter(chosen, self.starts):
            # Who ends at an instant has left before others start.
            turns += [(start.at, 1), (round(start.at + start.seconds, 6), -1)]
        running = most = 0
        for _, change in sorted(turns):
            running += change
            most = max(most, running)
        return most


class End(NamedTuple):
    """A task ends on a worker, unless that one has died."""

    worker: int
    task_id: str


class Beat(NamedTuple):
    """The heartbeat of a worker."""

    worker: int


class Wake(NamedTuple):
    """Something is due; who has a free slot looks."""


OnDone = Callable[[str, float], Iterable[Arrival]]
"""What is pushed when a task of that user ends."""
Action = Callable[[Scheduler, int], None]
"""Something done to the scheduler, at a time in µs."""
Due = Callable[[], float | None]
"""When the scheduler has something for who comes then (µs), if that is known."""


@dataclass(slots=True)
class Simulation:
    """One run of a scheduler with its workers, up to `until` seconds."""

    scheduler: Scheduler
    staff: Sequence[Staff]
    until: float
    on_done: OnDone | None = None
    due: Due | None = None
    _events: list[tuple[float, int, Arrival | Action | End | Beat | Wake]] = field(default_factory=list)
    _serial: count[int] = field(default_factory=count)
    _names: count[int] = field(default_factory=count)
    _arrivals: dict[str, Arrival] = field(default_factory=dict)
    _numbers: list[int] = field(default_factory=list)
    _running: list[set[str]] = field(default_factory=list)
    _starts: list[Start] = field(default_factory=list)

    def at(self, when: float, what: Arrival | Action | End | Beat | Wake) -> None:
        """Plan something."""
        heapq.heappush(self._events, (when, next(self._serial), what))

    def run(self) -> Report:
        """Let it all happen."""
        for worker, one in enumerate(self.staff):
            self._numbers.append(self.scheduler.join(0, one.slots, one.entry))
            self._running.append(set())
            self.at(HEARTBEAT, Beat(worker))
        while self._events and self._events[0][0] < self.until:
            self._instant()
        return Report(self._starts, self.until)

    def _instant(self) -> None:
        now = self._events[0][0]
        ended: dict[int, list[str]] = defaultdict(list)
        beats: set[int] = set()
        arrivals: deque[Arrival] = deque()
        while self._events and self._events[0][0] == now:
            what = heapq.heappop(self._events)[2]
            match what:
                case Arrival():
                    arrivals.append(what)
                case End(worker, task_id) if now < self.staff[worker].dies:
                    ended[worker].append(task_id)
                    arrivals.extend(self._ended(task_id, now))
                case Beat(worker) if now < self.staff[worker].dies:
                    beats.add(worker)
                    self.at(now + HEARTBEAT, what)
                case End() | Beat() | Wake():
                    pass
                case action:
                    action(self.scheduler, _micros(now))
        if jobs := [job for arrival in arrivals for job in self._jobs(arrival)]:
            self.scheduler.push(_micros(now), jobs)
        free = 0
        for worker, one in enumerate(self.staff):
            if now < one.dies:
                free += self._exchange(now, worker, ended[worker], worker in beats)
        if free and self.due is not None and (due := self.due()) is not None:
            self.at(max(now + 1e-6, math.ceil(due) / SECOND), Wake())

    def _ended(self, task_id: str, now: float) -> Iterable[Arrival]:
        return self.on_done(self._arrivals[task_id].user, now) if self.on_done else ()

    def _exchange(self, now: float, worker: int, ended: Sequence[str], beat: bool) -> int:
        """One worker's call, if it has a reason to; returns how many of its slots stay free."""
        running = self._running[worker]
        running.difference_update(ended)
        free = self.staff[worker].slots - len(running)
        if not (ended or beat or free):
            return 0
        outcomes = [Outcome(task_id, "finish", self._arrivals[task_id].seconds) for task_id in ended]
        number = self._numbers[worker]
        claimed = self.scheduler.exchange(_micros(now), number, outcomes, free, beat=beat).claimed
        for claim in claimed:
            arrival = self._arrivals[claim.task_id]
            running.add(claim.task_id)
            self._starts.append(
                Start(
                    now, claim.user, now - arrival.at, arrival.seconds, arrival.cost, worker, arrival.limiter
                )
            )
            self.at(round(now + arrival.seconds, 6), End(worker, claim.task_id))
        return free - len(claimed)

    def _jobs(self, arrival: Arrival) -> list[Job]:
        jobs: list[Job] = []
        for _ in range(arrival.tasks):
            job = Job(
                f"t{next(self._names)}",
                arrival.user,
                arrival.function,
                arrival.priority,
                round(arrival.cost * 1000),
                limiter=arrival.limiter,
            )
            self._arrivals[job.task_id] = arrival
            jobs.append(job)
        return jobs


def _micros(seconds: float) -> int:
    return round(seconds * SECOND)


def simulate(
    scheduler: Scheduler,
    staff: int | Sequence[Staff],
    until: float,
    arrivals: Iterable[Arrival] = (),
    *,
    on_done: OnDone | None = None,
    actions: Sequence[tuple[float, Action]] = (),
    due: Due | None = None,
) -> Report:
    """Run the workers (a number: one worker with so many slots) for `until` seconds and report every start.

    `actions`: what is done to the scheduler when, before anything else at that time that was planned later. `due`:
    when something comes that nobody brings, asked when slots stay free.
    """
    workers = [Staff(staff)] if isinstance(staff, int) else staff
    simulation = Simulation(scheduler, workers, until, on_done, due)
    for when, action in actions:
        simulation.at(when, action)
    for arrival in arrivals:
        simulation.at(arrival.at, arrival)
    return simulation.run()
