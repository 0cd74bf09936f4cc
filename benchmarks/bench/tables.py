"""The tables of the report, made from records: the same for the terminal, the page and the docs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.alone import budget, footprint, limits, scaling, soak
from bench.catalog import FAIRQUE, PEERS, VARIANTS
from bench.records import Record, Records
from bench.workloads import drain, enqueue, fanin, memory, mixed, noisy, pickup

OWN = "fairque"


@dataclass(frozen=True)
class Cell:
    """A figure as text, with the number for charts, and what is worth knowing of it."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a title and a sentence on how to read it. `charts`: columns that the page draws as bars."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    charts: tuple[int, ...] = ()
    own: tuple[bool, ...] = field(default=())
    """For each row, whether it is FairQueue's."""


Form = Callable[[float], str]
EMPTY = Cell("–")


def whole(value: float) -> str:
    return f"{value:,.0f}"


def fine(value: float) -> str:
    """Three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Column:
    """One metric of one case. `higher` is better, or lower; `ratios` compares each system with FairQueue."""

    title: str
    case: str
    metric: str
    form: Form = whole
    higher: bool = True
    ratios: bool = True
    against: str = ""
    """The case of FairQueue's figure, if it is another."""


def comparison(
    records: Records, name: str, title: str, note: str, columns: Sequence[Column], charts: Sequence[int] = ()
) -> Table | None:
    """Systems down, columns across; None if nothing of it was measured."""
    rows: dict[str, str] = {}
    for record in records.of(name):
        rows.setdefault(record.system, record.title.partition(", all as")[0])
    if not rows:
        return None
    order = [system.name for system in (FAIRQUE, *VARIANTS, *PEERS)]
    body, own = [], []
    for system, label in sorted(rows.items(), key=lambda row: order.index(row[0])):
        cells = [_compared(records, name, system, column) for column in columns]
        if all(cell is EMPTY for cell in cells):
            continue
        body.append((Cell(label), *cells))
        own.append(system.startswith(OWN))
    used = [0, *(n for n in range(1, len(columns) + 1) if any(row[n] is not EMPTY for row in body))]
    titles = ("", *(column.title for column in columns))
    return Table(
        name,
        title,
        note,
        tuple(titles[n] for n in used),
        tuple(tuple(row[n] for n in used) for row in body),
        tuple(used.index(chart) for chart in charts if chart in used),
        tuple(own),
    )


def _compared(records: Records, name: str, system: str, column: Column) -> Cell:
    record = records.get(name, column.case, column.metric, system)
    if record is None:
        return EMPTY
    if record.median is None:
        return Cell("failed", None, record.error)
    text = column.form(record.median)
    ours = records.get(name, column.against or column.case, column.metric, OWN)
    if column.ratios and ours is not None and ours is not record:
        ratio = (
            _ratio(ours.samples, record.samples) if column.higher else _ratio(record.samples, ours.samples)
        )
        text += f" · {fine(ratio)}×" if ratio else ""
    return Cell(text, record.median, _note(record))


def _ratio(over: Sequence[float], under: Sequence[float]) -> float | None:
    """The median of the ratios turn by turn; of the medians if the turns are not the same. None without samples."""
    if not over or not under or not all(under):
        return None
    if len(over) == len(under):
        return statistics.median(one / other for one, other in zip(over, under, strict=True))
    return statistics.median(over) / statistics.median(under)


def _note(record: Record) -> str:
    samples = ", ".join(fine(sample) for sample in record.samples)
    details = ", ".join(f"{key} {_short(value)}" for key, value in record.detail.items())
    return f"runs: {samples}" + (f"; {details}" if details else "")


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def listing(
    records: Records,
    name: str,
    title: str,
    note: str,
    metrics: Sequence[tuple[str, str, Form]],
    cases: Callable[[str], bool] = lambda case: True,
    charts: Sequence[int] = (),
    section: str = "",
) -> Table | None:
    """Cases down, metrics across; None if nothing of it was measured."""
    found = list(dict.fromkeys((r.case, r.system) for r in records.of(name) if cases(r.case)))
    body = []
    for case, system in found:
        cells = []
        for metric, _, form in metrics:
            record = records.get(name, case, metric, system)
            if record is None:
                cells.append(EMPTY)
            elif record.median is None:
                cells.append(Cell("failed", None, record.error))
            else:
                cells.append(Cell(form(record.median), record.median, _note(record)))
        if any(cell is not EMPTY for cell in cells):
            label = f"FairQueue: {case}" if name == limits.NAME and system == OWN else case
            body.append((Cell(label), *cells))
    if not body:
        return None
    columns = ("", *(shown for _, shown, _ in metrics))
    return Table(
        section or name, title, note, columns, tuple(body), tuple(charts), tuple(False for _ in body)
    )


