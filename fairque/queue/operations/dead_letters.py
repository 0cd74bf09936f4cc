"""Dead letters: tasks that have failed for good, kept with every attempt's error until somebody decides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from fairque.core.codec import bind_arguments, encode_error, encode_task_body
from fairque.core.events import DeadLettered, DeadLettersPassed, Event
from fairque.core.exceptions import InvalidFilterError, InvalidStateError, InvalidTaskError
from fairque.core.filters import TaskFilter
from fairque.core.graph import dependencies_of
from fairque.core.keys import decode
from fairque.core.models import DLQEntry, Task
from fairque.core.record import Reason
from fairque.core.registry import default_registry
from fairque.core.states import TaskState
from fairque.queue.operations import bulk
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.bulk import BulkOutcome, Place
from fairque.queue.operations.push import check_size
from fairque.queue.operations.records import at, micros
from fairque.queue.operations.tasks import PAGE, Page, encoded_id, get_task, not_found, requeue

CALLS = 20
"""A page of dead letters is looked for in so many calls, and is short if they find no more."""
NEWS = 500
Ids = str | Task[Any] | Sequence[str | Task[Any]]
_DEAD = (TaskState.FAILED,)
_CURSOR = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/(.+)", re.DOTALL)
_unpack = msgspec.msgpack.Decoder(strict=False).decode


class Unset:
    """An argument that was not given, where None is a value."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def _dead(wanted: TaskFilter | None, user: str | None) -> TaskFilter:
    """The filter, of dead letters and of `user`."""
    return (wanted or TaskFilter()).of_user(user).in_states(_DEAD, _DEAD, "queue.dlq")


def list_dead(
    engine: Engine,
    user: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
    wanted: TaskFilter | None = None,
) -> Flow[Page[DLQEntry]]:
    """One page of dead letters that fit, oldest first, with every attempt's error.

    Raises:
        InvalidTaskError: the limit or the cursor is wrong.
        InvalidFilterError: the filter is about other states, or another user.
    """
    if not 1 <= limit <= PAGE:
        raise InvalidTaskError(f"a page has 1 to {PAGE} dead letters, not {limit}")
    place: Place | None = None
    if cursor is not None:
        parts = _CURSOR.fullmatch(cursor)
        if parts is None:
            raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
        place = Place(parts[1], parts[2])
    wanted = _dead(wanted, user)
    entries: list[DLQEntry] = []
    for _ in range(CALLS):
        found = yield from bulk.find_page(
            engine, wanted, TaskState.FAILED, place, limit - len(entries), "errors"
        )
        entries += [_entry(one) for one in found.seen]
        place = found.place
        if place is None or len(entries) == limit:
            break
    return Page(tuple(entries), f"{place.score}/{place.task_id}" if place else None)


def _entry(one: bulk.Seen) -> DLQEntry:
    task = one.task or Task()  # it was asked for
    return DLQEntry(task=task, reason=task.reason, entered_at=at(one.entered), errors=one.errors)


def count_dead(engine: Engine, wanted: TaskFilter | None = None, user: str | None = None) -> Flow[int]:
    """How many dead letters fit."""
    return (yield from bulk.count_where(engine, _dead(wanted, user), _DEAD))


@dataclass(frozen=True, slots=True)
class DeadCount:
    """How many dead letters a user has, and since when the oldest is there."""

    user_id: str
    count: int
    oldest: datetime


def list_users(engine: Engine, cursor: str | None = None, limit: int = 100) -> Flow[Page[DeadCount]]:
    """One page of the users that have dead letters, those with most first.

    Raises:
        InvalidTaskError: the limit or the cursor is wrong.
    """
    if not 1 <= limit <= PAGE:
        raise InvalidTaskError(f"a page has 1 to {PAGE} users, not {limit}")
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
    offset = int(cursor or 0)
    parts = yield engine.call("dead_users", offset, limit)
    found = [
        DeadCount(decode(user.decode()), int(float(count)), at(float(oldest)))
        for user, count, oldest in zip(*(iter(parts),) * 3, strict=True)
    ]
    return Page(tuple(found), str(offset + limit) if len(found) == limit else None)


