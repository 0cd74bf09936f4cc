"""The budget of each operation: µs on the wall, of the client's processor, and of the server's scripts."""

from __future__ import annotations

from collections.abc import Callable

from bench.alone.hands import Hands, config_of
from bench.alone.meter import cost
from bench.plan import Bench, series

NAME = "budget"
SYSTEM = ("fairque", "FairQueue")
USERS = tuple(f"user{number}" for number in range(20))
WALL = "wall µs"


def run(bench: Bench) -> None:
    """Push, claim, settle and heartbeat, one at a time and in batches; for each task of a batch."""
    if not bench.has_fairque:
        return
    jobs = series(NAME, SYSTEM, WALL, CASES, lambda: measure_all(bench))
    bench.interleave(jobs, 1 if bench.quick else None)


CASES = (
    "push",
    "push_batch of 500, a task",
    "claim of 1",
    "settle of 1",
    "settle and claim of 1",
    "claim of 50, a task",
    "settle of 50, a task",
    "settle and claim of 50, a task",
    "heartbeat",
)


def measure_all(bench: Bench) -> dict[str, dict[str, float]]:
    """All cases, in their order: what one claims, the next one settles."""
    stage = bench.stage
    stage.reset(1)
    few, many = bench.count(500), max(2, bench.count(500) // 20)
    with Hands(config_of(stage.url)) as hands:
        users = iter(USERS * few)
        hands.push_many(few * 2 + many * 60, USERS)
        hands.claim(1)
        hands.exchange(0)
        operations: list[tuple[Callable[[], object], int, int]] = [
            (lambda: hands.push(next(users)), few, 1),
            (lambda: hands.push_many(500, USERS), many, 500),
            (lambda: hands.claim(1), few, 1),
            (lambda: hands.settle(1), few, 1),
            (lambda: hands.exchange(1), few, 1),
            (lambda: hands.claim(50), many, 50),
            (lambda: hands.settle(50), many, 50),
            (lambda: hands.exchange(50), many, 50),
            (hands.heartbeat, few, 1),
        ]
        return {
            case: cost(operation, count, stage.client, units).metrics()
            for case, (operation, count, units) in zip(CASES, operations, strict=True)
        }
