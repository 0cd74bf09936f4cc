"""The fair scheduler in pure Python: what lib/clock.lua and lib/tenants.lua must decide.

Start-time fair queueing over tenants. Each has a tag, its place in virtual time; the next task is that of the ready
tenant with the smallest tag, and the claim moves the tag on by charge / weight. Virtual time only places those who
enter: it moves by the service given to tenants that compete, over their weight. Nothing here is incremental: sets and
sums are looked up afresh each time, so that whatever the scripts keep up to date is checked against its definition.
Only the order of floating point operations is the scripts' own, so that both can be compared for equality.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from fairque.core.config import QueueConfig
from fairque.core.keys import encode
from tests.model.values import CRITICAL, SECOND, Job

TRUSTED = 8  # measured tasks before a tenant's own average stands alone
NEVER_SEEN = 1.0  # seconds that a task of an unknown function is taken to run


@dataclass(eq=False, slots=True)
class Task:
    """A task that has not ended. `entered`: when it was claimed, or when it is due; `worker`: who holds it, or 0."""

    job: Job
    created: int
    enqueued: int
    entered: int = 0
    worker: int = 0
    charged: float = 0.0
    by_lane: bool = False
    cancel: bool = False
    retries: int = 0
    lone: bool = False
    crashes: int = 0


@dataclass(eq=False, slots=True)
class Tenant:
    """One user. `averages`: seconds and number of measured tasks by function."""

    user: str
    order: bytes
    weight: int = 1000
    cap: int = 0
    paused: bool = False
    tag: float = 0.0
    floor: float = 0.0
    sparse: bool = False
    ready: bool = False
    running: int = 0
    critical: deque[Task] = field(default_factory=deque)
    normal: list[tuple[float, bytes, Task]] = field(default_factory=list)
    averages: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The weight as a number around 1."""
        return self.weight / 1000

    @property
    def head(self) -> Task | None:
        """The task that a claim would take: CRITICAL ones first."""
        if self.critical:
            return self.critical[0]
        return self.normal[0][2] if self.normal else None

    @property
    def claimable(self) -> bool:
        """Whether a free slot could take a task of it now."""
        return self.head is not None and not self.paused and (not self.cap or self.running < self.cap)


