"""The report as one HTML file that loads nothing from anywhere, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from fair import charts
from fair.report import Chart, Report, Row
from fair.tables import growth_figure, slots_of

_STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --ink: #1d1f24; --soft: #5d6470; --line: #dcdee3;
  --good: #1a7f4b; --bad: #c4292e; --c0: #1f6fd6; --c1: #d4691a; --c2: #1a8a5a; --c3: #9a4fc4; --c4: #b03a5b; --c5: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --page: #15171b; --card: #1e2127; --ink: #eceef2; --soft: #a3aab6;
  --line: #343943; --good: #5cc98f; --bad: #ff7b80; --c0: #64a8ff; --c1: #ff9d57; --c2: #58cf9a; --c3: #c995ea;
  --c4: #f0819f; --c5: #a3aab6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 0; }
p { margin: 0 0 12px; color: var(--soft); max-width: 80ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 20px 14px;
  margin-bottom: 16px; }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px 28px; }
figure { margin: 0; min-width: 0; } figcaption small { color: var(--soft); display: block; font-size: 13px; }
svg { display: block; width: 100%; height: auto; font-size: 12px; } svg text { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; } .line.c0 { stroke-width: 4; }
.key { display: inline-flex; align-items: center; gap: 6px; font-size: 13px; margin-right: 16px; }
.key i { width: 14px; height: 3px; border-radius: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.figure { white-space: nowrap; }
td small { display: block; color: var(--soft); } td.name { min-width: 230px; }
""" + "".join(
    f".line.c{n} {{ stroke: var(--c{n}); }} .key .c{n} {{ background: var(--c{n}); }}\n" for n in range(6)
)


def write_page(report: Report, path: Path) -> None:
    """Write the page of a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    verdict = (
        '<p class="verdict good">Every row is inside its limit.</p>'
        if report.passed
        else '<p class="verdict bad">Some rows are outside their limits.</p>'
    )
    about = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in report.about.items()
    )
    path.write_text(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FairQueue: fairness</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>How fair FairQueue is</h1>
<p>Workloads in simulated time against the real scripts on a server of their own; D is the number of slots. A plain
FIFO runs those that need no policies.</p>
{verdict}
<section><h2>Over time</h2><div class="charts">{"".join(map(_figure, report.charts))}</div></section>
<section><h2>The table</h2>{_table(report.rows)}</section>
{"".join(_growth(report))}{"".join(_peers(report))}
<section><h2>Measured on</h2><table>{about}</table></section>
</main>
</body>
</html>
""",
        encoding="utf-8",
    )


def _figure(chart: Chart) -> str:
    return (
        f"<figure><figcaption><h3>{escape(chart.title)}</h3><small>{escape(chart.note)}</small>"
        f"{charts.legend(chart)}</figcaption>{charts.svg(chart)}</figure>"
    )


def _table(rows: Sequence[Row]) -> str:
    slots = slots_of(rows)
    head = "".join(f"<th>D = {number}</th>" for number in slots)
    body: list[str] = []
    for row in rows:
        cells = {cell.slots: cell for cell in row.cells}
        columns = "".join(
            f'<td class="figure{"" if cells[number].passed else " bad"}">{escape(cells[number].figure)}'
            f"<small>{escape(cells[number].limit)}</small></td>"
            if number in cells
            else "<td></td>"
            for number in slots
        )
        fifo = next((cell.fifo for cell in row.cells if cell.fifo), "")
        mark = '<td class="good">yes</td>' if row.passed else '<td class="bad">NO</td>'
        body.append(
            f'<tr><td class="name">{escape(row.workload)}<small>{escape(row.mode)}: {escape(row.measured)}</small></td>'
            f"<td>{escape(row.limit)}</td>{columns}<td>{escape(fifo)}</td>{mark}</tr>"
        )
    return (
        f'<div class="scroll"><table><tr><th>workload, mode: what is measured</th><th>must be</th>{head}'
        f"<th>plain FIFO, D = 5</th><th>inside</th></tr>{''.join(body)}</table></div>"
    )


def _growth(report: Report) -> Iterator[str]:
    if not report.growth:
        return
    body = "".join(
        f"<tr><td>{escape(one.mode)}</td><td>{one.few:,}</td><td>{one.few_micros:.0f} µs</td><td>{one.many:,} "
        f"({one.active:,} with work)</td><td>{one.many_micros:.0f} µs</td>"
        f'<td class="{"good" if one.passed else "bad"}">{escape(growth_figure(one))}</td></tr>'
        for one in report.growth
    )
    yield (
        "<section><h2>Time per claim, by tenants</h2><table><tr><th>mode</th><th>few</th><th></th><th>many</th><th></th>"
        f"<th>ratio</th></tr>{body}</table></section>"
    )


def _peers(report: Report) -> Iterator[str]:
    if not report.peers:
        return
    yield "<section><h2>Peers, in real time</h2>"
    for workload, group in groupby(report.peers, lambda peer: peer.workload):
        peers = list(group)
        names = list(dict.fromkeys(name for peer in peers for name in peer.figures))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            f"<tr><td>{escape(peer.title)}</td>"
            + (
                f'<td class="bad" colspan="{len(names)}">{escape(peer.error)}</td>'
                if peer.error
                else "".join(f"<td>{escape(peer.figures.get(name, ''))}</td>" for name in names)
            )
            + "</tr>"
            for peer in peers
        )
        yield f'<h3>{escape(workload)}</h3><div class="scroll"><table><tr><th></th>{head}</tr>{body}</table></div>'
    yield "</section>"
