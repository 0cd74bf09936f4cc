"""The packed record of a tenant, as ``scripts/lib/tenants.lua`` writes it; clients only read it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import Any

BASE = struct.Struct(">BdddIIIIIIIIIIIIIIIdddIIIffffBBBB")
LIMITS = struct.Struct(">dddI")
LEVEL = struct.Struct(">12d")


class TenantFlags(IntFlag):
    """Where a tenant stands."""

    SPARSE = 1  # its next task may use the lane
    READY = 2
    PAUSED = 4
    AHEAD = 8  # not ready, but running what virtual time has not passed
    HAS_LIMITS = 16  # a rate or a quota is set
    PARKED = 32  # out of tokens
    LATE = 64  # it has waited too long for its own workers
    MOVING = 128  # it changes its organisation when nothing of it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRecord:
    """Virtual time among an organisation's members, as in lib/levels.lua."""

    virtual: float
    mark: float
    weight: float
    running: float
    generation: float
    at: float
    past: float
    window: float
    virtual_now: float
    virtual_before: float
    served_now: float
    served_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRecord:
    """A user or an organisation as the server holds it. Times in µs, `weight` in thousandths, tags in virtual time.

    `full`, `interval`, `tau`: its tokens, as in lib/limits.lua; `..._now` and `..._before`: the two buckets of its
    window. `group`: its organisation behind a colon, or empty. Of an organisation, `normal` counts all that its
    members have queued, and `level` is virtual time among them.
    """

    flags: TenantFlags
    tag: float
    floor: float
    generation: float
    weight: int
    cap: int
    counted_weight: int
    counted_running: int
    critical: int
    normal: int
    limited: int
    delayed: int
    running: int
    finished: int
    failed: int
    canceled: int
    stolen: int
    indexed: int
    rules: int
    waited: float
    served: float
    since: float
    window: int
    claims_now: int
    claims_before: int
    service_now: float
    service_before: float
    waits_now: float
    waits_before: float
    rough_backlog: int
    rough_service: int
    rough_wait: int
    full: float = 0.0
    interval: float = 0.0
    tau: float = 0.0
    max_queued: int = 0
    group: str = ""
    level: LevelRecord | None = None

    @property
    def queued(self) -> int:
        """How many of its tasks wait for a slot."""
        return self.critical + self.normal + self.limited

    def is_ready(self, generation: float) -> bool:
        """Whether it can be claimed from, on a level of that generation: of another one, it has not entered yet."""
        return bool(self.flags & TenantFlags.READY) and self.generation == generation


_BASE_FIELDS = tuple(item.name for item in fields(TenantRecord))[:32]
_LIMITS_FIELDS = ("full", "interval", "tau", "max_queued")
_LEVEL_FIELDS = tuple(item.name for item in fields(LevelRecord))


def unpack_tenant(data: bytes) -> TenantRecord:
    """The record in `data`.

    Raises:
        ValueError: the bytes are no such record.
    """
    try:
        *values, group_size = BASE.unpack_from(data)
        found: dict[str, Any] = dict(zip(_BASE_FIELDS, values, strict=True))
        found["flags"] = TenantFlags(found["flags"])
        at = BASE.size
        if found["flags"] & TenantFlags.HAS_LIMITS:
            found.update(zip(_LIMITS_FIELDS, LIMITS.unpack_from(data, at), strict=True))
            at += LIMITS.size
        found["group"] = data[at : at + group_size].decode()
        at += group_size
        if len(data) > at:
            found["level"] = LevelRecord(**dict(zip(_LEVEL_FIELDS, LEVEL.unpack_from(data, at), strict=True)))
    except struct.error as error:
        raise ValueError(f"not the record of a tenant: {error}") from None
    return TenantRecord(**found)
