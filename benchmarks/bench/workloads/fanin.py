"""Fan-in: 1,000 tasks side by side, then one that gets what all of them returned; ten slots."""

from __future__ import annotations

import dataclasses
import statistics

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity
from bench.processes import BenchmarkError
from bench.stage import WARM_UP

NAME = "fanin"
MS = "ms to the collector"
RATE = "tasks/s"
CASE = "1,000 into one, 10 slots"
SLOTS = 10
TASKS = 1000
ROUNDS = 5


def run(bench: Bench) -> None:
    """The systems that have something like it."""
    bench.interleave([_job(bench, system) for system in bench.systems if system.fans_in])


def _job(bench: Bench, system: System) -> Job:
    count = bench.count(TASKS)
    mode = THREADS if THREADS in system.modes else ASYNC
    kind = "sync" if "sync single" in system.pushes else "async"
    # Who needs a result store for this has none in the other workloads.
    system = dataclasses.replace(system, variables={**system.variables, "BENCH_FAN_IN": "1"})

    def measure() -> Outcome:
        stage = bench.stage
        warm = WARM_UP * SLOTS
        board = stage.reset(warm + (ROUNDS + 1) * (count + 1))
        times: list[float] = []
        with (
            stage.workers(system, mode, concurrency=SLOTS) as groups,
            stage.driver(system, kind) as driver,
        ):
            stage.warm_up(driver, groups, mode, 0, warm)
            for turn in range(ROUNDS + 1):
                first = warm + turn * (count + 1)
                driver.push("part", first, count + 1, style="fan-in")
                stage.until_done(groups, first, count + 1)
                *parts, collected = board.begun(first, count + 1)
                if collected < max(parts):
                    raise BenchmarkError("the collector began before the last of what it collects")
                times.append(collected - board.pushed(first, 1)[0])
        # The first one warms up.
        seconds = statistics.median(times[1:])
        return {MS: 1e3 * seconds, RATE: (count + 1) / seconds}, {"tasks": count, "rounds": ROUNDS}

    return Job(NAME, CASE, identity(system), MS, measure)
