"""The limits: what a call, a script and a hand-over to a thread cost without any queue; FairQueue's push among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.alone.floor import AsyncBare, Bare, Minimal, hand_over, ping_pong
from bench.alone.hands import AsyncHands, Hands, config_of
from bench.alone.meter import cost, median_seconds, median_seconds_async
from bench.plan import Bench, Job, series
from bench.stage import Stage

NAME = "limits"
SYSTEM = ("limits", "without a queue")
FAIRQUE = ("fairque", "FairQueue")
WALL = "wall µs"
BATCH = 100
EMPTY_SYNC, EMPTY_ASYNC = "empty script, sync", "empty script, async"
EMPTY_PIPELINE = f"empty script, pipeline of {BATCH}, each"
THREAD, THREADS = "hand-over to a thread and back", "hand-over to 10 threads, a task"
MINIMAL = tuple(f"minimal fair queue, {name} of {BATCH}, a task" for name in ("push", "claim", "finish"))
PUSH_SYNC, PUSH_ASYNC = "push, sync", "push, async"


def run(bench: Bench) -> None:
    """All limits in turn, and FairQueue's pushes beside them, so that both meet the same machine."""
    calls, stage = bench.count(1000, 500), bench.stage

    def job(system: tuple[str, str], case: str, measure: Callable[[Stage, int], float]) -> Job:
        return Job(NAME, case, system, WALL, lambda: ({WALL: measure(stage, calls) * 1e6}, {}))

    jobs = [
        job(SYSTEM, EMPTY_SYNC, _bare),
        *([job(FAIRQUE, PUSH_SYNC, _push)] if bench.has_fairque else []),
        job(SYSTEM, EMPTY_ASYNC, lambda stage, calls: asyncio.run(_bare_async(stage, calls))),
        *(
            [job(FAIRQUE, PUSH_ASYNC, lambda stage, calls: asyncio.run(_push_async(stage, calls)))]
            if bench.has_fairque
            else []
        ),
        job(SYSTEM, EMPTY_PIPELINE, _pipeline),
        job(SYSTEM, THREAD, lambda _, calls: ping_pong(calls)),
        job(SYSTEM, THREADS, lambda _, calls: hand_over(10 * calls)),
        *series(NAME, SYSTEM, WALL, MINIMAL, lambda: _minimal(stage, max(5, calls // 20))),
    ]
    bench.interleave(jobs)


def _bare(stage: Stage, calls: int) -> float:
    stage.reset(1)
    bare = Bare(stage.url)
    try:
        bare.call()
        return median_seconds(bare.call, calls)
    finally:
        bare.close()


async def _bare_async(stage: Stage, calls: int) -> float:
    stage.reset(1)
    bare = AsyncBare(stage.url)
    try:
        await bare.call()
        return await median_seconds_async(bare.call, calls)
    finally:
        await bare.close()


def _pipeline(stage: Stage, calls: int) -> float:
    stage.reset(1)
    bare = Bare(stage.url)
    try:
        bare.pipeline(BATCH)
        return median_seconds(lambda: bare.pipeline(BATCH), max(5, calls // BATCH)) / BATCH
    finally:
        bare.close()


def _push(stage: Stage, calls: int) -> float:
    stage.reset(1)
    with Hands(config_of(stage.url)) as hands:
        hands.push()
        return median_seconds(hands.push, calls)


async def _push_async(stage: Stage, calls: int) -> float:
    stage.reset(1)
    hands = AsyncHands(config_of(stage.url))
    try:
        await hands.push()
        return await median_seconds_async(hands.push, calls)
    finally:
        await hands.close()


def _minimal(stage: Stage, rounds: int) -> dict[str, dict[str, float]]:
    """A minimal fair queue's three operations, in calls of 100."""
    stage.reset(1)
    minimal = Minimal(stage.url)
    try:
        operations = (lambda: minimal.push(BATCH), lambda: minimal.claim(BATCH), minimal.finish)
        return {
            case: cost(operation, rounds, stage.client, BATCH).metrics()
            for case, operation in zip(MINIMAL, operations, strict=True)
        }
    finally:
        minimal.close()
