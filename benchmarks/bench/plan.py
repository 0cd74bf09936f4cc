"""How workloads are run: each system in turn, several times over, so that whatever else the machine does meets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench.catalog import FAIRQUE, System
from bench.processes import BenchmarkError
from bench.records import Records
from bench.stage import Stage

Outcome = tuple[Mapping[str, float], Mapping[str, Any]]
"""The metrics of one run, and what else is worth keeping of it."""


@dataclass(frozen=True)
class Job:
    """One thing to measure, `repeat` times. `metric` names the first of its metrics, for the report of a failure."""

    workload: str
    case: str
    system: tuple[str, str]
    metric: str
    run: Callable[[], Outcome]


@dataclass
class Bench:
    """What a workload gets to work with. `tasks` overrides the number of tasks, to try things out."""

    stage: Stage
    records: Records
    systems: Sequence[System]
    variants: Sequence[System]
    repeat: int
    quick: bool
    tasks: int | None = None
    console: Console = field(default_factory=Console)

    @property
    def has_fairque(self) -> bool:
        """Whether FairQueue itself is measured (its limits and its scaling are left out otherwise)."""
        return FAIRQUE in self.systems

    def count(self, full: int, quick: int | None = None) -> int:
        """How many tasks: fewer in the quick mode, and what `--tasks` says if that is less."""
        wanted = quick if self.quick and quick is not None else full
        return min(wanted, self.tasks) if self.tasks else wanted

    def interleave(self, jobs: Sequence[Job], repeat: int | None = None) -> None:
        """Run all jobs in turn, `repeat` times over. One that fails is said to, and left out from then on."""
        failed: set[int] = set()
        times = repeat or self.repeat
        try:
            for turn in range(times):
                for number, job in enumerate(jobs):
                    if number not in failed and not self._measure(job, f"{turn + 1}/{times}"):
                        failed.add(number)
        finally:
            self.records.save()  # also what was measured before an interruption

    def _measure(self, job: Job, turn: str) -> bool:
        """One turn of one job, recorded and said; False if it failed."""
        began = time.perf_counter()
        try:
            metrics, detail = job.run()
        except BenchmarkError as error:
            self.records.fail(job.workload, job.case, job.metric, job.system, str(error))
            lines = str(error).splitlines()
            reason = escape(" ... ".join(dict.fromkeys((lines[0], lines[-1]))))
            self.console.print(f"  {job.system[1]}, {job.case}: [red]{reason}[/red]", highlight=False)
            return False
        self.records.add(job.workload, job.case, job.system, metrics, detail)
        figures = ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())
        took = f"[dim]({time.perf_counter() - began:.1f} s)[/dim]"
        self.console.print(f"  {turn} {job.system[1]}, {job.case}: {figures} {took}", highlight=False)
        return True


def series(
    workload: str,
    system: tuple[str, str],
    metric: str,
    cases: Sequence[str],
    measure: Callable[[], Mapping[str, Mapping[str, float]]],
) -> list[Job]:
    """Jobs for cases that are measured together: the first one of a turn measures, the others pass its figures on."""
    measured: dict[str, Mapping[str, float]] = {}

    def job(case: str) -> Job:
        def run() -> Outcome:
            if case == cases[0]:
                measured.clear()
                measured.update(measure())
            if case not in measured:
                raise BenchmarkError("the series failed")
            return measured[case], {}

        return Job(workload, case, system, metric, run)

    return [job(case) for case in cases]


def identity(system: System) -> tuple[str, str]:
    """Name and title, as records have them."""
    return system.name, system.title
