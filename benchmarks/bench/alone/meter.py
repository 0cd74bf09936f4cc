"""Timing of operations: medians of single calls, and what the server says that its scripts took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

SCRIPT_COMMANDS = ("evalsha", "eval", "fcall", "fcall_ro", "evalsha_ro")


@dataclass(frozen=True)
class Cost:
    """Microseconds of one unit (a task, or a call): on the wall, of this process, and of the server's scripts."""

    wall: float
    client: float
    server: float

    def metrics(self) -> dict[str, float]:
        return {"wall µs": self.wall, "client µs": self.client, "server µs": self.server}


def median_seconds(operation: Callable[[], object], count: int) -> float:
    """The median of `count` calls."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        operation()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def median_seconds_async(operation: Callable[[], Awaitable[object]], count: int) -> float:
    """The median of `count` awaited calls."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await operation()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def script_micros(client: Any) -> tuple[int, int]:
    """Calls and µs of all scripts and functions since the last CONFIG RESETSTAT."""
    stats = client.info("commandstats")
    found = [stats[name] for command in SCRIPT_COMMANDS if (name := f"cmdstat_{command}") in stats]
    return sum(entry["calls"] for entry in found), sum(entry["usec"] for entry in found)


def cost(operation: Callable[[], object], count: int, client: Any, units: int = 1) -> Cost:
    """What `count` calls of `operation`, one after the other, cost for each of the call's `units`."""
    wall: list[float] = []
    before, cpu = script_micros(client)[1], time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        operation()
        wall.append(time.perf_counter() - began)
    used, server = time.process_time() - cpu, script_micros(client)[1] - before
    return Cost(statistics.median(wall) * 1e6 / units, used * 1e6 / count / units, server / count / units)
