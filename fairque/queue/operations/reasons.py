"""What keeps a task from starting, in words: in the order in which the reasons would have to go away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fairque.core.keys import decode
from fairque.core.limiter import LimiterRecord
from fairque.core.record import Flags
from fairque.core.states import TaskState
from fairque.core.tenant import TenantFlags, TenantRecord
from fairque.queue.operations.estimate import share_cap
from fairque.queue.operations.waiting import Facts, RivalFacts, WorkerFacts

SHOWN = 5
"""How many of those ahead, or of those who use a limiter, are named."""

LASTING = frozenset(
    {
        "queue_paused",
        "user_paused",
        "group_paused",
        "broken",
        "no_worker",
        "not_served",
        "no_function",
        "deferred",
    }
)
"""Reasons that time alone does not take away."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps a task from starting: a name for programs, and a part of a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that holds for the task.

    `of`: user, group, share (of the slots) or limiter; `name`: whose. `kind`: concurrency (`used` tasks of `limit` run)
    or rate (per second; `opens_in`: seconds until the next task may start). `blocks`: whether it keeps the task from
    starting now.
    """

    of: str
    name: str
    kind: str
    limit: float
    used: int | None = None
    opens_in: float | None = None
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """A tenant that is served first, since its tag is smaller: a user, or a group of users."""

    name: str
    is_group: bool
    tag: float
    weight: float
    queued: int
    running: int


def seconds_text(seconds: float) -> str:
    """A time for people."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if round(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(max(seconds, 0.0), 2):g} s"


