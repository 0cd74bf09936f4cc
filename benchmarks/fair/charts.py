"""Line charts as inline SVG. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from fair.report import Chart

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 30, 40
COLOURS = 6


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` up to `high` at least."""
    rough = (high - low or 1.0) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    return [step * n for n in range(first, math.ceil(high / step - 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten around `low` and `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9)
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]


def shown(value: float) -> str:
    """A number of an axis."""
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def svg(chart: Chart) -> str:
    """One chart with its axes and lines; the legend stands in the page."""
    xs = [x for line in chart.series for x, _ in line.points]
    ys = [y for line in chart.series for _, y in line.points]
    across = decades(min(xs), max(xs)) if chart.log else ticks(min(xs), max(xs))
    up = ticks(0.0, max(ys))
    x_at, y_at = _scale(across, LEFT, WIDTH - RIGHT, chart.log), _scale(up, HEIGHT - BOTTOM, TOP, False)
    label = escape(f"{chart.title}, {chart.note}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"><title>{label}</title>']
    for value in up:
        y = y_at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown(value)}</text>')
    for value in across:
        parts.append(
            f'<text x="{x_at(value):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{shown(value)}</text>'
        )
    parts.append(
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(chart.x)}</text>'
    )
    parts.append(f'<text class="axis" x="{LEFT}" y="14">{escape(chart.y)}</text>')
    for number, line in enumerate(chart.series):
        points = _stepped(line.points, max(xs)) if chart.steps else line.points
        drawn = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line c{number % COLOURS}" points="{drawn}"/>')
    return "".join((*parts, "</svg>"))


def legend(chart: Chart) -> str:
    """Which line is which."""
    return "".join(
        f'<span class="key"><i class="c{number % COLOURS}"></i>{escape(line.name)}</span>'
        for number, line in enumerate(chart.series)
    )


def _scale(values: Sequence[float], start: float, end: float, log: bool) -> Callable[[float], float]:
    place = math.log10 if log else float
    low, high = place(values[0]), place(values[-1])
    return lambda value: start + (end - start) * (place(value) - low) / (high - low or 1.0)


def _stepped(points: Sequence[tuple[float, float]], until: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for (x, y), (after, _) in zip(points, [*points[1:], (until, 0.0)], strict=True):
        found += [(x, y), (after, y)]
    return found
