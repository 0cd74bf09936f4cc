"""Idle pick-up: from the call of push to the begin of the function, on a worker that has nothing else to do."""

from __future__ import annotations

import statistics

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity
from bench.processes import BenchmarkError
from bench.stage import WARM_UP

NAME = "pickup"
P50, P99 = "p50 ms", "p99 ms"
PAUSE_SECONDS = 0.004
PROBES = 300


def percentile(values: list[float], percent: float) -> float:
    """The value below which that part of them lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def run(bench: Bench) -> None:
    """All systems, in threads and async where they have both."""
    jobs = [
        _job(bench, system, mode)
        for mode in (THREADS, ASYNC)
        for system in bench.systems
        if mode in system.modes and not (bench.quick and mode == ASYNC and system.name == "taskiq")
    ]
    bench.interleave(jobs, 1 if bench.quick else None)


def _job(bench: Bench, system: System, mode: str) -> Job:
    count = bench.count(PROBES)
    kind = "sync" if "sync single" in system.pushes else "async"

    def probe() -> Outcome:
        stage = bench.stage
        board = stage.reset(WARM_UP + count)
        with (
            stage.workers(system, mode, concurrency=1 if system.one_by_one else 10) as groups,
            stage.driver(system, kind) as driver,
        ):
            stage.warm_up(driver, groups, mode, 0)
            answer = driver.probe(system.task(mode, "noop"), WARM_UP, count, PAUSE_SECONDS)
        if answer["count"] < count:
            raise BenchmarkError(f"a task did not begin within 10 s (after {answer['count']} that did)")
        begun, pushed = board.begun(WARM_UP, count), board.pushed(WARM_UP, count)
        took = [(begin - push) * 1e3 for begin, push in zip(begun, pushed, strict=True)]
        return {P50: statistics.median(took), P99: percentile(took, 99)}, {"probes": count}

    return Job(NAME, mode, identity(system), P50, probe)
