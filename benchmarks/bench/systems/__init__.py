"""What all adapters share: the functions that are run as tasks, the server's address, the gate.

An adapter is a module of this package, imported only in the environment of its system. It registers the four functions
below as tasks in its system's way (with a `fan_in`, also `part` and `collect`), defines `SyncProducer` or `AsyncProducer` or both (`push` one, `push_many` a list),
and ends with `hold()`, at which a worker waits until all workers of the run have been loaded.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.board import Board
from bench.calls import TASK_SECONDS, Call

BOARD = Board.from_environment()
URL = os.environ["BENCH_URL"]
CONCURRENCY = int(os.environ["BENCH_CONCURRENCY"])
FANS_IN = bool(os.environ.get("BENCH_FAN_IN"))
"""Whether the run is about tasks whose results another one collects."""
QUEUES = tuple(filter(None, os.environ.get("BENCH_QUEUES", "").split(",")))
"""Names of the tenants that have queues of their own in this run."""
AT_A_TIME = 20
"""How many single pushes a bulk push awaits together, where a system has no bulk push."""


def noop(index: int, data: str) -> None:
    """A task that does nothing."""
    BOARD.begin(index)
    BOARD.end(index)


def work(index: int, data: str) -> None:
    """A task of 1 ms."""
    BOARD.begin(index)
    time.sleep(TASK_SECONDS)
    BOARD.end(index)


async def async_noop(index: int, data: str) -> None:
    """A task that does nothing, as a coroutine function."""
    BOARD.begin(index)
    BOARD.end(index)


async def async_work(index: int, data: str) -> None:
    """A task of 1 ms, as a coroutine function."""
    BOARD.begin(index)
    await asyncio.sleep(TASK_SECONDS)
    BOARD.end(index)


def part(index: int, data: str) -> int:
    """One of many that `collect` collects."""
    BOARD.begin(index)
    BOARD.end(index)
    return index


def collect(results: list[int], index: int, data: str) -> int:
    """What follows on many: it gets what all of them returned."""
    BOARD.begin(index)
    total = len(results)
    BOARD.end(index)
    return total


async def together(push: Callable[[Call], Awaitable[object]], calls: Sequence[Call]) -> None:
    """Push calls in groups that are awaited together; larger groups only open more connections."""
    for start in range(0, len(calls), AT_A_TIME):
        await asyncio.gather(*map(push, calls[start : start + AT_A_TIME]))


FUNCTIONS = (noop, work, async_noop, async_work)
SYNC_FUNCTIONS = (noop, work)
ASYNC_FUNCTIONS = (async_noop, async_work)


def hold() -> None:
    """Wait at the gate if this process is a worker."""
    if os.environ["BENCH_ROLE"] == "worker":
        BOARD.wait_at_gate()
