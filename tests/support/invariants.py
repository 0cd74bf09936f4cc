"""What must hold of a queue's keys between any two calls, whatever happened before.

Everything that is stored twice (a state in the record and in a registry, a count beside a set) is compared
with itself. Tests call `assert_consistent` at their end.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, cast

import redis

from fairque.core import record
from fairque.core.keys import Keys
from fairque.core.record import Flags, Record
from fairque.core.states import TaskState
from fairque.core.tenant import TenantFlags, TenantRecord, unpack_tenant
from tests.support.link_checks import Links

# The layouts of lib/clock.lua and lib/limits.lua.
_CLOCK = struct.Struct(">34d")
_CLOCK_FIELDS = (
    "last", "virtual", "mark", "weight", "running", "all_running", "generation", "credit", "lane", "at", "slots",
    "tokens", "swept", "grace", "timer", "paused", "moved", "served_to", "assigned", "rules", "renewing", "window",
    "past", "virtual_now", "virtual_before", "served_now", "served_before", "walked", "waiting", "pushed",
    "claimed", "finished", "failed", "continuing",
)  # fmt: skip
_LIMITER = struct.Struct(">IIdddddB")
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
        self.links = Links(self.client, self.keys, self.tasks, self.clock, self._parts)

    def _parts(self, pattern: str) -> Iterator[str]:
        """What stands for the star in the names of existing keys; encoded parts hold no colon."""
        head = pattern.partition("*")[0]
        for name in self.client.keys(pattern):
            part = name.decode().removeprefix(head)
            if ":" not in part:
                yield part

    def tenants(self) -> dict[str, TenantRecord]:
        """Users by name, and organisations by theirs behind a colon."""
        groups = [f":{part}" for part in self._parts(self.keys.user(":*"))]
        users = [*self._parts(self.keys.user("*")), *groups]
        return {user: unpack_tenant(self.client.get(self.keys.user(user))) for user in users}

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
        yield from self.links.problems()
        yield from self._dedup()

    def _dedup(self) -> Iterator[str]:
        """A key without a TTL is held by a task that has it and has not ended."""
        for name in self.client.keys(self.keys.dedup("*", "*")):
            if self.client.ttl(name) != -1:
                continue
            holder = self.client.get(name)
            rec = self.tasks.get(holder.decode()) if holder is not None else None
            *_, user, key = name.decode().split(":")
            if rec is None or rec.state.is_terminal or (rec.user, rec.dedup) != (user, key):
                yield f"dedup key {key} of {user}: held by {holder!r}, which is not there, has ended, or is another's"

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
            ended = rec.state in (TaskState.FINISHED, TaskState.CANCELED)
            stays = self.links.stays(task_id)
            if (ttl >= 0) != (ended and not stays) and not (ended and stays is None):
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
        counts = {user: len(ids) for user, ids in dead.items() if ids}
        listed = {
            name.decode(): int(count)
            for name, count in self.client.zrange(self.keys.by_dead, 0, -1, withscores=True)
        }
        if listed != counts:
            yield f"users with dead letters: {listed} instead of {counts}"

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
                if rec is None or rec.user != user or rec.priority != CRITICAL or rec.limiter:
                    yield f"critical queue of {user}: {task_id} does not belong there"
        for name in self.client.keys(self.keys.normal("*")):
            user = name.decode().split(":")[-2]
            for member, score in self.client.zrange(name, 0, -1, withscores=True):
                task_id = member.decode()
                found.add(task_id)
                rec = queued.get(task_id)
                if rec is None or rec.user != user or rec.priority == CRITICAL or rec.limiter:
                    yield f"normal queue of {user}: {task_id} does not belong there"
                elif score != rec.enqueued - rec.priority * self.aging:
                    yield f"normal queue of {user}: {task_id} has the score {score}"
        for name in self.client.keys(self.keys.limited("*", "*")):
            *_, user, _limited, limiter = name.decode().split(":")
            for member, _score in self.client.zrange(name, 0, -1, withscores=True):
                task_id = member.decode()
                found.add(task_id)
                rec = queued.get(task_id)
                if rec is None or (rec.user, rec.limiter) != (user, limiter):
                    yield f"queue of {user} under {limiter}: {task_id} does not belong there"
            if not self.client.sismember(self.keys.limiters_of(user), limiter):
                yield f"{user} does not know that it has tasks under {limiter}"
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
        return marks + rec.user.encode() + (b"\n" + rec.limiter.encode() if rec.limiter else b"")

    def _sums(self) -> Iterator[str]:
        tenants = self.tenants()
        yield from self._counts(tenants)
        yield from self._places(tenants)
        yield from self._limiters()
        running = [rec for rec in self.tasks.values() if rec.state is TaskState.STARTED]
        slots = sum(
            int(self.client.hget(self.keys.worker(name.decode()), "slots") or 0)
            for name in self.client.zrange(self.keys.workers, 0, -1)
        )
        root = [tenant for tenant in tenants.values() if not tenant.group]
        expected = {
            "all_running": len(running),
            "lane": sum(bool(rec.flags & Flags.LANE) for rec in running),
            "slots": slots,
            "weight": sum(tenant.counted_weight for tenant in root),
            "running": sum(tenant.counted_running for tenant in root),
        }
        for name, value in expected.items():
            if self.clock[name] != value:
                yield f"clock: {name} is {self.clock[name]:g} instead of {value:g}"

    def _counts(self, tenants: dict[str, TenantRecord]) -> Iterator[str]:
        """What tenants, and their organisations, say of their tasks."""
        count: dict[str, Counter[str]] = defaultdict(Counter)
        for rec in self.tasks.values():
            kind = ""
            if rec.state is TaskState.QUEUED:
                kind = "limited" if rec.limiter else "critical" if rec.priority == CRITICAL else "normal"
            elif rec.state is TaskState.STARTED:
                kind = "running"
            elif rec.state in (TaskState.SCHEDULED, TaskState.DEFERRED):
                kind = "delayed"
            if kind:
                count[rec.user][kind] += 1
                group = tenants[rec.user].group if rec.user in tenants else ""
                if group:
                    count[group]["normal" if kind in ("limited", "critical") else kind] += 1
        for user in {*tenants, *count}:
            tenant = tenants.get(user)
            if tenant is None:
                yield f"{user} has tasks and no state"
                continue
            for name in ("critical", "normal", "limited", "delayed", "running"):
                if getattr(tenant, name) != count[user][name]:
                    yield f"{user}: {name} is {getattr(tenant, name)} instead of {count[user][name]}"

    def _places(self, tenants: dict[str, TenantRecord]) -> Iterator[str]:
        """Each level's sets and sums against what its tenants say."""
        generations = {"": self.clock["generation"]}
        for name, tenant in tenants.items():
            if tenant.level is not None:
                generations[name] = tenant.level.generation
                members = [one for one in tenants.values() if one.group == name]
                sums = sum(one.counted_weight for one in members), sum(one.counted_running for one in members)
                if (tenant.level.weight, tenant.level.running) != sums:
                    yield f"{name}: its members add up to {sums}, not {tenant.level.weight, tenant.level.running}"
        for user, tenant in tenants.items():
            if int(tenant.generation) != int(generations.get(tenant.group, -1)):
                continue  # it has slept since then: its tag reads as 0
            ready_key = self.keys.ready_in(tenant.group) if tenant.group else self.keys.ready_all
            ahead_key = self.keys.ahead_in(tenant.group) if tenant.group else self.keys.ahead
            for flag, key in ((TenantFlags.READY, ready_key), (TenantFlags.AHEAD, ahead_key)):
                score = self.client.zscore(key, user)
                marked = bool(tenant.flags & flag)
                if marked != (score is not None):
                    yield f"{user}: {flag!r} is {marked}, and {key} has it at {score}"
                elif marked and score != tenant.tag:
                    yield f"{user}: {flag!r} at {score} instead of {tenant.tag}"

    def _limiters(self) -> Iterator[str]:
        used = Counter(
            rec.limiter for rec in self.tasks.values() if rec.state is TaskState.STARTED and rec.limiter
        )
        for name in {*used, *self._parts(self.keys.limiter("*"))}:
            data = self.client.get(self.keys.limiter(name))
            running = _LIMITER.unpack(data)[1] if data else 0
            if running != used[name]:
                yield f"limiter {name}: {running} in use instead of {used[name]}"


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
