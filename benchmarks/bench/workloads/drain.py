"""Drain: a queue of no-ops, each with a number and 100 bytes, until all have run.

The queue is filled while the workers are held at the gate. The rate is that of the tasks that begin after every worker
process has begun one, so neither filling nor starting counts.
"""

from __future__ import annotations

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity
from bench.processes import BenchmarkError
from bench.stage import Driver, Stage

NAME = "drain"
RATE = "tasks/s"
CASES = ((THREADS, 1), (THREADS, 2), (ASYNC, 1), (ASYNC, 2))
QUICK_PEER_TASKS = 5000
FAST = {"fairque", "bullmq", "fairque-worker-time", "fairque-results"}


def case_of(mode: str, processes: int) -> str:
    """How a case is called in the report."""
    return f"{mode}, {processes} process{'es' if processes > 1 else ''}"


def run(bench: Bench) -> None:
    """All systems in all modes that they have."""
    jobs = []
    for mode, processes in CASES:
        if bench.quick and processes > 1:
            continue
        for system in (*bench.systems, *bench.variants):
            if mode not in system.modes or (
                processes > 1 and system.name != "fairque" and system in bench.variants
            ):
                continue
            jobs.append(_job(bench, system, mode, processes))
    bench.interleave(jobs)


def _job(bench: Bench, system: System, mode: str, processes: int) -> Job:
    quick = (
        10_000
        if system.drain_tasks >= 20_000 and system.name in FAST
        else min(system.drain_tasks, QUICK_PEER_TASKS)
    )
    # A fast system would have done much of its work before the last of several processes is up.
    full = system.drain_tasks * (processes if system.name in FAST else 1)
    count = bench.count(full, quick)

    def drain() -> Outcome:
        return drained(bench.stage, system, mode, processes, count)

    return Job(NAME, case_of(mode, processes), identity(system), RATE, drain)


def drained(stage: Stage, system: System, mode: str, processes: int, count: int, size: int = 100) -> Outcome:
    """Fill the queue, let the workers loose, and measure."""
    board = stage.reset(count)
    with stage.workers(system, mode, processes=processes) as groups:
        with stage.driver(system, system.best_push.split()[0]) as driver:
            filled = fill(driver, mode, count, size)
        stage.until_ready(groups)
        board.open_gate()
        stage.until_done(groups, 0, count)
    rate, part = rate_of(board.begun(0, count), board.workers(0, count), processes)
    detail = {"tasks": count, "measured": part, "filled": round(filled)}
    if twice := board.run_twice(0, count):
        detail["run twice"] = twice
    return {RATE: rate}, detail


def fill(driver: Driver, mode: str, count: int, size: int = 100) -> float:
    """Push no-ops by the system's fastest way; returns tasks per second."""
    system = driver.system
    style = system.best_push.split()[1]
    answer = driver.push(system.task(mode, "noop"), 0, count, style=style, size=size)
    return float(answer["count"] / answer["seconds"])


def rate_of(begun: list[float], workers: list[int], processes: int) -> tuple[float, int]:
    """Tasks per second from when the last worker has begun its first task, and how many tasks that were.

    Raises:
        BenchmarkError: a worker had nothing to do.
    """
    first: dict[int, float] = {}
    for at, worker in zip(begun, workers, strict=True):
        first[worker] = min(at, first.get(worker, at))
    if len(first) < processes:
        raise BenchmarkError(f"only {len(first)} of {processes} worker processes got tasks")
    start = max(first.values())
    part = sum(1 for at in begun if at > start)
    if not part:
        raise BenchmarkError("all tasks had begun when the last worker process came")
    return part / (max(begun) - start), part
