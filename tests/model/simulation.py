"""Workers, tasks and time without waiting: a discrete-event loop around the model or around the real scripts.

One worker process with many slots, as the real one works: what ended at one instant is settled, and the free slots
are claimed, in one call; a heartbeat comes three times a lease. Times are seconds.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

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


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a task: when, whose, how long it had waited, how long it will run, and its cost."""

    at: float
    user: str
    waited: float
    seconds: float
    cost: float


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


OnDone = Callable[[str, float], Iterable[Arrival]]
"""What is pushed when a task of that user ends."""
Action = Callable[[Scheduler, int], None]
"""Something done to the scheduler, at a time in µs."""


@dataclass(slots=True)
class Simulation:
    """One run of a scheduler with `slots`, up to `until` seconds."""

    scheduler: Scheduler
    slots: int
    until: float
    on_done: OnDone | None = None
    _events: list[tuple[float, int, Arrival | Action | str | None]] = field(default_factory=list)
    _serial: count[int] = field(default_factory=count)
    _names: count[int] = field(default_factory=count)
    _waiting: dict[str, Arrival] = field(default_factory=dict)
    _running: dict[str, tuple[str, float]] = field(default_factory=dict)
    _starts: list[Start] = field(default_factory=list)

    def at(self, when: float, what: Arrival | Action | str | None) -> None:
        """Plan an arrival, an action, the end of a task (its id), or a heartbeat (None)."""
        heapq.heappush(self._events, (when, next(self._serial), what))

    def run(self) -> Report:
        """Let it all happen."""
        worker = self.scheduler.join(0, self.slots)
        self.at(HEARTBEAT, None)
        while self._events and self._events[0][0] < self.until:
            self._instant(worker)
        return Report(self._starts, self.until)

    def _instant(self, worker: int) -> None:
        now = self._events[0][0]
        micros = round(now * SECOND)
        outcomes: list[Outcome] = []
        arrivals: deque[Arrival] = deque()
        beat = False
        while self._events and self._events[0][0] == now:
            what = heapq.heappop(self._events)[2]
            match what:
                case Arrival():
                    arrivals.append(what)
                case str():
                    user, seconds = self._running.pop(what)
                    outcomes.append(Outcome(what, "finish", seconds))
                    arrivals.extend(self.on_done(user, now) if self.on_done else ())
                case None:
                    beat = True
                    self.at(now + HEARTBEAT, None)
                case action:
                    action(self.scheduler, micros)
        if jobs := [job for arrival in arrivals for job in self._jobs(arrival)]:
            self.scheduler.push(micros, jobs)
        free = self.slots - len(self._running)
        for claim in self.scheduler.exchange(micros, worker, outcomes, free, beat=beat).claimed:
            arrival = self._waiting.pop(claim.task_id)
            self._running[claim.task_id] = claim.user, arrival.seconds
            self._starts.append(Start(now, claim.user, now - arrival.at, arrival.seconds, arrival.cost))
            self.at(round(now + arrival.seconds, 6), claim.task_id)

    def _jobs(self, arrival: Arrival) -> list[Job]:
        jobs: list[Job] = []
        for _ in range(arrival.tasks):
            job = Job(
                f"t{next(self._names)}",
                arrival.user,
                arrival.function,
                arrival.priority,
                round(arrival.cost * 1000),
            )
            self._waiting[job.task_id] = arrival
            jobs.append(job)
        return jobs


def simulate(
    scheduler: Scheduler,
    slots: int,
    until: float,
    arrivals: Iterable[Arrival] = (),
    *,
    on_done: OnDone | None = None,
    actions: Sequence[tuple[float, Action]] = (),
) -> Report:
    """Run `slots` slots for `until` seconds and report every start.

    `actions`: what is done to the scheduler when, before anything else at that time that was planned later.
    """
    simulation = Simulation(scheduler, slots, until, on_done)
    for when, action in actions:
        simulation.at(when, action)
    for arrival in arrivals:
        simulation.at(arrival.at, arrival)
    return simulation.run()
