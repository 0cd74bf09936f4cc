"""Charts as inline SVG: bars, and lines over steps. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LEFT, RIGHT = 190, 90
ROW, BAR = 26, 15


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its length, what stands at its end, and whether it is FairQueue's."""

    label: str
    value: float
    text: str
    own: bool


def ticks(top: float, count: int = 5) -> list[float]:
    """Round numbers from 0 up to `top` at least."""
    if not top > 0:
        top = 1.0
    rough = top / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def shown(value: float) -> str:
    """A number of an axis."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def bars(title: str, entries: Sequence[Bar]) -> str:
    """Horizontal bars, the longest first."""
    entries = sorted(entries, key=lambda bar: -bar.value)
    scale = ticks(max(bar.value for bar in entries))
    height = ROW * len(entries) + 28
    parts = [_open(title, height)]
    for tick in scale:
        at = _x(tick, scale[-1])
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle">{shown(tick)}</text>')
    for number, bar in enumerate(entries):
        top = 6 + ROW * number
        end = _x(bar.value, scale[-1])
        kind = "own" if bar.own else "peer"
        parts.append(
            f'<text class="name" x="{LEFT - 10}" y="{top + 12}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{max(1.0, end - LEFT):.1f}" height="{BAR}" rx="2"/>'
            f'<text class="value" x="{end + 6:.1f}" y="{top + 12}">{escape(bar.text)}</text>'
        )
    return "".join((*parts, "</svg>"))


def line(title: str, labels: Sequence[str], values: Sequence[float], unit: str) -> str:
    """A line over steps, from 0 up."""
    height, base = 220, 190
    scale = ticks(max(values))

    def y(value: float) -> float:
        return base - (base - 12) * value / scale[-1]

    def x(number: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number / max(1, len(values) - 1))

    parts = [_open(title, height)]
    for tick in scale:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        text = escape(f"{shown(tick)} {unit}")
        parts.append(f'<text x="{LEFT - 10}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    points = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in enumerate(values))
    parts.append(f'<polyline class="own" points="{points}"/>')
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        parts.append(f'<circle class="own" cx="{x(number):.1f}" cy="{y(value):.1f}" r="3.5"/>')
        parts.append(
            f'<text x="{x(number):.1f}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>'
        )
    return "".join((*parts, "</svg>"))


def _open(title: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )


def _x(value: float, top: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / top
