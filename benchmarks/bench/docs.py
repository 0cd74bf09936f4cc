"""Puts the last report into docs/performance.md, between its markers."""

from __future__ import annotations

from pathlib import Path

from bench.processes import ROOT, BenchmarkError
from bench.records import Records
from bench.tables import Table, all_tables

PAGE = ROOT / "docs/performance.md"
PARTS = ("machine", "systems", "tables")


def write_docs(records: Records, page: Path = PAGE) -> None:
    """Replace what stands between `<!-- benchmark NAME -->` and `<!-- end of NAME -->`.

    Raises:
        BenchmarkError: there is no report yet, or the page lacks a marker.
    """
    tables = all_tables(records)
    if not tables:
        raise BenchmarkError(f"there is no report in {records.path}: run the benchmarks first")
    parts = {
        "machine": _machine(records),
        "systems": _systems(records),
        "tables": "\n\n".join(_table(table) for table in tables),
    }
    text = page.read_text(encoding="utf-8")
    for name in PARTS:
        begin, end = f"<!-- benchmark {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise BenchmarkError(f"{page.name} lacks the markers {begin} and {end}")
        text = f"{before}{begin}\n\n{parts[name]}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def _table(table: Table) -> str:
    lines = [f"### {table.title}", "", table.note, ""]
    lines.append("| " + " | ".join(table.columns) + " |")
    lines.append("|---|" + "---:|" * (len(table.columns) - 1))
    for number, row in enumerate(table.rows):
        texts = [_plain(cell.text) for cell in row]
        if table.own[number]:
            texts[0] = f"**{texts[0]}**"
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _machine(records: Records) -> str:
    facts = records.about.get("machine", {})
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    days = sorted({record.at[:10] for record in records.all() if record.at})
    if days:
        lines.append(f"- measured: {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else ""))
    return "\n".join([records.about.get("how", ""), "", *lines])


def _systems(records: Records) -> str:
    lines = ["| system | versions | settings |", "|---|---|---|"]
    lines.extend(
        f"| {entry['title']} | {entry['versions']} | {_plain(entry['settings'])} |"
        for entry in records.about.get("systems", {}).values()
    )
    lines += ["", *records.about.get("left out", [])]
    return "\n".join(lines).rstrip()


def _plain(text: str) -> str:
    return text.replace("|", "\\|")
