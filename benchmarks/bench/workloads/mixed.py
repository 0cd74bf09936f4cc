"""Mixed: one producer pushes tasks of 1 ms, one call each, while a worker with ten slots runs them."""

from __future__ import annotations

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity
from bench.stage import WARM_UP

NAME = "mixed"
RATE = "tasks/s"
CASE = "1 ms tasks, 10 slots"
SLOTS = 10
TASKS = 5000


def run(bench: Bench) -> None:
    """All systems."""
    jobs = [_job(bench, system) for system in bench.systems if system.name != "rq-fork"]
    bench.interleave(jobs, 1 if bench.quick else None)


def _job(bench: Bench, system: System) -> Job:
    count = bench.count(min(TASKS, system.drain_tasks), 2000)
    mode = THREADS if THREADS in system.modes else ASYNC
    kind = "sync" if "sync single" in system.pushes else "async"

    def measure() -> Outcome:
        stage = bench.stage
        warm = WARM_UP * SLOTS
        board = stage.reset(warm + count)
        processes, slots = (SLOTS, 1) if system.one_by_one else (1, SLOTS)
        with (
            stage.workers(system, mode, processes=processes, concurrency=slots) as groups,
            stage.driver(system, kind) as driver,
        ):
            stage.warm_up(driver, groups, mode, 0, warm)
            pushed = driver.push(system.task(mode, "work"), warm, count, stamp=True)
            stage.until_done(groups, warm, count)
        seconds = max(board.begun(warm, count)) - min(board.pushed(warm, count))
        return {RATE: count / seconds}, {"tasks": count, "pushed/s": round(count / pushed["seconds"])}

    return Job(NAME, CASE, identity(system), RATE, measure)
