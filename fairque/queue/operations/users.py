"""Tenants in numbers: one of them, and pages of all by backlog, service or wait."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fairque.core.exceptions import InvalidTaskError
from fairque.core.keys import decode, encode
from fairque.core.models import QueueSizes
from fairque.core.tenant import TenantFlags, TenantRecord, unpack_tenant
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.tasks import Page

Order: TypeAlias = Literal["backlog", "service", "wait"]
ORDERS: tuple[str, ...] = get_args(Order)
_CURSOR = re.compile(r"(list|rest)/(\d{1,15})")
WINDOW_SECONDS = 30.0
_WIDTH = 9
"""Values of each user in a reply (lib/shown.lua)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStats:
    """One tenant in numbers.

    `critical`, `normal` and `limited` (those under a limiter) are queued, `delayed` waits for a time or for other
    tasks. `finished`, `failed`, `canceled` and `stolen` (claimed by a worker whose own it is not) count since its
    record was made; so do `waited_seconds` and `served_seconds`, which are sums over its tasks. `oldest_seconds` is
    how long the longest waiting of its next tasks (the heads of its queues) has been queued. `tag` and `floor` are
    virtual time. `broken` names the one of its queues that is none, since somebody has put something else in its
    place; what stood there waits until `reconcile` mends it.

    The window is the last half to whole minute: `claims`, `service` (cost, or seconds of worker time) and the mean of
    `wait_seconds`. `actual_share` is its part of all service; `fair_share` what it would have had, had it wanted all
    that it could get. None: nothing was served.
    """

    user_id: str
    group: str | None
    critical: int
    normal: int
    limited: int
    delayed: int
    running: int
    finished: int
    failed: int
    canceled: int
    stolen: int
    dead_letters: int
    waited_seconds: float
    served_seconds: float
    oldest_seconds: float
    weight: float
    ready: bool
    paused: bool
    parked: bool
    tag: float
    floor: float
    claims: int
    service: float
    wait_seconds: float
    actual_share: float | None
    fair_share: float | None
    broken: str = ""

    @property
    def queued(self) -> int:
        """How many of its tasks wait for a slot."""
        return self.critical + self.normal + self.limited


_VALUES: dict[str, Callable[[UserStats], float]] = {
    "backlog": lambda user: user.queued,
    "service": lambda user: user.served_seconds,
    "wait": lambda user: user.wait_seconds,
}


def get_queue_sizes(engine: Engine, user_id: str) -> Flow[QueueSizes]:
    """How much of the tenant waits and runs."""
    stats = yield from get_user_stats(engine, user_id)
    return QueueSizes(
        critical=stats.critical,
        normal=stats.normal,
        limited=stats.limited,
        delayed=stats.delayed,
        running=stats.running,
    )


def get_user_stats(engine: Engine, user_id: str) -> Flow[UserStats]:
    """The tenant in numbers."""
    clock, rows = yield engine.call("get_users", encode(user_id))
    return _stats(rows, _Clock(*map(float, clock)))


