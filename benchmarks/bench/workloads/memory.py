"""Memory: bytes of the server for a queued task with 100 bytes, by the growth of used_memory."""

from __future__ import annotations

import time

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity

NAME = "memory"
BYTES = "bytes/task"
CASE = "queued, 100 bytes"
WARM = 200
GONE_SECONDS = 5.0


def run(bench: Bench) -> None:
    """All systems; once, since memory does not vary."""
    bench.interleave([_job(bench, system) for system in bench.systems if system.module == ""], 1)


def _job(bench: Bench, system: System) -> Job:
    count = bench.count(20_000, 10_000)

    kind, style = system.best_push.split()
    task = system.task(THREADS if THREADS in system.modes else ASYNC, "noop")

    def pushed(first: int, number: int) -> int:
        """used_memory after so many pushes, when the producer's connections are gone."""
        with bench.stage.driver(system, kind) as driver:
            driver.push(task, first, number, style=style)
        client = bench.stage.client
        deadline = time.monotonic() + GONE_SECONDS
        while client.info("clients")["connected_clients"] > 1 and time.monotonic() < deadline:
            time.sleep(0.005)
        return int(client.info("memory")["used_memory"])

    def measure() -> Outcome:
        bench.stage.reset(count + WARM)
        before = pushed(count, WARM)
        return {BYTES: (pushed(0, count) - before) / count}, {"tasks": count}

    return Job(NAME, CASE, identity(system), BYTES, measure)
