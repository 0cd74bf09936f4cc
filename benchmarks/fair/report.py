"""What was measured, as it is kept in a file: rows of cases, the growth with tenants, peers, and series for charts."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass
class Cell:
    """One case: a figure in words, what it must be, whether it is, and as a number. `fifo`: what a plain FIFO does."""

    slots: int
    figure: str
    limit: str
    passed: bool
    value: float
    fifo: str = ""
    seconds: float = 0.0


@dataclass
class Row:
    """One workload in one mode."""

    name: str
    workload: str
    measured: str
    limit: str
    mode: str
    cells: list[Cell] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all its cases are inside their limits."""
        return all(cell.passed for cell in self.cells)


@dataclass
class Growth:
    """Time per claim (µs) with many tenants against few. `limit`: of the ratio."""

    mode: str
    few: int
    many: int
    active: int
    few_micros: float
    many_micros: float
    limit: float

    @property
    def ratio(self) -> float:
        return self.many_micros / self.few_micros

    @property
    def passed(self) -> bool:
        return self.ratio <= self.limit


@dataclass
class Peer:
    """One system with one workload in real time. `figures`: by what is measured; `error`: why there are none."""

    workload: str
    system: str
    title: str
    figures: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass
class Series:
    """A line of a chart."""

    name: str
    points: list[tuple[float, float]]


@dataclass
class Chart:
    """Lines over an axis. `steps`: values hold until the next point; `log`: the horizontal axis is logarithmic."""

    title: str
    note: str
    x: str
    y: str
    series: list[Series]
    steps: bool = False
    log: bool = False


@dataclass
class Report:
    """All of it."""

    about: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything is inside its limits."""
        return all(row.passed for row in self.rows) and all(growth.passed for growth in self.growth)

    def save(self, path: Path) -> None:
        """Write it to a file, with what the table says added up."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "passed": self.passed, **asdict(self)}
        for row, kept in zip(self.rows, document["rows"], strict=True):
            kept["passed"] = row.passed
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """What a file holds; an empty report if there is none, or one of another format."""
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls()
        if document.get("format") != FORMAT:
            return cls()
        return cls(
            about=document["about"],
            rows=[_row(row) for row in document["rows"]],
            growth=[Growth(**growth) for growth in document["growth"]],
            peers=[Peer(**peer) for peer in document["peers"]],
            charts=[_chart(chart) for chart in document["charts"]],
        )


def _row(kept: dict[str, Any]) -> Row:
    fields = {name: value for name, value in kept.items() if name not in ("passed", "cells")}
    return Row(**fields, cells=[Cell(**cell) for cell in kept["cells"]])


def _chart(kept: dict[str, Any]) -> Chart:
    series = [Series(line["name"], [(x, y) for x, y in line["points"]]) for line in kept["series"]]
    return Chart(**{**kept, "series": series})


def machine(server: str) -> dict[str, str]:
    """What the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {server}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
