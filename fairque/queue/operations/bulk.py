"""Many tasks at once, by a filter: found page by page, and changed only if they still are as they were seen.

A page's place is an entry of the state's registry (its score and id), so that what leaves the registry meanwhile makes
nobody be passed over. What comes after the call has begun is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from fairque.core.attempts import error_in
from fairque.core.codec import decode_error
from fairque.core.exceptions import InvalidFilterError, SerializationError
from fairque.core.filters import TaskFilter
from fairque.core.keys import encode
from fairque.core.models import Task, TaskError
from fairque.core.patterns import lua_pattern
from fairque.core.states import TaskState
from fairque.queue.operations.base import Argument, Engine, Flow
from fairque.queue.operations.records import to_task
from fairque.queue.operations.tasks import of_this_run

Form = Literal["ids", "tasks", "last", "errors"]
Action = Literal["cancel", "requeue", "delete"]
PAGE = 500
CHUNK = 200
ENDED = (TaskState.FAILED, TaskState.CANCELED, TaskState.FINISHED)
WAITING = (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.DEFERRED)
CANCELABLE = (*WAITING, TaskState.STARTED)
_pack = msgspec.msgpack.Encoder().encode
_DONE, _ASKED, _GONE = 1, 2, 0


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of the tasks that a filter found.

    `matched`: how many fitted it. `done`: how many were changed; `asked`: how many ran and were asked to stop. The
    rest was not touched: `changed` had left the state in which they were seen, `gone` were there no more. With
    `dry_run` nothing was done, and `matched` is the preview.
    """

    matched: int = 0
    done: int = 0
    asked: int = 0
    changed: int = 0
    gone: int = 0
    dry_run: bool = False

    def __add__(self, other: BulkOutcome) -> BulkOutcome:
        return BulkOutcome(
            self.matched + other.matched,
            self.done + other.done,
            self.asked + other.asked,
            self.changed + other.changed,
            self.gone + other.gone,
            self.dry_run,
        )


class Place(NamedTuple):
    """An entry of a registry, behind which the next page begins, and until when entries count (µs; None: until now)."""

    score: str = ""
    task_id: str = ""
    before: int | None = None


