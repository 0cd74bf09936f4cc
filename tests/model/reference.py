"""A whole queue in pure Python: workers, leases and the ways a claim ends, around the scheduler of tenants.py.

It answers each call as the scripts must, and shows all that decides what comes next, for the two to be compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fairque.core.config import QueueConfig
from fairque.core.exceptions import WorkerDeadError
from tests.model.tenants import FairTenants, Level, Task, Tenant
from tests.model.values import (
    SECOND,
    Claimed,
    Entry,
    Exchange,
    Job,
    LevelView,
    LimiterView,
    Limits,
    Outcome,
    Permits,
    TenantView,
    View,
)

CRASHES_ALONE = 3
FINISHED, RETRIED, FAILED, RELEASED, CANCELED = 1, 2, 3, 4, 6


@dataclass(eq=False, slots=True)
class Worker:
    """One incarnation. `deadline`: of its lease."""

    slots: int
    deadline: int
    entry: str = ""
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

    def _delayed(self, t: Tenant) -> int:
        """How many tasks of a user or an organisation wait for a time."""
        return sum(
            t in self.tenants[task.job.user].chain()
            for task in self.scheduled.values()
            if task.job.user in self.tenants
        )

    def _claims(self, number: int, want: int, users: Sequence[str]) -> list[Claimed]:
        """One decision at a time. Whoever has nothing that can start after all leaves."""
        claimed: list[Claimed] = []
        while not self.paused and len(claimed) < want:
            entry = self.workers[number].entry
            t, by_lane = self._choose(entry, users, max(1, self.slots()), self.lane())
            if t is None:
                break
            if self._head(t) is None:
                self._place(t)
                continue
            task = self._pop(t)
            self._start(t, task, by_lane)
            task.worker = number
            self.workers[number].held[task.job.task_id] = task
            claimed.append(Claimed(task.job.task_id, t.user, task.charged, by_lane))
        return claimed

    # How a claim ends

    def _drop(self, task: Task) -> Tenant:
        t = self.tenants[task.job.user]
        self._stop(t, task)
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
        """It never began: charge and tokens return, virtual time stays."""
        self._charge(self.tenants[task.job.user], -task.charged)
        self._give_back_tokens(self.tenants[task.job.user], task)
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
            for number in sorted(late, key=lambda number: (self.workers[number].deadline, number)):
                self._bury(number)
            for number in sorted(late):
                self._give_back(number, self.workers[number].deadline - self.lease, begun=True)

    def _bury(self, number: int) -> None:
        before = self._share_cap()
        self.workers[number].alive = False
        self._refit(before)

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

    def join(self, now: int, slots: int, entry: str = "") -> int:
        """A new worker takes a lease."""
        self._begin(now)
        self._advance()
        self.joined += 1
        before = self._share_cap()
        self.workers[self.joined] = Worker(slots, self.now + self.lease, entry)
        self._refit(before)
        self._end()
        return self.joined

    def leave(self, now: int, worker: int, begun: bool) -> None:
        """A worker is out, and what it held goes back."""
        if worker not in self.workers:
            return
        self._begin(now)
        self._advance()
        self._bury(worker)
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

    def push(self, now: int, jobs: Sequence[Job]) -> list[bool]:
        """Each at a microsecond of its own. If none is taken, nothing has happened."""
        self._begin(now)
        taken = [self._push(job, first) for first, job in self._with_first(jobs)]
        if any(taken):
            self._end()
        return taken

    def _with_first(self, jobs: Sequence[Job]) -> Iterator[tuple[bool, Job]]:
        known = len(self.tasks)
        for job in jobs:
            yield len(self.tasks) == known, job

    def _push(self, job: Job, first: bool) -> bool:
        for one in self.tenant(job.user).chain():
            if one.limits.max_queued and one.queued + self._delayed(one) >= one.limits.max_queued:
                return False
        if first:
            self._advance()
        self.now += 1
        task = self.tasks[job.task_id] = Task(job, created=self.now, enqueued=self.now)
        t = self._enqueue(task)
        if not t.ready:
            self._place(t)
        return True

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
        touched: dict[str, None] = {}
        for outcome in outcomes:
            task = self.tasks[outcome.task_id]
            codes.append(self._finish(task, outcome))
            touched[task.job.user] = None
        for user in touched:
            self._place(self.tenants[user])
        self._reap()
        self._promote()
        self._unpark()
        if beat:
            lease.deadline = self.now + self.lease
            self._charge_long(lease)
        if self.assigned:
            self._grow_late()
        claimed = self._claims(worker, want, users)
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
            for name, queue in list(t.limited.items()):
                t.limited[name] = [entry for entry in queue if entry[2] is not task]
                if not t.limited[name]:
                    del t.limited[name]
            del self.tasks[task_id]
            self._place(t)
        self._end()

    def set_policy(self, now: int, user: str, limits: Limits) -> None:
        """A user's limits, which its backlog feels too."""
        self._begin(now)
        self._advance()
        self._set_limits(self.tenant(user), limits)
        self._end()

    def set_group(self, now: int, name: str, limits: Limits) -> None:
        """An organisation's."""
        self._begin(now)
        self._advance()
        self._set_limits(self.group(name), limits)
        self._end()

    def set_limiter(self, now: int, name: str, permits: Permits) -> None:
        """A named limiter's."""
        self._begin(now)
        self._advance()
        self._set_permits(self.limiter(name), permits)
        self._end()

    def assign(self, now: int, entries: Mapping[str, Entry]) -> None:
        """Who serves whom from now on."""
        self._begin(now)
        self._advance()
        self.entries = dict(entries)
        if not self.assigned:
            for t in self.tenants.values():
                t.late = False
        self._end()

    def pause(self, now: int, paused: bool) -> None:
        """Nobody claims, or all do again."""
        self._begin(now)
        self.paused = paused
        self._end()

    def view(self) -> View:
        """All that decides what comes next."""
        everyone = {t.user: t for t in (*self.tenants.values(), *self.groups.values())}
        levels = {"": self.root} | {t.user: t.inner for t in self.groups.values() if t.inner}
        words = sorted({word for t in self.tenants.values() for word in self.words(t)})
        sets = {
            (name, word): {t.user: t.tag for t in level.members if self.in_set(t, word)}
            for name, level in levels.items()
            for word in words
        }
        return View(
            generation=self.generation,
            all_running=sum(t.running for t in self.tenants.values()),
            slots=self.slots(),
            lane=self.lane(),
            credit=self.credit,
            tenants={user: self._tenant_view(t) for user, t in everyone.items()},
            levels={name: self._level_view(level) for name, level in levels.items()},
            limiters={
                limiter.name: LimiterView(
                    limiter.running,
                    max(limiter.bucket.full, self.last) - self.last,
                    {t.user: tag for t, tag in limiter.blocked.items()},
                    limiter.parked,
                )
                for limiter in self.limiters.values()
            },
            in_lane={t.user: t.tag for t in self.root.members if t.ready and t.sparse},
            held={user: t.running for user, t in self.tenants.items() if t.running},
            sets={place: members for place, members in sets.items() if members},
        )

    @staticmethod
    def _level_view(level: Level) -> LevelView:
        counted = level.counted()
        return LevelView(
            virtual=level.virtual,
            mark=level.mark,
            weight=sum(t.limits.weight for t in counted),
            running=sum(t.running for t in counted),
            ready={t.user: t.tag for t in level.members if t.ready},
            ahead={t.user: t.tag for t in counted if not t.ready},
        )

    def _tenant_view(self, t: Tenant) -> TenantView:
        counted = t in t.level.counted()
        return TenantView(
            tag=t.tag,
            floor=t.floor,
            weight=t.limits.weight,
            cap=t.limits.cap,
            paused=t.limits.paused,
            sparse=t.sparse,
            queued=t.queued,
            delayed=self._delayed(t),
            running=t.running,
            counted_weight=t.limits.weight if counted else 0,
            counted_running=t.running if counted else 0,
            full=max(t.bucket.full, self.last) - self.last,
            parked=t.parked,
            late=t.late,
            group=t.group.user if t.group else "",
        )
