"""What must hold of a queue's keys between any two calls, whatever happened before.

Everything that is stored twice (a state in the record and in a registry, a count beside a set) is compared
with itself. Tests call `assert_consistent` at their end.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

import redis

from fairque.core import record
from fairque.core.keys import Keys
from fairque.core.record import Flags, Record
from fairque.core.states import TaskState

# The layouts of lib/clock.lua and lib/tenants.lua.
_CLOCK = struct.Struct(">16d")
_CLOCK_FIELDS = (
    "last", "virtual", "mark", "weight", "running", "all_running", "generation", "credit", "lane", "at", "slots",
    "tokens", "swept", "grace", "timer", "paused",
)  # fmt: skip
_TENANT = struct.Struct(">BdddIIIIIIIIIIddd")
_TENANT_FIELDS = (
    "flags", "tag", "floor", "generation", "weight", "cap", "counted_weight", "counted_running", "critical", "normal",
    "running", "finished", "failed", "canceled", "waited", "served", "since",
)  # fmt: skip
_READY, _AHEAD = 2, 8
_WAITING = (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.DEFERRED)
CRITICAL = 6


class Snapshot:
    """A queue's keys, read at once and parsed."""

    def __init__(self, client: redis.Redis, prefix: str = "fq", aging_seconds: float = 60.0) -> None:
        self.client = cast(Any, client)  # redis-py's types allow for async replies
        self.keys = Keys(prefix)
        self.aging = round(aging_seconds * 1e6)
        self.tasks: dict[str, Record] = {
            task_id: record.unpack(self.client.get(self.keys.task(task_id)))
            for task_id in self._parts(self.keys.task("*"))
        }
        data = self.client.get(self.keys.clock)
        values = _CLOCK.unpack(data) if data else (0.0,) * len(_CLOCK_FIELDS)
        self.clock: dict[str, float] = dict(zip(_CLOCK_FIELDS, values, strict=True))

    def _parts(self, pattern: str) -> Iterator[str]:
        """What stands for the star in the names of existing keys; encoded parts hold no colon."""
        head = pattern.partition("*")[0]
        for name in self.client.keys(pattern):
            part = name.decode().removeprefix(head)
            if ":" not in part:
                yield part

    def tenants(self) -> dict[str, dict[str, float]]:
        return {
            user: dict(
                zip(_TENANT_FIELDS, _TENANT.unpack(self.client.get(self.keys.user(user))), strict=True)
            )
            for user in self._parts(self.keys.user("*"))
        }

    def holders(self) -> dict[str, dict[str, bytes]]:
        """For each incarnation with claims: task id to entry."""
        found: dict[str, dict[str, bytes]] = {}
        for name in self.client.keys(self.keys.held("*")):
            incarnation = name.decode().split(":")[-2]
            entries = self.client.hgetall(name)
            found[incarnation] = {task_id.decode(): entry for task_id, entry in entries.items()}
        return found

    def problems(self) -> Iterator[str]:
        """Everything that does not hold."""
        yield from self._registries()
        yield from self._queues()
        yield from self._claims()
        yield from self._sums()

    def _registries(self) -> Iterator[str]:
        for state in TaskState:
            members = {name.decode() for name in self.client.zrange(self.keys.state(state), 0, -1)}
            here = {task_id for task_id, rec in self.tasks.items() if rec.state is state}
            if missing := here - members:
                yield f"{state}: not registered: {missing}"
            if foreign := {task_id for task_id in members - here if task_id in self.tasks}:
                yield f"{state}: registered, but elsewhere: {foreign}"
            if state not in (TaskState.FINISHED, TaskState.CANCELED) and (gone := members - here):
                yield f"{state}: registered, but gone: {gone}"
        for task_id, rec in self.tasks.items():
            ttl = self.client.pttl(self.keys.task(task_id))
            if (ttl >= 0) != (rec.state in (TaskState.FINISHED, TaskState.CANCELED)):
                yield f"{task_id} is {rec.state} with a TTL of {ttl} ms"
            if bool(rec.flags & Flags.ERRORS) != bool(self.client.exists(self.keys.errors(task_id))):
                yield f"{task_id}: its mark of errors is wrong"
        due = {task_id for task_id, rec in self.tasks.items() if rec.expires and rec.state in _WAITING}
        expiring = {name.decode() for name in self.client.zrange(self.keys.expiring, 0, -1)}
        if due != expiring:
            yield f"expiring: {expiring} instead of {due}"
        dead: dict[str, set[str]] = defaultdict(set)
        for task_id, rec in self.tasks.items():
            if rec.state is TaskState.FAILED:
                dead[rec.user].add(task_id)
        for user in {*dead, *self._parts(self.keys.dlq("*"))}:
            members = {name.decode() for name in self.client.zrange(self.keys.dlq(user), 0, -1)}
            if members != dead[user]:
                yield f"dlq of {user}: {members} instead of {dead[user]}"

    def _queues(self) -> Iterator[str]:
        queued = {task_id: rec for task_id, rec in self.tasks.items() if rec.state is TaskState.QUEUED}
        found: set[str] = set()
        for name in self.client.keys(self.keys.critical("*")):
            user = name.decode().split(":")[-2]
            ids = [task_id.decode() for task_id in self.client.lrange(name, 0, -1)]
            found.update(ids)
            if len(ids) != len(set(ids)):
                yield f"critical queue of {user}: twice in it: {ids}"
            for task_id in ids:
                rec = queued.get(task_id)
                if rec is None or rec.user != user or rec.priority != CRITICAL:
                    yield f"critical queue of {user}: {task_id} does not belong there"
        for name in self.client.keys(self.keys.normal("*")):
            user = name.decode().split(":")[-2]
            for member, score in self.client.zrange(name, 0, -1, withscores=True):
                task_id = member.decode()
                found.add(task_id)
                rec = queued.get(task_id)
                if rec is None or rec.user != user or rec.priority == CRITICAL:
                    yield f"normal queue of {user}: {task_id} does not belong there"
                elif score != rec.enqueued - rec.priority * self.aging:
                    yield f"normal queue of {user}: {task_id} has the score {score}"
        if lost := set(queued) - found:
            yield f"queued, but in no queue: {lost}"

    def _claims(self) -> Iterator[str]:
        started = {task_id: rec for task_id, rec in self.tasks.items() if rec.state is TaskState.STARTED}
        held: set[str] = set()
        alive = {name.decode() for name in self.client.zrange(self.keys.workers, 0, -1)}
        dead = {name.decode() for name in self.client.zrange(self.keys.dead, 0, -1)}
        for incarnation, entries in self.holders().items():
            if incarnation not in alive | dead:
                yield f"{incarnation} holds {set(entries)}, and is unknown"
            for task_id, entry in entries.items():
                rec = started.get(task_id)
                held.add(task_id)
                if rec is None or (rec.token, rec.holder) != (entry[:16], incarnation):
                    yield f"{incarnation} holds {task_id}, which is not its own"
                elif entry[16:] != self._entry(rec):
                    yield f"{incarnation} holds {task_id} as {entry[16:]!r}"
        if lost := set(started) - held:
            yield f"started, but held by nobody: {lost}"
        for incarnation in alive:
            if not self.client.exists(self.keys.worker(incarnation)):
                yield f"{incarnation} is alive without a hash"
        if parked := {name.decode() for name in self.client.zrange(self.keys.waiters, 0, -1)} - alive:
            yield f"parked, but not alive: {parked}"

    @staticmethod
    def _entry(rec: Record) -> bytes:
        marks = (b"1" if rec.flags & Flags.CANCEL else b"0") + (b"1" if rec.flags & Flags.LANE else b"0")
        return marks + rec.user.encode()

    def _sums(self) -> Iterator[str]:
        tenants = self.tenants()
        count: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for rec in self.tasks.values():
            if rec.state is TaskState.QUEUED:
                count[rec.user]["critical" if rec.priority == CRITICAL else "normal"] += 1
            elif rec.state is TaskState.STARTED:
                count[rec.user]["running"] += 1
        ready = dict(self.client.zrange(self.keys.ready_all, 0, -1, withscores=True))
        ahead = dict(self.client.zrange(self.keys.ahead, 0, -1, withscores=True))
        for user in {*tenants, *count}:
            tenant = tenants.get(user)
            if tenant is None:
                yield f"{user} has tasks and no state"
                continue
            for name in ("critical", "normal", "running"):
                if tenant[name] != count[user][name]:
                    yield f"{user}: {name} is {tenant[name]:g} instead of {count[user][name]}"
            if int(tenant["generation"]) != int(self.clock["generation"]):
                continue  # it has slept since then: its tag reads as 0
            for flag, scores, what in ((_READY, ready, "ready"), (_AHEAD, ahead, "ahead")):
                marked = bool(int(tenant["flags"]) & flag)
                if marked != (user.encode() in scores):
                    yield f"{user}: {what} is {marked} and {user.encode() in scores}"
                elif marked and scores[user.encode()] != tenant["tag"]:
                    yield f"{user}: {what} at {scores[user.encode()]} instead of {tenant['tag']}"
        running = [rec for rec in self.tasks.values() if rec.state is TaskState.STARTED]
        lane = sum(bool(rec.flags & Flags.LANE) for rec in running)
        slots = sum(
            int(self.client.hget(self.keys.worker(name.decode()), "slots") or 0)
            for name in self.client.zrange(self.keys.workers, 0, -1)
        )
        expected = {
            "all_running": len(running),
            "lane": lane,
            "slots": slots,
            "weight": sum(tenant["counted_weight"] for tenant in tenants.values()),
            "running": sum(tenant["counted_running"] for tenant in tenants.values()),
        }
        for name, value in expected.items():
            if self.clock[name] != value:
                yield f"clock: {name} is {self.clock[name]:g} instead of {value:g}"


def assert_consistent(client: redis.Redis, prefix: str = "fq", aging_seconds: float = 60.0) -> None:
    """Fail with everything that does not hold."""
    if found := list(Snapshot(client, prefix, aging_seconds).problems()):
        raise AssertionError("the queue's keys contradict each other:\n  " + "\n  ".join(found))


def dump(client: redis.Redis) -> dict[bytes, object]:
    """Every key with its type, value and TTL (in whole seconds), to see that nothing was written."""
    redis_: Any = client
    found: dict[bytes, object] = {}
    for key in redis_.keys("*"):
        kind = redis_.type(key)
        value: object
        if kind == b"string":
            value = redis_.get(key)
        elif kind == b"list":
            value = redis_.lrange(key, 0, -1)
        elif kind == b"hash":
            value = redis_.hgetall(key)
        elif kind == b"zset":
            value = redis_.zrange(key, 0, -1, withscores=True)
        else:
            value = redis_.smembers(key)
        found[key] = kind, value, redis_.ttl(key) >= 0
    return found
