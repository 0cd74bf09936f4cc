"""A whole queue in pure Python: workers, leases and the ways a claim ends, around the scheduler of tenants.py.

It answers each call as the scripts must, and shows all that decides what comes next, for the two to be compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairque.core.config import QueueConfig
from fairque.core.exceptions import WorkerDeadError
from tests.model.tenants import FairTenants, Task, Tenant
from tests.model.values import SECOND, Claimed, Exchange, Job, Outcome, TenantView, View

CRASHES_ALONE = 3
FINISHED, RETRIED, FAILED, RELEASED, CANCELED = 1, 2, 3, 4, 6


@dataclass(eq=False, slots=True)
class Worker:
    """One incarnation. `deadline`: of its lease."""

    slots: int
    deadline: int
    alive: bool = True
    held: dict[str, Task] = field(default_factory=dict)


class Reference(FairTenants):
    """The model of one queue under `config`."""

    def __init__(self, config: QueueConfig) -> None:
        super().__init__(config)
        self.paused = False
        self.swept = self.grace = 0
        self.tasks: dict[str, Task] = {}
        self.scheduled: dict[str, Task] = {}
        self.workers: dict[int, Worker] = {}
        self.joined = 0

    def lane(self) -> int:
        """How many tasks run that came by the sparse lane."""
        return sum(task.by_lane for worker in self.workers.values() for task in worker.held.values())

    def slots(self) -> int:
        """Of all live workers."""
        return sum(worker.slots for worker in self.workers.values() if worker.alive)

    def _claim(self, number: int, users: Sequence[str]) -> Claimed | None:
        """One decision."""
        t, by_lane = self._choose(users, max(1, self.slots()), self.lane())
        if t is None:
            return None
        task = self._pop(t)
        self._start(t, task, by_lane)
        task.worker = number
        self.workers[number].held[task.job.task_id] = task
        return Claimed(task.job.task_id, t.user, task.charged, by_lane)

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

    def set_policy(
        self, now: int, user: str, *, weight: int = 1000, cap: int = 0, paused: bool = False
    ) -> None:
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
