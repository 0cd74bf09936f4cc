"""The real scripts behind the interface of the model: on a real server, at times that the caller gives."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis

from fairque.core import record
from fairque.core.config import QueueConfig
from fairque.core.exceptions import QuotaExceededError
from fairque.core.keys import decode, encode
from fairque.core.models import Priority, Task
from fairque.core.record import Flags
from fairque.core.tenant import TenantFlags, TenantRecord, unpack_tenant
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, claims, push, tasks
from fairque.queue.operations.base import Engine, Flow
from tests.model.values import (
    Claimed,
    Entry,
    Exchange,
    Job,
    LevelView,
    LimiterView,
    Limits,
    Outcome,
    Permits,
    TenantView,
    View,
)

# The layouts of lib/clock.lua and lib/limits.lua.
_CLOCK = struct.Struct(">34d")
_pack = msgspec.msgpack.Encoder().encode
_LIMITER = struct.Struct(">IIdddddB")
_HELD_USER = 18  # where the user's name begins in an entry of what a worker holds
_PRIORITIES = {int(priority): priority for priority in Priority}


class Driver:
    """One queue under `config` on the server of `client`, which it empties first."""

    def __init__(self, client: redis.Redis, config: QueueConfig) -> None:
        self._client: Any = client
        self._client.flushall()
        self._now = 0
        self.engine = Engine(config, now=lambda: self._now)
        self.manager = LuaScriptManager(client, clock="argument")
        self._sessions: list[claims.Session] = []
        self._tokens: dict[str, bytes] = {}
        self._users: set[str] = set()
        self._groups: set[str] = set()
        self._limiters: set[str] = set()
        self._assignments = 0
        self._run(0, admin.open_queue(self.engine))

    def _run(self, now: int, flow: Flow[Any]) -> Any:
        self._now = now
        return self.manager.run(flow)

    def _session(self, worker: int) -> claims.Session:
        return self._sessions[worker - 1]

    def join(self, now: int, slots: int, entry: str = "") -> int:
        """As of the model; names of incarnations sort as their numbers do."""
        number = len(self._sessions) + 1
        session = claims.Session(slots=slots, entry=entry, incarnation=f"worker{number:05}")
        self._run(now, claims.join(self.engine, session))
        self._sessions.append(session)
        return number

    def leave(self, now: int, worker: int, begun: bool) -> None:
        """As of the model."""
        incarnation = self._session(worker).incarnation
        self._run(now, claims.leave(self.engine, incarnation, None if begun else ()))

    def renew(self, now: int, worker: int) -> None:
        """As of the model."""
        self._run(now, claims.renew(self.engine, self._session(worker)))

    def push(self, now: int, jobs: Sequence[Job]) -> list[bool]:
        """As of the model: one script call for each 500."""
        batch = [
            Task[Any](
                task_id=job.task_id,
                user_id=job.user,
                function=job.function,
                priority=_PRIORITIES[job.priority],
                cost=job.cost / 1000,
                max_retries=job.max_retries,
                limiter=job.limiter or None,
            )
            for job in jobs
        ]
        outcomes = self._run(now, push.push_chunk(self.engine, batch))
        for outcome in outcomes:
            if outcome.error and not isinstance(outcome.error, QuotaExceededError):
                raise outcome.error
        self._users.update(job.user for job in jobs)
        return [outcome.error is None for outcome in outcomes]

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
        """As of the model. At a heartbeat it also finds the server's claims in agreement with its own."""
        session = self._session(worker)
        settlements = [
            claims.Settlement(
                outcome.task_id,
                self._tokens[outcome.task_id],
                outcome.kind,
                outcome.seconds,
                second=outcome.delay if outcome.kind == "fail" else 0,
            )
            for outcome in outcomes
        ]
        holding: list[bytes] | None = None
        if beat:
            held: dict[bytes, bytes] = self._client.hgetall(self.engine.keys.held(session.incarnation))
            settled = {outcome.task_id for outcome in outcomes}
            holding = [entry[:16] for task_id, entry in held.items() if task_id.decode() not in settled]
        flow = claims.settle_and_claim(
            self.engine, session, want=want, settlements=settlements, holding=holding, users=users
        )
        exchange: Exchange = self._run(now, self._see(flow))
        return exchange

    def _see(self, flow: Flow[claims.Exchange]) -> Flow[Exchange]:
        """What an exchange decided. Tasks as users get them do not tell what they were charged; records do."""
        call = next(flow)
        try:
            reply = yield call
        except Exception as error:
            flow.throw(error)
            raise
        exchange: claims.Exchange | None = None
        try:
            flow.send(reply)
        except StopIteration as stop:
            exchange = stop.value
        assert exchange is not None, "an exchange is one call"
        deliveries: list[bytes] = reply[2]
        claimed: list[Claimed] = []
        for task_id, data in zip(deliveries[::2], deliveries[1::2], strict=True):
            rec = record.unpack(data)
            self._tokens[task_id.decode()] = rec.token
            claimed.append(
                Claimed(task_id.decode(), decode(rec.user), rec.charged, bool(rec.flags & Flags.LANE))
            )
        assert exchange.held is None, "the server holds other claims for this worker than it was told"
        return Exchange(tuple(int(code) for code in exchange.codes), tuple(claimed))

    def cancel(self, now: int, task_id: str) -> None:
        """As of the model."""
        self._run(now, tasks.cancel(self.engine, task_id))

    def set_policy(self, now: int, user: str, limits: Limits) -> None:
        """As of the model."""
        self._now = now
        self._call("set_policy", encode(user), _pack(_policy(limits)))
        self._users.add(user)

    def set_group(self, now: int, name: str, limits: Limits) -> None:
        """As of the model."""
        fields = {name: value for name, value in _policy(limits).items() if name != "group"}
        self._now = now
        self._call("set_group", encode(name), _pack(fields))
        self._groups.add(name)

    def set_limiter(self, now: int, name: str, permits: Permits) -> None:
        """As of the model."""
        self._now = now
        fields = _policy(Limits(cap=permits.cap, rate=permits.rate, burst=permits.burst))
        self._call("set_limiter", encode(name), _pack(fields))
        self._limiters.add(name)

    def assign(self, now: int, entries: Mapping[str, Entry]) -> None:
        """As of the model: published, and all users placed anew, at one time."""
        self._now = now
        self._assignments += 1
        digest = f"d{self._assignments}"
        words: dict[str, list[str]] = {}
        sides: dict[str, dict[str, str]] = {}
        for name, entry in entries.items():
            for user in entry.own or ():
                words.setdefault(user, []).insert(0, f"o{name}")
            for user in entry.steal or ():
                words.setdefault(user, []).append(f"t{name}")
            steal = "*" if entry.steal is None else "list" if entry.steal else "none"
            sides[name] = {"own": "*" if entry.own is None else "list", "steal": steal}
        items = [part for user, found in words.items() for part in (encode(user), " ".join(found))]
        assert self._call("assign", "begin", digest) == 1
        if items:
            self._call("assign", "add", digest, *items)
        assert self._call("assign", "commit", digest, _pack(sides)) == 1

    def _call(self, script: str, *argv: Any) -> Any:
        return self.manager.execute(self.engine.call(script, *argv))

    def pause(self, now: int, paused: bool) -> None:
        """As of the model."""
        self._run(now, admin.pause(self.engine, paused))

    def view(self) -> View:
        """As of the model, read from the keys; queue lengths and claims are counted, not believed."""
        keys, client = self.engine.keys, self._client
        (last, virtual, mark, weight, running, all_running, generation, credit, lane, _at, slots, _tokens, _swept,
         _grace, _timer, _paused, *_more) = _CLOCK.unpack(client.get(keys.clock))  # fmt: skip
        parked = {name.decode(): at for name, at in client.zrange(keys.parked, 0, -1, withscores=True)}
        levels = {
            "": LevelView(
                virtual, mark, int(weight), int(running), self._tags(keys.ready_all), self._tags(keys.ahead)
            )
        }
        generations = {"": generation}
        tenants: dict[str, TenantView] = {}
        for name in sorted(self._groups):
            part = f":{encode(name)}"
            rec = unpack_tenant(client.get(keys.user(part)))
            assert rec.level is not None
            generations[part] = rec.level.generation
            levels[f":{name}"] = LevelView(
                rec.level.virtual, rec.level.mark, int(rec.level.weight), int(rec.level.running),
                self._tags(keys.ready_in(part)), self._tags(keys.ahead_in(part)),
            )  # fmt: skip
            tenants[f":{name}"] = self._tenant_view(rec, generation, last, parked.get(part))
        for user in sorted(self._users):
            part = encode(user)
            data = client.get(keys.user(part))
            if data is None:
                continue  # a refused push
            rec = unpack_tenant(data)
            tenants[user] = self._tenant_view(rec, generations[rec.group], last, parked.get(part))
            assert rec.critical == client.llen(keys.critical(part)), "the counts differ from the queues"
            assert rec.normal == client.zcard(keys.normal(part)), "the counts differ from the queues"
            names = client.smembers(keys.limiters_of(part))
            limited = [client.zcard(keys.limited(part, name.decode())) for name in names]
            assert rec.limited == sum(limited), "the counts differ from the queues"
            assert all(limited), "a limiter without tasks"
            level = levels[decode(rec.group)]
            for flag, members in ((TenantFlags.READY, level.ready), (TenantFlags.AHEAD, level.ahead)):
                assert bool(rec.flags & flag) == (user in members), "what records say differs from the sets"
        held = [entry for session in self._sessions for entry in client.hvals(keys.held(session.incarnation))]
        return View(
            generation=int(generation),
            all_running=int(all_running),
            slots=int(slots),
            lane=int(lane),
            credit=credit,
            tenants=tenants,
            levels=levels,
            limiters={name: self._limiter_view(name, last, parked) for name in self._limiters},
            in_lane=self._tags(keys.ready_sparse),
            held=dict(Counter(decode(entry[_HELD_USER:].partition(b"\n")[0].decode()) for entry in held)),
            sets=self._sets(),
        )

    def _tags(self, key: str) -> dict[str, float]:
        return {decode(user.decode()): tag for user, tag in self._client.zrange(key, 0, -1, withscores=True)}

    def _sets(self) -> dict[tuple[str, str], dict[str, float]]:
        """Who serves whom, of each level, by its word."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        start = self.engine.keys.members("", "")[:-1]
        for key in self._client.scan_iter(f"{start}*", count=1000):
            level, _, word = key.decode().removeprefix(start).rpartition(":")
            found[decode(level), word] = self._tags(key.decode())
        return found

    def _tenant_view(
        self, rec: TenantRecord, generation: float, now: float, parked: float | None
    ) -> TenantView:
        current = rec.generation == generation
        return TenantView(
            tag=rec.tag if current else 0.0,
            floor=rec.floor if current else 0.0,
            weight=rec.weight,
            cap=rec.cap,
            paused=bool(rec.flags & TenantFlags.PAUSED),
            sparse=bool(rec.flags & TenantFlags.SPARSE),
            queued=rec.queued,
            delayed=rec.delayed,
            running=rec.running,
            counted_weight=rec.counted_weight,
            counted_running=rec.counted_running,
            full=max(rec.full, now) - now if rec.interval else 0.0,
            parked=parked,
            late=bool(rec.flags & TenantFlags.LATE),
            group=decode(rec.group),
        )

    def _limiter_view(self, name: str, now: float, parked: dict[str, float]) -> LimiterView:
        data = self._client.get(self.engine.keys.limiter(encode(name)))
        _cap, running, full, interval, _tau, _virtual, _parked, _is_parked = (
            _LIMITER.unpack(data) if data else (0, 0, 0, 0, 0, 0, 0, 0)
        )
        return LimiterView(
            running,
            max(full, now) - now if interval else 0.0,
            self._tags(self.engine.keys.blocked(encode(name))),
            parked.get(f"::{encode(name)}"),
        )


def _policy(limits: Limits) -> dict[str, Any]:
    """As set_policy takes it."""
    fields: dict[str, Any] = {"weight": limits.weight, "paused": limits.paused}
    if limits.cap:
        fields["max_concurrency"] = limits.cap
    if limits.rate:
        fields |= {"rate_limit": limits.rate, "burst": limits.burst}
    if limits.max_queued:
        fields["max_queued"] = limits.max_queued
    if limits.group:
        fields["group"] = encode(limits.group)
    return fields
