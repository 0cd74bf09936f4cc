"""Scaling of FairQueue: with queued tasks, with tenants, with workers, with the size of payloads.

For tasks and tenants there are two servers, one that stays small and one that grows. Calls take turns between the two,
so that whatever else the machine does meets both alike, and a ratio is of medians measured together.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.alone.hands import Hands, config_of
from bench.catalog import FAIRQUE, THREADS
from bench.plan import Bench, Job, Outcome, identity
from bench.workloads.drain import RATE, drained, fill
from tests.support.servers import ServerProcess

NAME = "scaling"
PUSH, CLAIM = "push µs", "settle and claim µs"
PUSH_RATIO, CLAIM_RATIO = "push ÷ smallest", "claim ÷ smallest"
QUEUED_LEVELS = (1000, 10_000, 100_000, 1_000_000)
TENANT_LEVELS = (10, 1000, 100_000, 1_000_000)
ACTIVE = 1000
WORKERS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (100, 1000, 10_000, 100_000)
CALLS = 1000
KNOWN_CHUNK = 20_000


class Load:
    """A queue that keeps its size: who is measured pushes one task and claims one."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.known = 0
        self._pushes: Iterator[str] = iter(())

    def tasks(self, count: int, tenants: int) -> None:
        """So many tasks of so many tenants in all."""
        users = [f"user{number}" for number in range(tenants)]
        self.hands.push_many(count - self.known, users)
        self.known = count
        self._pushes = itertools.cycle(users)

    def tenants(self, count: int, active: int) -> None:
        """So many tenants that have been served once; `active` of them have work."""
        self.hands.drain()
        for start in range(self.known, count, KNOWN_CHUNK):
            part = [f"user{number}" for number in range(start, min(count, start + KNOWN_CHUNK))]
            self.hands.push_many(len(part), part)
            self.hands.drain()
        self.known = count
        users = [f"user{number}" for number in range(active)]
        self.hands.push_many(active, users)
        self._pushes = itertools.cycle(users)

    def turn(self) -> tuple[float, float]:
        """Seconds of one push, and of one claim that settles the claim before."""
        user = next(self._pushes)
        began = time.perf_counter()
        self.hands.push(user)
        pushed = time.perf_counter()
        claimed = self.hands.exchange(1)
        done = time.perf_counter()
        assert claimed == 1, "the queue ran dry"
        return pushed - began, done - pushed


def compare(small: Load, large: Load, count: int) -> dict[str, float]:
    """The medians of the large one, and their ratios to the small one's; who goes first alternates."""
    times: dict[Load, list[tuple[float, float]]] = {small: [], large: []}
    warm_up = count // 10
    for turn in range(count + warm_up):
        for load in (small, large) if turn % 2 else (large, small):
            took = load.turn()
            if turn >= warm_up:
                times[load].append(took)
    few, many = (
        [statistics.median(part) for part in zip(*times[load], strict=True)] for load in (small, large)
    )
    return {
        PUSH: many[0] * 1e6,
        CLAIM: many[1] * 1e6,
        PUSH_RATIO: many[0] / few[0],
        CLAIM_RATIO: many[1] / few[1],
    }


@contextmanager
def two_loads(bench: Bench, mode: str) -> Iterator[tuple[Load, Load]]:
    """A small one on a server of its own, and one on the stage's."""
    stage = bench.stage
    stage.reset(1)
    place = Path(tempfile.mkdtemp(dir=stage.directory))  # so that it goes with the stage, whatever happens
    with (
        ServerProcess(stage.server.binary, place, append_only=stage.append_only) as other,
        Hands(config_of(other.url, fairness=mode), slots=1) as few,
        Hands(config_of(stage.server.url, fairness=mode), slots=1) as many,
    ):
        yield Load(few), Load(many)


def run(bench: Bench) -> None:
    """All of it; tasks and tenants only up to 100,000 in the quick mode, and no workers."""
    if not bench.has_fairque:
        return
    queued(bench)
    tenants(bench, "round_robin", TENANT_LEVELS)
    tenants(bench, "worker_time", TENANT_LEVELS[:-1])
    workers(bench)
    payload(bench)


def levels(bench: Bench, all_levels: Sequence[int]) -> list[int]:
    """Those to measure: all, or as many as `--tasks` allows."""
    return [level for level in all_levels if bench.tasks is None or level <= max(bench.tasks, all_levels[0])]


def _grow(bench: Bench, cases: Sequence[tuple[str, Callable[[], None]]], small: Load, large: Load) -> None:
    """Make the large one larger, step by step, and compare after each."""
    for case, grow in cases:

        def measure(grow: Callable[[], None] = grow) -> Outcome:
            grow()
            return compare(small, large, bench.count(CALLS)), {}

        bench.interleave([Job(NAME, case, identity(FAIRQUE), PUSH, measure)], 1)


def queued(bench: Bench) -> None:
    """1,000 to 1,000,000 queued tasks of ten tenants."""
    with two_loads(bench, "round_robin") as (small, large):
        small.tasks(QUEUED_LEVELS[0], 10)
        steps = [
            (f"{level:,} queued tasks", lambda level=level: large.tasks(level, 10))
            for level in levels(bench, QUEUED_LEVELS)
        ]
        _grow(bench, steps, small, large)


def tenants(bench: Bench, mode: str, all_levels: Sequence[int]) -> None:
    """10 to 1,000,000 tenants that the server knows, at most 1,000 of them with work."""
    with two_loads(bench, mode) as (small, large):
        small.tenants(all_levels[0], all_levels[0])
        steps = [
            (f"{level:,} tenants, {mode}", lambda level=level: large.tenants(level, min(level, ACTIVE)))
            for level in levels(bench, all_levels)
        ]
        _grow(bench, steps, small, large)


def workers(bench: Bench) -> None:
    """1 to 64 worker processes, each with its supervisor, on one server."""
    jobs = []
    for processes in WORKERS:
        count = bench.count(max(40_000, 2000 * processes))

        def measure(processes: int = processes, count: int = count) -> Outcome:
            return drained(bench.stage, FAIRQUE, THREADS, processes, count)

        jobs.append(
            Job(NAME, f"{processes} worker{'s' if processes > 1 else ''}", identity(FAIRQUE), RATE, measure)
        )
    bench.interleave(jobs, 1)


def payload(bench: Bench) -> None:
    """Payloads of 100 bytes to 100 kB: enqueued in bulk, and drained."""
    jobs = []
    for size in SIZES:
        count = bench.count(20_000 if size <= 1000 else 2000)

        def measure(size: int = size, count: int = count) -> Outcome:
            stage = bench.stage
            stage.reset(count)
            with stage.driver(FAIRQUE, "sync") as driver:
                filled = fill(driver, THREADS, count, size)
            metrics, detail = drained(stage, FAIRQUE, THREADS, 1, count, size)
            return {"enqueued/s": filled, RATE: metrics[RATE]}, detail

        jobs.append(Job(NAME, f"payload of {size:,} bytes", identity(FAIRQUE), RATE, measure))
    bench.interleave(jobs, 1)
