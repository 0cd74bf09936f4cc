"""The report: one HTML file with its charts in it, which loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from bench.alone import soak
from bench.charts import Bar, bars, line
from bench.records import Records
from bench.tables import OWN, Table, all_tables
from bench.workloads import memory, noisy, pickup

SHORTER = {pickup.NAME, memory.NAME, noisy.NAME}

_STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --ink: #1d1f24; --soft: #5d6470;
  --line: #dcdee3; --own: #1f6fd6; --peer: #9aa1ac; --bad: #c4292e; }
@media (prefers-color-scheme: dark) { :root { --page: #15171b; --card: #1e2127; --ink: #eceef2; --soft: #a3aab6;
  --line: #343943; --own: #64a8ff; --peer: #6b7280; --bad: #ff7b80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 500; color: var(--soft); margin: 18px 0 4px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 80ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 20px 14px;
  margin-bottom: 16px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 13px; } svg .name, svg .value { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg rect.own, svg circle.own { fill: var(--own); } svg rect.peer { fill: var(--peer); }
svg polyline.own { fill: none; stroke: var(--own); stroke-width: 2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
tr.own td { font-weight: 600; color: var(--own); } td.failed { color: var(--bad); }
table.text td, table.text th { text-align: left; white-space: normal; vertical-align: top; }
"""


def write_page(records: Records, path: Path) -> None:
    """Write the report of these records."""
    sections = "\n".join(_section(records, table) for table in all_tables(records))
    machine = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in records.about.get("machine", {}).items()
    )
    settings = "".join(
        f"<tr><td>{escape(entry['title'])}</td><td>{escape(entry['versions'])}</td>"
        f"<td>{escape(entry['settings'])}</td></tr>"
        for entry in records.about.get("systems", {}).values()
    )
    left_out = "".join(f"<p>{escape(text)}</p>" for text in records.about.get("left out", []))
    path.write_text(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FairQueue benchmarks</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>FairQueue beside its peers</h1>
<p>{escape(records.about.get("how", ""))} Figures are medians; hover over one for each run.</p>
{left_out}
{sections}
<section><h2>The machine</h2><table class="text">{machine}</table></section>
<section><h2>Systems and their settings</h2><table class="text">
<tr><th>system</th><th>versions</th><th>settings</th></tr>{settings}</table></section>
</main>
</body>
</html>
""",
        encoding="utf-8",
    )


def _section(records: Records, table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = []
    for number, row in enumerate(table.rows):
        kind = ' class="own"' if table.own[number] else ""
        cells = "".join(
            f'<td{" class=failed" if cell.text == "failed" else ""} title="{escape(cell.note)}">'
            f"{escape(cell.text)}</td>"
            for cell in row
        )
        body.append(f"<tr{kind}>{cells}</tr>")
    charts = "".join((*_bars(table), *_lines(records, table)))
    return (
        f'<section id="{escape(table.name)}"><h2>{escape(table.title)}</h2><p>{escape(table.note)}</p>'
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(body)}</table></div>{charts}</section>'
    )


def _bars(table: Table) -> Iterator[str]:
    for column in table.charts:
        entries = [
            Bar(row[0].text, cell.value, cell.text.partition(" ·")[0], table.own[number])
            for number, row in enumerate(table.rows)
            if (cell := row[column]).value is not None
        ]
        if len(entries) > 1:
            hint = " (shorter is better)" if table.name in SHORTER else ""
            yield f"<h3>{escape(table.columns[column])}{hint}</h3>" + bars(table.title, entries)


def _lines(records: Records, table: Table) -> Iterator[str]:
    if table.name in ("scaling-queued", "scaling-tenants"):
        for column, metric in ((1, "push"), (3, "settle and claim")):
            chosen = [
                row
                for row in table.rows
                if row[column].value is not None and "worker_time" not in row[0].text
            ]
            if len(chosen) > 1:
                labels = [row[0].text.partition(" ")[0] for row in chosen]
                values = [row[column].value or 0.0 for row in chosen]
                yield f"<h3>{metric}, µs</h3>" + line(table.title, labels, values, "µs")
    elif table.name == "scaling-workers" and len(table.rows) > 1:
        labels = [row[0].text.partition(" ")[0] for row in table.rows if row[1].value is not None]
        values = [row[1].value for row in table.rows if row[1].value is not None]
        if values:
            yield "<h3>tasks/s by worker processes</h3>" + line(table.title, labels, values, "/s")
    elif table.name == soak.NAME:
        record = records.get(soak.NAME, soak.CASE, soak.LAST, OWN)
        values = record.detail.get("MiB after each tenth", []) if record else []
        if values:
            labels = [f"{tenth}/10" for tenth in range(1, len(values) + 1)]
            yield "<h3>MiB after each tenth</h3>" + line(table.title, labels, values, "MiB")
