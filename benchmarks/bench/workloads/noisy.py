"""Noisy neighbour: 5,000 tasks of 1 ms of one tenant stand in the queue before 20 other tenants bring 10 each.

All are queued before the workers may begin. A light tenant's wait is from the begin of the first task of all to the
begin of its own: what its users wait for because of the neighbour.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from bench.catalog import ASYNC, THREADS, System
from bench.plan import Bench, Job, Outcome, identity
from bench.workloads.pickup import percentile

NAME = "noisy"
MEAN, P99, TOTAL = "light mean ms", "light p99 ms", "tasks/s"
TENANTS = "tenants apart"
FIFO = "one FIFO"
HEAVY, LIGHT_TENANTS, LIGHT_EACH = 5000, 20, 10
SLOTS = 10


def run(bench: Bench) -> None:
    """All systems as one FIFO, and those that can with a queue for each tenant."""
    jobs = [
        _job(bench, system, case)
        for case in (TENANTS, FIFO)
        for system in bench.systems
        if _can(system, case)
    ]
    bench.interleave(jobs, 1 if bench.quick else None)


def _can(system: System, case: str) -> bool:
    return system.name != "rq-fork" and (case == FIFO or system.tenants)


def _job(bench: Bench, system: System, case: str) -> Job:
    heavy = bench.count(HEAVY)
    apart = case == TENANTS
    mode = THREADS if THREADS in system.modes else ASYNC

    def measure() -> Outcome:
        return neighbours(bench, system, mode, heavy, apart)

    measured = system
    if system.name == "fairque" and not apart:
        measured = replace(system, title="FairQueue, all as one user")
    return Job(NAME, case, identity(measured), MEAN, measure)


def neighbours(bench: Bench, system: System, mode: str, heavy: int, apart: bool) -> Outcome:
    """One run, with a queue (or a user) for each tenant or with one for all."""
    stage, light = bench.stage, LIGHT_TENANTS * LIGHT_EACH
    board = stage.reset(heavy + light)
    names = ["heavy", *(f"light{number}" for number in range(LIGHT_TENANTS))] if apart else []
    queues = () if system.environment == "own" else tuple(names)
    processes, slots = (SLOTS, 1) if system.one_by_one else (1, SLOTS)
    kind, style = system.best_push.split()
    with stage.workers(system, mode, processes=processes, concurrency=slots, queues=queues) as groups:
        with stage.driver(system, kind, queues=queues) as driver:
            task = system.task(mode, "work")
            driver.push(task, 0, heavy, style=style, users=names[:1])
            driver.push(task, heavy, light, style=style, users=names[1:])
        stage.until_ready(groups)
        board.open_gate()
        stage.until_done(groups, 0, heavy + light)
    begun = board.begun(0, heavy + light)
    start = min(begun)
    waits = [(at - start) * 1e3 for at in begun[heavy:]]
    return (
        {
            MEAN: statistics.mean(waits),
            P99: percentile(waits, 99),
            TOTAL: (heavy + light) / (max(begun) - start),
        },
        {"heavy": heavy, "light": light},
    )
