"""The fair scheduler in pure Python: what the scripts must decide, without a server.

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
from fairque.core.exceptions import WorkerDeadError
from fairque.core.keys import encode
from tests.model.values import CRITICAL, SECOND, Claimed, Exchange, Job, Outcome, TenantView, View

TRUSTED = 8  # measured tasks before a tenant's own average stands alone
NEVER_SEEN = 1.0  # seconds that a task of an unknown function is taken to run
CRASHES_ALONE = 3
FINISHED, RETRIED, FAILED, RELEASED, CANCELED = 1, 2, 3, 4, 6


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


@dataclass(eq=False, slots=True)
class Worker:
    """One incarnation. `deadline`: of its lease."""

    slots: int
    deadline: int
    alive: bool = True
    held: dict[str, Task] = field(default_factory=dict)


class Reference:
    """The model of one queue under `config`."""

    def __init__(self, config: QueueConfig) -> None:
        self.by_time = config.fairness == "worker_time"
        self.sparse_share = config.sparse_share
        self.lease = round(config.lease_seconds * SECOND)
        self.aging = round(config.aging_seconds * SECOND)
        self.now = self.last = self.moved = 0
        self.virtual = self.mark = self.credit = 0.0
        self.generation = 1
        self.paused = False
        self.swept = self.grace = 0
        self.tenants: dict[str, Tenant] = {}
        self.newcomers: dict[str, float] = {}
        self.tasks: dict[str, Task] = {}
        self.scheduled: dict[str, Task] = {}
        self.workers: dict[int, Worker] = {}
        self.joined = 0

    # The clock

    def counted(self) -> list[Tenant]:
        """Those whose weight competes: ready, or still running what virtual time has not passed."""
        return [t for t in self.tenants.values() if t.ready or (t.running and t.tag > self.virtual)]

    def front(self) -> float:
        """The smallest ready tag; with nobody ready, virtual time."""
        return min((t.tag for t in self.tenants.values() if t.ready), default=self.virtual)

    def lane(self) -> int:
        """How many tasks run that came by the sparse lane."""
        return sum(task.by_lane for worker in self.workers.values() for task in worker.held.values())

    def slots(self) -> int:
        """Of all live workers."""
        return sum(worker.slots for worker in self.workers.values() if worker.alive)

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

    # Tenants

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
            insort(t.normal, (task.enqueued - task.job.priority * self.aging, task.job.task_id.encode(), task))
        return t

    def _choose(self, users: Sequence[str]) -> tuple[Tenant | None, bool]:
        """Whose turn it is, and whether by the lane of those who came back without debt (not among some `users`)."""
        ready = [t for t in self.tenants.values() if t.ready and (not users or t.user in users)]
        if not ready:
            return None, False
        by_lane = False
        if not users:
            slots = max(1, self.slots())
            self.credit = min(self.credit + self.sparse_share, max(1.0, self.sparse_share * slots))
            if self.credit >= 1 and self.lane() < max(1, int(self.sparse_share * slots)):
                sparse = [t for t in ready if t.sparse]
                by_lane = bool(sparse)
                ready = sparse or ready
        return min(ready, key=lambda t: (t.tag, t.order)), by_lane

    def _claim(self, number: int, users: Sequence[str]) -> Claimed | None:
        t, by_lane = self._choose(users)
        if t is None:
            return None
        task = t.critical.popleft() if t.critical else t.normal.pop(0)[2]
        self.credit -= by_lane
        t.sparse = False
        charge = self._charge_of(t, task.job)
        if not self.by_time:
            self.virtual += charge / (sum(c.weight for c in self.counted()) / 1000)
        t.tag += charge / t.share
        t.running += 1
        task.charged, task.by_lane, task.entered, task.worker = charge, by_lane, self.now, number
        self.workers[number].held[task.job.task_id] = task
        self._place(t)
        self._settle()
        return Claimed(task.job.task_id, t.user, charge, by_lane)

    # How a claim ends

    def _drop(self, task: Task) -> Tenant:
        t = self.tenants[task.job.user]
        t.running -= 1
        del self.workers[task.worker].held[task.job.task_id]
        task.worker, task.by_lane = 0, False
        return t

    def _ran(self, task: Task, seconds: float, *, learns: bool) -> Tenant:
        """It ran: the charge becomes what was measured, but no more than can have been."""
        t = self.tenants[task.job.user]
        seconds = max(0.0, min(seconds, (self.now - task.entered) / SECOND))
        if self.by_time:
            self._charge(t, seconds - task.charged)
            if learns:
                self._learn(t, task.job.function, seconds)
        return self._drop(task)

    def _given_back(self, task: Task) -> Tenant:
        """It never began: the charge returns, virtual time stays."""
        self._charge(self.tenants[task.job.user], -task.charged)
        return self._drop(task)

    def _finish(self, task: Task, outcome: Outcome) -> int:
        if outcome.kind == "release":
            self._given_back(task)
            if not task.cancel:
                self._enqueue(task, at_head=True)
                return RELEASED
        else:
            self._ran(task, outcome.seconds, learns=outcome.kind == "finish" or not task.cancel)
        if outcome.kind == "fail" and not task.cancel:
            if outcome.delay >= 0 and task.retries < task.job.max_retries:
                self._retry(task, outcome.delay)
                return RETRIED
            del self.tasks[task.job.task_id]
            return FAILED
        del self.tasks[task.job.task_id]
        return CANCELED if task.cancel else FINISHED

    def _retry(self, task: Task, delay: int) -> None:
        task.retries += 1
        if delay:
            task.entered = self.now + delay
            self.scheduled[task.job.task_id] = task
        else:
            self.now += 1
            task.enqueued = self.now
            self._enqueue(task)

    def _crash(self, task: Task, seconds: float) -> None:
        """Its worker died: charged as a success, nothing learned, and next again, alone from now on."""
        self._ran(task, seconds, learns=False)
        task.crashes += task.lone
        task.lone = True
        if task.crashes >= CRASHES_ALONE:
            del self.tasks[task.job.task_id]
        else:
            self._enqueue(task, at_head=True)

    def _give_back(self, number: int, renewed: int, begun: bool) -> None:
        """All that a worker held, charged at least to its last renewal and one interval more."""
        for task in list(self.workers[number].held.values()):
            seconds = (min(self.now, renewed + self.lease / 3) - task.entered) / SECOND
            if task.cancel:
                self._ran(task, seconds, learns=False)
                del self.tasks[task.job.task_id]
            elif begun:
                self._crash(task, seconds)
            else:
                self._given_back(task)
                self._enqueue(task, at_head=True)
            self._place(self.tenants[task.job.user])
        del self.workers[number]

    def _reap(self) -> None:
        """Workers past their deadline; but if nobody looked for two heartbeats, the server was away, not they."""
        if self.now - self.swept <= self.lease / 12:
            return
        if self.now - self.swept > self.lease * 2 / 3:
            self.grace = self.now + self.lease
        self.swept = self.now
        if self.now >= self.grace:
            late = [number for number, worker in self.workers.items() if worker.deadline <= self.now]
            for number in late:
                self.workers[number].alive = False
            for number in sorted(late):
                self._give_back(number, self.workers[number].deadline - self.lease, begun=True)

    def _promote(self) -> None:
        due = [task for task in self.scheduled.values() if task.entered <= self.now]
        for task in sorted(due, key=lambda task: (task.entered, task.job.task_id.encode())):
            del self.scheduled[task.job.task_id]
            task.enqueued = max(task.entered, task.created)
            self._place(self._enqueue(task))

    # Calls

    def _alive(self, number: int) -> Worker:
        if number not in self.workers:
            raise WorkerDeadError(f"worker {number} is not alive")
        return self.workers[number]

    def join(self, now: int, slots: int) -> int:
        """A new worker takes a lease; virtual time is not looked at."""
        self._begin(now)
        self.joined += 1
        self.workers[self.joined] = Worker(slots, self.now + self.lease)
        self._end()
        return self.joined

    def leave(self, now: int, worker: int, begun: bool) -> None:
        """A worker is out, and what it held goes back."""
        if worker not in self.workers:
            return
        self._begin(now)
        self._advance()
        self.workers[worker].alive = False
        self._give_back(worker, self.now, begun)
        self._end()

    def renew(self, now: int, worker: int) -> None:
        """Nothing but the lease."""
        self._alive(worker)
        self._begin(now)
        self._advance()
        self.workers[worker].deadline = self.now + self.lease
        self._reap()
        self._end()

    def push(self, now: int, jobs: Sequence[Job]) -> None:
        """Each at a microsecond of its own."""
        self._begin(now)
        self._advance()
        for job in jobs:
            self.now += 1
            task = self.tasks[job.task_id] = Task(job, created=self.now, enqueued=self.now)
            self._place(self._enqueue(task))
        self._end()

    def exchange(
        self,
        now: int,
        worker: int,
        outcomes: Sequence[Outcome] = (),
        want: int = 0,
        *,
        beat: bool = False,
        users: Sequence[str] = (),
    ) -> Exchange:
        """Settle, then what time alone brings, then claim, one decision at a time."""
        lease = self._alive(worker)
        self._begin(now)
        self._advance()
        if lease.deadline - self.now < self.lease * 5 / 6:
            lease.deadline = self.now + self.lease
        codes: list[int] = []
        for outcome in outcomes:
            task = self.tasks[outcome.task_id]
            codes.append(self._finish(task, outcome))
            self._place(self.tenants[task.job.user])
        self._reap()
        self._promote()
        if beat:
            lease.deadline = self.now + self.lease
            self._charge_long(lease)
        claimed: list[Claimed] = []
        while not self.paused and len(claimed) < want and (claim := self._claim(worker, users)):
            claimed.append(claim)
        self._end()
        return Exchange(tuple(codes), tuple(claimed))

    def _charge_long(self, worker: Worker) -> None:
        """Long tasks are charged as they run, not only when they end."""
        for task in worker.held.values():
            ran = (self.now - task.entered) / SECOND
            if self.by_time and ran > task.charged:
                t = self.tenants[task.job.user]
                self._charge(t, ran - task.charged)
                task.charged = ran
                self._place(t)

    def cancel(self, now: int, task_id: str) -> None:
        """A task that waits is gone; one that runs is marked."""
        task = self.tasks.get(task_id)
        if task is None:
            return
        self._begin(now)
        self._advance()
        if task.worker:
            task.cancel = True
        else:
            t = self.tenants[task.job.user]
            self.scheduled.pop(task_id, None)
            t.critical = deque(one for one in t.critical if one is not task)
            t.normal = [entry for entry in t.normal if entry[2] is not task]
            del self.tasks[task_id]
            self._place(t)
        self._end()

    def set_policy(self, now: int, user: str, *, weight: int = 1000, cap: int = 0, paused: bool = False) -> None:
        """What a tenant owes is service: its distance to the front, or to virtual time, scales with the weight."""
        self._begin(now)
        self._advance()
        t = self.tenant(user)
        if weight != t.weight and (t.ready or t.running or t.tag > self.virtual):
            ratio = t.weight / weight
            zero = self.front() if t.ready else self.virtual
            t.tag = zero + (t.tag - zero) * ratio
            t.floor = zero + (t.floor - zero) * ratio
        t.weight, t.cap, t.paused = weight, cap, paused
        self._place(t)
        self._end()

    def pause(self, now: int, paused: bool) -> None:
        """Nobody claims, or all do again."""
        self._begin(now)
        self.paused = paused
        self._end()

    def view(self) -> View:
        """All that decides what comes next."""
        counted = self.counted()
        return View(
            virtual=self.virtual,
            mark=self.mark,
            generation=self.generation,
            weight=sum(t.weight for t in counted),
            running=sum(t.running for t in counted),
            all_running=sum(t.running for t in self.tenants.values()),
            slots=self.slots(),
            lane=self.lane(),
            credit=self.credit,
            tenants={
                user: TenantView(
                    tag=t.tag,
                    floor=t.floor,
                    weight=t.weight,
                    cap=t.cap,
                    paused=t.paused,
                    sparse=t.sparse,
                    critical=len(t.critical),
                    normal=len(t.normal),
                    running=t.running,
                    counted_weight=t.weight if t in counted else 0,
                    counted_running=t.running if t in counted else 0,
                )
                for user, t in self.tenants.items()
            },
            ready={t.user: t.tag for t in self.tenants.values() if t.claimable},
            in_lane={t.user: t.tag for t in self.tenants.values() if t.claimable and t.sparse},
            ahead={t.user: t.tag for t in counted if not t.claimable},
            held={user: t.running for user, t in self.tenants.items() if t.running},
        )