def _named(ids: Ids) -> list[str | Task[Any]]:
    return [ids] if isinstance(ids, str | Task) else list(ids)


def requeue_dead(engine: Engine, ids: Ids | None = None, user: str | None = None) -> Flow[int]:
    """Queue dead letters again: those named, else all of `user`, else all; returns how many.

    Raises:
        TaskNotFoundError, InvalidStateError: one that was named is not there, or has not ended so.
    """
    if ids is not None:
        named = _named(ids)
        return (yield from requeue(engine, named)) if named else 0
    outcome = yield from bulk.act_where(engine, "requeue", _dead(None, user), _DEAD)
    return outcome.done


def requeue_where(
    engine: Engine,
    wanted: TaskFilter,
    user: str | None = None,
    dry_run: bool = False,
    limit: int | None = None,
) -> Flow[BulkOutcome]:
    """Queue the dead letters that fit again."""
    return (yield from bulk.retry_where(engine, _dead(wanted, user), dry_run=dry_run, limit=limit))


def requeue_changed(
    engine: Engine,
    task_id: str | Task[Any],
    args: Sequence[Any] | Unset = UNSET,
    kwargs: Mapping[str, Any] | Unset = UNSET,
    payload: Any = UNSET,
) -> Flow[int]:
    """Queue one dead letter again with other arguments; what is not given stays. They are checked as a push is.

    Raises:
        TaskNotFoundError: there is no such task.
        InvalidStateError: it has not ended so, or somebody else has moved it meanwhile.
        InvalidTaskError: (or one below it) it cannot run, or be stored, with them; it stays as it is.
    """
    name = task_id.task_id if isinstance(task_id, Task) else task_id
    task = yield from get_task(engine, name)
    if task is None:
        raise not_found(name)
    if task.state not in (TaskState.FAILED, TaskState.CANCELED):
        raise _not_dead(task)
    changed = _changed(task, args, kwargs, payload)
    others = set(dependencies_of(changed)) - set(task.depends_on)
    if others:
        raise InvalidTaskError(
            f"task {name} does not wait for {min(others)}, so it cannot be given its output: push a new task",
            task_id=name,
            user_id=task.user_id,
        )
    body = encode_task_body(msgspec.structs.replace(changed, depends_on=()))
    check_size(engine, changed, body)
    entered = micros(task.entered_at or at(0))
    code = yield engine.call("requeue_changed", encoded_id(name), entered, body, resend=False)
    if code == 0:
        raise not_found(name)
    if code < 0:
        raise InvalidStateError(
            f"task {name} was moved by somebody else meanwhile: look at it again",
            task_id=name,
            user_id=task.user_id,
        )
    return 1


def _changed(task: Task[Any], args: Any, kwargs: Any, payload: Any) -> Task[Any]:
    about: dict[str, Any] = {"task_id": task.task_id, "user_id": task.user_id}
    if task.function:
        if payload is not UNSET:
            raise InvalidTaskError(
                f"task {task.task_id} calls {task.function}: it takes args and kwargs, and no payload",
                **about,
            )
        new_args = task.args if args is UNSET else tuple(args)
        new_kwargs = task.kwargs if kwargs is UNSET else dict(kwargs)
        if task.function in default_registry():
            bind_arguments(default_registry().resolve(task.function).fn, new_args, new_kwargs)
        return msgspec.structs.replace(task, args=new_args, kwargs=new_kwargs)
    if args is not UNSET or kwargs is not UNSET:
        raise InvalidTaskError(
            f"task {task.task_id} carries a payload: it takes no args and kwargs, but payload", **about
        )
    return msgspec.structs.replace(task, payload=payload)


def _not_dead(task: Task[Any]) -> InvalidStateError:
    return InvalidStateError(
        f"task {task.task_id} is {task.state}, so it is no dead letter",
        task_id=task.task_id,
        user_id=task.user_id,
        state=task.state,
    )


