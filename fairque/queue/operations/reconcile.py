"""Proving that what is stored twice agrees, and mending what does not.

Running counts follow from the claims that workers hold, counts of waiting tasks from the queues, and where a task
belongs from its record. Workers look at a little of it with each sweep; this looks at all. It may run beside them:
each call leaves everything in agreement, and claims are counted in one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from fairque.core.keys import decode
from fairque.core.states import TaskState
from fairque.queue.operations.base import Engine, Flow

# Queues first, since tasks go back into them; users last, since all else is in their counts.
_TASKS = ("broken", "tasks")
_REGISTRIES = tuple(
    state.value
    for state in (
        TaskState.QUEUED,
        TaskState.SCHEDULED,
        TaskState.DEFERRED,
        TaskState.STARTED,
        TaskState.FAILED,
    )
)
_COUNTS = ("claims", "limiters", "groups", "users", "placing")
_pack = msgspec.msgpack.Encoder().encode


class Repair(NamedTuple):
    """Something that contradicted something else: whose it was and what of it, what it was, and what it is now."""

    what: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Report:
    """How many claims, tasks, users, groups and limiters were looked at, and what had to be repaired."""

    checked: int
    repaired: tuple[Repair, ...]


def reconcile(engine: Engine, *, tasks: bool = True, dry_run: bool = False) -> Flow[Report]:
    """Compare everything, and mend what does not agree. `tasks`: also go through all tasks that are stored. `dry_run`:
    only say what would be mended, by a script that the server lets write nothing; it may also run on a replica.

    In chunks of 500; only what workers hold is read in one call, at most as many tasks as they have slots.
    """
    steps = (*(_TASKS if tasks else _TASKS[:1]), *(_REGISTRIES if tasks else ()), *_COUNTS)
    checked = 0
    repaired: list[Repair] = []
    script = "examine" if dry_run else "reconcile"
    for step in steps:
        if dry_run and step == "placing":
            continue
        page = yield from _walk(engine, step, script=script)
        checked += page.checked
        repaired += page.repaired
    repaired += yield from _check_sums(engine, script)
    if dry_run:
        return Report(checked, tuple(dict.fromkeys(repaired)))
    if repaired:
        # Levels and sums may have begun anew for it. Once all users are in place again, nothing more should be found.
        for step in ("placing", *_COUNTS):
            repaired += (yield from _walk(engine, step)).repaired
    return Report(checked, tuple(repaired))


@dataclass(frozen=True, slots=True)
class _Pages:
    """What the pages of one step brought; `waiting` and `members` are by organisation."""

    checked: int
    repaired: list[Repair]
    waiting: dict[str, int]
    members: dict[str, list[str]]


def _walk(
    engine: Engine, step: str, members_of: Collection[str] = (), *, script: str = "reconcile"
) -> Flow[_Pages]:
    """All pages of one step. `members_of`: of which organisations the members are remembered."""
    cursor, checked = "0", 0
    repaired: list[Repair] = []
    waiting: defaultdict[str, int] = defaultdict(int)
    members: defaultdict[str, list[str]] = defaultdict(list)
    while True:
        following, looked, parts, told = yield engine.call(script, step, cursor)
        checked += looked
        repaired += _repairs(parts)
        for group, user, queued, delayed in zip(*(iter(told),) * 4, strict=True):
            name = group.decode()
            waiting[name] += queued + delayed
            if name in members_of:
                members[name].append(user.decode())
        if not following:
            return _Pages(checked, repaired, waiting, members)
        cursor = following.decode()


def _repairs(parts: list[bytes]) -> Iterator[Repair]:
    texts = [decode(part.decode()) for part in parts]
    for i in range(0, len(texts), 4):
        name, what, was, now = texts[i : i + 4]
        yield Repair(f"{what} of {name}", was, now)


def _check_sums(engine: Engine, script: str) -> Flow[list[Repair]]:
    """What organisations count against what their members have.

    Others push and claim while members are walked through, so that the two may differ for a moment: whose do is then
    compared in one call with all of its members.
    """
    members = (yield from _walk(engine, "users", script=script)).waiting
    groups = (yield from _walk(engine, "sums", script=script)).waiting
    doubtful = {group for group, waiting in groups.items() if waiting != members.get(group, 0)}
    if not doubtful:
        return []
    named = (yield from _walk(engine, "users", doubtful, script=script)).members
    repaired: list[Repair] = []
    for group in sorted(doubtful):
        parts = yield engine.call(script, "count", _pack([group, *named.get(group, ())]))
        repaired += _repairs(parts[2])
    return repaired
