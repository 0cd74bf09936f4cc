"""Memory of a worker process while 1,000,000 tasks pass through it."""

from __future__ import annotations

import statistics

from bench.catalog import FAIRQUE, THREADS
from bench.plan import Bench, Job, Outcome, identity

NAME = "soak"
CASE = "1,000,000 no-ops, threads"
LAST, GROWTH, LATE_GROWTH = (
    "MiB at the end",
    "MiB grown since the first tenth",
    "MiB grown in the second half",
)
TASKS = 1_000_000
PARTS = 10
POLL_SECONDS = 0.2


def run(bench: Bench) -> None:
    """Once, and not in the quick mode."""
    if bench.has_fairque:
        bench.interleave([Job(NAME, CASE, identity(FAIRQUE), LAST, lambda: soak(bench))], 1)


def soak(bench: Bench) -> Outcome:
    """Push a tenth, have it run, weigh the worker (RssAnon of it and its supervisor); ten times over."""
    stage, part = bench.stage, bench.count(TASKS) // PARTS
    stage.reset(part * PARTS)
    series: list[float] = []
    with (
        stage.workers(FAIRQUE, THREADS) as groups,
        stage.driver(FAIRQUE, "sync") as driver,
    ):
        stage.until_ready(groups)
        stage.board.open_gate()
        for number in range(PARTS):
            driver.push("noop", number * part, part, style="bulk", chunk=500)
            stage.until_done(groups, number * part, part, poll=POLL_SECONDS)
            series.append(statistics.mean(group.anonymous_kib() for group in groups) / 1024)
        used = stage.client.info("memory")["used_memory"] / 2**20
    return (
        {
            LAST: series[-1],
            GROWTH: series[-1] - series[0],
            LATE_GROWTH: series[-1] - series[PARTS // 2 - 1],
            "server MiB at the end": used,
        },
        {"MiB after each tenth": [round(value, 2) for value in series]},
    )
