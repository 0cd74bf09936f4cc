"""What must hold of who waits for whom, and of what workflows count: a part of tests/support/invariants.py."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fairque.core.keys import Keys
from fairque.core.options import TriggerRule
from fairque.core.record import Flags, Record
from fairque.core.states import TaskState
from fairque.core.triggers import decide

# The layout of lib/upstream.lua.
_META = struct.Struct(">BIIIIIddI")
_PENDING, _MISSING = b"0", b"m"
_RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
_TALLY = {
    b"s": "succeeded",
    b"f": "failed",
    b"c": "canceled",
    b"g": "failed",
    b"0": "pending",
    b"m": "pending",
}
_ENDED = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a task waits for, as its hash says: how each ended, the counts of them, and the workflow that it is in."""

    outcomes: Mapping[str, bytes]
    rule: int
    counts: Mapping[str, int]
    missing: int
    workflow: str

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Waiting | None:
        data = fields.get(b"")
        if data is None:
            return None
        rule, succeeded, failed, canceled, pending, missing, *_ = _META.unpack_from(data)
        counts = {"succeeded": succeeded, "failed": failed, "canceled": canceled, "pending": pending}
        outcomes = {other.decode(): outcome for other, outcome in fields.items() if other}
        return cls(outcomes, rule, counts, missing, data[_META.size :].decode())

    def action(self) -> str:
        """What its trigger rule says."""
        return decide(_RULES[self.rule - 1], **self.counts).action if self.outcomes else "run"


