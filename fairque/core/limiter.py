"""The packed record of a limiter, as ``scripts/lib/limits.lua`` writes it; clients only read it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LIMITER = struct.Struct(">IIdddddB")


@dataclass(frozen=True, slots=True)
class LimiterRecord:
    """What of a limiter is in use. `cap` 0: no limit.

    `full`, `interval` and `tau` (µs): its tokens: a task may start from `full` - `tau` on, and takes `interval` for
    each unit of its cost; 0: no rate.
    """

    cap: int
    running: int
    full: float
    interval: float
    tau: float


def unpack_limiter(data: bytes) -> LimiterRecord:
    """The record in `data`.

    Raises:
        ValueError: the bytes are no such record.
    """
    try:
        cap, running, full, interval, tau, _virtual, _parked, _is_parked = _LIMITER.unpack(data)
    except struct.error as error:
        raise ValueError(f"not the record of a limiter: {error}") from None
    return LimiterRecord(cap, running, full, interval, tau)
