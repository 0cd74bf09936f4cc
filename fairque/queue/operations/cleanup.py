"""The clean-up: rounds of bounded calls, of a caller's own or of the queue's, which workers take turns in."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairque.core.exceptions import UserBusyError
from fairque.core.filters import TaskFilter
from fairque.core.keys import encode
from fairque.core.states import TaskState
from fairque.queue.operations import bulk
from fairque.queue.operations.base import Engine, Flow

DONE = ("promoted", "expired", "forgotten", "dead_letters_expired", "dead_letters_dropped", "orphans")
"""What a round counts: tasks whose time came, or passed; entries of results past their TTL; dead letters past theirs,
or beyond what a user may have; and what was left behind without its other half."""
AUDIT_SECONDS = 3600.0
"""From one of the queue's own rounds that looks for orphans to the next."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one call of the queue's own round did, and in how many seconds to come again. `over`: the round is, or it
    is somebody else's turn."""

    over: bool
    wait: float
    done: dict[str, int] = field(default_factory=dict)


def sweep(engine: Engine) -> Flow[dict[str, int]]:
    """A whole round, orphans included, in calls of a few milliseconds; how many of each there were."""
    totals: dict[str, int] = dict.fromkeys(DONE, 0)
    step, cursor = "", "0"
    while True:
        following, at, _wait, *counts = yield engine.call("sweep", "", 0, 0, step, cursor)
        for name, count in _counts(counts).items():
            totals[name] = totals.get(name, 0) + count
        step, cursor = following.decode(), at.decode()
        if not step:
            return totals


def take_turn(engine: Engine, owner: str, every: float, again: float = AUDIT_SECONDS) -> Flow[Turn]:
    """Go on with the queue's own round, if nobody else does: `every` seconds, and with orphans `again`."""
    step, _cursor, wait, *counts = yield engine.call(
        "sweep", owner, round(every * 1e6), round(again * 1e6), "", "0"
    )
    return Turn(not step, wait / 1e6, _counts(counts))


def _counts(parts: list[bytes | int]) -> dict[str, int]:
    names = [part.decode() if isinstance(part, bytes) else str(part) for part in parts[::2]]
    return {name: int(count) for name, count in zip(names, parts[1::2], strict=True)}


@dataclass(frozen=True, slots=True)
class DeletedUser:
    """What became of a user. `done`: nothing of it is left; else `running` tasks were asked to stop, and the call is to
    be made again when they have. `tasks`: how many were removed."""

    done: bool
    tasks: int
    running: int


def delete_user(engine: Engine, user_id: str, force: bool = False) -> Flow[DeletedUser]:
    """Remove a user with its policy, counters, dead letters and kept tasks; with `force` also what waits, and what
    runs is asked to stop.

    Raises:
        UserBusyError: it has tasks that wait or run, and `force` was not given.
    """
    user = encode(user_id)
    own = TaskFilter().of_user(user_id)
    before = _Left(*(yield engine.call("delete_user", user)))
    if before.forgotten:
        removed = yield from bulk.delete_where(engine, own)
        # What had ended without being counted anywhere: results that are kept.
        return DeletedUser(True, removed.done, 0)
    if before.busy and not force:
        raise UserBusyError(
            f"user {user_id!r} has tasks: {before.queued} queued, {before.delayed} delayed, {before.running} running. "
            "Wait until they have ended, or force it",
            user_id=user_id,
            queued=before.queued,
            delayed=before.delayed,
            running=before.running,
        )
    if before.running:
        yield from bulk.act_where(engine, "cancel", own, (TaskState.STARTED,))
    removed = yield from bulk.act_where(engine, "delete", own, (*bulk.WAITING, *bulk.ENDED))
    after = _Left(*(yield engine.call("delete_user", user)))
    return DeletedUser(after.forgotten == 1, removed.done, after.running)


@dataclass(frozen=True, slots=True)
class _Left:
    forgotten: int
    queued: int
    delayed: int
    running: int
    dead: int

    @property
    def busy(self) -> bool:
        return self.queued + self.delayed + self.running > 0