class FairTenants:
    """Tenants and virtual time under `config`. Times are µs, tags seconds or costs over weight."""

    def __init__(self, config: QueueConfig) -> None:
        self.by_time = config.fairness == "worker_time"
        self.sparse_share = config.sparse_share
        self.lease = round(config.lease_seconds * SECOND)
        self.aging = round(config.aging_seconds * SECOND)
        self.now = self.last = self.moved = 0
        self.virtual = self.mark = self.credit = 0.0
        self.generation = 1
        self.tenants: dict[str, Tenant] = {}
        self.newcomers: dict[str, float] = {}

    def counted(self) -> list[Tenant]:
        """Those whose weight competes: ready, or still running what virtual time has not passed."""
        return [t for t in self.tenants.values() if t.ready or (t.running and t.tag > self.virtual)]

    def front(self) -> float:
        """The smallest ready tag; with nobody ready, virtual time."""
        return min((t.tag for t in self.tenants.values() if t.ready), default=self.virtual)

    def _settle(self) -> None:
        """Virtual time never trails the front; neither ever goes back."""
        self.mark = max(self.mark, self.front())
        self.virtual = max(self.virtual, self.mark)

    def _begin(self, now: int) -> None:
        """Time never repeats: a clock that steps back gives one microsecond a call."""
        self.now = max(now, self.last + 1)

    def _advance(self) -> None:
        """Virtual time moves by what was served since, in steps that drop whom it passes; two heartbeats at most."""
        left = min(max(0, self.now - self.moved), 2 * self.lease / 3) / SECOND if self.by_time else 0.0
        while left > 0 and (counted := self.counted()):
            running = sum(t.running for t in counted)
            if not running:
                break
            rate = running / (sum(t.weight for t in counted) / 1000)
            passed = min((t.tag for t in counted if not t.ready), default=math.inf)
            step = min(left, (passed - self.virtual) / rate)
            self.virtual = passed if step < left else self.virtual + rate * step
            left -= step
        self.moved = self.now
        self._settle()

    def _end(self) -> None:
        """When nothing is ready and nothing runs, virtual time starts again at 0, and so do all tags."""
        if not any(t.ready or t.running for t in self.tenants.values()):
            self.virtual = self.mark = 0.0
            self.generation += 1
            for t in self.tenants.values():
                t.tag = t.floor = 0.0
        self.last = self.now

    def tenant(self, user: str) -> Tenant:
        """The tenant of that name, new if it was never seen."""
        if user not in self.tenants:
            self.tenants[user] = Tenant(user, encode(user).encode())
        return self.tenants[user]

    def _charge_of(self, t: Tenant, job: Job) -> float:
        """What a task costs when claimed: its cost, or the seconds that such tasks of this tenant used to take.

        A tenant that was measured too little is taken to cost what other newcomers turned out to cost, at least.
        """
        if not self.by_time:
            return job.cost / 1000
        average, measured = t.averages.get(job.function, (0.0, 0))
        if measured >= TRUSTED:
            return average
        return max(average, self.newcomers.get(job.function, NEVER_SEEN))

    def _learn(self, t: Tenant, function: str, seconds: float) -> None:
        average, measured = t.averages.get(function, (0.0, 0))
        if measured < TRUSTED:
            newcomer = self.newcomers.get(function, NEVER_SEEN)
            self.newcomers[function] = newcomer + 0.1 * (seconds - newcomer)
        measured += 1
        t.averages[function] = (average + max(0.3, 1 / measured) * (seconds - average), measured)

    def _charge(self, t: Tenant, amount: float) -> None:
        """Service given, or if negative a refund, which stops where the tenant last entered."""
        tag = t.tag + amount / t.share
        t.tag = tag if amount > 0 else min(t.tag, max(tag, t.floor))

    def _place(self, t: Tenant) -> None:
        """Every change that can open or close a tenant ends here; opening is the one thing that raises a tag for free.

        So nobody gains by idling, pausing, being capped or coming back, and nobody enters far behind either.
        """
        if t.claimable and not t.ready:
            self._settle()
            assert t.head is not None
            entry = min(self.virtual, self.mark + self._charge_of(t, t.head.job) / t.share)
            t.tag = max(t.tag, entry)
            t.floor = entry
        t.ready = t.claimable

    def _enqueue(self, task: Task, *, at_head: bool = False) -> Tenant:
        t = self.tenant(task.job.user)
        if not at_head and t.head is None and not t.running:
            t.sparse = t.tag <= self.mark
        if task.job.priority == CRITICAL:
            # What is given back together keeps its order.
            earlier = takewhile(lambda other: other.enqueued <= task.enqueued, t.critical)
            t.critical.insert(sum(1 for _ in earlier) if at_head else len(t.critical), task)
        else:
            insort(
                t.normal, (task.enqueued - task.job.priority * self.aging, task.job.task_id.encode(), task)
            )
        return t

    def _pop(self, t: Tenant) -> Task:
        return t.critical.popleft() if t.critical else t.normal.pop(0)[2]

    def _choose(self, users: Sequence[str], slots: int, lane: int) -> tuple[Tenant | None, bool]:
        """Whose turn it is, and whether by the lane of those who came back without debt (not among some `users`).

        `slots`: of live workers; `lane`: how many tasks run that came by the lane.
        """
        ready = [t for t in self.tenants.values() if t.ready and (not users or t.user in users)]
        if not ready:
            return None, False
        by_lane = False
        if not users:
            self.credit = min(self.credit + self.sparse_share, max(1.0, self.sparse_share * slots))
            if self.credit >= 1 and lane < max(1, int(self.sparse_share * slots)):
                sparse = [t for t in ready if t.sparse]
                by_lane = bool(sparse)
                ready = sparse or ready
        return min(ready, key=lambda t: (t.tag, t.order)), by_lane

    def _start(self, t: Tenant, task: Task, by_lane: bool) -> None:
        """The task at the head of a tenant is claimed."""
        self.credit -= by_lane
        t.sparse = False
        charge = self._charge_of(t, task.job)
        if not self.by_time:
            self.virtual += charge / (sum(c.weight for c in self.counted()) / 1000)
        t.tag += charge / t.share
        t.running += 1
        task.charged, task.by_lane, task.entered = charge, by_lane, self.now
        self._place(t)
        self._settle()
