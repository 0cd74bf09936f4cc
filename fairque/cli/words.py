"""Values as people write and read them: durations, priorities, ages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?")


def seconds(text: str) -> float:
    """A duration: ``90``, ``1.5s``, ``250ms``, ``10m``, ``2h``, ``1d``. Raises typer.BadParameter."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write seconds, or 250ms, 90s, 10m, 2h, 1d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def priority(text: str) -> int:
    """A priority by name or number. Raises typer.BadParameter."""
    from fairque.core.options import Priority

    name = text.strip().upper().replace("-", "_")
    if name in Priority.__members__:
        return int(Priority[name])
    if name.isascii() and name.isdecimal() and int(name) in list(Priority):
        return int(name)
    names = ", ".join(f"{item.name.lower()} ({item.value})" for item in Priority)
    raise typer.BadParameter(f"{text!r} is no priority: there are {names}")


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 0.001:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for size, unit, small, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit}" + (f" {rest // small} {part}" if rest // small else "")
    return f"{whole} s"


def ago(when: datetime | None, now: datetime | None = None) -> str:
    """How long ago, or in how long."""
    if when is None:
        return ""
    passed = ((now or datetime.now(UTC)) - when).total_seconds()
    return f"in {span(-passed)}" if passed < 0 else span(passed)


def moment(when: datetime | None) -> str:
    """A time in the local zone, with its age."""
    if when is None:
        return ""
    passed = (datetime.now(UTC) - when).total_seconds()
    shown = when.astimezone().isoformat(sep=" ", timespec="milliseconds")
    return f"{shown} ({f'in {span(-passed)}' if passed < 0 else f'{span(passed)} ago'})"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
