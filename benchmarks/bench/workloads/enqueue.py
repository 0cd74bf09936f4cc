"""Enqueue: tasks with a number and 100 bytes, one call each or in bulk, while no worker runs."""

from __future__ import annotations

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity

NAME = "enqueue"
RATE = "tasks/s"
CASES = ("sync single", "sync bulk", "async single", "async bulk")


def run(bench: Bench) -> None:
    """All systems, in all ways that they have."""
    bench.interleave(
        [
            _job(bench, system, case)
            for case in CASES
            for system in bench.systems
            if case in system.pushes and system.module == ""
        ]
    )


def _job(bench: Bench, system: System, case: str) -> Job:
    kind, style = case.split()
    count = bench.count(4000, 2000) if style == "single" else bench.count(20_000, 5000)
    mode = THREADS if THREADS in system.modes else ASYNC

    def enqueue() -> Outcome:
        bench.stage.reset(count + 200)
        with bench.stage.driver(system, kind) as driver:
            task = system.task(mode, "noop")
            driver.push(task, count, 200, style=style)  # connections, scripts, code paths
            answer = driver.push(task, 0, count, style=style)
        rate = answer["count"] / answer["seconds"]
        return {RATE: rate}, {"tasks": count, "cpu µs": round(answer["cpu"] / count * 1e6, 1)}

    return Job(NAME, case, identity(system), RATE, enqueue)
