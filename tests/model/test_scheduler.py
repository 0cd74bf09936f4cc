"""The scripts decide as the model does: both are driven by the same operations, and compared after each one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import count
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from fairque.core.config import QueueConfig
from fairque.core.exceptions import WorkerDeadError
from tests.model.driver import Driver
from tests.model.reference import Reference
from tests.model.values import Entry, Exchange, Job, Kind, Limits, Outcome, Permits, View
from tests.support.servers import ServerProcess

THOROUGH = os.environ.get("FAIRQUE_HYPOTHESIS") == "thorough"
EXAMPLES = 3000 if THOROUGH else 250

# Ties go by bytes, and names are percent-encoded inside keys: upper case, a colon, two bytes, a longer prefix.
MOST_WORKERS = 2
USERS = ("a", "B", "a:1", "ü", "a1")
GROUPS = ("g", "a:1")
LIMITERS = ("l", "ü:l")
ENTRIES = ("w", "w2")


@dataclass(frozen=True)
class Rest:
    """Time passes (µs); a server's clock may also step back."""

    after: int


@dataclass(frozen=True)
class Push:
    """`copies` equal tasks of one user."""

    user: int
    copies: int
    function: str
    priority: int
    cost: int
    limiter: str


@dataclass(frozen=True)
class Settle:
    """The pick-th of the tasks that the worker holds ends; `faithful`: after the time that really passed."""

    pick: int
    kind: Kind
    seconds: float | None
    delay: int


@dataclass(frozen=True)
class Trade:
    """A settle and claim of one worker."""

    worker: int
    settles: list[Settle]
    want: int
    beat: bool
    users: tuple[int, ...]


@dataclass(frozen=True)
class Policy:
    user: int
    limits: Limits


@dataclass(frozen=True)
class Group:
    group: int
    limits: Limits


@dataclass(frozen=True)
class LimiterSetting:
    limiter: int
    permits: Permits


@dataclass(frozen=True)
class Assign:
    """Who serves whom, from now on."""

    entries: dict[str, Entry]


@dataclass(frozen=True)
class Cancel:
    pick: int


@dataclass(frozen=True)
class PauseQueue:
    paused: bool


@dataclass(frozen=True)
class Join:
    slots: int
    entry: str


@dataclass(frozen=True)
class Leave:
    worker: int
    begun: bool


@dataclass(frozen=True)
class Renew:
    worker: int


@dataclass(frozen=True)
class Silence:
    """A worker says nothing until its lease is over, while another one renews and so finds it dead."""

    worker: int


Step = (
    Rest
    | Push
    | Trade
    | Policy
    | Group
    | LimiterSetting
    | Assign
    | Cancel
    | PauseQueue
    | Join
    | Leave
    | Renew
    | Silence
)

SECONDS = st.sampled_from([0.0, 0.001, 0.5, 1.0, 1.0, 2.5, 34.0, 1e9]) | st.floats(0, 100)
WEIGHTS = st.sampled_from([10, 100, 333, 1000, 1000, 2000, 5000, 100_000])
COSTS = st.sampled_from([10, 500, 1000, 1000, 1000, 2500, 10_000_000])
NUMBERS = st.integers(0, 30)

rests = st.builds(
    Rest,
    st.sampled_from([0, 1, 100_000, 1_000_000, 1_000_000, 5_000_000, 20_000_000, 60_000_000, -3_000_000])
    | st.integers(0, 5_000_000),
)
pushes = st.builds(
    Push,
    user=st.integers(0, len(USERS) - 1),
    copies=st.sampled_from([1, 1, 2, 5, 10]),
    function=st.sampled_from("ffg"),
    priority=st.sampled_from([3, 3, 3, 1, 2, 4, 5, 6]),
    cost=COSTS,
    limiter=st.sampled_from(["", "", "", *LIMITERS]),
)
settles = st.builds(
    Settle,
    pick=NUMBERS,
    kind=st.sampled_from(["finish", "finish", "finish", "fail", "release"]),
    seconds=st.none() | st.none() | st.none() | SECONDS,
    delay=st.sampled_from([0, 0, -1, 1, 2_000_000]),
)
trades = st.builds(
    Trade,
    worker=NUMBERS,
    settles=st.lists(settles, max_size=6),
    want=st.integers(0, 8),
    beat=st.sampled_from([False, False, False, True]),
    users=st.sampled_from([(), (), (), (), (0,), (1, 2), (4, 3)]),
)
CAPS = st.sampled_from([0, 0, 1, 1, 2])
RATES = st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 7.5, 100.0])
BURSTS = st.sampled_from([1, 2, 5])
PAUSED = st.sampled_from([False, False, False, False, True])
policies = st.builds(
    Policy,
    user=st.integers(0, len(USERS) - 1),
    limits=st.builds(
        Limits,
        weight=WEIGHTS,
        cap=CAPS,
        paused=PAUSED,
        rate=RATES,
        burst=BURSTS,
        max_queued=st.sampled_from([0, 0, 0, 3]),
        group=st.sampled_from(["", "", *GROUPS]),
    ),
)
groups = st.builds(
    Group,
    group=st.integers(0, len(GROUPS) - 1),
    limits=st.builds(
        Limits,
        weight=WEIGHTS,
        cap=CAPS,
        paused=PAUSED,
        rate=RATES,
        burst=BURSTS,
        max_queued=st.sampled_from([0, 0, 0, 5]),
    ),
)
limiters = st.builds(
    LimiterSetting,
    limiter=st.integers(0, len(LIMITERS) - 1),
    permits=st.builds(Permits, cap=CAPS, rate=RATES, burst=BURSTS),
)


