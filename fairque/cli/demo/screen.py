"""What is seen of the demo while it runs: a live table on a terminal, else a line every few seconds."""

from __future__ import annotations

import math
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fairque.cli.demo.tally import Line, Tally
from fairque.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_SECONDS = 2.0
_EVENTS = 6


def seconds_text(seconds: float) -> str:
    """A wait as the demo shows it."""
    if math.isnan(seconds):
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


class Screen:
    """Shows one stage; a context manager. `total`: how many tasks there are."""

    def __init__(self, out: Output, title: str, total: int) -> None:
        self._out, self._title, self._total = out, title, total
        self._events: list[str] = []
        self._lock = threading.Lock()
        self._begun = time.monotonic()  # until the stage says when it began
        self._next_line = 0.0
        self._live: Any = None
        self._progress: Any = None
        self._bar: Any = None

    @property
    def _is_live(self) -> bool:
        return not self._out.as_json and self._out.console.is_terminal

    def __enter__(self) -> Self:
        if self._is_live:
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self._out.console, expand=True,
            )  # fmt: skip
            self._bar = self._progress.add_task("tasks", total=self._total)
            self._live = Live(console=self._out.console, refresh_per_second=8, auto_refresh=False)
            self._live.start()
        elif not self._out.as_json:
            self._out.line(f"== {self._title}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str) -> None:
        """Something has happened. Called from any thread."""
        stamped = f"{time.monotonic() - self._begun:5.1f} s  {text}"
        with self._lock:
            self._events.append(stamped)
        if not self._is_live and not self._out.as_json:
            self._out.line(stamped)

    def show(self, tally: Tally, passed: float) -> None:
        """The numbers, `passed` seconds after the start of the stage."""
        self._begun = time.monotonic() - passed
        if self._live is not None:
            self._progress.update(self._bar, completed=tally.done)
            self._live.update(self._frame(tally), refresh=True)
        elif not self._out.as_json and passed >= self._next_line:
            self._next_line = passed + LINE_SECONDS
            self._out.line(self._plain(tally))

    def _plain(self, tally: Tally) -> str:
        running = sum(line.running for line in tally.lines.values())
        small = sum(line.done for line in tally.small)
        pushed = sum(line.pushed for line in tally.small)
        return (
            f"{time.monotonic() - self._begun:5.1f} s  {tally.done}/{self._total} done, {running} running · "
            f"{tally.whale.tenant} waits {_waits(tally.whale)} · small tenants {small}/{pushed} done, wait "
            f"p50 {seconds_text(tally.small_wait(0.5))} p95 {seconds_text(tally.small_wait(0.95))}"
        )

    def _frame(self, tally: Tally) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=SIMPLE_HEAD, title=self._title, title_style="bold", title_justify="left", expand=True
        )
        table.add_column("tenant")
        for heading in ("queued", "running", "done", "wait p50", "wait p95"):
            table.add_column(heading, justify="right")
        for line in tally.lines.values():
            table.add_row(
                Text(line.tenant, style="bold" if line.is_whale else ""),
                str(line.queued),
                Text(str(line.running), style="green" if line.running else "dim"),
                str(line.done),
                seconds_text(line.wait(0.5)),
                seconds_text(line.wait(0.95)),
                style="" if line.pushed else "dim",
            )
        with self._lock:
            events = "\n".join(self._events[-_EVENTS:])
        return Group(table, self._progress, Text(events, style="cyan"))


def _waits(line: Line) -> str:
    return f"p50 {seconds_text(line.wait(0.5))} p95 {seconds_text(line.wait(0.95))}"