TIMES = "After the dot: how many times better FairQueue is, the median of the turns (below 1 it is worse)."


def all_tables(records: Records) -> list[Table]:
    """Those of which anything was measured."""
    return [table for table in _tables(records) if table is not None]


def _tables(records: Records) -> Iterable[Table | None]:
    cases = [drain.case_of(mode, count) for mode, count in drain.CASES]
    yield comparison(
        records,
        drain.NAME,
        "Drain: no-ops with a number and 100 bytes, tasks/s",
        TIMES,
        [Column(case, case, drain.RATE) for case in cases],
        charts=(1, 3),
    )
    yield comparison(
        records,
        enqueue.NAME,
        "Enqueue, tasks/s",
        TIMES,
        [Column(case, case, enqueue.RATE) for case in enqueue.CASES],
        charts=(1, 2, 3, 4),
    )
    yield comparison(
        records,
        pickup.NAME,
        "Idle pick-up: push to begin, ms",
        TIMES,
        [
            Column(f"{mode}, {metric[:3]}", mode, metric, fine, higher=False)
            for mode in ("threads", "async")
            for metric in (pickup.P50, pickup.P99)
        ],
        charts=(1, 3),
    )
    yield comparison(
        records,
        memory.NAME,
        "Server memory of a queued task with 100 bytes",
        TIMES,
        [Column("bytes", memory.CASE, memory.BYTES, whole, higher=False)],
        charts=(1,),
    )
    yield comparison(
        records,
        noisy.NAME,
        "Noisy neighbour: how long light tenants wait behind 5,000 tasks of 1 ms, ms",
        "Waits are compared with FairQueue's with tenants apart. " + TIMES,
        [
            Column("apart, mean", noisy.TENANTS, noisy.MEAN, fine, higher=False),
            Column("apart, p99", noisy.TENANTS, noisy.P99, fine, higher=False),
            Column("apart, tasks/s", noisy.TENANTS, noisy.TOTAL, ratios=False),
            Column("one FIFO, mean", noisy.FIFO, noisy.MEAN, fine, higher=False, against=noisy.TENANTS),
            Column("one FIFO, p99", noisy.FIFO, noisy.P99, fine, higher=False, against=noisy.TENANTS),
            Column("one FIFO, tasks/s", noisy.FIFO, noisy.TOTAL, ratios=False),
        ],
        charts=(1, 4),
    )
    yield comparison(
        records,
        mixed.NAME,
        "Mixed: pushing and running at once, tasks of 1 ms, ten slots, tasks/s",
        TIMES,
        [Column("tasks/s", mixed.CASE, mixed.RATE)],
        charts=(1,),
    )
    yield comparison(
        records,
        fanin.NAME,
        "Fan-in: 1,000 tasks, then one with all their results, ten slots",
        "From the begin of the call that enqueues them all to the begin of the last. " + TIMES,
        [
            Column(fanin.MS, fanin.CASE, fanin.MS, fine, higher=False),
            Column(fanin.RATE, fanin.CASE, fanin.RATE, ratios=False),
        ],
        charts=(1,),
    )
    yield listing(
        records,
        limits.NAME,
        "Limits: what a call, a script and a hand-over cost, µs",
        "Medians. Of the minimal fair queue also the client's processor time and the time inside the server's scripts.",
        [("wall µs", "wall", fine), ("client µs", "client", fine), ("server µs", "server", fine)],
    )
    yield against_limits(records)
    yield listing(
        records,
        budget.NAME,
        "Budget of each operation, µs",
        "Wall: median of the calls. Client: processor time of the calling process. Server: inside the scripts, by "
        "`INFO commandstats`.",
        [("wall µs", "wall", fine), ("client µs", "client", fine), ("server µs", "server", fine)],
    )
    yield from _scaling(records)
    yield listing(
        records,
        footprint.NAME,
        "Server memory of FairQueue, bytes",
        "Over 20,000 of each, all indexes counted.",
        [(footprint.USED, footprint.USED, whole), (footprint.SUMMED, footprint.SUMMED, whole)],
    )
    yield listing(
        records,
        soak.NAME,
        "Memory of a worker and its supervisor while 1,000,000 tasks pass, MiB",
        "Anonymous resident memory, weighed after each tenth.",
        [
            (soak.LAST, "at the end", fine),
            (soak.GROWTH, "grown since the first tenth", fine),
            (soak.LATE_GROWTH, "grown in the second half", fine),
            ("server MiB at the end", "server at the end", fine),
        ],
    )