@st.composite
def assignments(draw: st.DrawFn) -> Assign:
    """Two entries; a user is named by at most one as its own, and never also as a target of that one."""
    owners = draw(st.lists(st.sampled_from([None, *ENTRIES]), min_size=len(USERS), max_size=len(USERS)))
    entries: dict[str, Entry] = {}
    for name in ENTRIES:
        own = tuple(user for user, owner in zip(USERS, owners, strict=True) if owner == name)
        targets = draw(st.none() | st.lists(st.sampled_from(USERS), unique=True))
        steal = None if targets is None else tuple(user for user in targets if user not in own)
        entries[name] = Entry(own if own or draw(st.booleans()) else None, steal)
    if draw(st.sampled_from([False, False, True])):
        return Assign({name: Entry() for name in ENTRIES})
    return Assign(entries)


# How often each kind of step comes. What is first is what a failing example shrinks to: a rest.
STEPS: dict[str, tuple[int, st.SearchStrategy[Step]]] = {
    "rest": (15, rests),
    "trade": (40, trades),
    "push": (25, pushes),
    "policy": (8, policies),
    "group": (3, groups),
    "limiter": (3, limiters),
    "assign": (2, assignments()),
    "cancel": (2, st.builds(Cancel, NUMBERS)),
    "pause": (2, st.builds(PauseQueue, st.sampled_from([False, False, False, True]))),
    "join": (2, st.builds(Join, st.sampled_from([1, 2, 5]), st.sampled_from(["", *ENTRIES, "gone"]))),
    "leave": (2, st.builds(Leave, NUMBERS, st.booleans())),
    "renew": (1, st.builds(Renew, NUMBERS)),
    "silence": (1, st.builds(Silence, NUMBERS)),
}
steps = st.sampled_from([name for name, (often, _) in STEPS.items() for _ in range(often)]).flatmap(
    lambda name: STEPS[name][1]
)

configs = st.builds(
    QueueConfig,
    fairness=st.sampled_from(["round_robin", "worker_time"]),
    sparse_share=st.sampled_from([0.1, 0.0, 0.25, 1.0]),
    lease_seconds=st.sampled_from([15, 1, 2.5]),
    aging_seconds=st.sampled_from([60, 0, 1]),
    max_user_share=st.sampled_from([1, 1, 0.5, 0.3, 0]),
    steal_after_seconds=st.sampled_from([5, 0, 1]),
)


def differences(expected: Any, got: Any, path: str = "") -> Iterator[str]:
    """Where two views differ, by their smallest parts."""
    if is_dataclass(expected) and is_dataclass(got):
        expected, got = ({f.name: getattr(side, f.name) for f in fields(side)} for side in (expected, got))
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in sorted({*expected, *got}, key=str):
            yield from differences(expected.get(key), got.get(key), f"{path}.{key}")
    elif expected != got:
        yield f"{path}: the model says {expected}, the scripts {got}"


