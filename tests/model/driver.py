"""The real scripts behind the interface of the model: on a real server, at times that the caller gives."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis

from fairque.core import record
from fairque.core.config import QueueConfig
from fairque.core.keys import decode, encode
from fairque.core.models import Priority, Task, UserPolicy
from fairque.core.record import Flags
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, claims, push, tasks
from fairque.queue.operations.base import Engine, Flow
from tests.model.values import Claimed, Exchange, Job, Outcome, TenantView, View

# The layouts of lib/clock.lua and lib/tenants.lua.
_CLOCK = struct.Struct(">16d")
_TENANT = struct.Struct(">BdddIIIIIIIIIIddd")
_SPARSE, _READY, _PAUSED, _AHEAD = 1, 2, 4, 8
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
        self._run(0, admin.open_queue(self.engine))

    def _run(self, now: int, flow: Flow[Any]) -> Any:
        self._now = now
        return self.manager.run(flow)

    def _session(self, worker: int) -> claims.Session:
        return self._sessions[worker - 1]

    def join(self, now: int, slots: int) -> int:
        """As of the model; names of incarnations sort as their numbers do."""
        number = len(self._sessions) + 1
        session = claims.Session(slots=slots, incarnation=f"worker{number:05}")
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

    def push(self, now: int, jobs: Sequence[Job]) -> None:
        """As of the model: one script call for each 500."""
        batch = [
            Task[Any](
                task_id=job.task_id,
                user_id=job.user,
                function=job.function,
                priority=_PRIORITIES[job.priority],
                cost=job.cost / 1000,
                max_retries=job.max_retries,
            )
            for job in jobs
        ]
        outcomes = self._run(now, push.push_chunk(self.engine, batch))
        for outcome in outcomes:
            if outcome.error:
                raise outcome.error
        self._users.update(job.user for job in jobs)

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

    def set_policy(
        self, now: int, user: str, *, weight: int = 1000, cap: int = 0, paused: bool = False
    ) -> None:
        """As of the model."""
        policy = UserPolicy(weight=weight / 1000, max_concurrency=cap or None, paused=paused)
        self._run(now, admin.set_user_policy(self.engine, user, policy))
        self._users.add(user)

    def pause(self, now: int, paused: bool) -> None:
        """As of the model."""
        self._run(now, admin.pause(self.engine, paused))

    def view(self) -> View:
        """As of the model, read from the keys; queue lengths and claims are counted, not believed."""
        keys = self.engine.keys
        users = sorted(self._users)
        parts = [encode(user) for user in users]
        with self._client.pipeline(transaction=False) as pipe:
            pipe.get(keys.clock)
            for name in (keys.ready_all, keys.ready_sparse, keys.ahead):
                pipe.zrange(name, 0, -1, withscores=True)
            for part in parts:
                pipe.get(keys.user(part))
                pipe.llen(keys.critical(part))
                pipe.zcard(keys.normal(part))
            for session in self._sessions:
                pipe.hvals(keys.held(session.incarnation))
            clock, ready, sparse, ahead, *rest = pipe.execute()
        (_last, virtual, mark, weight, running, all_running, generation, credit, lane, _at, slots,
         *_others) = _CLOCK.unpack(clock)  # fmt: skip
        per_user, held = rest[: 3 * len(users)], rest[3 * len(users) :]
        tenants = {
            user: _tenant_view(per_user[3 * i], per_user[3 * i + 1], per_user[3 * i + 2], generation)
            for i, user in enumerate(users)
        }
        flags = {user: _TENANT.unpack(per_user[3 * i])[0] for i, user in enumerate(users)}
        for flag, members in ((_READY, ready), (_AHEAD, ahead)):
            told = {user for user in users if flags[user] & flag}
            assert told == set(_tags(members)), "what records say differs from the sets"
        return View(
            virtual=virtual,
            mark=mark,
            generation=int(generation),
            weight=int(weight),
            running=int(running),
            all_running=int(all_running),
            slots=int(slots),
            lane=int(lane),
            credit=credit,
            tenants=tenants,
            ready=_tags(ready),
            in_lane=_tags(sparse),
            ahead=_tags(ahead),
            held=dict(Counter(decode(entry[_HELD_USER:].decode()) for entries in held for entry in entries)),
        )


def _tags(pairs: list[tuple[bytes, float]]) -> dict[str, float]:
    return {decode(user.decode()): tag for user, tag in pairs}


def _tenant_view(data: bytes, critical: int, normal: int, generation: float) -> TenantView:
    (flags, tag, floor, own_generation, weight, cap, counted_weight, counted_running, counted_critical,
     counted_normal, running, *_counters) = _TENANT.unpack(data)  # fmt: skip
    assert (counted_critical, counted_normal) == (critical, normal), "the counts differ from the queues"
    current = own_generation == generation
    return TenantView(
        tag=tag if current else 0.0,
        floor=floor if current else 0.0,
        weight=weight,
        cap=cap,
        paused=bool(flags & _PAUSED),
        sparse=bool(flags & _SPARSE),
        critical=critical,
        normal=normal,
        running=running,
        counted_weight=counted_weight,
        counted_running=counted_running,
    )