class Reasons:
    """What the facts about a task mean.

    `share`: the largest part of the slots for one user. `steal_after`: seconds of waiting that make it everybody's.
    """

    def __init__(self, facts: Facts, share: float, steal_after: float) -> None:
        self._facts, self._share, self._steal_after = facts, share, steal_after

    @cached_property
    def all(self) -> tuple[Reason, ...]:
        """At least one; the first is the main one."""
        state = self._facts.rec.state
        if state is TaskState.STARTED:
            return (self._running(),)
        if state.is_terminal:
            return (self._ended(),)
        if state is TaskState.SCHEDULED:
            return (self._scheduled(),)
        if state is TaskState.DEFERRED:
            return (Reason("deferred", "it waits for other tasks"),)
        return (
            *self._stopped(),
            *self._nobody(),
            *self._used_up(),
            *self._assignment(),
            *self._behind(),
            Reason("next", "it goes to the next worker that asks"),
        )

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """All that hold for the task."""
        return tuple(self._limits())

    @cached_property
    def ahead(self) -> tuple[Ahead, ...]:
        """The first who are served before its user, of the root and then of its group's users."""
        facts, found = self._facts, list[Ahead]()
        for level in (facts.root, facts.inner):
            found += [_ahead(rival) for rival in level.rivals[: min(level.rank or 0, SHOWN)]]
        return tuple(found)

    @property
    def others_from(self) -> float:
        """Seconds until workers of other entries take over."""
        since = self._facts.user.since if self._facts.user is not None else 0.0
        return self.until(since + self._steal_after * 1e6)

    def until(self, micros: float) -> float:
        """Seconds until a time of the server's clock."""
        return max(0.0, (micros - self._facts.clock.now) / 1e6)

    def able(self) -> tuple[WorkerFacts, ...]:
        """The live workers that may serve its user and have its function."""
        return tuple(worker for worker in self._facts.serving() if worker.has_function)

    # -- not queued

    def _since(self) -> str:
        return seconds_text((self._facts.clock.now - self._facts.rec.entered) / 1e6)

    def _running(self) -> Reason:
        rec = self._facts.rec
        text = f"it has been running for {self._since()} (attempt {rec.attempt}) on worker {rec.holder}"
        return Reason("running", text + (", and was asked to stop" if rec.flags & Flags.CANCEL else ""))

    def _ended(self) -> Reason:
        rec = self._facts.rec
        ended = {
            TaskState.FINISHED: "finished",
            TaskState.FAILED: "failed",
            TaskState.CANCELED: "was canceled",
        }
        why = f": {rec.reason.text}" if rec.reason.text else ""
        return Reason(str(rec.state), f"it {ended[rec.state]} {self._since()} ago{why}")

    def _scheduled(self) -> Reason:
        rec = self._facts.rec
        due = seconds_text(self.until(rec.entered))
        if rec.flags & Flags.UNKNOWN:
            return Reason("no_function", f"{self._nobody_has()}; without one it is a dead letter in {due}")
        again = f" for attempt {rec.attempt + 1}" if rec.attempt else ""
        if held := self._facts.held_back:
            return Reason(
                "retry_budget",
                f"it is scheduled{again}, and due in {due}: that is {seconds_text(held)} later, since the retries of "
                f"user {self._facts.user_id} use up their retry_budget",
            )
        return Reason("scheduled", f"it is scheduled{again}, and due in {due}")

    # -- queued

    def _stopped(self) -> Iterator[Reason]:
        """Somebody has to do something."""
        facts = self._facts
        if facts.clock.paused:
            yield Reason("queue_paused", "the whole queue is paused")
        if facts.user is not None and facts.user.flags & TenantFlags.PAUSED:
            yield Reason("user_paused", f"user {facts.user_id} is paused")
        if facts.group is not None and facts.group.flags & TenantFlags.PAUSED:
            yield Reason("group_paused", f"group {facts.group_name} is paused")
        if facts.broken:
            yield Reason(
                "broken",
                f"somebody has put something else in the place of the {decode(facts.broken)} of user {facts.user_id}: "
                "`fairque users reconcile` mends it",
            )

    def _nobody_has(self) -> str:
        function = self._facts.rec.function
        return (
            f"no live worker has the function {function}" if function else "no live worker has a TaskHandler"
        )

    def _nobody(self) -> Iterator[Reason]:
        """No worker that lives may run it."""
        facts = self._facts
        if not facts.worker_count:
            yield Reason("no_worker", "no worker is alive")
        elif facts.worker_count == len(facts.workers):
            if not facts.serving():
                text = f"the live workers serve other users only: none serves user {facts.user_id}"
                yield Reason("not_served", text)
            elif not self.able():
                yield Reason("no_function", self._nobody_has())

    def _used_up(self) -> Iterator[Reason]:
        for limit in self.limits:
            if limit.blocks:
                kind = "rate" if limit.kind == "rate" else "cap"
                yield Reason(
                    "user_share" if limit.of == "share" else f"{limit.of}_{kind}", self._used_up_text(limit)
                )

    def _used_up_text(self, limit: Limit) -> str:
        if limit.kind == "rate":
            opens = seconds_text(limit.opens_in or 0.0)
            return f"{limit.of} {limit.name} may start {limit.limit:.4g} a second, and its next token comes in {opens}"
        if limit.of == "share":
            slots = f"{limit.used} of {self._facts.clock.slots:g} slots"
            return f"{slots} are held by {limit.name}, which may have {limit.limit:g} at most"
        if limit.of == "limiter":
            return (
                f"{limit.used} of at most {limit.limit:g} tasks run under limiter {limit.name}{self._uses()}"
            )
        return f"{limit.used} of at most {limit.limit:g} tasks of {limit.of} {limit.name} run"

    def _uses(self) -> str:
        users = self._facts.limiter.users if self._facts.limiter is not None else {}
        most = sorted(users.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
        return f" ({', '.join(f'{user} {count}' for user, count in most)})" if most else ""

    def _assignment(self) -> Iterator[Reason]:
        facts = self._facts
        if not facts.clock.assigned or facts.user is None or facts.user.flags & TenantFlags.LATE:
            return
        own = [worker for worker in facts.workers if facts.owns(worker)]
        if facts.serving() and all(worker.is_busy for worker in own):
            state = "have no free slot" if own else "are not alive"
            yield Reason(
                "own_workers_busy",
                f"the workers of user {facts.user_id} {state}, and others serve those first whose own they are; it is "
                f"everybody's in {seconds_text(self.others_from)}",
            )

    def _behind(self) -> Iterator[Reason]:
        facts = self._facts
        own = facts.before.total
        if own is None:
            yield Reason("behind_own", f"many CRITICAL tasks of user {facts.user_id} come before it")
        elif own:
            tasks = "task comes" if own == 1 else "tasks come"
            yield Reason("behind_own", f"{own} {tasks} before it among those of user {facts.user_id}")
        if self.ahead:
            yield Reason("behind_others", self._others())
        serving = facts.serving()
        if serving and all(worker.is_busy for worker in serving):
            slots = sum(worker.slots for worker in serving)
            yield Reason("workers_busy", f"all {slots} slots of the workers that serve it are in use")

    def _others(self) -> str:
        shown = [
            f"{'group ' if one.is_group else ''}{one.name} ({one.queued} queued, {one.running} running)"
            for one in self.ahead[:SHOWN]
        ]
        count = (self._facts.root.rank or 0) + (self._facts.inner.rank or 0)
        more = f" and {count - len(shown)} more" if count > len(shown) else ""
        return (
            f"those come first who have had less for their weight (a smaller tag): {', '.join(shown)}{more}"
        )

    # -- limits

    def _limits(self) -> Iterator[Limit]:
        facts = self._facts
        tenants = (("user", facts.user_id, facts.user), ("group", facts.group_name or "", facts.group))
        for of, name, tenant in tenants:
            if tenant is None:
                continue
            if tenant.cap:
                yield _cap(of, name, tenant.cap, tenant.running)
            if share := share_cap(facts, self._share):
                yield _cap("share", f"{of} {name}", share, tenant.running)
            if tenant.interval:
                yield self._rate(of, name, tenant)
        if facts.limiter is not None:
            name, rec = facts.limiter.name, facts.limiter.rec
            if rec.cap:
                yield _cap("limiter", name, rec.cap, rec.running)
            if rec.interval:
                yield self._rate("limiter", name, rec)

    def _rate(self, of: str, name: str, bucket: TenantRecord | LimiterRecord) -> Limit:
        opens = self.until(bucket.full - bucket.tau)
        return Limit(of, name, "rate", 1e6 / bucket.interval, opens_in=opens, blocks=opens > 0)


def _cap(of: str, name: str, cap: int, running: int) -> Limit:
    return Limit(of, name, "concurrency", cap, running, blocks=running >= cap)


def _ahead(rival: RivalFacts) -> Ahead:
    name, rec = rival.name, rival.rec
    is_group = name.startswith(":")
    return Ahead(
        decode(name[1:] if is_group else name),
        is_group,
        rival.tag,
        rec.weight / 1000 if rec is not None else 1.0,
        rec.queued if rec is not None else 0,
        rec.running if rec is not None else 0,
    )