@dataclass
class Pair:
    """The model and the scripts in lockstep. Workers are chosen among those that the model has alive."""

    model: Reference
    scripts: Driver
    now: int = 1_000_000
    before: View | None = None
    names: Iterator[int] = field(default_factory=count)
    story: list[tuple[Any, ...]] = field(default_factory=list)

    def both(self, call: str, *arguments: Any, **options: Any) -> Any:
        """The same call of both; both answer the same, or both are refused."""
        answers: list[Any] = []
        for side in (self.model, self.scripts):
            try:
                answers.append(getattr(side, call)(self.now, *arguments, **options))
            except WorkerDeadError:
                answers.append(WorkerDeadError)
        expected, got = answers
        self.story.append((self.now, call, arguments, options, expected))
        assert got == expected, f"{call}: the scripts answer {got}, the model {expected}"
        self.compare()
        return expected

    def compare(self) -> None:
        """Both sides see the same, bit by bit, and virtual time and its mark did not go back."""
        expected, got = self.model.view(), self.scripts.view()
        assert got == expected, "\n".join(["the scripts and the model differ:", *differences(expected, got)])
        before, self.before = self.before, got
        for name, level in got.levels.items():
            assert level.virtual >= level.mark
            if before is not None and before.generation == got.generation and not name:
                assert level.virtual >= before.levels[name].virtual
                assert level.mark >= before.levels[name].mark

    def worker(self, pick: int) -> int:
        """The pick-th live worker, a new one if there is none."""
        alive = sorted(self.model.workers)
        if not alive:
            joined: int = self.both("join", 2)
            return joined
        return alive[pick % len(alive)]

    def apply(self, step: Step) -> None:
        """One step on both sides."""
        match step:
            case Rest(after):
                self.now = max(0, self.now + after)
            case Push():
                self.both("push", [self._job(step) for _ in range(step.copies)])
            case Trade():
                self._trade(step)
            case Policy(user, limits):
                self.both("set_policy", USERS[user], limits)
            case Group(group, limits):
                self.both("set_group", GROUPS[group], limits)
            case LimiterSetting(limiter, permits):
                self.both("set_limiter", LIMITERS[limiter], permits)
            case Assign(entries):
                self.both("assign", entries)
            case Cancel(pick):
                if self.model.tasks:
                    self.both("cancel", sorted(self.model.tasks)[pick % len(self.model.tasks)])
            case PauseQueue(paused):
                self.both("pause", paused)
            case Join(slots, entry):
                if len(self.model.workers) < MOST_WORKERS:
                    self.both("join", slots, entry)
            case Leave(worker, begun):
                self.both("leave", self.worker(worker), begun)
            case Renew(worker):
                self.both("renew", self.worker(worker))
            case Silence(worker):
                self._silence(self.worker(worker))

    def _job(self, step: Push) -> Job:
        return Job(
            f"t{next(self.names):04}",
            USERS[step.user],
            step.function,
            step.priority,
            step.cost,
            limiter=step.limiter,
        )

    def _trade(self, step: Trade) -> None:
        worker = self.worker(step.worker)
        held = dict(self.model.workers[worker].held)
        outcomes: list[Outcome] = []
        for settle in step.settles:
            if not held:
                break
            name = list(held)[settle.pick % len(held)]
            ran = (self.now - held.pop(name).entered) / 1e6
            seconds = max(0.0, ran) if settle.seconds is None else settle.seconds
            outcomes.append(Outcome(name, settle.kind, seconds, settle.delay))
        users = tuple(USERS[user] for user in step.users)
        exchange: Exchange = self.both("exchange", worker, outcomes, step.want, beat=step.beat, users=users)
        assert len(exchange.codes) == len(outcomes)

    def _silence(self, worker: int) -> None:
        others = [number for number in sorted(self.model.workers) if number != worker]
        watcher: int = others[0] if others else self.both("join", 1)
        for _ in range(8):
            self.now += self.model.lease // 3
            self.both("renew", watcher)
        self.both("exchange", worker, want=1)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[redis.Redis]:
    """A client of a server that this module has for itself while it runs."""
    client = server.client()
    yield client
    client.flushall()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not THOROUGH,
    print_blob=THOROUGH,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    config=configs,
    slots=st.integers(1, 20),
    first=st.lists(policies, max_size=len(USERS)),
    steps=st.lists(steps, min_size=25, max_size=100),
)
@pytest.mark.timeout(0 if THOROUGH else 300)
def test_scripts_decide_as_the_model(
    client: redis.Redis, config: QueueConfig, slots: int, first: list[Policy], steps: list[Step]
) -> None:
    pair = Pair(Reference(config), Driver(client, config))
    pair.both("join", slots)
    try:
        for name in GROUPS:
            pair.both("set_group", name, Limits())
        for name in LIMITERS:
            pair.both("set_limiter", name, Permits())
        for step in [*first, *steps]:
            pair.apply(step)
    except AssertionError:
        for now, call, arguments, options, answer in pair.story:
            note(f"at {now}: {call} {arguments} {options} -> {answer}")
        raise


def test_entering_drops_those_whom_virtual_time_passes(client: redis.Redis) -> None:
    """Virtual time can move in the middle of a call: a task ends far over its estimate, then a capped tenant enters.

    Who only runs and is passed by that competes no more. (It was dropped too late, and virtual time went back to it.)
    """
    config = QueueConfig(fairness="worker_time", sparse_share=0)
    pair = Pair(Reference(config), Driver(client, config), now=0)
    pair.both("join", 4)
    pair.both("push", [Job("c0", "c", "long")])
    pair.both("exchange", 1, want=1)
    for _ in range(4):
        pair.now += 5_000_000
        pair.both("exchange", 1, beat=True)
    # What c runs takes 20 s, as the scheduler now knows; b is at its cap.
    pair.both("set_policy", "b", Limits(cap=1))
    pair.both("exchange", 1, [Outcome("c0", "finish", 20.0)])
    pair.both("push", [Job("c1", "c", "long"), *(Job(f"{user}{i}", user) for user in "ab" for i in range(5))])
    pair.both("exchange", 1, want=1, users=("c",))
    pair.both("exchange", 1, want=3)
    assert set(pair.model.view().levels[""].ahead) == {"c"}
    pair.now += 40_000_000
    ended = [Outcome("a0", "finish", 40.0), Outcome("a1", "finish", 40.0), Outcome("b0", "finish", 1.0)]
    pair.both("exchange", 1, ended)
    assert pair.model.view().levels[""].ahead == {}
