"""Runs the scenarios, on the scripts and where it can on a plain FIFO, and keeps what is worth drawing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fair.fifo import Fifo
from fair.report import Cell, Chart, Row, Series
from tests.model.scenarios import Case, Ground, Result, Scenario
from tests.model.scenarios.waits import COME, LIGHT
from tests.model.simulation import Report as Run

DRAWN = 5
"""Slots of the cases that charts show, and that a plain FIFO runs too."""


def rows(
    scenarios: Iterable[Scenario], ground: Ground, say: Callable[[Row], None], charts: list[Chart]
) -> Iterator[Row]:
    """One row for each scenario and mode; `say` is told of each, `charts` gets what is drawn."""
    for scenario in scenarios:
        for mode in scenario.modes:
            row = Row(scenario.name, scenario.workload, scenario.measured, scenario.limit, mode)
            for slots in scenario.slots:
                case = Case(scenario, mode, slots)
                began = time.perf_counter()
                result = case.run(ground)
                took = time.perf_counter() - began
                plain = case.run(Fifo()) if scenario.plain and slots == DRAWN else None
                row.cells.append(
                    Cell(
                        slots,
                        result.figure,
                        result.limit,
                        result.passed,
                        result.value,
                        plain.figure if plain else "",
                        took,
                    )
                )
                if slots == DRAWN:
                    charts.extend(drawn(scenario.name, mode, result, plain))
            say(row)
            yield row


def drawn(name: str, mode: str, result: Result, plain: Result | None) -> Iterator[Chart]:
    """The charts of one case."""
    run = result.reports.get("")
    if run is None:
        return
    other = plain.reports[""] if plain else None
    where = f"{mode}, {DRAWN} slots"
    if name in ("trickle", "minting") and mode == "round_robin" and other is not None:
        small = "trickle" if name == "trickle" else "fresh"
        others = "one of the five (mean)" if name == "trickle" else "a fifth of the fresh ones"
        groups = {"backlog": ("backlog",), others: _users(run, small)}
        title = "A backlog against five tenants that each keep one task"
        if name == "minting":
            title = "A backlog against a fresh tenant for each task"
        yield _service(title, f"FairQueue, {where}", run, groups, parts={others: 5})
        groups[others] = _users(other, small)
        yield _service(title, f"plain FIFO, {DRAWN} slots", other, groups, parts={others: 5})
    elif name in ("long-tasks", "long-tasks-in-seconds"):
        groups = {"tasks of 34 s": ("long",), "tasks of 1 s": ("short",)}
        yield _service("Tasks of 34 s against tasks of 1 s", f"FairQueue, {where}", run, groups)
    elif name == "paused-then-freed" and mode == "round_robin":
        title = "A tenant that was paused for 100 s, then freed"
        yield _service(title, f"FairQueue, {where}", run, {"paused at first": ("x",), "never paused": ("y",)})
    elif name == "organisations" and mode == "round_robin":
        groups = {"30 users of one": _users(run, "large"), "3 users of the other": _users(run, "small")}
        yield _service("Two organisations with 30 and 3 users", f"FairQueue, {where}", run, groups)
    elif name == "weights":
        names = {"a": "a: 1, then 5", "b": "b: 2, then 1", "c": "c: 5, then 2"}
        title = "Weights 1, 2, 5, changed half-way"
        yield _shares(title, f"FairQueue, {where}; part of the last 8 s", run, names, 8.0)
    elif name == "weight-change" and mode == "round_robin":
        names = {"x": "weight 1, from 20 s on 5", "y": "weight 1"}
        yield _shares(
            "A weight changed from 1 to 5", f"FairQueue, {where}; part of the last 2 s", run, names, 2.0
        )
    elif name == "user-share" and mode == "round_robin":
        yield _slots(
            "At most 0.3 of the slots for one tenant",
            f"FairQueue, {where}",
            run,
            {"A": "A: 60 s", "B": "B: 1 s"},
        )
    elif name == "noisy-neighbour" and mode == "round_robin" and other is not None:
        yield _waits(
            "What light tenants wait beside a noisy one", f"{DRAWN} slots, tasks of 1 ms",
            {f"FairQueue, {mode}": _light(run), "plain FIFO": _light(other)},
        )  # fmt: skip


def _users(run: Run, start: str) -> tuple[str, ...]:
    return tuple({one.user for one in run.starts if one.user.startswith(start)})


def _light(run: Run) -> list[float]:
    return [start.waited for start in run.starts if start.user in LIGHT and start.at >= COME]


def _service(
    title: str,
    note: str,
    run: Run,
    groups: Mapping[str, Sequence[str]],
    parts: Mapping[str, int] | None = None,
) -> Chart:
    """Worker-seconds of groups of tenants over time. `parts`: by what those of a group are divided."""
    series: list[Series] = []
    for name, users in groups.items():
        part = (parts or {}).get(name, 1)
        chosen = frozenset(users)
        turns: list[tuple[float, int]] = []
        for start in run.starts:
            if start.user in chosen:
                turns += [(start.at, 1), (min(start.at + start.seconds, run.until), -1)]
        got = running = before = 0.0
        points = [(0.0, 0.0)]
        for at, change in sorted(turns):
            got += running * (at - before) / part
            before, running = at, running + change
            points.append((at, got))
        points.append((run.until, got + running * (run.until - before) / part))
        series.append(Series(name, thinned(points)))
    return Chart(title, note, "s", "worker-seconds", series)


def _shares(title: str, note: str, run: Run, names: Mapping[str, str], window: float) -> Chart:
    """Each tenant's part of the service within a sliding window."""
    steps = 120
    series = {user: Series(name, []) for user, name in names.items()}
    for step in range(1, steps + 1):
        at = run.until * step / steps
        got = run.seconds(max(0.0, at - window), at)
        total = sum(got[user] for user in names) or 1.0
        for user, line in series.items():
            line.points.append((at, got[user] / total))
    return Chart(title, note, "s", "part of the service", list(series.values()))


def _slots(title: str, note: str, run: Run, names: Mapping[str, str]) -> Chart:
    """How many slots each tenant holds over time."""
    series: list[Series] = []
    for user, name in names.items():
        turns: list[tuple[float, int]] = []
        for start in run.starts:
            if start.user == user:
                turns += [(start.at, 1), (start.at + start.seconds, -1)]
        held: dict[float, int] = {0.0: 0}
        running = 0
        for at, change in sorted(turns):
            running += change
            held[min(at, run.until)] = running
        series.append(Series(name, list(held.items())))
    return Chart(title, note, "s", "slots held", series, steps=True)


def _waits(title: str, note: str, found: Mapping[str, list[float]]) -> Chart:
    """Which part of the tasks waited at most so long."""
    series = []
    for name, waits in found.items():
        ordered = sorted(waits)
        points = [(max(0.1, wait * 1e3), (n + 1) / len(ordered)) for n, wait in enumerate(ordered)]
        series.append(Series(name, thinned(points)))
    return Chart(title, note, "ms waited", "part of the tasks", series, log=True)


def thinned(points: list[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most so many of the points, the first and the last among them; rounded, for the file."""
    step = max(1, len(points) // most)
    kept = points[::step]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return [(round(x, 4), round(y, 4)) for x, y in kept]
