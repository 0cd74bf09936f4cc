"""The command: a private server, the load fair, the load as one FIFO, and what the difference is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.cli.demo.load import Plan
    from fairque.cli.demo.stage import Outcome
    from fairque.core.config import FairQueueConfig

BUDGET_SECONDS = 85.0
"""The stages end by then; what is left is for leaving."""
REPORT = "fairque-demo.html"


def demo(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"The page with the chart [default: {REPORT}]."),
    ] = None,
    tasks: Annotated[
        int, typer.Option(min=200, max=100_000, help="How many tasks the big tenant pushes.")
    ] = 3000,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of the worker process.")] = 8,
    seconds: Annotated[
        float,
        typer.Option(min=1.0, max=600.0, help="How long the big tenant's tasks should keep the worker busy."),
    ] = 20.0,
) -> None:
    """Show what fair means: one tenant floods the queue, six small ones come a second later.

    Tenants are packages of Python's standard library, and a task tokenises one of their files. Half-way the
    worker process is killed. Then the same load runs as one FIFO. It uses a server of its own in a temporary
    directory, takes about a minute, and writes a page with a chart. Exit code 1: a task was lost.
    """
    from fairque.cli.demo.load import make_plan
    from fairque.cli.demo.page import write_page
    from fairque.cli.demo.summary import print_summary, summary_data

    begun = time.monotonic()
    report = _report_place(output)
    with _private_server() as url:
        plan = make_plan(tasks, seconds)
        if not run.out.as_json:
            run.out.line(_about(plan, threads))
        limit = begun + max(BUDGET_SECONDS, 4 * seconds)
        fair = _stage(run, plan, _config(url, "fair", threads), as_fifo=False, deadline=limit)
        fifo = _stage(run, plan, _config(url, "fifo", threads), as_fifo=True, deadline=limit)
    took = time.monotonic() - begun
    write_page(report, plan, fair, fifo, threads)
    if run.out.as_json:
        run.out.data(summary_data(plan, fair, fifo, report, took))
    else:
        print_summary(run.out, fair, fifo, report, took)
    run.finish(ExitCode.FAILED if fair.lost or fair.doubled or fair.failed else ExitCode.OK)


def _about(plan: Plan, threads: int) -> str:
    small = ", ".join(tenant.name for tenant in plan.small)
    return (
        f"Tenant {plan.whale.name} pushes {plan.whale.tasks:,} tasks; a second later {small} push "
        f"{plan.small[0].tasks} each.\nA task tokenises up to {plan.limit:,} bytes of one of the package's source "
        f"files; one worker process with {threads} threads serves all."
    )


def _stage(run: Run, plan: Plan, config: FairQueueConfig, *, as_fifo: bool, deadline: float) -> Outcome:
    from fairque.cli.demo.screen import Screen
    from fairque.cli.demo.stage import Stage

    title = "The same load as one FIFO" if as_fifo else "Fair: every tenant has its own queue"
    with Screen(run.out, title, plan.total) as screen:
        stage = Stage(config, plan, as_fifo=as_fifo, on_tick=screen.show, on_event=screen.tell)
        return stage.run(kill=not as_fifo, deadline=deadline)


def _config(url: str, prefix: str, threads: int) -> FairQueueConfig:
    from fairque.core.config import FairQueueConfig

    return FairQueueConfig.from_dict(
        {
            "redis": {"url": url},
            "workers": [{"id": "demo", "max_concurrent_tasks": threads}],
            "queue": {"prefix": prefix},
        }
    )


def _report_place(chosen: Path | None) -> Path:
    """Where the page goes: a place that can be written is found now and not after a minute.

    Raises:
        ConfigError: the chosen one cannot be written.
    """
    from fairque.core.exceptions import ConfigError

    if chosen is None:
        here = Path.cwd() / REPORT
        usable = os.access(here if here.exists() else here.parent, os.W_OK)
        return here if usable else Path(tempfile.gettempdir()) / REPORT
    try:
        with chosen.open("a"):
            pass
    except OSError as error:
        raise ConfigError(f"{chosen}: cannot be written: {error.strerror or error}") from None
    return chosen.absolute()


@contextlib.contextmanager
def _private_server() -> Generator[str]:
    """A server for the length of a ``with`` block, whose data goes with it; yields its URL.

    The user's settings are out of sight in it: neither their server nor their queue is touched.
    """
    from fairque.queue.embedded import ensure_server, stop_server

    with _without_settings(), _signals_raise():
        directory = Path(tempfile.mkdtemp(prefix="fairque-demo-"))
        try:
            yield ensure_server(directory).url
        finally:
            stop_server(directory)
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _without_settings() -> Generator[None]:
    hidden: dict[str, str] = {
        name: os.environ.pop(name) for name in [*os.environ] if name.startswith("FAIRQUE_")
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def _signals_raise() -> Generator[None]:
    """SIGTERM leaves like Ctrl-C: through every ``finally``."""

    def interrupt(_number: int, _frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
