"""A task that writes down when it began and ended, on the clock that all processes of the machine share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairque.core.decorator import task
from tests.support.executor_tasks import note


@task
def stamped(ledger: str, user: str, key: int, seconds: float) -> None:
    """Runs for so long."""
    here = f"{user} {key} {os.getpid()}"
    note(ledger, f"begin {here} {time.monotonic()!r}")
    if seconds:
        time.sleep(seconds)
    note(ledger, f"end {here} {time.monotonic()!r}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task; `end` is None if it never ended."""

    user: str
    key: int
    pid: int
    begin: float
    end: float | None


def runs(ledger: Path) -> list[Run]:
    """All runs that a file tells of, in the order in which they began."""
    open_runs: dict[tuple[str, int, int], Run] = {}
    found: list[Run] = []
    for word, user, key, pid, at in _lines(ledger):
        place = (user, key, pid)
        if word == "begin":
            if place in open_runs:
                found.append(open_runs[place])
            open_runs[place] = Run(user, key, pid, at, None)
        elif place in open_runs:
            begun = open_runs.pop(place)
            found.append(Run(user, key, pid, begun.begin, at))
    return sorted([*found, *open_runs.values()], key=lambda run: run.begin)


def _lines(ledger: Path) -> Iterator[tuple[str, str, int, int, float]]:
    for line in ledger.read_text().splitlines():
        word, user, key, pid, at = line.split(" ")
        yield word, user, int(key), int(pid), float(at)
