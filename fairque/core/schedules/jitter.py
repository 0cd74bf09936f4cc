"""Jitter that is no chance: the same for a tick of a schedule, whoever computes it."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from fairque.core.schedules.moments import MICROSECOND, to_micros


def jitter(name: str, tick: datetime, limit: timedelta) -> timedelta:
    """How much later than `tick` the schedule `name` runs: at least 0 and less than `limit`, to the µs.

    It spreads schedules that share a tick, and the ticks of one schedule. A leader that takes over finds the
    same, so no tick comes earlier or later because of it.
    """
    digest = blake2b(f"{name}\0{to_micros(tick)}".encode(), digest_size=8).digest()
    return (limit // MICROSECOND * int.from_bytes(digest) >> 64) * MICROSECOND
