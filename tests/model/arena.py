"""Random workloads: steps of a story, and what carries them out on the model, and if wanted on the scripts as well.

Workers work as real ones do: they settle what ended and claim what is free, at each instant at which something ends or
comes due, and beat. Times are seconds, on the clock of the arena.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.model.bounds import Watched
from tests.model.driver import Driver
from tests.model.tenants import Tenant
from tests.model.values import CRITICAL, SECOND, Exchange, Job, Limits, Outcome, Permits

MAX_WORKERS = 4


@dataclass(frozen=True)
class Push:
    """`copies` equal tasks of a user."""

    user: str
    copies: int = 1
    seconds: float = 1.0
    cost: int = 1000
    function: str = "f"
    critical: bool = False
    limiter: str = ""


@dataclass(frozen=True)
class Mint:
    """One task for each of so many names that nobody has seen."""

    names: int
    seconds: float = 1.0
    cost: int = 1000


@dataclass(frozen=True)
class Work:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Limit:
    """A user's policy."""

    user: str
    limits: Limits


@dataclass(frozen=True)
class LimitGroup:
    """An organisation's policy."""

    group: str
    limits: Limits


@dataclass(frozen=True)
class LimitLimiter:
    """A limiter's."""

    limiter: str
    permits: Permits


@dataclass(frozen=True)
class Release:
    """A worker gives back the newest tasks that it holds, as if they had not begun."""

    worker: int
    tasks: int


@dataclass(frozen=True)
class Fail:
    """Tasks of a worker fail, and are retried at once or after a delay (µs)."""

    worker: int
    tasks: int
    delay: int


@dataclass(frozen=True)
class Crash:
    """A worker is silent from now on."""

    worker: int


@dataclass(frozen=True)
class Leave:
    """A worker leaves with what it holds, which had begun or not."""

    worker: int
    begun: bool


@dataclass(frozen=True)
class Join:
    """One more worker."""

    slots: int


@dataclass(frozen=True)
class Pause:
    """The whole queue."""

    paused: bool


Step = Push | Mint | Work | Limit | LimitGroup | LimitLimiter | Release | Fail | Crash | Leave | Join | Pause


@dataclass
class Worker:
    """A worker process. `ends`: when what it runs ends, by task id."""

    number: int
    slots: int
    beat: float
    ends: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    silent: bool = False