def list_users(
    engine: Engine, by: Order = "backlog", cursor: str | None = None, limit: int = 100
) -> Flow[Page[UserStats]]:
    """One page of tenants, those with the largest backlog, service, or recent mean wait first.

    The order is kept to an eighth of the value; those with (nearly) none come last, by when they came. A tenant that
    changes its place between two pages may come twice, or not at all.

    Raises:
        InvalidTaskError: there is no such order, or the cursor or limit is wrong.
    """
    if by not in ORDERS:
        raise InvalidTaskError(f"tenants are listed by {', '.join(ORDERS)}, not by {by!r}")
    if not 1 <= limit <= 500:
        raise InvalidTaskError(f"a page has 1 to 500 tenants, not {limit}")
    part, offset = "list", "0"
    if cursor is not None:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
        part, offset = found.groups()
    part, offset, clock, rows = yield engine.call("list_users", by, part, offset, limit)
    now = _Clock(*map(float, clock))
    users = [_stats(rows[i : i + _WIDTH], now) for i in range(0, len(rows), _WIDTH)]
    users.sort(key=_VALUES[by], reverse=True)
    return Page(tuple(users), f"{part.decode()}/{offset}" if part else None)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Now, and of the root level: virtual time since ever, and the window."""

    now: float
    way: float
    window: float
    way_now: float
    way_before: float
    served_now: float
    served_before: float


def _stats(row: list[Any], clock: _Clock) -> UserStats:
    user, data, group_data, critical, normal, limited, oldest, dead, broken = row
    name = decode(user.decode())
    if not data:
        return UserStats(
            user_id=name, group=None, critical=critical, normal=normal, limited=limited, delayed=0, running=0,
            finished=0, failed=0, canceled=0, stolen=0, dead_letters=dead, waited_seconds=0.0, served_seconds=0.0,
            oldest_seconds=0.0, weight=1.0, ready=False, paused=False, parked=False, tag=0.0, floor=0.0, claims=0,
            service=0.0, wait_seconds=0.0, actual_share=None, fair_share=None, broken=decode(broken.decode()),
        )  # fmt: skip
    rec = unpack_tenant(data)
    group = unpack_tenant(group_data) if group_data else None
    claims, service, waits = _window(rec, clock.now)
    actual, fair = _shares(rec, group, service, clock)
    first = float(oldest)
    return UserStats(
        user_id=name,
        group=decode(rec.group[1:]) if rec.group else None,
        critical=critical,
        normal=normal,
        limited=limited,
        delayed=rec.delayed,
        running=rec.running,
        finished=rec.finished,
        failed=rec.failed,
        canceled=rec.canceled,
        stolen=rec.stolen,
        dead_letters=dead,
        waited_seconds=rec.waited,
        served_seconds=rec.served,
        oldest_seconds=max(0.0, clock.now - first) / 1e6 if first else 0.0,
        weight=rec.weight / 1000,
        ready=bool(rec.flags & TenantFlags.READY),
        paused=bool(rec.flags & TenantFlags.PAUSED),
        parked=bool(rec.flags & TenantFlags.PARKED),
        tag=rec.tag,
        floor=rec.floor,
        claims=claims,
        service=service,
        wait_seconds=waits / claims if claims else 0.0,
        actual_share=actual,
        fair_share=fair,
        broken=decode(broken.decode()),
    )


def _window(rec: TenantRecord, now: float) -> tuple[int, float, float]:
    """Claims, service and waits of both buckets, as far as they are not over."""
    bucket = int(now / 1e6 // WINDOW_SECONDS)
    if rec.window == bucket:
        return (
            rec.claims_now + rec.claims_before,
            rec.service_now + rec.service_before,
            rec.waits_now + rec.waits_before,
        )
    if rec.window == bucket - 1:
        return rec.claims_now, rec.service_now, rec.waits_now
    return 0, 0.0, 0.0


def _level_window(
    bucket: int, window: float, way: float, way_now: float, way_before: float, now: float, before: float
) -> tuple[float, float]:
    """How far a level's virtual time has come within the window, and what was served in it."""
    if window == bucket:
        return way - way_before, now + before
    if window == bucket - 1:
        return way - way_now, now
    return 0.0, 0.0


def _shares(
    rec: TenantRecord, group: TenantRecord | None, service: float, clock: _Clock
) -> tuple[float | None, float | None]:
    """Of all service in the window: what the tenant had, and what its weight entitled it to (its way times its
    weight; in an organisation, that part of the organisation's)."""
    bucket = int(clock.now / 1e6 // WINDOW_SECONDS)
    way, served = _level_window(
        bucket,
        clock.window,
        clock.way,
        clock.way_now,
        clock.way_before,
        clock.served_now,
        clock.served_before,
    )
    if served <= 0:
        return None, None
    top = group or rec
    fair = way * top.weight / 1000 / served
    if group is not None and group.level is not None:
        level = group.level
        way, inner = _level_window(
            bucket, level.window, level.past + level.virtual, level.virtual_now, level.virtual_before,
            level.served_now, level.served_before,
        )  # fmt: skip
        fair *= way * rec.weight / 1000 / inner if inner > 0 else 0.0
    return service / served, min(1.0, fair)
