"""The published bound, measured: what two tenants got while both were ready, in all intervals of a run.

`Watched` is the model with a log of what it decides. `measure` goes through the log afterwards, when it is known how
long each task ran. Of a pair of tenants of one level it follows the difference x of their services, each divided by its
weight, for as long as

- both are ready throughout, decision by decision, and stay on that level;
- their weights do not change;
- neither is served by the sparse lane, and neither still owes for that or is owed something: an interval begins when
  both tags lie where those of all lie who entered and were served by their tags (`Worst.debt`, `Worst.credit`).

The most that x changed between any two moments of such an interval is what the bound is about. The service of
a claim is its cost, or in `worker_time` the run time that it turned out to have, whether the task ended,
failed or lost its worker (then up to the last renewal and one interval more); what was given back unstarted
ran for 0 s. In `worker_time` x is also followed as the seconds go by, instead of claim by claim.

With `round_robin` the bound is m_f/w_f + m_g/w_g, m being the largest cost of a tenant's tasks. Work that was
claimed and given back is owed to its tenant, which is ahead by that much once it has been made good: what
either was given back within the interval adds to the bound. With `worker_time` it is (2D + 1)(m_f/w_f +
m_g/w_g), m being the longest run time or estimate, D the most tasks that ran at once; a task that was given
back is one that ran shorter than was estimated, so nothing adds to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fairque.core.config import QueueConfig
from tests.model.reference import Reference, Worker
from tests.model.tenants import Task, Tenant
from tests.model.values import SECOND, Job

ROUNDING = 1e-6
"""Tags are doubles."""


class Passed(NamedTuple):
    """It is so late (s)."""

    now: float


class Placed(NamedTuple):
    """Where a tenant stands from now on, and the mark of its level."""

    tenant: Tenant
    level: int
    ready: bool
    weight: float
    tag: float
    mark: float


class Marked(NamedTuple):
    """The front of a level at a decision; `anew`: nothing is ready or runs, and it starts again at 0."""

    level: int
    mark: float
    anew: bool = False


class Claim(NamedTuple):
    """One decision: for a tenant and its organisation. `number` counts claims."""

    chain: tuple[Tenant, ...]
    number: int
    cost: float
    by_lane: bool


class GivenBack(NamedTuple):
    """A claim that never began."""

    chain: tuple[Tenant, ...]
    cost: float


class Most(NamedTuple):
    """A task of the tenant is taken to cost so much, or did."""

    tenant: Tenant
    amount: float


Event = Passed | Placed | Marked | Claim | GivenBack | Most


class Watched(Reference):
    """The model, with a log. `ran`: how long the task of each claim ran, as far as that is known."""

    def __init__(self, config: QueueConfig) -> None:
        super().__init__(config)
        self.log: list[Event] = []
        self.ran: dict[int, float] = {}
        self.most_running = 0
        self._claims_made = 0
        self._claim_of: dict[str, int] = {}

    def claim_of(self, task_id: str) -> int:
        """The number of the last claim of a task."""
        return self._claim_of[task_id]

    def _begin(self, now: int) -> None:
        super()._begin(now)
        self.log.append(Passed(self.now / SECOND))

    def _end(self) -> None:
        super()._end()
        for level in (self.root, *(group.inner for group in self.groups.values() if group.inner)):
            if not any(t.ready or t.running for t in level.members):
                self.log.append(Marked(id(level), 0.0, anew=True))

    def _place(self, t: Tenant) -> None:
        super()._place(t)
        level = t.level
        self.log.append(Placed(t, id(level), t.ready, t.share, t.tag, level.mark))

    def _charge_of(self, t: Tenant, job: Job) -> float:
        charge = super()._charge_of(t, job)
        self.log.extend(Most(one, charge) for one in t.chain())
        return charge

    def _start(self, t: Tenant, task: Task, by_lane: bool) -> None:
        self._claims_made += 1
        self._claim_of[task.job.task_id] = self._claims_made
        # Its estimate, before that goes into the tag; and the front, before that moves.
        self._charge_of(t, task.job)
        self.log.extend(Marked(id(one.level), one.level.front()) for one in t.chain())
        self.log.append(Claim(tuple(t.chain()), self._claims_made, task.job.cost / 1000, by_lane))
        super()._start(t, task, by_lane)
        self.most_running = max(self.most_running, sum(one.running for one in self.root.members))

    def _charge_long(self, worker: Worker) -> None:
        for task in worker.held.values():
            ran = (self.now - task.entered) / SECOND
            self.log.extend(Most(one, ran) for one in self.tenants[task.job.user].chain())
        super()._charge_long(worker)

    def _ran(self, task: Task, seconds: float, *, learns: bool) -> Tenant:
        seconds = max(0.0, min(seconds, (self.now - task.entered) / SECOND))
        self.ran[self._claim_of[task.job.task_id]] = seconds
        self.log.extend(Most(one, seconds) for one in self.tenants[task.job.user].chain())
        return super()._ran(task, seconds, learns=learns)

    def _given_back(self, task: Task) -> Tenant:
        self.ran[self._claim_of[task.job.task_id]] = 0.0
        self.log.append(GivenBack(tuple(self.tenants[task.job.user].chain()), task.job.cost / 1000))
        return super()._given_back(task)


@dataclass(slots=True)
class Worst:
    """The worst of a run, or of many. Each with its story.

    `lag`: of any pair in any of the `intervals` (with so many `claims` by one of a pair), as a part of its bound.
    `debt`: how far any tag was beyond the mark, `credit`: how far behind, less what was given back; in units of m/w.
    """

    lag: float = 0.0
    debt: float = 0.0
    credit: float = 0.0
    intervals: int = 0
    claims: int = 0
    stories: dict[str, str] = field(default_factory=dict)

    def see(self, what: str, value: float, story: str) -> None:
        """One more of these."""
        if value > getattr(self, what):
            setattr(self, what, value)
            self.stories[what] = story

    def add(self, other: Worst) -> None:
        """Another run."""
        self.intervals += other.intervals
        self.claims += other.claims
        for what, story in other.stories.items():
            self.see(what, getattr(other, what), story)


@dataclass(slots=True)
class _Range:
    """The lowest and the highest value of something."""

    low: float
    high: float

    def see(self, value: float) -> float:
        """One more value; returns how far they lie apart."""
        self.low, self.high = min(value, self.low), max(value, self.high)
        return self.high - self.low


@dataclass(slots=True)
class _Interval:
    """x of a pair since both were ready, claim by claim and second by second, and what was given back to them since
    ever, ÷ weight, when it began."""

    claimed: _Range
    served: _Range
    returned: float


@dataclass(eq=False, slots=True)
class _State:
    """One tenant. `claimed`, `served`: service ÷ weight; `returned`: what was given back (`returned_before`: before the
    tenant last became ready)."""

    tenant: Tenant
    level: int
    weight: float = 1.0
    tag: float = 0.0
    ready: bool = False
    most: float = 0.0
    claimed: float = 0.0
    served: float = 0.0
    returned: float = 0.0
    returned_before: float = 0.0

    @property
    def largest(self) -> float:
        """m/w."""
        return self.most / self.weight

    def __str__(self) -> str:
        return f"{self.tenant.user} (m {self.most:.6g}, w {self.weight:g}, tag {self.tag:.6g})"


Pair = tuple[int, int]


@dataclass(slots=True)
class _Pairs:
    """All pairs of a run, going through its log."""

    by_time: bool
    slots: int
    ran: Mapping[int, float]
    worst: Worst = field(default_factory=Worst)
    states: dict[int, _State] = field(default_factory=dict)
    marks: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    ready: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    intervals: dict[Pair, _Interval] = field(default_factory=dict)
    now: float = 0.0
    running: list[tuple[float, tuple[_State, ...]]] = field(default_factory=list)

    def state(self, tenant: Tenant) -> _State:
        key = id(tenant)
        if key not in self.states:
            self.states[key] = _State(tenant, id(tenant.level))
        return self.states[key]

    def follow(self, event: Event) -> None:
        match event:
            case Passed(now):
                self._pass(now)
            case Marked(level, mark, anew):
                self.marks[level] = 0.0 if anew else max(self.marks[level], mark)
            case Most(tenant, amount):
                self.state(tenant).most = max(self.state(tenant).most, amount)
            case GivenBack(chain, cost):
                for state in map(self.state, chain):
                    state.returned += cost
            case Placed():
                self._place(event)
            case Claim():
                self._claim(event)

    def _place(self, event: Placed) -> None:
        state = self.state(event.tenant)
        if state.ready and (event.weight != state.weight or event.level != state.level or not event.ready):
            self._end(state)
        if event.ready and not state.ready:
            state.returned_before = state.returned
        state.level, state.weight, state.tag, state.ready = event.level, event.weight, event.tag, event.ready
        mark = self.marks[event.level] = max(self.marks[event.level], event.mark)
        if state.ready and state.most:
            story = f"{state} at mark {mark:.6g}, {self.slots} slots"
            self.worst.see("debt", (state.tag - mark) / state.largest, story)
            owed = 0 if self.by_time else state.returned - state.returned_before
            credit = (mark - state.tag) * state.weight - owed
            self.worst.see("credit", credit / state.most - ROUNDING, story)
        if state.ready:
            self.ready[state.level].add(id(event.tenant))
            self._begin(state)
        if event.tenant.group is not None:
            organisation = self.state(event.tenant.group)
            organisation.most = max(state.most, organisation.most)

    def _is_square(self, state: _State) -> bool:
        """Neither owing more than a tenant may that was served by its tags, nor owed anything."""
        mark = self.marks[state.level]
        ahead, behind = (self.slots + 1, self.slots) if self.by_time else (1, 0)
        return -behind * state.largest <= state.tag - mark + ROUNDING <= ahead * state.largest + 2 * ROUNDING

    def _begin(self, state: _State) -> None:
        """Intervals with all others of the level."""
        if not self._is_square(state):
            return
        mine = id(state.tenant)
        for key in self.ready[state.level]:
            pair = (min(mine, key), max(mine, key))
            if key != mine and pair not in self.intervals and self._is_square(self.states[key]):
                f, g = self.states[pair[0]], self.states[pair[1]]
                claimed, served = f.claimed - g.claimed, f.served - g.served
                self.intervals[pair] = _Interval(
                    _Range(claimed, claimed), _Range(served, served), self._returned(pair)
                )
                self.worst.intervals += 1

    def _end(self, state: _State) -> None:
        mine = id(state.tenant)
        for key in self.ready[state.level]:
            self.intervals.pop((min(mine, key), max(mine, key)), None)
        self.ready[state.level].discard(mine)

    def _claim(self, event: Claim) -> None:
        service = self.ran[event.number] if self.by_time else event.cost
        chain = tuple(map(self.state, event.chain))
        if self.by_time:
            self.running.append((self.now + service, chain))
        for state in chain:
            state.most = max(state.most, service)
            state.claimed += service / state.weight
            mine = id(state.tenant)
            if event.by_lane and state is chain[-1]:
                self._end(state)
                self.ready[state.level].add(mine)
            for key in self.ready[state.level]:
                pair = (min(mine, key), max(mine, key))
                if pair in self.intervals:
                    self.worst.claims += 1
                    x = self.states[pair[0]].claimed - self.states[pair[1]].claimed
                    self._see(pair, self.intervals[pair].claimed.see(x))

    def _pass(self, now: float) -> None:
        """Time goes by, and what runs is served."""
        touched: set[int] = set()
        for end, chain in self.running:
            for state in chain:
                state.served += max(0.0, min(now, end) - self.now) / state.weight
                touched.add(id(state.tenant))
        self.running = [(end, chain) for end, chain in self.running if end > now]
        self.now = now
        for pair, interval in self.intervals.items():
            if not touched.isdisjoint(pair):
                self._see(
                    pair, interval.served.see(self.states[pair[0]].served - self.states[pair[1]].served)
                )

    def _returned(self, pair: Pair) -> float:
        return sum(self.states[key].returned / self.states[key].weight for key in pair)

    def _see(self, pair: Pair, lag: float) -> None:
        f, g = (self.states[key] for key in pair)
        bound = f.largest + g.largest
        if self.by_time:
            bound *= 2 * self.slots + 1
        else:
            bound += self._returned(pair) - self.intervals[pair].returned
        self.worst.see("lag", lag / bound, f"{f} and {g}: {lag:.6g} of {bound:.6g}, {self.slots} slots")


def measure(model: Watched, ran: Mapping[int, float]) -> Worst:
    """The worst of a run. `ran`: how long the task of each claim will have run, where the model does not know it
    yet."""
    pairs = _Pairs(model.by_time, max(1, model.most_running), {**ran, **model.ran})
    for event in model.log:
        pairs.follow(event)
    return pairs.worst
