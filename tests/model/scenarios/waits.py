"""What waits for whom: light tenants beside a noisy one, and a newcomer among many."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.model.scenarios.base import Ground, Result, percentile, run, scenario
from tests.model.simulation import Arrival, Report

LIGHT = tuple(f"light{number}" for number in range(20))
COME = 10.0
"""When a noisy tenant's tasks come."""


def _beside_noise(
    ground: Ground, mode: str, slots: int, noise: int, before: Iterable[Arrival] = ()
) -> tuple[float, Report]:
    """The p99 wait of 20 light tenants with 10 tasks each, that come 10 ms after `noise` tasks of a noisy one."""
    arrivals = [*before, Arrival(COME, "noisy", seconds=0.001, tasks=noise)]
    arrivals += [Arrival(COME + 0.01, user, seconds=0.001, tasks=10) for user in LIGHT]
    report = run(ground, mode, slots, COME + 6, arrivals)
    waits = [start.waited for start in report.starts if start.user in LIGHT and start.at >= COME]
    assert len(waits) == 200, "some light tasks never started"
    return percentile(waits, 98.5), report


@scenario(
    "noisy-neighbour", "noisy neighbour: 5,000 tasks of 1 ms, then 20 tenants with 10 each",
    "the light tenants' p99 wait", "<= 2 × the time to serve 200 tasks", plain=True,
)  # fmt: skip
def noisy_neighbour(ground: Ground, mode: str, slots: int) -> Result:
    """In `worker_time`, of a function that each has called before: it knows what such tasks take."""
    known = [Arrival(0, user, seconds=0.001, tasks=10) for user in ["noisy", *LIGHT]]
    p99, report = _beside_noise(ground, mode, slots, 5000, known if mode == "worker_time" else [])
    limit = 2 * 200 * 0.001 / slots
    return Result(f"{p99 * 1e3:.0f} ms", p99 <= limit, p99, f"<= {limit * 1e3:.0f} ms", {"": report})


@scenario(
    "noisy-and-unknown", "the same with 2,500 tasks of a function that was never called before",
    "the light tenants' p99 wait", "<= the bound of a newcomer's wait", modes=("worker_time",),
)  # fmt: skip
def noisy_and_unknown(ground: Ground, mode: str, slots: int) -> Result:
    """Tasks of an unknown function are taken to run 1 s, and the bound has that in it."""
    p99, report = _beside_noise(ground, mode, slots, 2500)
    bound = 20 * (1 + 1) / slots
    return Result(f"{p99:.2f} s", p99 <= bound, p99, f"<= {bound:.0f} s", {"": report})


@scenario(
    "newcomer", "a newcomer among 200 backlogged tenants", "how long it waits",
    "the first free slot, with the sparse share", plain=True,
)  # fmt: skip
def newcomer(ground: Ground, mode: str, slots: int) -> Result:
    """By then each of the 200 has been served, so that none of them is new itself."""
    dice = random.Random(7)
    # Unequal tasks, so that slots get free one by one.
    heavies = [
        Arrival(0, f"heavy{i}", seconds=round(dice.uniform(0.5, 1.5), 3))
        for i in range(200)
        for _ in range(20)
    ]
    comes = 1000.3 / slots
    report = run(ground, mode, slots, 1200 / slots, [*heavies, Arrival(comes, "new")])
    free = min(start.at for start in report.starts if start.at >= comes) - comes
    waits = report.waits("new")
    if not waits:
        longest = report.until - comes
        return Result(f"> {longest:.1f} s", False, longest, f"{free:.3f} s", {"": report})
    return Result(f"{waits[0]:.3f} s", abs(waits[0] - free) < 1e-6, waits[0], f"{free:.3f} s", {"": report})
