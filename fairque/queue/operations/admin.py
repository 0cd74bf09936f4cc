"""The queue as a whole, and its tenants: policies, pauses, numbers, clean-up."""

from __future__ import annotations

import logging
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from fairque.core.exceptions import SchemaMismatchError
from fairque.core.keys import encode
from fairque.core.models import QueueSizes, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations.base import SCHEMA, Engine, Flow

_log = logging.getLogger(__name__)

NOT_YET = {"rate_limit", "burst", "max_queued", "group"}
"""Parts of a policy that are stored but not enforced by this version."""
_TENANT = struct.Struct(">BdddIIIIIIIIIIddd")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(strict=False).decode


@dataclass(frozen=True, slots=True)
class UserStats:
    """One tenant in numbers. Seconds are sums over its tasks; `tag` and `floor` are virtual time."""

    user_id: str
    critical: int
    normal: int
    running: int
    finished: int
    failed: int
    canceled: int
    dead_letters: int
    waited_seconds: float
    served_seconds: float
    weight: float
    ready: bool
    paused: bool
    tag: float
    floor: float


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A live incarnation: what it told about itself, how many tasks it holds, seconds to the end of its lease."""

    incarnation: str
    lease_left: float
    running: int
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue in numbers: tasks by state, counters since the beginning, and who serves it."""

    states: dict[str, int]
    counters: dict[str, int]
    numbers: dict[str, float]
    workers: tuple[WorkerInfo, ...]

    @property
    def paused(self) -> bool:
        """Whether the whole queue is paused."""
        return bool(self.numbers["paused"])


def open_queue(engine: Engine) -> Flow[None]:
    """A client's first call.

    Raises:
        SchemaMismatchError: the server's data has another layout.
    """
    found = yield engine.call("open", SCHEMA)
    if int(found) != SCHEMA:
        raise SchemaMismatchError(
            f"the data under the prefix {engine.keys.prefix!r} has layout {int(found)}; this version reads {SCHEMA}: "
            "upgrade this client, or use another queue.prefix"
        )


def set_user_policy(engine: Engine, user_id: str, policy: UserPolicy | None) -> Flow[None]:
    """What the tenant may use from now on, also its backlog; None: the default again."""
    packed = b""
    if policy is not None:
        given = {name: value for name, value in asdict(policy).items() if value is not None}
        packed = _pack(given | {"weight": round(policy.weight * 1000)})
        for name in NOT_YET & given.keys():
            _log.warning("user %r: %s is stored, but has no effect yet", user_id, name)
    yield engine.call("set_policy", encode(user_id), packed)


def get_user_policy(engine: Engine, user_id: str) -> Flow[UserPolicy | None]:
    """The tenant's own policy, or None."""
    *_rest, policy, _dead = yield engine.call("get_user", encode(user_id))
    if not policy:
        return None
    fields = _unpack(policy)
    return UserPolicy(**fields | {"weight": fields["weight"] / 1000})


def pause_user(engine: Engine, user_id: str, paused: bool) -> Flow[None]:
    """Keep the tenant's tasks waiting, or let them go on; running ones are not touched."""
    yield engine.call("pause_user", encode(user_id), int(paused))


def pause(engine: Engine, paused: bool) -> Flow[None]:
    """Stop all claiming, or let it go on; running tasks are not touched."""
    yield engine.call("pause", int(paused))


def get_queue_sizes(engine: Engine, user_id: str) -> Flow[QueueSizes]:
    """How much of the tenant waits and runs."""
    critical, normal, state, _policy, _dead = yield engine.call("get_user", encode(user_id))
    running = _TENANT.unpack(state)[10] if state else 0
    return QueueSizes(critical=critical, normal=normal, running=running)


def get_user_stats(engine: Engine, user_id: str) -> Flow[UserStats]:
    """The tenant in numbers."""
    critical, normal, state, _policy, dead = yield engine.call("get_user", encode(user_id))
    if state:
        (flags, tag, floor, _generation, weight, _cap, _w, _r, _critical, _normal, running, finished, failed, canceled,
         waited, served, _since) = _TENANT.unpack(state)  # fmt: skip
    else:
        flags = tag = floor = running = finished = failed = canceled = waited = served = 0
        weight = 1000
    return UserStats(
        user_id, critical, normal, running, finished, failed, canceled, dead, waited, served, weight / 1000,
        bool(flags & 2), bool(flags & 4), tag, floor,
    )  # fmt: skip


def get_stats(engine: Engine) -> Flow[QueueStats]:
    """The queue in numbers: O(1), and O(number of workers)."""
    counters, states, numbers, workers = yield engine.call("get_stats")
    values = {name.decode(): float(value) for name, value in zip(numbers[::2], numbers[1::2], strict=True)}
    found = [
        WorkerInfo(
            workers[i].decode(),
            max(0.0, (float(workers[i + 1]) - values["now"]) / 1e6),
            workers[i + 3],
            _unpack(workers[i + 2]) if workers[i + 2] else {},
        )
        for i in range(0, len(workers), 4)
    ]
    return QueueStats(
        {name.decode(): count for name, count in zip(states[::2], states[1::2], strict=True)},
        {name.decode(): int(count) for name, count in zip(counters[::2], counters[1::2], strict=True)},
        values,
        tuple(found),
    )


def sweep(engine: Engine, max_calls: int = 10_000) -> Flow[dict[str, int]]:
    """Do what time alone brings, in bounded chunks: due tasks, expired ones, registries of records that are gone."""
    totals = {"promoted": 0, "expired": 0, "forgotten": 0}
    for state in (TaskState.FINISHED, TaskState.CANCELED):
        offset = 0
        for _ in range(max_calls):
            promoted, expired, forgotten, following = yield engine.call("sweep", state.value, offset)
            totals["promoted"] += promoted
            totals["expired"] += expired
            totals["forgotten"] += forgotten
            if not (promoted or expired) and following < 0:
                break
            offset = max(0, following)
    return totals