def purge_dead(engine: Engine, ids: Ids | None = None, user: str | None = None) -> Flow[int]:
    """Remove dead letters for ever: those named, else all of `user`, else all; returns how many there were.

    Raises:
        InvalidStateError: one that was named is no dead letter; nothing is removed.
    """
    if ids is None:
        outcome = yield from bulk.act_where(engine, "delete", _dead(None, user), _DEAD)
        return outcome.done
    seen: list[bulk.Seen] = []
    for one in _named(ids):
        task = yield from get_task(engine, one)
        if task is None:
            continue
        if task.state is not TaskState.FAILED:
            raise _not_dead(task)
        seen.append(bulk.Seen(encoded_id(one), task.state, micros(task.entered_at or at(0)), task, ()))
    return (yield from bulk.act(engine, "delete", tuple(seen))).done


def purge_where(
    engine: Engine,
    wanted: TaskFilter,
    user: str | None = None,
    dry_run: bool = False,
    limit: int | None = None,
) -> Flow[BulkOutcome]:
    """Remove the dead letters that fit for ever."""
    return (yield from bulk.delete_where(engine, _dead(wanted, user), dry_run=dry_run, limit=limit))


def move_to_dlq(engine: Engine, task_id: str | Task[Any], reason: str, now: datetime) -> Flow[None]:
    """Make a task that has not ended a dead letter.

    Raises:
        TaskNotFoundError, InvalidStateError: there is no such task, or it has ended.
    """
    error = encode_error(InvalidTaskError(reason), 0, now) if reason else b""
    yield engine.call("bury_task", encoded_id(task_id), error, resend=False)


def take_news(engine: Engine) -> Flow[list[Event]]:
    """What has died, and whose dead letters have passed the alert, since somebody asked; each is given once."""
    events: list[Event] = []
    for packed in (yield engine.call("dead_news", NEWS, resend=False)):
        task_id, user, function, reason, attempt, when, count, passed = _unpack(packed)
        user_id, moment = decode(user), at(float(when))
        events.append(
            DeadLettered(
                at=moment,
                task_id=decode(task_id),
                user_id=user_id,
                function=function,
                attempt=int(attempt),
                reason=Reason(int(reason)).text,
                count=int(count),
            )
        )
        if passed:
            events.append(DeadLettersPassed(at=moment, user_id=user_id, count=int(count)))
    return events


def requeue_any(
    engine: Engine,
    chosen: Ids | TaskFilter | None,
    user: str | None,
    dry_run: bool,
    limit: int | None,
    changes: Mapping[str, Any],
) -> Flow[int | BulkOutcome]:
    """Whatever `queue.dlq.requeue` was asked for."""
    changed = any(value is not UNSET for value in changes.values())
    if changed and not isinstance(chosen, str | Task):
        raise InvalidFilterError("other arguments are for one dead letter: name its id")
    if isinstance(chosen, TaskFilter):
        return (yield from requeue_where(engine, chosen, user, dry_run, limit))
    _only_with_filter(dry_run, limit)
    if changed and isinstance(chosen, str | Task):
        return (yield from requeue_changed(engine, chosen, **changes))
    return (yield from requeue_dead(engine, chosen, user))


def purge_any(
    engine: Engine, chosen: Ids | TaskFilter | None, user: str | None, dry_run: bool, limit: int | None
) -> Flow[int | BulkOutcome]:
    """Whatever `queue.dlq.purge` was asked for."""
    if isinstance(chosen, TaskFilter):
        return (yield from purge_where(engine, chosen, user, dry_run, limit))
    _only_with_filter(dry_run, limit)
    return (yield from purge_dead(engine, chosen, user))


def _only_with_filter(dry_run: bool, limit: int | None) -> None:
    if dry_run or limit is not None:
        name = "dry_run" if dry_run else "limit"
        raise InvalidFilterError(f"{name} goes with a TaskFilter: for all, count() is the preview")
