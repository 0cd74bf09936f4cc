"""What is done to whom, and when: drawn from a seed, so that the same seed gives the same schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE = 2.0
SHORT_STOP = (0.1, LEASE / 4)
"""Seconds that a process may be stopped and nobody should notice."""
LONG_STOP = (1.3 * LEASE, 2.5 * LEASE)
"""Seconds after which its lease is over, whenever it was renewed last."""
PAUSE_SECONDS = (0.2, 1.5)
"""Between two faults."""
TARGETS = {"worker": 2, "supervisor": 1, "child": 2, "scheduler": 3, "server": 1, "network": 2}
"""How many there are of each kind; the producers' network is the first, the workers' the second."""

# What, to whom, how often relative to the others, and the least and the most of `seconds`: how long it lasts, or after
# which time what was ended is started again. A `nap` is a stop that must cost nothing.
FAULTS: tuple[tuple[str, str, int, tuple[float, float]], ...] = (
    ("kill", "worker", 6, (0.0, 0.5)),
    ("kill", "child", 6, (0.0, 0.0)),
    ("kill", "supervisor", 2, (0.0, 0.5)),
    ("kill", "scheduler", 3, (0.0, 0.5)),
    ("kill", "server", 3, (0.0, 3.0)),
    ("term", "worker", 3, (0.0, 0.5)),
    ("term", "supervisor", 2, (0.0, 0.5)),
    ("term", "scheduler", 1, (0.0, 0.5)),
    ("stop", "worker", 2, LONG_STOP),
    ("stop", "child", 2, LONG_STOP),
    ("stop", "scheduler", 2, LONG_STOP),
    ("nap", "worker", 2, SHORT_STOP),
    ("nap", "child", 2, SHORT_STOP),
    ("nap", "supervisor", 2, LONG_STOP),  # its processes live on without it
    ("nap", "server", 2, (0.1, 1.0)),
    ("drop", "network", 6, (0.0, 0.0)),
    ("delay", "network", 2, (0.5, 2.0)),
    ("reset", "network", 4, (0.0, 0.0)),
    ("refuse", "network", 2, (0.1, LEASE / 4)),
    ("flush", "server", 2, (0.0, 0.0)),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`what` is done to the target number `index` of a kind, `at` seconds after the beginning, for `seconds`."""

    at: float
    what: str
    target: str
    index: int
    seconds: float

    def __str__(self) -> str:
        lasts = f" ({self.seconds:.2f} s)" if self.seconds else ""
        return f"{self.at:7.2f}  {self.what:<6} {self.target} {self.index}{lasts}"


def draw(seed: int, seconds: float) -> list[Fault]:
    """The faults of so many seconds, in their order. Every kind of fault comes before one comes again by chance."""
    chance = random.Random(seed)
    weights = [weight for _, _, weight, _ in FAULTS]
    first = [*FAULTS]
    chance.shuffle(first)
    found: list[Fault] = []
    at = 0.0
    while (at := at + chance.uniform(*PAUSE_SECONDS)) < seconds:
        what, target, _, lasts = first.pop() if first else chance.choices(FAULTS, weights)[0]
        index = chance.randrange(TARGETS[target])
        found.append(Fault(round(at, 3), what, target, index, round(chance.uniform(*lasts), 3)))
    return found
