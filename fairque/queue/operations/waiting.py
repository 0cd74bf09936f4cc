"""All that decides when a task starts, as one call of explain.lua reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fairque.core import record
from fairque.core.attempts import held_back
from fairque.core.keys import decode
from fairque.core.limiter import LimiterRecord, unpack_limiter
from fairque.core.record import Record
from fairque.core.tenant import TenantRecord, unpack_tenant

ENDED_SECONDS = (1, 4, 16, 64, 256)
_unpack = msgspec.msgpack.Decoder(dict[str, Any], strict=False).decode


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """The queue as a whole. Times in µs; what the numbers mean stands in lib/clock.lua."""

    now: float
    virtual: float
    mark: float
    weight: float
    all_running: float
    generation: float
    slots: float
    paused: float
    assigned: float
    window: float
    served_now: float
    served_before: float


@dataclass(frozen=True, slots=True)
class RivalFacts:
    """One of those that compete: a user, or an organisation behind a colon, encoded."""

    name: str
    tag: float
    rec: TenantRecord | None


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """Who is ready on a level: how many, the rank of the task's own tenant (None: it is not), and the first of them."""

    ready: int
    rank: int | None
    rivals: tuple[RivalFacts, ...]


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A live worker: the entry that it serves as, and whether it has the task's function."""

    entry: str
    slots: int
    running: int
    has_function: bool

    @property
    def is_busy(self) -> bool:
        """Whether it has no free slot."""
        return self.running >= self.slots


@dataclass(frozen=True, slots=True)
class BeforeFacts:
    """Tasks of the same user that start before it; `critical` None: too many to find it among them.

    `own_limiter`: those under its own limiter.
    """

    critical: int | None
    normal: int
    limited: int
    own_limiter: int

    @property
    def total(self) -> int | None:
        """All of them."""
        return (
            None if self.critical is None else self.critical + self.normal + self.limited + self.own_limiter
        )


@dataclass(frozen=True, slots=True)
class LimiterFacts:
    """The limiter of the task: what of it is in use, how many users wait for it alone, and who uses how much of it."""

    name: str
    rec: LimiterRecord
    waiting: int
    users: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one task. `broken`: which of its user's keys is no queue any more. `ended`: tasks that ended in the last
    `ENDED_SECONDS`; `queued`: of all users. `held_back`: seconds that the retry budget adds to its wait for a retry."""

    rec: Record
    clock: ClockFacts
    user: TenantRecord | None
    group: TenantRecord | None
    before: BeforeFacts
    broken: str
    root: LevelFacts
    inner: LevelFacts
    limiter: LimiterFacts | None
    worker_count: int
    workers: tuple[WorkerFacts, ...]
    announced: float
    words: frozenset[str]
    entries: dict[str, tuple[str, str]]
    ended: tuple[int, ...]
    queued: int
    held_back: float = 0.0

    @property
    def user_id(self) -> str:
        """As its caller wrote it."""
        return decode(self.rec.user)

    @property
    def group_name(self) -> str | None:
        """The organisation of its user."""
        return decode(self.user.group[1:]) if self.user is not None and self.user.group else None

    def owns(self, worker: WorkerFacts) -> bool:
        """Whether the user is among those whom a worker serves first."""
        if not self.clock.assigned or not worker.entry:
            return True
        own = self.entries.get(worker.entry, ("list", "*"))[0]
        is_owned = any(word.startswith("o") for word in self.words)
        return f"o{worker.entry}" in self.words if own == "list" else not is_owned

    def steals(self, worker: WorkerFacts) -> bool:
        """Whether a worker serves the user when its own leave slots free, or when the user has waited too long."""
        steal = self.entries.get(worker.entry, ("list", "*"))[1]
        return steal == "*" or (steal == "list" and f"t{worker.entry}" in self.words)

    def serving(self) -> tuple[WorkerFacts, ...]:
        """Those that may serve the user at all."""
        return tuple(worker for worker in self.workers if self.owns(worker) or self.steals(worker))


def facts(reply: list[Any]) -> Facts:
    """What the script found."""
    (head, numbers, user, group, before, broken, root, inner, limiter, workers, announced, words, entries, ended,
     queued, last_attempt) = reply  # fmt: skip
    rec = record.unpack(head)
    return Facts(
        rec=rec,
        clock=ClockFacts(*map(float, numbers)),
        user=unpack_tenant(user) if user else None,
        group=unpack_tenant(group) if group else None,
        before=BeforeFacts(before[0] if before[0] >= 0 else None, *before[1:]),
        broken=broken.decode(),
        root=_level(root),
        inner=_level(inner),
        limiter=_limiter(rec.limiter, limiter) if rec.limiter else None,
        worker_count=workers[0],
        workers=tuple(
            WorkerFacts(entry.decode(), int(slots), running, bool(has))
            for entry, slots, running, has in zip(*(iter(workers[1:]),) * 4, strict=True)
        ),
        announced=float(announced),
        words=frozenset(words.decode().split()),
        entries={
            name.decode(): (own.decode(), steal.decode())
            for name, (own, steal) in (
                (entries[i], entries[i + 1].split()) for i in range(0, len(entries), 2)
            )
        },
        ended=tuple(ended),
        queued=queued,
        held_back=held_back(last_attempt, rec.entered),
    )


def _level(parts: list[Any]) -> LevelFacts:
    ready, rank, *rest = parts
    rivals = tuple(
        RivalFacts(name.decode(), float(tag), unpack_tenant(data) if data else None)
        for name, tag, data in zip(*(iter(rest),) * 3, strict=True)
    )
    return LevelFacts(ready, rank if rank >= 0 else None, rivals)


def _limiter(name: str, parts: list[Any]) -> LimiterFacts:
    data, policy, waiting, *uses = parts
    if data:
        rec = unpack_limiter(data)
    else:
        fields = _unpack(policy) if policy else {}
        rate = fields.get("rate_limit")
        interval = 1e6 / rate if rate else 0.0
        rec = LimiterRecord(
            fields.get("max_concurrency", 0),
            0,
            0.0,
            interval,
            (fields["burst"] - 1) * interval if rate else 0.0,
        )
    users = {decode(uses[i].decode()): uses[i + 1] for i in range(0, len(uses), 2)}
    return LimiterFacts(decode(name), rec, waiting, users)
