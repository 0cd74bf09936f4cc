"""The fair scheduler in pure Python: what lib/levels.lua, lib/tenants.lua and lib/limits.lua must decide.

Start-time fair queueing over tenants. Each has a tag, its place in virtual time; the next task is that of the ready
tenant with the smallest tag, and the claim moves the tag on by charge / weight. Virtual time only places those who
enter: it moves by the service given to tenants that compete, over their weight. An organisation is a tenant of the
root whose members compete among themselves, on a level with a virtual time of its own.

Nothing here is incremental: sets and sums are looked up afresh each time, so that whatever the scripts keep up to date
is checked against its definition. Only the order of floating point operations is the scripts' own, so that both can be
compared for equality.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from fairque.core.config import QueueConfig
from fairque.core.keys import encode
from tests.model.values import CRITICAL, SECOND, Entry, Job, Limits, Permits

TRUSTED = 8  # measured tasks before a tenant's own average stands alone
NEVER_SEEN = 1.0  # seconds that a task of an unknown function is taken to run
CHUNK = 32  # how many come back from parking, or are found to be late, in one call
PERMITS = 8  # how many who wait for a limiter without a cap come back at once
FIRST = 4e15  # µs that put a limited CRITICAL task before all that are not
NEVER = -math.inf


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
class Bucket:
    """Tokens by the generic cell rate algorithm (ITU-T I.371): `full` is when the bucket would be full again."""

    rate: float = 0.0
    burst: int = 2
    full: float = 0.0

    @property
    def interval(self) -> float:
        """µs for each unit of cost."""
        return SECOND / self.rate if self.rate else 0.0

    @property
    def earliest(self) -> float:
        """From when on a task may start."""
        return self.full - (self.burst - 1) * self.interval if self.rate else NEVER

    def take(self, now: int, cost: int) -> None:
        """A task starts; what it takes beyond the bucket is a debt."""
        if self.rate:
            self.full = max(self.full, now) + cost / 1000 * self.interval

    def set(self, rate: float, burst: int) -> None:
        """Another rate. Without any, nothing is owed."""
        self.rate, self.burst = rate, burst
        if not rate:
            self.full = 0.0

    def give_back(self, cost: int) -> None:
        """It never began."""
        if self.rate:
            self.full -= cost / 1000 * self.interval


@dataclass(eq=False, slots=True)
class Limiter:
    """A named limit that tasks of several tenants share. `blocked`: who has no other work, by its place then."""

    name: str
    cap: int = 0
    bucket: Bucket = field(default_factory=Bucket)
    running: int = 0
    virtual: float = 0.0
    tags: dict[Tenant, float] = field(default_factory=dict)
    blocked: dict[Tenant, float] = field(default_factory=dict)
    parked: float | None = None

    def place_of(self, t: Tenant) -> float:
        """Among those who share it: start-time fair queueing over what each started under it."""
        return max(self.tags.get(t, 0.0), self.virtual)

    def serve(self, t: Tenant, cost: int) -> None:
        """A task of the tenant starts."""
        self.virtual = self.place_of(t)
        self.tags[t] = self.virtual + cost / 1000 / t.share

    def forget(self, now: int) -> None:
        """Nobody uses it, or waits for it: all begin anew."""
        if not self.running and self.parked is None and self.bucket.full <= now:
            self.virtual = 0.0
            self.tags.clear()

    @property
    def order(self) -> bytes:
        """Its name among those who wait for a time."""
        return b"::" + encode(self.name).encode()


@dataclass(eq=False, slots=True)
class Level:
    """Tenants that compete directly. `at`: how far service had gone when virtual time was last moved."""

    virtual: float = 0.0
    mark: float = 0.0
    at: float = 0.0
    members: list[Tenant] = field(default_factory=list)

    def counted(self) -> list[Tenant]:
        """Those whose weight competes: ready, or still running what virtual time has not passed."""
        return [t for t in self.members if t.ready or (t.running and t.tag > self.virtual)]

    def front(self) -> float:
        """The smallest ready tag; with nobody ready, virtual time."""
        return min((t.tag for t in self.members if t.ready), default=self.virtual)

    def settle(self) -> None:
        """Virtual time never trails the front; neither ever goes back."""
        self.mark = max(self.mark, self.front())
        self.virtual = max(self.virtual, self.mark)


@dataclass(eq=False, slots=True)
class Tenant:
    """A user, or an organisation (then `inner` is its members' level). `averages`: seconds and number of measured
    tasks by function."""

    user: str
    order: bytes
    level: Level
    inner: Level | None = None
    group: Tenant | None = None
    wanted: Tenant | None = None
    limits: Limits = field(default_factory=Limits)
    bucket: Bucket = field(default_factory=Bucket)
    tag: float = 0.0
    floor: float = 0.0
    sparse: bool = False
    ready: bool = False
    parked: float | None = None
    since: int = 0
    late: bool = False
    running: int = 0
    critical: deque[Task] = field(default_factory=deque)
    normal: list[tuple[float, bytes, Task]] = field(default_factory=list)
    limited: dict[str, list[tuple[float, bytes, Task]]] = field(default_factory=dict)
    averages: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The weight as a number around 1."""
        return self.limits.weight / 1000

    @property
    def queued(self) -> int:
        """How many of its tasks wait for a slot."""
        if self.inner is not None:
            return sum(t.queued for t in self.inner.members)
        return len(self.critical) + len(self.normal) + sum(len(tasks) for tasks in self.limited.values())

    def chain(self) -> list[Tenant]:
        """It, and its organisation."""
        return [self] if self.group is None else [self, self.group]

    @property
    def root(self) -> Tenant:
        """It, or its organisation."""
        return self.group or self

    @property
    def key(self) -> tuple[float, bytes]:
        """Its place among its level's."""
        return self.tag, self.order


class FairTenants:
    """Tenants and virtual time under `config`. Times are µs, tags seconds or costs over weight."""

    def __init__(self, config: QueueConfig) -> None:
        self.by_time = config.fairness == "worker_time"
        self.sparse_share = config.sparse_share
        self.user_share = config.max_user_share
        self.steal_after = round(config.steal_after_seconds * SECOND)
        self.lease = round(config.lease_seconds * SECOND)
        self.aging = round(config.aging_seconds * SECOND)
        self.now = self.last = self.moved = 0
        self.served_to = self.credit = self.next_credit = 0.0
        self.generation = 1
        self.root = Level()
        self.tenants: dict[str, Tenant] = {}
        self.groups: dict[str, Tenant] = {}
        self.limiters: dict[str, Limiter] = {}
        self.entries: dict[str, Entry] = {}
        self.newcomers: dict[str, float] = {}

    def slots(self) -> int:
        """Of all live workers."""
        raise NotImplementedError

    # Time

    def _begin(self, now: int) -> None:
        """Time never repeats: a clock that steps back gives one microsecond a call."""
        self.now = max(now, self.last + 1)
        for limiter in self.limiters.values():
            limiter.forget(self.now)

    def _advance(self) -> None:
        """Time in which service was given: two heartbeats at most between two calls."""
        self.served_to += min(max(0, self.now - self.moved), 2 * self.lease / 3)
        self.moved = self.now
        self._move(self.root)

    def _move(self, level: Level) -> None:
        """Virtual time moves by what was served since, in steps that drop whom it passes.

        A level is moved when the first of its members is touched in a call, before anything of it changes.
        """
        left = (self.served_to - level.at) / SECOND if self.by_time else 0.0
        level.at = self.served_to
        while left > 0 and (counted := level.counted()):
            running = sum(t.running for t in counted)
            if not running:
                break
            rate = running / (sum(t.limits.weight for t in counted) / 1000)
            passed = min((t.tag for t in counted if not t.ready), default=math.inf)
            step = min(left, (passed - level.virtual) / rate)
            level.virtual = passed if step < left else level.virtual + rate * step
            left -= step

    def _end(self) -> None:
        """Where nothing is ready and nothing runs, virtual time starts again at 0, and so do all tags."""
        for group in self.groups.values():
            assert group.inner is not None
            self._restart_if_idle(group.inner)
        if self._restart_if_idle(self.root):
            self.generation += 1
        self.last = self.now

    @staticmethod
    def _restart_if_idle(level: Level) -> bool:
        if any(t.ready or t.running for t in level.members):
            return False
        level.virtual = level.mark = 0.0
        for t in level.members:
            t.tag = t.floor = 0.0
        return True

    # Who there is

    def tenant(self, user: str) -> Tenant:
        """The tenant of that name, new if it was never seen."""
        if user not in self.tenants:
            self.tenants[user] = Tenant(user, encode(user).encode(), self.root)
            self.root.members.append(self.tenants[user])
        return self.tenants[user]

    def group(self, name: str) -> Tenant:
        """The organisation of that name."""
        if name not in self.groups:
            self.groups[name] = Tenant(f":{name}", b":" + encode(name).encode(), self.root, Level())
            self.root.members.append(self.groups[name])
        return self.groups[name]

    def limiter(self, name: str) -> Limiter:
        """The limiter of that name."""
        return self.limiters.setdefault(name, Limiter(name))

    # What tasks cost

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

    def _next_charge(self, t: Tenant) -> float:
        """Of the task that a claim would take."""
        if t.inner is not None:
            return self._next_charge(min((m for m in t.inner.members if m.ready), key=lambda m: m.key))
        head = self._head(t)
        assert head is not None
        return self._charge_of(t, head.job)

    def _learn(self, t: Tenant, function: str, seconds: float) -> None:
        average, measured = t.averages.get(function, (0.0, 0))
        if measured < TRUSTED:
            newcomer = self.newcomers.get(function, NEVER_SEEN)
            self.newcomers[function] = newcomer + 0.1 * (seconds - newcomer)
        measured += 1
        t.averages[function] = (average + max(0.3, 1 / measured) * (seconds - average), measured)

    def _charge(self, t: Tenant, amount: float) -> None:
        """Service given, or if negative a refund, which stops where the tenant last entered; at both levels."""
        self._move(t.level)
        for one in t.chain():
            tag = one.tag + amount / one.share
            one.tag = tag if amount > 0 else min(one.tag, max(tag, one.floor))

    # Queues

    def _open(self, limiter: Limiter) -> bool:
        """Whether one of its tasks may start."""
        return (not limiter.cap or limiter.running < limiter.cap) and limiter.bucket.earliest <= self.now

    def _fronts(self, t: Tenant) -> list[list[tuple[float, bytes, Task]]]:
        """The queues by score that have something to start, in the order of ties."""
        names = sorted(t.limited, key=lambda name: encode(name).encode())
        open_ones = [t.limited[name] for name in names if self._open(self.limiter(name))]
        return [queue for queue in (t.normal, *open_ones) if queue]

    def _head(self, t: Tenant) -> Task | None:
        """The task that a claim would take: CRITICAL ones first, else the smallest score."""
        if t.critical:
            return t.critical[0]
        fronts = self._fronts(t)
        return min((queue[0] for queue in fronts), key=lambda entry: entry[0])[2] if fronts else None

    def _pop(self, t: Tenant) -> Task:
        if t.critical:
            return t.critical.popleft()
        queue = min(self._fronts(t), key=lambda queue: queue[0][0])
        task = queue.pop(0)[2]
        if task.job.limiter and not queue:
            del t.limited[task.job.limiter]
        return task

    def _enqueue(self, task: Task, *, at_head: bool = False) -> Tenant:
        t = self.tenant(task.job.user)
        if not at_head and not t.root.queued and not t.root.running:
            t.root.sparse = t.root.tag <= self.root.mark
        job = task.job
        critical = job.priority == CRITICAL
        if critical and not job.limiter:
            # What is given back together keeps its order.
            earlier = takewhile(lambda other: other.enqueued <= task.enqueued, t.critical)
            t.critical.insert(sum(1 for _ in earlier) if at_head else len(t.critical), task)
            return t
        score = task.enqueued - FIRST if critical else task.enqueued - job.priority * self.aging
        queue = t.limited.setdefault(job.limiter, []) if job.limiter else t.normal
        insort(queue, (score, job.task_id.encode(), task))
        return t

    # In and out

    def _cap(self, t: Tenant) -> float:
        """How many tasks of it may run: its own cap, and its share of the live slots."""
        cap = t.limits.cap or math.inf
        return min(cap, self._share_cap()) if self.user_share < 1 else cap

    def _share_cap(self) -> int:
        return max(1, math.ceil(self.user_share * self.slots() - 1e-9))

    def _has_work(self, t: Tenant) -> bool:
        if t.inner is not None:
            return any(m.ready for m in t.inner.members)
        if t.critical or t.normal:
            return True
        limiters = [self.limiter(name) for name, queue in t.limited.items() if queue]
        return any(self._open(limiter) and (t.ready or self._is_next(limiter, t)) for limiter in limiters)

    def _is_next(self, limiter: Limiter, t: Tenant) -> bool:
        """Whether nobody who waits for the limiter had less of it."""
        others = [(place, one.order) for one, place in limiter.blocked.items() if one is not t]
        return not others or (limiter.place_of(t), t.order) <= min(others)

    def _place(self, t: Tenant) -> None:
        """Every change that can open or close a tenant ends here; opening is the one thing that raises a tag for free.

        So nobody gains by idling, pausing, being capped or coming back, and nobody enters far behind either.
        """
        if t.wanted is not t.group and not t.running:
            self._regroup(t)
        self._move(t.level)
        work = self._has_work(t)
        allowed = work and not t.limits.paused and t.running < self._cap(t)
        t.parked = t.bucket.earliest if allowed and t.bucket.earliest > self.now else None
        claimable = allowed and t.parked is None
        if claimable and not t.ready:
            t.level.settle()
            entry = min(t.level.virtual, t.level.mark + self._next_charge(t) / t.share)
            t.tag = max(t.tag, entry)
            t.floor = entry
            t.since = self.now
        t.ready = claimable
        t.late = t.late and claimable
        if not work and t.inner is None:
            self._block(t)
        if t.group is not None:
            self._place(t.group)

    def _regroup(self, t: Tenant) -> None:
        """To another organisation, or out of one; nothing of it runs, so nothing is owed."""
        t.ready = t.sparse = t.late = False
        t.level.members.remove(t)
        old, t.group = t.group, t.wanted
        if old is not None:
            self._place(old)
        if t.group is not None and not t.group.queued and not t.group.running:
            t.group.sparse = t.queued > 0 and t.group.tag <= self.root.mark
        t.level = self.root if t.group is None or t.group.inner is None else t.group.inner
        t.level.members.append(t)
        t.tag = t.floor = 0.0

    def _refit(self, before: int) -> None:
        """The share of the live slots has changed: those between the old and the new one open or close."""
        after = self._share_cap()
        if self.user_share >= 1 or before == after:
            return
        everyone = [*self.tenants.values(), *self.groups.values()]
        holders = [t for t in everyone if t.running >= min(before, after)]
        for t in sorted(holders, key=lambda t: (t.running, t.order)):
            self._place(t)

    # Limiters

    def _block(self, t: Tenant) -> None:
        """Its only work is under limiters that are closed: it waits for these."""
        for name, queue in t.limited.items():
            limiter = self.limiter(name)
            if queue:
                limiter.blocked[t] = limiter.place_of(t)
                if limiter.bucket.earliest > self.now:
                    limiter.parked = limiter.bucket.earliest
                elif self._open(limiter):
                    limiter.parked = self.now

    def _unblock(self, limiter: Limiter) -> None:
        """As many as it has permits come back, those who had least of it first; the others with the next call."""
        limiter.parked = None
        if not limiter.blocked:
            return
        if not self._open(limiter):
            if limiter.bucket.earliest > self.now:
                limiter.parked = limiter.bucket.earliest
            return
        permits = limiter.cap - limiter.running if limiter.cap else PERMITS
        bucket = limiter.bucket
        if bucket.rate:
            permits = min(permits, math.floor((self.now - bucket.earliest) / bucket.interval) + 1)
        for t in sorted(limiter.blocked, key=lambda t: (limiter.blocked[t], t.order))[:permits]:
            del limiter.blocked[t]
            self._place(t)
        if limiter.blocked:
            limiter.parked = self.now

    def _unpark(self) -> None:
        """Those whose token has come."""
        waiting: list[tuple[float, bytes, Tenant | Limiter]] = [
            (one.parked, one.order, one)
            for one in (*self.tenants.values(), *self.groups.values(), *self.limiters.values())
            if one.parked is not None and one.parked <= self.now
        ]
        for _, _, one in sorted(waiting, key=lambda entry: entry[:2])[:CHUNK]:
            if isinstance(one, Limiter):
                self._unblock(one)
            else:
                self._place(one)

    # Whose turn it is

    def words(self, t: Tenant) -> set[str]:
        """Who serves a user: o, its owner's; u, nobody's own; t, who names it as a target; l, of those who wait too
        long (all, and who names it)."""
        if not self.assigned:
            return set()
        owners = {f"o{name}" for name, entry in self.entries.items() if entry.own and t.user in entry.own}
        targets = {name for name, entry in self.entries.items() if entry.steal and t.user in entry.steal}
        words = (owners or {"u"}) | {f"t{name}" for name in targets}
        return words | {"l"} | {f"l{name}" for name in targets} if t.late else words

    @property
    def assigned(self) -> bool:
        """Whether any entry names users."""
        return any(entry.own is not None or entry.steal is not None for entry in self.entries.values())

    def in_set(self, t: Tenant, word: str) -> bool:
        """Whether a tenant of either level is ready, and among those of that word ("" for all)."""
        if not t.ready or not word:
            return t.ready
        if t.inner is not None:
            return any(self.in_set(m, word) for m in t.inner.members)
        return word in self.words(t)

    def _first(self, level: Level, words: Iterable[str]) -> Tenant | None:
        """The smallest tag among those of some words, down to a user."""
        words = list(words)
        found = [t for t in level.members if any(self.in_set(t, word) for word in words)]
        if not found:
            return None
        first = min(found, key=lambda t: t.key)
        return first if first.inner is None else self._first(first.inner, words)

    def _grow_late(self) -> None:
        """Who has waited too long for its own workers is everybody's."""
        before = self.now - self.steal_after
        waiting = [t for t in self.tenants.values() if t.ready and not t.late and t.since <= before]
        for t in sorted(waiting, key=lambda t: (t.since, t.order))[:CHUNK]:
            t.late = True

    def _choose(self, entry: str, users: Sequence[str], slots: int, lane: int) -> tuple[Tenant | None, bool]:
        """Whose turn it is, and whether by the lane of those who came back without debt (not among some `users`).

        `slots`: of live workers; `lane`: how many tasks run that came by the lane.
        """
        self.next_credit = self.credit
        if users:
            able = [t for t in self.tenants.values() if t.user in users and t.ready and t.root.ready]
            return min(able, key=lambda t: (*t.root.key, *t.key), default=None), False
        own: list[str] = [""]
        others: list[str] = []
        if self.assigned and entry:
            me = self.entries.get(entry, Entry(own=()))
            own = ["u" if me.own is None else f"o{entry}"]
            if me.steal is None or me.steal:
                own.append("l" if me.steal is None else f"l{entry}")
                others = ["" if me.steal is None else f"t{entry}"]
        chosen = self._first(self.root, own) or self._first(self.root, others)
        if chosen is None:
            return None, False
        self.next_credit = min(self.credit + self.sparse_share, max(1.0, self.sparse_share * slots))
        if self.next_credit >= 1 and lane < max(1, int(self.sparse_share * slots)):
            fresh = [t for t in self.root.members if t.ready and t.sparse]
            sparse = min(fresh, key=lambda t: t.key, default=None)
            if sparse is not None and self.in_set(sparse, own[0]):
                return sparse if sparse.inner is None else self._first(sparse.inner, own[:1]), True
        return chosen, False

    def _start(self, t: Tenant, task: Task, by_lane: bool) -> None:
        """The task at the head of a tenant is claimed."""
        self.credit = self.next_credit - by_lane
        charge = self._charge_of(t, task.job)
        self._move(t.level)
        for one in t.chain():
            # What is served now is the front: nobody may enter behind it, also if it is gone afterwards.
            one.level.settle()
            one.sparse = False
            if not self.by_time:
                one.level.virtual += charge / (sum(c.limits.weight for c in one.level.counted()) / 1000)
            one.tag += charge / one.share
            one.running += 1
            one.bucket.take(self.now, task.job.cost)
        if task.job.limiter:
            limiter = self.limiter(task.job.limiter)
            limiter.running += 1
            limiter.bucket.take(self.now, task.job.cost)
            limiter.serve(t, task.job.cost)
        t.since, t.late = self.now, False
        task.charged, task.by_lane, task.entered = charge, by_lane, self.now
        self._place(t)
        for one in t.chain():
            one.level.settle()

    def _stop(self, t: Tenant, task: Task) -> None:
        """It runs no more. Who waits for its limiter comes back."""
        self._move(t.level)
        for one in t.chain():
            one.running -= 1
        if task.job.limiter:
            limiter = self.limiter(task.job.limiter)
            limiter.running -= 1
            if limiter.blocked:
                limiter.parked = self.now

    def _give_back_tokens(self, t: Tenant, task: Task) -> None:
        """It never began."""
        for one in t.chain():
            one.bucket.give_back(task.job.cost)
        if task.job.limiter:
            self.limiter(task.job.limiter).bucket.give_back(task.job.cost)

    # Policies

    def _set_limits(self, t: Tenant, limits: Limits) -> None:
        """What a tenant owes, or is owed, is service: its distance to the mark scales with the weight.

        Who is not ready and not beyond the mark owes nothing.
        """
        self._move(t.level)
        t.level.settle()
        if limits.weight != t.limits.weight and (t.ready or t.tag > t.level.mark):
            ratio, zero = t.limits.weight / limits.weight, t.level.mark
            t.tag = zero + (t.tag - zero) * ratio
            t.floor = zero + (t.floor - zero) * ratio
        t.limits = limits
        t.bucket.set(limits.rate, limits.burst)
        if t.inner is None:
            t.wanted = self.group(limits.group) if limits.group else None
        self._place(t)

    def _set_permits(self, limiter: Limiter, permits: Permits) -> None:
        limiter.cap = permits.cap
        limiter.bucket.set(permits.rate, permits.burst)
        if limiter.blocked:
            limiter.parked = self.now
