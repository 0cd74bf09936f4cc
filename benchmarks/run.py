"""The benchmarks: FairQueue beside its peers, beside its own limits, and alone.

    python benchmarks/run.py                                       everything, three times, some 40 minutes
    python benchmarks/run.py --quick                               three minutes, against huey, taskiq and BullMQ
    python benchmarks/run.py --only drain,enqueue --systems fairque,huey
    python benchmarks/run.py --write-docs                          the last report into docs/performance.md

Each run adds to the report (report.json and report.html in build/benchmarks/full, or quick), so the whole can be
measured in parts, a workload with all its systems at a time; `--fresh` begins a new one. docs/performance.md tells what
is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.alone import budget, footprint, limits, scaling, soak
from bench.catalog import ALL, FAIRQUE, QUICK, VARIANTS, System, chosen
from bench.docs import write_docs
from bench.page import write_page
from bench.peers import Environments
from bench.plan import Bench
from bench.processes import BenchmarkError, terminated_like_interrupted
from bench.records import Records, machine
from bench.stage import Stage
from bench.tables import Table, all_tables
from bench.workloads import drain, enqueue, fanin, memory, mixed, noisy, pickup
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS: dict[str, Callable[[Bench], None]] = {
    "limits": limits.run,
    "budget": budget.run,
    "drain": drain.run,
    "enqueue": enqueue.run,
    "pickup": pickup.run,
    "memory": memory.run,
    "noisy": noisy.run,
    "mixed": mixed.run,
    "fanin": fanin.run,
    "footprint": footprint.run,
    "scaling": scaling.run,
    "soak": soak.run,
}
QUICK_WORKLOADS = ("limits", "budget", "drain", "enqueue", "pickup", "memory", "noisy", "mixed", "fanin")
REPEAT = 3


def main() -> int:
    """Measure what was asked for, and report; 1 if something could not be measured."""
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.out is None:
        options.out = ROOT / "build/benchmarks" / ("quick" if options.quick else "full")
    file: Path = options.out / "report.json"
    records = Records(file) if options.fresh else Records.load(file)
    try:
        if options.write_docs:
            write_docs(records)
            return 0
        with terminated_like_interrupted():
            return measure(options, records, console)
    except BenchmarkError as failure:
        console.print(f"[red]{failure}[/red]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: what was measured so far is in the report")
        return 130


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, with fewer tasks")
    parser.add_argument("--only", type=_words, metavar="NAMES", help=f"workloads: {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--systems", type=_words, metavar="NAMES", help=f"of: {', '.join(system.name for system in ALL)}"
    )
    parser.add_argument("--repeat", type=int, default=REPEAT, help="how often each system's turn comes")
    parser.add_argument("--tasks", type=int, help="at most so many tasks, to try things out")
    parser.add_argument(
        "--tcp", action="store_true", help="loopback TCP instead of a Unix socket, for all systems"
    )
    parser.add_argument("--append-only", action="store_true", help="a server with an append-only file")
    parser.add_argument(
        "--fresh", action="store_true", help="begin a new report instead of adding to the last one"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="only put the report into docs/performance.md"
    )
    parser.add_argument("--out", type=Path, help="where the report goes [build/benchmarks/full or quick]")
    parser.add_argument(
        "--env", type=Path, default=ROOT / ".venv-bench", help="where the peers are installed"
    )
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def measure(options: argparse.Namespace, records: Records, console: Console) -> int:
    """Install the peers, run the workloads, write the report."""
    names = options.only or (QUICK_WORKLOADS if options.quick else tuple(WORKLOADS))
    for name in names:
        if name not in WORKLOADS:
            raise BenchmarkError(f"there is no workload {name!r}: there are {', '.join(WORKLOADS)}")
    systems = chosen(options.systems or (QUICK if options.quick else [system.name for system in ALL]))
    environments = Environments(options.env)
    systems = install(systems, environments, records, console)
    began = time.monotonic()
    try:
        with Stage(environments, tcp=options.tcp, append_only=options.append_only) as stage:
            describe(records, stage, systems, environments)
            variants = VARIANTS if FAIRQUE in systems and not options.quick else ()
            bench = Bench(
                stage, records, systems, variants, options.repeat, options.quick, options.tasks, console
            )
            for name in names:
                console.rule(name)
                WORKLOADS[name](bench)
    finally:
        records.save()
        write_page(records, options.out / "report.html")
    took = time.monotonic() - began
    for table in all_tables(records):
        show(console, table)
    console.print(f"{took / 60:.1f} minutes; the report is in {options.out / 'report.html'}", highlight=False)
    failed = [record for record in records.all() if record.error]
    for record in failed:
        first = record.error.splitlines()[0]
        console.print(
            f"not measured: {record.title}, {record.workload}, {record.case}: {first}", highlight=False
        )
    return int(bool(failed))


def install(
    systems: Sequence[System], environments: Environments, records: Records, console: Console
) -> list[System]:
    """Install what the systems need; those that cannot be installed are left out, and the report says so."""
    usable, left_out = [], []
    reasons: dict[str, str] = {}
    for system in systems:
        if system.environment not in reasons:
            try:
                environments.ensure(system.environment)
                reasons[system.environment] = ""
            except BenchmarkError as failure:
                reasons[system.environment] = str(failure)
        if reason := reasons[system.environment]:
            left_out.append(f"{system.title} was left out: {reason}")
            console.print(left_out[-1], highlight=False)
        else:
            usable.append(system)
    records.about["left out"] = left_out
    return usable


def describe(records: Records, stage: Stage, systems: Sequence[System], environments: Environments) -> None:
    """What the report says about the machine, the server and the systems."""
    info = stage.client.info("server")
    server = (
        f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    )
    records.about["machine"] = machine(server)
    transport = "loopback TCP" if stage.tcp else "a Unix socket"
    file = "with an append-only file" if stage.append_only else "without an append-only file"
    records.about["how"] = (
        f"One private server {file}, reached by all systems over {transport}; each system in turn, workers and "
        "producer in processes of their own."
    )
    known = records.about.setdefault("systems", {})
    variants = VARIANTS if FAIRQUE in systems else ()
    for system in (*systems, *variants):
        versions = environments.versions(system.environment, system.packages)
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        known[system.name] = {"title": system.title, "versions": shown, "settings": system.settings}


def show(console: Console, table: Table) -> None:
    """Print a table."""
    shown = RichTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=True)
    for number, row in enumerate(table.rows):
        shown.add_row(*(Text(cell.text) for cell in row), style="bold" if table.own[number] else None)
    console.print(shown)


if __name__ == "__main__":
    sys.exit(main())
