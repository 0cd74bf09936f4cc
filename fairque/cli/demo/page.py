"""The demo's page: one HTML file with its charts in it, which loads nothing from anywhere."""

from __future__ import annotations

import math
import os
import platform
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fairque.cli.demo.chart import bars, starts
from fairque.cli.demo.load import SMALL_AFTER_SECONDS
from fairque.cli.demo.screen import seconds_text
from fairque.cli.demo.summary import ratio, ratio_text
from fairque.core.exceptions import ConfigError

if TYPE_CHECKING:
    from fairque.cli.demo.load import Plan
    from fairque.cli.demo.stage import Outcome

_STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --ink: #1d1f24; --soft: #5d6470;
  --line: #dcdee3; --fair: #1f6fd6; --fifo: #d9730d; --whale: #9aa1ac; --good: #1a7f45; --bad: #c4292e; }
@media (prefers-color-scheme: dark) { :root { --page: #15171b; --card: #1e2127; --ink: #eceef2; --soft: #a3aab6;
  --line: #343943; --fair: #64a8ff; --fifo: #f2a04e; --whale: #6b7280; --good: #58c98a; --bad: #ff7b80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 24px 0; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 16px; }
.tile b { display: block; font-size: 30px; line-height: 1.2; font-weight: 650; }
.tile span { color: var(--soft); font-size: 14px; }
section { padding: 20px 20px 14px; margin-bottom: 16px; }
.fair { color: var(--fair); } .fifo { color: var(--fifo); } .good { color: var(--good); } .bad { color: var(--bad); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14px; color: var(--soft); margin: 0 0 8px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 13px; } svg .name { fill: var(--ink); } svg .value { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .mid { stroke: var(--card); stroke-width: 2; }
svg .mark { stroke-width: 1.5; stroke-dasharray: 4 3; } svg line.pushed { stroke: var(--ink); }
svg line.killed { stroke: var(--bad); } svg text.killed { fill: var(--bad); } svg text.pushed { fill: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
footer { color: var(--soft); font-size: 13px; margin-top: 20px; }
"""


def write_page(path: Path, plan: Plan, fair: Outcome, fifo: Outcome, threads: int) -> None:
    """Write the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_text(_page(plan, fair, fifo, threads), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def _page(plan: Plan, fair: Outcome, fifo: Outcome, threads: int) -> str:
    whale = escape(plan.whale.name)
    times = ratio_text(ratio(fair, fifo, 0.95))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FairQueue demo</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>One tenant floods the queue. The others hardly notice.</h1>
<p>Tenant <b>{whale}</b> pushes {plan.whale.tasks:,} tasks. A second later {len(plan.small)} small tenants push
{plan.small[0].tasks} each. One worker process with {threads} threads serves them all; each task tokenises a source
file of Python's standard library (up to {plan.limit:,} bytes).</p>
{_tiles(fair, fifo, times)}
<section>
<h2>How long each tenant's tasks waited</h2>
<p>From the push to the start of the work, in seconds. A bar ends at the 95th percentile; the notch is the median.</p>
<div class="key"><span><i style="background:var(--fair)"></i>fair</span>
<span><i style="background:var(--fifo)"></i>as one FIFO</span></div>
{bars(fair.tally, fifo.tally)}
</section>
<section>
<h2>When every task started</h2>
<p>A stroke is a task. Fair, the small tenants' tasks start between those of {whale}, one of each tenant in turn. As
one FIFO they stand behind all that {whale} had pushed.</p>
<div class="key"><span><i style="background:var(--whale)"></i>{whale}</span>
<span><i style="background:var(--fair)"></i>small tenants, fair</span>
<span><i style="background:var(--fifo)"></i>small tenants, as one FIFO</span></div>
{starts(fair, fifo, SMALL_AFTER_SECONDS)}
</section>
<section>
<h2>The figures</h2>
<div class="scroll">{_table(fair, fifo)}</div>
</section>
<footer>{_footer()}</footer>
</main>
</body>
</html>
"""


def _tiles(fair: Outcome, fifo: Outcome, times: str) -> str:
    bad = fair.lost or fair.doubled or fair.failed
    at_least = "" if fifo.tally.small_done else "≥ "
    after = "" if fair.kill is None else " after SIGKILL of the worker"
    tiles = [
        ("fair", seconds_text(fair.tally.small_wait(0.95)), "p95 wait of the small tenants, fair"),
        ("fifo", at_least + seconds_text(fifo.tally.small_wait(0.95)), "the same as one FIFO"),
        ("", at_least + times, "shorter waits for the small tenants"),
        ("bad" if bad else "good", f"{fair.lost} lost", f"of {len(fair.tally.pushed):,} tasks{after}"),
    ]
    shown = "".join(
        f'<div class="tile"><b class="{kind}">{big}</b><span>{text}</span></div>' for kind, big, text in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _table(fair: Outcome, fifo: Outcome) -> str:
    rows = [
        "<tr><th>tenant</th><th>tasks</th><th>fair p50</th><th>fair p95</th>"
        "<th>FIFO p50</th><th>FIFO p95</th><th>p95 shorter</th></tr>"
    ]
    for line in fair.tally.lines.values():
        other = fifo.tally.lines[line.tenant]
        mine = line.wait(0.95)
        cells = [
            escape(line.tenant),
            f"{line.pushed:,}",
            *(seconds_text(part.wait(share)) for part in (line, other) for share in (0.5, 0.95)),
            ratio_text(other.wait(0.95) / mine if mine > 0 else math.nan),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _footer() -> str:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return escape(
        f"Made by fairque demo on {when}: Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores."
    )