@dataclass
class Arena:
    """One queue with its workers. With `scripts`, those must answer as the model does."""

    model: Watched
    scripts: Driver | None = None
    now: float = 1.0
    workers: list[Worker] = field(default_factory=list)
    tasks: dict[str, Push | Mint] = field(default_factory=dict)
    planned: dict[int, float] = field(default_factory=dict)
    _names: count[int] = field(default_factory=count)
    _minted: count[int] = field(default_factory=count)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The same call of both sides; the model's answer."""
        micros = round(self.now * SECOND)
        answer = getattr(self.model, name)(micros, *arguments, **options)
        if self.scripts is not None:
            got = getattr(self.scripts, name)(micros, *arguments, **options)
            assert got == answer, f"{name}: the scripts answer {got}, the model {answer}"
        return answer

    def take(self, step: Step) -> None:
        """Carry one step out."""
        match step:
            case Push(user, copies):
                self._push(step, [user] * copies)
            case Mint(names):
                self._push(step, [f"minted{next(self._minted)}" for _ in range(names)])
            case Work(seconds):
                self._work(self.now + seconds)
            case Limit(user, limits):
                self.call("set_policy", user, limits)
            case LimitGroup(group, limits):
                self.call("set_group", group, limits)
            case LimitLimiter(limiter, permits):
                self.call("set_limiter", limiter, permits)
            case Pause(paused):
                self.call("pause", paused)
            case Join(slots):
                if len(self.workers) < MAX_WORKERS:
                    self.join(slots)
            case Release() | Fail() | Crash() | Leave():
                if alive := [worker for worker in self.workers if not worker.silent]:
                    self._trouble(step, alive[step.worker % len(alive)])

    def join(self, slots: int) -> None:
        """A worker comes."""
        number = self.call("join", slots)
        self.workers.append(Worker(number, slots, self.now + self.model.lease / 3 / SECOND))

    def _trouble(self, step: Release | Fail | Crash | Leave, worker: Worker) -> None:
        match step:
            case Crash():
                worker.silent = True
            case Leave(_, begun):
                self.call("leave", worker.number, begun)
                self.workers.remove(worker)
            case Release(_, tasks):
                newest = list(worker.ends)[::-1][:tasks]
                self._exchange(worker, [Outcome(task_id, "release") for task_id in newest])
            case Fail(_, tasks, delay):
                oldest = list(worker.ends)[:tasks]
                self._exchange(
                    worker,
                    [Outcome(t, "fail", self.now - worker.begun[t], delay) for t in oldest],
                )

    def _push(self, step: Push | Mint, users: Sequence[str]) -> None:
        jobs: list[Job] = []
        for user in users:
            task_id = f"t{next(self._names):05}"
            self.tasks[task_id] = step
            if isinstance(step, Push):
                priority = CRITICAL if step.critical else 3
                jobs.append(Job(task_id, user, step.function, priority, step.cost, limiter=step.limiter))
            else:
                jobs.append(Job(task_id, user, cost=step.cost))
        self.call("push", jobs)
        self._look()

    def _look(self) -> None:
        """Who has a free slot is woken."""
        for worker in list(self.workers):
            if not worker.silent and len(worker.ends) < worker.slots:
                self._exchange(worker)

    def _work(self, until: float) -> None:
        """Let time pass, one instant after the other."""
        while True:
            self.workers = [w for w in self.workers if w.number in self.model.workers]
            alive = [worker for worker in self.workers if not worker.silent]
            times = [time for worker in alive for time in (worker.beat, *worker.ends.values())]
            if any(len(worker.ends) < worker.slots for worker in alive) and (due := self.due()) < math.inf:
                times.append(max(due, self.now + 1e-6))
            at = min(times, default=until)
            if at >= until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, at)
            for worker in alive:
                ended = [task_id for task_id, end in worker.ends.items() if end <= at]
                beat = worker.beat <= at
                if beat:
                    worker.beat = at + self.model.lease / 3 / SECOND
                if worker.number not in self.model.workers:
                    continue
                if ended or beat or len(worker.ends) < worker.slots:
                    seconds = [Outcome(t, "finish", worker.ends[t] - worker.begun[t]) for t in ended]
                    self._exchange(worker, seconds, beat=beat)

    def due(self) -> float:
        """When the next thing comes that nobody needs to bring."""
        model = self.model
        parked = [t.parked for t in (*model.tenants.values(), *model.groups.values()) if t.parked is not None]
        parked += [limiter.parked for limiter in model.limiters.values() if limiter.parked is not None]
        scheduled = [task.entered for task in model.scheduled.values()]
        return min((*parked, *scheduled), default=math.inf) / SECOND

    def _exchange(self, worker: Worker, outcomes: Sequence[Outcome] = (), *, beat: bool = False) -> None:
        for outcome in outcomes:
            del worker.ends[outcome.task_id]
        while True:
            want = worker.slots - len(worker.ends)
            answer: Exchange = self.call("exchange", worker.number, outcomes, want, beat=beat)
            for claim in answer.claimed:
                seconds = self.tasks[claim.task_id].seconds
                self.planned[self.model.claim_of(claim.task_id)] = seconds
                worker.begun[claim.task_id] = self.now
                worker.ends[claim.task_id] = round(self.now + seconds, 6)
            outcomes, beat = (), False
            if len(answer.claimed) == want or self.model.paused:
                return
            # What is due already is said to be, and the worker calls again.
            if self.due() * SECOND > self.model.last:
                break
            self.now += 1e-6
        self._assert_work_conserving()

    def _assert_work_conserving(self) -> None:
        """A slot stays free only if nobody can use it."""
        for t in self.model.tenants.values():
            assert not (self._has_task(t) and all(map(self._may_start, t.chain()))), (
                f"{t.user} could start a task, but a slot is free"
            )

    def _has_task(self, t: Tenant) -> bool:
        names = [name for name, queue in t.limited.items() if queue]
        return bool(t.critical or t.normal or any(self._is_open(name) for name in names))

    def _is_open(self, name: str) -> bool:
        limiter = self.model.limiter(name)
        has_slot = not limiter.cap or limiter.running < limiter.cap
        return has_slot and limiter.bucket.earliest <= self.model.last

    def _may_start(self, t: Tenant) -> bool:
        limits, model = t.limits, self.model
        # max_user_share alone keeps slots free on purpose, but none for who has no task running.
        share = (
            max(1, math.ceil(model.user_share * model.slots() - 1e-9)) if model.user_share < 1 else math.inf
        )
        within = (not limits.cap or t.running < limits.cap) and t.running < share
        return within and not limits.paused and t.bucket.earliest <= model.last