class Links:
    """The keys of dependencies and of workflows, read at once, against the tasks."""

    def __init__(
        self,
        client: Any,
        keys: Keys,
        tasks: Mapping[str, Record],
        clock: Mapping[str, float],
        parts: Callable[[str], Iterator[str]],
    ) -> None:
        self.client, self.keys, self.tasks, self.clock = client, keys, tasks, clock
        self.hashes = {name: client.hgetall(keys.upstream(name)) for name in parts(keys.upstream("*"))}
        self.upstream = {name: found for name, h in self.hashes.items() if (found := Waiting.parse(h))}
        self.downstream = {
            name: {other.decode() for other in client.smembers(keys.downstream(name))}
            for name in parts(keys.downstream("*"))
        }
        self.missing = {name.decode() for name in client.zrange(keys.missing, 0, -1)}
        self.left: list[str] = [entry.decode() for entry in client.lrange(keys.continued, 0, -1)]
        # Tasks whose end is still to be told, and workflows whose nodes' time is still to be set.
        self.telling = {entry[2:] for entry in self.left if entry[0] == "e"}
        self.keeping = {entry[1:] for entry in self.left if entry[0] in "kp"}
        self.workflows: dict[str, dict[bytes, bytes]] = {
            name: client.hgetall(keys.workflow(name)) for name in parts(keys.workflow("*"))
        }

    def stays(self, task_id: str) -> bool | None:
        """Whether a task stays without a TTL though it has ended, since its workflow runs; None: it may do either."""
        found = self.upstream.get(task_id)
        if found is None or not found.workflow:
            return False
        if found.workflow in self.keeping:
            return None
        return self.workflows.get(found.workflow, {}).get(b"state") == b"running"

    def problems(self) -> Iterator[str]:
        """Everything that does not hold."""
        if self.clock["continuing"] != len(self.left):
            yield f"clock: {self.clock['continuing']:g} pieces are left instead of {len(self.left)}"
        for task_id in self.hashes:
            yield from self._waiting(task_id)
        for other, waiting in self.downstream.items():
            yield from self._awaited(other, waiting)
        for task_id, rec in self.tasks.items():
            if rec.state is TaskState.DEFERRED and rec.flags & Flags.LINKED and task_id not in self.upstream:
                yield f"{task_id} is deferred and waits for nothing"
        for workflow in self.workflows:
            yield from self._workflow(workflow)

    def _waiting(self, task_id: str) -> Iterator[str]:
        found, rec, key = self.upstream.get(task_id), self.tasks.get(task_id), self.keys.upstream(task_id)
        if found is None:
            yield f"{task_id}: what it waits for has no counts"
            return
        counted = Counter(_TALLY[outcome] for outcome in found.outcomes.values())
        if any(found.counts[name] != counted[name] for name in found.counts):
            yield f"{task_id}: its counts are {dict(found.counts)} instead of {dict(counted)}"
        missing = sum(outcome == _MISSING for outcome in found.outcomes.values())
        if found.missing != missing:
            yield f"{task_id}: {found.missing} are missing instead of {missing}"
        if rec is None:
            if self.client.pttl(key) < 0 and self.client.exists(key):
                yield f"{task_id} is gone, and what it waited for stays"
            return
        if not rec.flags & Flags.LINKED:
            yield f"{task_id} waits for others, and is not marked"
        if self.client.pttl(self.keys.task(task_id)) < 0 <= self.client.pttl(key):
            yield f"{task_id} stays, and what it waits for goes"
        if rec.state is TaskState.DEFERRED:
            yield from self._deferred(task_id, found)

    def _deferred(self, task_id: str, found: Waiting) -> Iterator[str]:
        if found.action() != "wait":
            yield f"{task_id} is deferred, though it is decided: {found.action()} of {dict(found.counts)}"
        if found.missing and task_id not in self.missing:
            yield f"{task_id} would wait for ever for what is missing"
        for other, outcome in found.outcomes.items():
            if outcome not in (_PENDING, _MISSING):
                continue
            there = self.tasks.get(other)
            if task_id not in self.downstream.get(other, ()):
                yield f"{task_id} waits for {other}, which does not know"
            if outcome == _MISSING:
                if there is not None:
                    yield f"{task_id} takes {other} to be missing, and it is there"
            elif other in self.telling:
                continue
            elif there is None:
                yield f"{task_id} waits for {other}, which is gone"
            elif there.state in _ENDED:
                yield f"{task_id} waits for {other}, which is {there.state}"

    def _awaited(self, other: str, waiting: set[str]) -> Iterator[str]:
        rec = self.tasks.get(other)
        if rec is not None and not rec.flags & Flags.LINKED:
            yield f"others wait for {other}, which is not marked"
        if rec is None and other not in self.telling and self.client.pttl(self.keys.downstream(other)) < 0:
            yield f"others wait for ever for {other}, which is not there"
        if rec is not None and rec.state in _ENDED and other not in self.telling:
            yield f"{other} is {rec.state}, and was not told to {waiting}"
        for task_id in waiting:
            found = self.upstream.get(task_id)
            if found is None:
                continue  # it was deleted since
            if found.outcomes.get(other) not in (_PENDING, _MISSING) and other in found.outcomes:
                yield f"{other} has {task_id} waiting for it, to which it is {found.outcomes[other]!r}"

    def _workflow(self, workflow: str) -> Iterator[str]:
        fields = self.workflows[workflow]
        number = {name: int(fields[name.encode()]) for name in ("total", "left", *map(str, _ENDED))}
        if number["total"] != number["left"] + sum(number[str(state)] for state in _ENDED):
            yield f"workflow {workflow}: {number} does not add up"
        if (fields[b"state"] == b"running") != (number["left"] > 0):
            yield f"workflow {workflow} is {fields[b'state']!r} with {number['left']} left"
        if self.client.exists(self.keys.stage(workflow)):
            return
        states = Counter(
            str(self.tasks[name].state) if self.tasks[name].state in _ENDED else "left"
            for name, found in self.upstream.items()
            if found.workflow == workflow and name in self.tasks
        )
        if states["left"] != number["left"]:
            yield f"workflow {workflow}: {number['left']} are left instead of {states['left']}"
        for state in map(str, _ENDED):
            if states[state] > number[state]:  # fewer, if some were deleted
                yield f"workflow {workflow}: {number[state]} {state} instead of {states[state]}"
