"""What was measured: samples by workload, case, metric and system; kept in one JSON file that runs add to."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass
class Record:
    """The samples of one metric. `error` says why there are none, or no more."""

    workload: str
    case: str
    metric: str
    system: str
    title: str
    samples: list[float] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    at: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.workload, self.case, self.metric, self.system

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None


class Records:
    """All records of a report. Measuring something again replaces what was there of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = {}
        self._records: dict[tuple[str, str, str, str], Record] = {}
        self._fresh: set[tuple[str, str, str, str]] = set()

    @classmethod
    def load(cls, path: Path) -> Records:
        """Those of a file; none if there is no such file, or one of another format."""
        records = cls(path)
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError):
            return records
        if document.get("format") == FORMAT:
            records.about = document["about"]
            for item in document["records"]:
                record = Record(**item)
                records._records[record.key] = record
        return records

    def save(self) -> None:
        """Write them to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "format": FORMAT,
            "about": self.about,
            "records": [asdict(record) for record in self._records.values()],
        }
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(self.path)

    def add(
        self,
        workload: str,
        case: str,
        system: tuple[str, str],
        metrics: Mapping[str, float],
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """One sample of each metric of a system (its name and title)."""
        for metric, value in metrics.items():
            record = self._of(workload, case, metric, system)
            record.samples.append(value)
            record.detail |= detail or {}

    def fail(self, workload: str, case: str, metric: str, system: tuple[str, str], error: str) -> None:
        """It could not be measured."""
        self._of(workload, case, metric, system).error = error

    def _of(self, workload: str, case: str, metric: str, system: tuple[str, str]) -> Record:
        key = (workload, case, metric, system[0])
        if key not in self._fresh:
            self._fresh.add(key)
            self._records[key] = Record(
                *key, title=system[1], at=datetime.now(UTC).isoformat(timespec="seconds")
            )
        return self._records[key]

    def all(self) -> list[Record]:
        """All records."""
        return list(self._records.values())

    def of(self, workload: str, metric: str | None = None) -> list[Record]:
        """The records of a workload, in the order in which they were measured first."""
        return [r for r in self._records.values() if r.workload == workload and metric in (None, r.metric)]

    def get(self, workload: str, case: str, metric: str, system: str) -> Record | None:
        return self._records.get((workload, case, metric, system))

    def median(self, workload: str, case: str, metric: str, system: str) -> float | None:
        """The median of a metric, or None if it was not measured."""
        record = self.get(workload, case, metric, system)
        return record.median if record else None


def machine(server_version: str) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "server": server_version,
        "load before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
