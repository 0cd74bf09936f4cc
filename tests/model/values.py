"""What goes into a scheduler and what can be seen of it, the same for the model and for the real scripts.

Times are whole microseconds of a clock that the caller owns. Weights and costs are whole thousandths. Tags, virtual
time and charges are doubles, and both sides must get the very same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a claim ends. `delay`: of a retry in µs, 0 at once, -1 no retry is wanted."""

    task_id: str
    kind: Kind
    seconds: float = 0.0
    delay: int = -1


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
    """A tenant between two calls. `counted_weight` and `counted_running` are what it adds to the clock's sums."""

    tag: float
    floor: float
    weight: int
    cap: int
    paused: bool
    sparse: bool
    critical: int
    normal: int
    running: int
    counted_weight: int
    counted_running: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything that decides what comes next, between two calls.

    `ready`, `in_lane` and `ahead` are the three sorted sets (user to tag), `held` what live and dead workers hold.
    """

    virtual: float
    mark: float
    generation: int
    weight: int
    running: int
    all_running: int
    slots: int
    lane: int
    credit: float
    tenants: dict[str, TenantView] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    in_lane: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


class Scheduler(Protocol):
    """What the model and the driver of the real scripts have in common. `now` never needs to move forward.

    `join` numbers the workers from 1. A worker that was declared dead gets WorkerDeadError.
    """

    def join(self, now: int, slots: int) -> int: ...

    def leave(self, now: int, worker: int, begun: bool) -> None:
        """It is out, and what it holds goes back; `begun`: all of that had begun, so it is charged, else none."""
        ...

    def renew(self, now: int, worker: int) -> None: ...

    def push(self, now: int, jobs: Sequence[Job]) -> None: ...

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

    def set_policy(
        self, now: int, user: str, *, weight: int = 1000, cap: int = 0, paused: bool = False
    ) -> None: ...

    def pause(self, now: int, paused: bool) -> None: ...
