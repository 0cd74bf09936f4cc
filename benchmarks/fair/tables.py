"""The table of a report on the console, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fair.report import Growth, Report, Row

BEGIN, END = "<!-- benchmark fairness -->", "<!-- end of fairness -->"


def slots_of(rows: Sequence[Row]) -> list[int]:
    """All numbers of slots in use."""
    return sorted({cell.slots for row in rows for cell in row.cells})


def growth_figure(one: Growth) -> str:
    """The ratio beside its limit."""
    return f"{one.ratio:.2f} (<= {one.limit})"


def show(console: Console, report: Report) -> None:
    """Print it all."""
    slots = slots_of(report.rows)
    table = Table(title="FairQueue's fairness", title_justify="left", show_lines=True)
    for name in ("workload", "what is measured", "must be"):
        table.add_column(name, ratio=3)
    for number in slots:
        table.add_column(f"D = {number}", justify="right", no_wrap=True)
    table.add_column("FIFO, D = 5", justify="right")
    table.add_column("ok")
    for row in report.rows:
        cells = {cell.slots: cell for cell in row.cells}
        figures = [
            Text(
                _lines(cells[number].figure, cells[number].limit), style="" if cells[number].passed else "red"
            )
            if number in cells
            else Text("")
            for number in slots
        ]
        fifo = next((cell.fifo for cell in row.cells if cell.fifo), "")
        mark = Text("ok", style="green") if row.passed else Text("OUTSIDE", style="bold red")
        table.add_row(row.workload, f"{row.mode}: {row.measured}", row.limit, *figures, fifo, mark)
    console.print(table)
    for one in report.growth:
        told = "[green]ok[/green]" if one.passed else "[bold red]OUTSIDE[/bold red]"
        console.print(
            f"{one.mode}: a claim takes {one.few_micros:.0f} µs with {one.few:,} tenants, {one.many_micros:.0f} µs with "
            f"{one.many:,} of which {one.active:,} have work: ratio {growth_figure(one)} {told}",
            highlight=False,
        )
    for workload, group in groupby(report.peers, lambda peer: peer.workload):
        console.print(f"peers, {workload}", highlight=False)
        for peer in group:
            figures_of = peer.error or ", ".join(f"{name} {figure}" for name, figure in peer.figures.items())
            console.print(f"  {peer.title:<34} {figures_of}", highlight=False)


def _lines(figure: str, limit: str) -> str:
    return f"{figure}\n{limit}" if limit else figure


def write_docs(report: Report, page: Path) -> None:
    """Put the report between the markers of a page.

    Raises:
        ValueError: there is no report, or the page lacks a marker.
    """
    if not report.rows:
        raise ValueError("there is no report yet: run the benchmark first")
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found and found_end):
        raise ValueError(f"{page.name} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(report)}\n\n{END}{after}", encoding="utf-8")


def markdown(report: Report) -> str:
    """The tables of a report."""
    slots = slots_of(report.rows)
    heads = ["workload", "measured", "must be", *(f"D = {number}" for number in slots), "FIFO, D = 5"]
    lines = ["; ".join(f"{name}: {value}" for name, value in report.about.items()) + ".", ""]
    lines += [_line(heads), "|" + "---|" * len(heads)]
    for row in report.rows:
        cells = {cell.slots: cell for cell in row.cells}
        figures = []
        for number in slots:
            cell = cells.get(number)
            limit = f" ({cell.limit})" if cell and cell.limit else ""
            outside = "" if cell is None or cell.passed else " **outside**"
            figures.append(f"{cell.figure}{limit}{outside}" if cell else "")
        fifo = next((cell.fifo for cell in row.cells if cell.fifo), "")
        lines.append(_line([row.workload, f"`{row.mode}`: {row.measured}", row.limit, *figures, fifo]))
    for one in report.growth:
        figure = f"{one.few_micros:.0f} µs and {one.many_micros:.0f} µs: {one.ratio:.2f}"
        outside = "" if one.passed else " **outside**"
        what = f"{one.few:,} to {one.many:,} tenants, {one.active:,} with work"
        blanks = [""] * len(slots)
        lines.append(
            _line(
                [
                    what,
                    f"`{one.mode}`: time per claim, {figure}{outside}",
                    f"flat within {one.limit}×",
                    *blanks,
                    "",
                ]
            )
        )
    for workload, group in groupby(report.peers, lambda peer: peer.workload):
        lines += ["", f"In real time, {workload}:", ""]
        peers = list(group)
        names = list(dict.fromkeys(name for peer in peers for name in peer.figures))
        lines += [_line(["system", *names]), "|" + "---|" * (len(names) + 1)]
        lines += [
            _line([peer.title, *([peer.error] if peer.error else (peer.figures.get(n, "") for n in names))])
            for peer in peers
        ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