def _scaling(records: Records) -> Iterable[Table | None]:
    flat = [
        (scaling.PUSH, "push, µs", fine),
        (scaling.PUSH_RATIO, "÷ smallest", fine),
        (scaling.CLAIM, "settle and claim of 1, µs", fine),
        (scaling.CLAIM_RATIO, "÷ smallest", fine),
    ]
    note = "Calls take turns with those on a second server that stays as small as the first row."
    yield listing(
        records,
        scaling.NAME,
        "Scaling with queued tasks",
        note,
        flat,
        lambda case: case.endswith("queued tasks"),
        section="scaling-queued",
    )
    yield listing(
        records,
        scaling.NAME,
        "Scaling with tenants, 1,000 of them with work",
        note,
        flat,
        lambda case: " tenants, " in case,
        section="scaling-tenants",
    )
    yield listing(
        records,
        scaling.NAME,
        "Scaling with worker processes on one server",
        "Each process has its supervisor and ten threads, whatever the number of cores.",
        [(drain.RATE, "tasks/s", whole)],
        lambda case: case.endswith((" worker", " workers")),
        section="scaling-workers",
    )
    yield listing(
        records,
        scaling.NAME,
        "Payloads",
        "Enqueued with `push_batch` in calls of 200; drained by one process with ten threads.",
        [("enqueued/s", "enqueued/s", whole), (drain.RATE, "drained/s", whole)],
        lambda case: case.startswith("payload"),
        section="scaling-payload",
    )


def against_limits(records: Records) -> Table | None:
    """FairQueue's operations as multiples of what they cannot be faster than."""

    def of(workload: str, case: str, metric: str, system: str = OWN) -> float | None:
        return records.median(workload, case, metric, system)

    def floor(case: str, metric: str = "wall µs") -> float | None:
        return of(limits.NAME, case, metric, limits.SYSTEM[0])

    push, claim, finish = limits.MINIMAL
    both = _sum(floor(claim), floor(finish))
    inside = _sum(floor(claim, "server µs"), floor(finish, "server µs"))
    rate = of(drain.NAME, drain.case_of("threads", 1), drain.RATE)
    batch, fifty = "push_batch of 500, a task", "settle and claim of 50, a task"
    lines = [
        ("push, sync ÷ empty script", of(limits.NAME, limits.PUSH_SYNC, "wall µs"), floor(limits.EMPTY_SYNC)),
        (
            "push, async ÷ empty script",
            of(limits.NAME, limits.PUSH_ASYNC, "wall µs"),
            floor(limits.EMPTY_ASYNC),
        ),
        ("push_batch, a task ÷ minimal push", of(budget.NAME, batch, "wall µs"), floor(push)),
        (
            "push_batch on the server ÷ minimal push",
            of(budget.NAME, batch, "server µs"),
            floor(push, "server µs"),
        ),
        (
            "settle and claim of 50, a task ÷ minimal claim and finish",
            of(budget.NAME, fifty, "wall µs"),
            both,
        ),
        ("the same on the server", of(budget.NAME, fifty, "server µs"), inside),
        ("heartbeat ÷ empty script", of(budget.NAME, "heartbeat", "wall µs"), floor(limits.EMPTY_SYNC)),
        ("drain with threads, a task ÷ minimal claim and finish", 1e6 / rate if rate else None, both),
    ]
    body = tuple(
        (Cell(label), Cell(fine(ours)), Cell(fine(least)), Cell(f"{fine(ours / least)}×", ours / least))
        for label, ours, least in lines
        if ours and least
    )
    if not body:
        return None
    return Table(
        "against-limits",
        "FairQueue against the limits",
        "Wall time unless it says server; µs.",
        ("", "FairQueue", "limit", "ratio"),
        body,
        (),
        tuple(False for _ in body),
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return one + other if one is not None and other is not None else None
