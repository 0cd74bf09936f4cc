"""What the demo comes to, in a few lines and as data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairque.cli.demo.screen import seconds_text

if TYPE_CHECKING:
    from fairque.cli.demo.load import Plan
    from fairque.cli.demo.stage import Outcome
    from fairque.cli.demo.tally import Line
    from fairque.cli.output import Output


def ratio(fair: Outcome, fifo: Outcome, share: float) -> float:
    """How many times longer the small tenants waited as FIFO."""
    wait = fair.tally.small_wait(share)
    return fifo.tally.small_wait(share) / wait if wait > 0 else math.nan


def ratio_text(value: float) -> str:
    """The ratio, as a figure."""
    return "–" if math.isnan(value) else f"{value:.0f}×" if value >= 10 else f"{value:.1f}×"


def print_summary(out: Output, fair: Outcome, fifo: Outcome, report: Path, took: float) -> None:
    """The figures, for people."""
    out.line("")
    out.table(
        ["wait of the small tenants", ">fair", ">one FIFO", ">shorter"],
        [
            (name, seconds_text(fair.tally.small_wait(share)), seconds_text(fifo.tally.small_wait(share)),
             ratio_text(ratio(fair, fifo, share)))
            for name, share in (("p50", 0.5), ("p95", 0.95))
        ],
    )  # fmt: skip
    out.line("")
    if fair.kill is not None:
        out.line(
            f"SIGKILL half-way: {fair.kill.held} tasks were queued again {fair.kill.given_back_after:.2f} s later."
        )
    out.line(
        f"lost = {fair.lost} of {len(fair.tally.pushed):,} tasks, recorded twice = {fair.doubled}, "
        f"failed = {fair.failed}",
        style="bold red" if fair.lost or fair.doubled or fair.failed else "bold green",
    )
    if not fifo.tally.small_done:
        out.line(
            "The FIFO was cut short when the time was over: its waits are at least those.", style="yellow"
        )
    out.line(f"chart: {report}")
    out.note(f"{took:.0f} s in all")


def summary_data(plan: Plan, fair: Outcome, fifo: Outcome, report: Path, took: float) -> dict[str, Any]:
    """The figures, for programs. Waits are seconds."""
    kill = fair.kill
    return {
        "pushed": len(fair.tally.pushed),
        "lost": fair.lost,
        "doubled": fair.doubled,
        "failed": fair.failed,
        "bytes_per_task": plan.limit,
        "small_tenants": {
            "fair": {"p50": fair.tally.small_wait(0.5), "p95": fair.tally.small_wait(0.95)},
            "fifo": {"p50": fifo.tally.small_wait(0.5), "p95": fifo.tally.small_wait(0.95)},
            "ratio": {"p50": ratio(fair, fifo, 0.5), "p95": ratio(fair, fifo, 0.95)},
        },
        "kill": kill
        and {
            "pid": kill.pid,
            "held": kill.held,
            "given_back_after": kill.given_back_after,
            "running_again_after": kill.running_again_after,
        },
        "tenants": [
            {
                "tenant": line.tenant,
                "tasks": line.pushed,
                "fair": _waits(line),
                "fifo": _waits(fifo.tally.lines[line.tenant]),
            }
            for line in fair.tally.lines.values()
        ],
        "fifo_complete": fifo.tally.small_done,
        "stage_seconds": {"fair": fair.seconds, "fifo": fifo.seconds},
        "seconds": took,
        "report": str(report),
    }


def _waits(line: Line) -> dict[str, float]:
    return {"p50": line.wait(0.5), "p95": line.wait(0.95)}
