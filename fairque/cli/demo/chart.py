"""The two charts of the demo's page, as inline SVG. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from fairque.cli.demo.screen import seconds_text

if TYPE_CHECKING:
    from fairque.cli.demo.stage import Outcome
    from fairque.cli.demo.tally import Line, Tally

_WIDTH = 920
_LEFT = 110
_RIGHT = 70
_BAR = 11
_ROW = 40
_STRIP_ROW = 24
_MOST_STROKES = 1500
"""Of a tenant, in one picture: more are not seen apart, and make the file large."""


def ticks(top: float, count: int = 6) -> list[float]:
    """Round numbers from 0 up to `top` at least."""
    if not top > 0:
        top = 1.0
    rough = top / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def bars(fair: Tally, fifo: Tally) -> str:
    """Each tenant's waits, fair and as one FIFO: a bar to the 95th percentile with a notch at the median."""
    lines = [*fair.small, fair.whale]
    scale = ticks(_most([line.wait(0.95) for tally in (fair, fifo) for line in tally.lines.values()]))
    height = _ROW * len(lines) + 34
    parts = _across(scale, 0, _ROW * len(lines) + 6)
    for row, line in enumerate(lines):
        top = row * _ROW + 8
        parts.append(_name(line.tenant, top + _BAR + 5))
        parts += _bar(line, "fair", top, scale[-1])
        parts += _bar(fifo.lines[line.tenant], "fifo", top + _BAR + 2, scale[-1])
    return _svg(height, parts, "Waits of each tenant, fair and as one FIFO")


def _bar(line: Line, kind: str, y: float, top: float) -> list[str]:
    middle, end = line.wait(0.5), line.wait(0.95)
    if math.isnan(end):
        return []
    width = max(2.0, _across_at(end, top) - _LEFT)
    how = "fair" if kind == "fair" else "as one FIFO"
    title = f"{line.tenant}, {how}: p50 {seconds_text(middle)}, p95 {seconds_text(end)}"
    at = _across_at(middle, top)
    parts = [
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="var(--{kind})">'
        f"<title>{escape(title)}</title></rect>"
    ]
    if at > _LEFT + 3:
        parts.append(f'<line class="mid" x1="{at:.1f}" x2="{at:.1f}" y1="{y}" y2="{y + _BAR}"/>')
    parts.append(
        f'<text class="value" x="{_LEFT + width + 7:.1f}" y="{y + _BAR - 1}" font-size="12">{seconds_text(end)}</text>'
    )
    return parts


def starts(fair: Outcome, fifo: Outcome, pushed_at: float) -> str:
    """When every task of both runs started: a stroke each, a row for each tenant. The small ones pushed at
    `pushed_at` (seconds)."""
    tallies = (fair.tally, fifo.tally)
    scale = ticks(
        _most([wait.at for tally in tallies for line in tally.lines.values() for wait in line.waits])
    )
    rows = len(fair.tally.lines)
    panel = rows * _STRIP_ROW + 74
    parts: list[str] = []
    for index, (outcome, kind, title) in enumerate(((fair, "fair", "Fair"), (fifo, "fifo", "As one FIFO"))):
        parts += _strips(outcome, kind, title, index * panel + 38, scale, pushed_at)
    return _svg(2 * panel, parts, "When every task started, fair and as one FIFO")


def _strips(
    outcome: Outcome, kind: str, title: str, y: float, scale: Sequence[float], pushed_at: float
) -> list[str]:
    tally = outcome.tally
    bottom = y + len(tally.lines) * _STRIP_ROW
    parts = [f'<text class="name" x="{_LEFT}" y="{y - 22}" font-weight="600">{title}</text>']
    parts += _across(scale, y, bottom)
    for row, line in enumerate([tally.whale, *tally.small]):
        top = y + row * _STRIP_ROW
        colour = "whale" if line.is_whale else kind
        parts.append(_name(line.tenant, top + _STRIP_ROW - 6))
        # One path for each tenant: thousands of elements would make the page slow.
        step = max(1, len(line.waits) // _MOST_STROKES)
        path = "".join(
            f"M{_across_at(wait.at, scale[-1]):.1f} {top + 3}v{_STRIP_ROW - 6}" for wait in line.waits[::step]
        )
        width, opacity = (1, 0.5) if line.is_whale else (1.5, 0.9)
        parts.append(
            f'<path d="{path}" fill="none" stroke="var(--{colour})" stroke-width="{width}" '
            f'stroke-opacity="{opacity}"><title>{escape(line.tenant)}</title></path>'
        )
    parts += _mark(_across_at(pushed_at, scale[-1]), y, bottom, "pushed", "the small tenants push")
    if outcome.kill is not None:
        text = (
            f"SIGKILL of the worker process; its tasks are back after {outcome.kill.given_back_after:.2f} s"
        )
        parts += _mark(_across_at(outcome.kill.at, scale[-1]), y, bottom, "killed", text)
    return parts


def _name(tenant: str, y: float) -> str:
    return f'<text class="name" x="{_LEFT - 12}" y="{y}" text-anchor="end">{escape(tenant)}</text>'


def _mark(at: float, y: float, bottom: float, kind: str, text: str) -> list[str]:
    return [
        f'<line class="mark {kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 12}" y2="{bottom}"/>',
        f'<text class="{kind}" x="{at + 5:.1f}" y="{y - 4}" font-size="12">{escape(text)}</text>',
    ]


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=1.0)


def _across_at(value: float, top: float) -> float:
    return _LEFT + value / top * (_WIDTH - _LEFT - _RIGHT)


def _across(scale: Sequence[float], y: float, bottom: float) -> list[str]:
    parts: list[str] = []
    for value in scale:
        at = _across_at(value, scale[-1])
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_number(value)} s</text>')
    return parts


def _number(value: float) -> str:
    return f"{value:g}" if value >= 1 or value == 0 else f"{value:.3g}"


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
