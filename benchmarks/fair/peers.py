"""Peers beside FairQueue, in real time and at a small scale: what each does where it can keep tenants apart.

Workers, producers and their environments are those of the performance benchmarks (bench/). A peer keeps
tenants apart with a queue for each, from which its workers take in turn; those queues have to be known when a
worker starts, so that for fresh names all of them are declared beforehand, which nobody could do in earnest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.catalog import ALL, ASYNC, THREADS, System
from bench.peers import Environments
from bench.plan import Bench
from bench.processes import BenchmarkError, terminated_like_interrupted
from bench.records import Records
from bench.stage import Stage
from bench.workloads import noisy
from rich.console import Console

from fair.report import Peer

APART = ("fairque", "rq", "celery", "dramatiq")
FIFO = "huey"
SLOTS, SECONDS = 5, 0.02
STARTS, SMALL, NAMES = 240, 5, 220
"""Starts that are looked at; tenants that keep one task; fresh names that are known beforehand."""
HEAVY = 2000
POLL = 0.001
QUIET_SECONDS = 30.0

Figures = dict[str, str]


def measure(env: Path, console: Console) -> list[Peer]:
    """Run all workloads on all systems; a system that cannot is left with the reason."""
    environments = Environments(env)
    known = {system.name: system for system in ALL}
    systems = [(known[name], True) for name in APART] + [(known[FIFO], False)]
    workloads: dict[str, Callable[[Stage, System, bool], Figures]] = {
        f"noisy neighbour: {HEAVY:,} tasks of 1 ms of one tenant before 20 others with 10 each, 10 slots": noise,
        f"a backlog against five tenants that each keep one task, {SLOTS} slots, tasks of 20 ms": trickle,
        f"a backlog against a fresh tenant for each task, five at a time, {SLOTS} slots, tasks of 20 ms": minting,
    }
    found: list[Peer] = []
    with terminated_like_interrupted(), Stage(environments) as stage:
        for name, workload in workloads.items():
            for system, apart in systems:
                title = f"{system.title}, {'a user each' if system.environment == 'own' else 'a queue each'}"
                peer = Peer(name, system.name, title if apart else f"{system.title}, one FIFO")
                try:
                    environments.ensure(system.environment)
                    peer.figures = workload(stage, system, apart)
                except BenchmarkError as error:
                    peer.error = str(error).splitlines()[0]
                console.print(f"{peer.title}: {peer.error or peer.figures}", highlight=False)
                found.append(peer)
    return found


def noise(stage: Stage, system: System, apart: bool) -> Figures:
    """What light tenants wait after the first task of all has begun."""
    mode = THREADS if THREADS in system.modes else ASYNC
    bench = Bench(stage, Records(stage.directory / "records.json"), (system,), (), 1, quick=True)
    figures, _ = noisy.neighbours(bench, system, mode, HEAVY, apart)
    limit = 2 * noisy.LIGHT_TENANTS * noisy.LIGHT_EACH / figures[noisy.TOTAL] * 1e3
    return {
        "light tenants' mean wait": f"{figures[noisy.MEAN]:.0f} ms",
        "their p99": f"{figures[noisy.P99]:.0f} ms",
        "twice the time to serve 200 tasks": f"{limit:.0f} ms",
    }


def trickle(stage: Stage, system: System, apart: bool) -> Figures:
    """Each of the five comes back by itself."""
    names = [f"trickle{number}" for number in range(SMALL)]
    return beside_a_backlog(stage, system, apart, names, lambda number, before: before)


def minting(stage: Stage, system: System, apart: bool) -> Figures:
    """Whoever is served comes back under another name."""
    names = [f"fresh{number}" for number in range(NAMES)]
    return beside_a_backlog(stage, system, apart, names, lambda number, before: names[number % NAMES])


def beside_a_backlog(
    stage: Stage, system: System, apart: bool, names: Sequence[str], following: Callable[[int, str], str]
) -> Figures:
    """A backlog, and five tasks each of which is followed by another one when it has run."""
    system = replace(system, variables={**system.variables, "BENCH_TASK_SECONDS": str(SECONDS)})
    mode = THREADS if THREADS in system.modes else ASYNC
    small = 4 * STARTS
    board = stage.reset(STARTS + small)
    users = ["backlog", *names] if apart else []
    queues = () if system.environment == "own" or not apart else tuple(users)
    processes, slots = (SLOTS, 1) if system.one_by_one else (1, SLOTS)
    kind, style = system.best_push.split()
    task = system.task(mode, "work")
    with stage.workers(system, mode, processes=processes, concurrency=slots, queues=queues) as groups:
        with stage.driver(system, kind, queues=queues) as driver:
            driver.push(task, 0, STARTS, style=style, users=users[:1])
            present: dict[int, str] = {}
            for number in range(SMALL):
                present[STARTS + number] = names[number]
                one = [names[number]] if apart else []
                driver.push(task, STARTS + number, 1, users=one, stamp=True)
            stage.until_ready(groups)
            board.open_gate()
            number, last = SMALL, time.monotonic()
            done = 0
            while board.done(0, STARTS) + number - len(present) < STARTS:
                for index in [index for index in present if board.done(index, 1)]:
                    user = following(number, present.pop(index))
                    present[STARTS + number] = user
                    driver.push(task, STARTS + number, 1, users=[user] if apart else [], stamp=True)
                    number += 1
                now_done = board.done(0, STARTS) + number - len(present)
                if now_done != done:
                    done, last = now_done, time.monotonic()
                elif time.monotonic() - last > QUIET_SECONDS:
                    raise BenchmarkError(f"{done} of {STARTS} tasks ran, then none for {QUIET_SECONDS:.0f} s")
                time.sleep(POLL)
    return dict(_figures(board.begun(0, STARTS + number), board.pushed(0, STARTS + number), number))


def _figures(begun: Sequence[float], pushed: Sequence[float], small: int) -> Iterator[tuple[str, str]]:
    order = sorted((at, index) for index, at in enumerate(begun) if at)[:STARTS]
    got = sum(index < STARTS for _, index in order)
    # Since the others are gone for a moment between two tasks, fair is somewhat more than that.
    name = f"the backlog's part of {STARTS} starts (fair: {1 / (SMALL + 1):.0%} or more)"
    yield name, f"{got} ({got / STARTS:.0%})"
    waits = [at - pushed[index] for at, index in order if index >= STARTS + SMALL]
    shown = f"{statistics.mean(waits) * 1e3:.0f} ms" if waits else "none was served twice"
    yield "the others' mean wait", shown
