"""What goes into a scheduler and what can be seen of it, the same for the model and for the real scripts.

Times are whole microseconds of a clock that the caller owns. Weights and costs are whole thousandths. Tags, virtual
time and charges are doubles, and both sides must get the very same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

SECOND = 1_000_000
CRITICAL = 6

Kind = Literal["finish", "fail", "release"]


@dataclass(frozen=True, slots=True)
class Job:
    """A task as it is pushed."""

    task_id: str
    user: str
    function: str = "f"
    priority: int = 3
    cost: int = 1000
    max_retries: int = 3
    limiter: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a claim ends. `delay`: of a retry in µs, 0 at once, -1 no retry is wanted."""

    task_id: str
    kind: Kind
    seconds: float = 0.0
    delay: int = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tenant, or one organisation, may use. `rate` is per second; 0 and "" stand for none."""

    weight: int = 1000
    cap: int = 0
    paused: bool = False
    rate: float = 0.0
    burst: int = 2
    max_queued: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class Permits:
    """What a named limiter allows all its tasks together. 0: no limit."""

    cap: int = 0
    rate: float = 0.0
    burst: int = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A worker entry: whom it serves first, and whom when those leave slots free. None stands for `"*"`."""

    own: tuple[str, ...] | None = None
    steal: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """One decision: which task of whom, what it was charged, and whether it came by the sparse lane."""

    task_id: str
    user: str
    charged: float
    by_lane: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one settle and claim brought: a code for each outcome, and the decisions in their order."""

    codes: tuple[int, ...]
    claimed: tuple[Claimed, ...]


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant or an organisation between two calls. `counted_weight` and `counted_running` are what it adds to its
    level's sums; `parked`: until when it has no token, if that alone keeps it from being ready; `full`: after how
    many µs its bucket of tokens is."""

    tag: float
    floor: float
    weight: int
    cap: int
    paused: bool
    sparse: bool
    queued: int
    delayed: int
    running: int
    counted_weight: int
    counted_running: int
    full: float = 0.0
    parked: float | None = None
    late: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class LevelView:
    """Virtual time among tenants that compete directly: at the root, or within one organisation.

    `ready` and `ahead` are its sorted sets (tenant to tag).
    """

    virtual: float
    mark: float
    weight: int
    running: int
    ready: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LimiterView:
    """A named limiter: what of it is in use, after how many µs its bucket is full, who waits for it alone, and
    until when at most.
    """

    running: int
    full: float
    blocked: dict[str, float] = field(default_factory=dict)
    parked: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Everything that decides what comes next, between two calls.

    Organisations stand among the tenants, and levels are keyed, by their name after a colon; "" is the root. `held` is
    what live and dead workers hold; `sets` are those of who serves whom, by their word.
    """

    generation: int
    all_running: int
    slots: int
    lane: int
    credit: float
    tenants: dict[str, TenantView] = field(default_factory=dict)
    levels: dict[str, LevelView] = field(default_factory=dict)
    limiters: dict[str, LimiterView] = field(default_factory=dict)
    in_lane: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    sets: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)


class Scheduler(Protocol):
    """What the model and the driver of the real scripts have in common. `now` never needs to move forward.

    `join` numbers the workers from 1. A worker that was declared dead gets WorkerDeadError.
    """

    def join(self, now: int, slots: int, entry: str = "") -> int: ...

    def leave(self, now: int, worker: int, begun: bool) -> None:
        """It is out, and what it holds goes back; `begun`: all of that had begun, so it is charged, else none."""
        ...

    def renew(self, now: int, worker: int) -> None: ...

    def push(self, now: int, jobs: Sequence[Job]) -> list[bool]:
        """Whether each was taken: one over its tenant's, or its organisation's, quota is not."""
        ...

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
        """Settle, then claim up to `want`. `beat`: it is a heartbeat too. `users`: only theirs."""
        ...

    def cancel(self, now: int, task_id: str) -> None: ...

    def set_policy(self, now: int, user: str, limits: Limits) -> None: ...

    def set_group(self, now: int, name: str, limits: Limits) -> None: ...

    def set_limiter(self, now: int, name: str, permits: Permits) -> None: ...

    def assign(self, now: int, entries: Mapping[str, Entry]) -> None: ...

    def pause(self, now: int, paused: bool) -> None: ...