class Seen(NamedTuple):
    """A task as it was found: its encoded id, state, and since when (µs), and what else was asked for."""

    task_id: str
    state: TaskState
    entered: int
    task: Task[Any] | None
    errors: tuple[TaskError, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of tasks that fit, and where the next one begins (None: nowhere). Pages may be short, or empty."""

    seen: tuple[Seen, ...]
    place: Place | None


def find_page(
    engine: Engine,
    wanted: TaskFilter,
    state: TaskState,
    place: Place | None = None,
    limit: int = PAGE,
    form: Form = "ids",
) -> Flow[Found]:
    """The next tasks of a state that fit, oldest first. `form`: what is told of them besides ids."""
    place = place or Place()
    user = encode(wanted.exact_user) if wanted.exact_user else ""
    told: Form = form
    if form == "ids" and wanted.looks_inside:
        told = "tasks" if wanted.error is None else "last"
    now, score, last, *parts = yield engine.call(
        "find_tasks",
        "dlq" if user and state is TaskState.FAILED else state.value,
        user,
        place.score,
        place.task_id,
        # What is looked at here may well not fit.
        PAGE if wanted.looks_inside else limit,
        _pattern(wanted.user) if not user else b"",
        _pattern(wanted.function),
        _conditions(wanted, place.before),
        told,
    )
    before = place.before if place.before is not None else int(now)
    seen = [one for one in map(_seen, _fives(parts)) if not wanted.looks_inside or _fits(wanted, one)]
    if len(seen) > limit:
        # An entry's score is when its task entered the state.
        seen = seen[:limit]
        score, last = str(seen[-1].entered).encode(), seen[-1].task_id.encode()
    return Found(tuple(seen), Place(score.decode(), last.decode(), before) if last else None)


def _pattern(glob: str | None) -> bytes:
    return b"" if glob is None else lua_pattern(glob)


def _conditions(wanted: TaskFilter, before: int | None) -> bytes:
    conditions: dict[str, Any] = {}
    if wanted.priorities:
        conditions["priorities"] = dict.fromkeys(wanted.priorities, True)
    for name, seconds in (("older", wanted.older_than), ("younger", wanted.younger_than)):
        if seconds is not None:
            conditions[name] = round(seconds * 1e6)
    if before is not None:
        conditions["before"] = before
    return _pack(conditions)


def _fives(parts: list[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*(iter(parts),) * 5, strict=True)


def _seen(parts: tuple[Any, ...]) -> Seen:
    task_id, state, entered, data, errors = parts
    task: Task[Any] | None = None
    if data:
        try:
            task = to_task(task_id, data)
        except SerializationError:
            task = to_task(task_id, data, body=False)
    return Seen(
        task_id.decode(),
        TaskState.from_code(state),
        int(entered),
        task,
        tuple(decode_error(error_in(one)) for one in of_this_run(data, errors)),
    )


def _fits(wanted: TaskFilter, one: Seen) -> bool:
    return one.task is not None and wanted.fits_inside(one.task, one.errors)


def count_where(
    engine: Engine, wanted: TaskFilter, states: tuple[TaskState, ...] = tuple(TaskState)
) -> Flow[int]:
    """How many tasks fit now, in the states that the filter names, else in `states`."""
    outcome = yield from _each(engine, None, wanted, wanted.states or states, None)
    return outcome.matched


def cancel_where(
    engine: Engine, wanted: TaskFilter, *, dry_run: bool = False, limit: int | None = None
) -> Flow[BulkOutcome]:
    """Cancel all tasks that fit and wait, and ask those that run to stop; at most `limit` of them.

    Raises:
        InvalidFilterError: the filter has no condition, or names a state that no cancel leads out of.
    """
    _check(wanted, limit)
    wanted = wanted.in_states(CANCELABLE, CANCELABLE, "a cancel")
    return (yield from _each(engine, None if dry_run else "cancel", wanted, wanted.states, limit))


def retry_where(
    engine: Engine, wanted: TaskFilter, *, dry_run: bool = False, limit: int | None = None
) -> Flow[BulkOutcome]:
    """Queue again all failed tasks that fit (canceled ones if the filter names that state), as a new run.

    Raises:
        InvalidFilterError: the filter has no condition, or names a state other than failed and canceled.
    """
    _check(wanted, limit)
    wanted = wanted.in_states((TaskState.FAILED, TaskState.CANCELED), (TaskState.FAILED,), "a retry")
    return (yield from _each(engine, None if dry_run else "requeue", wanted, wanted.states, limit))


def delete_where(
    engine: Engine, wanted: TaskFilter, *, dry_run: bool = False, limit: int | None = None
) -> Flow[BulkOutcome]:
    """Remove all tasks that fit and have ended (others if the filter names their states), with all of theirs.

    Raises:
        InvalidFilterError: the filter has no condition, or names started tasks.
    """
    _check(wanted, limit)
    wanted = wanted.in_states((*WAITING, *ENDED), ENDED, "a removal")
    return (yield from _each(engine, None if dry_run else "delete", wanted, wanted.states, limit))


def _check(wanted: TaskFilter, limit: int | None) -> None:
    if wanted.is_empty:
        raise InvalidFilterError("the filter has no condition: if all tasks are meant, say so with user='*'")
    if limit is not None and limit < 1:
        raise InvalidFilterError(f"limit must be at least 1, not {limit}")


def act_where(
    engine: Engine,
    action: Action | None,
    wanted: TaskFilter,
    states: tuple[TaskState, ...],
    limit: int | None = None,
) -> Flow[BulkOutcome]:
    """`action` (None: only count) on all tasks that fit, also with a filter without conditions."""
    return (yield from _each(engine, action, wanted, states, limit))


def _each(
    engine: Engine,
    action: Action | None,
    wanted: TaskFilter,
    states: tuple[TaskState, ...],
    limit: int | None,
) -> Flow[BulkOutcome]:
    total = BulkOutcome(dry_run=action is None)
    for state in states:
        place: Place | None = None
        while limit is None or total.matched < limit:
            size = PAGE if limit is None else min(PAGE, limit - total.matched)
            page = yield from find_page(engine, wanted, state, place, size)
            total += BulkOutcome(matched=len(page.seen))
            if action is not None:
                total += yield from act(engine, action, page.seen)
            place = page.place
            if place is None:
                break
    return total


def act(engine: Engine, action: Action, seen: tuple[Seen, ...]) -> Flow[BulkOutcome]:
    """Do it to these, as far as they still are as they were seen; `matched` is left to the caller."""
    total = BulkOutcome()
    start = 0
    while start < len(seen):
        argv: list[Argument] = []
        for one in seen[start : start + CHUNK]:
            argv += [one.task_id, one.state.code, one.entered]
        # Sent again after a lost reply, it finds what it did before changed, and does it no second time.
        codes: list[int] = yield engine.call("bulk", action, *argv)
        start += len(codes)
        total += BulkOutcome(
            done=codes.count(_DONE),
            asked=codes.count(_ASKED),
            gone=codes.count(_GONE),
            changed=sum(code < 0 for code in codes),
        )
    return total
