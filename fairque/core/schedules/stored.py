"""Schedules as plain data: what is stored, and what a file may say."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from fairque.core.exceptions import ConfigError
from fairque.core.retry_rules import Retry, read_retry

if TYPE_CHECKING:
    from fairque.core.schedules.models import ScheduledTask

DEFAULTS: dict[str, Any] = {
    "function": "",
    "args": (),
    "kwargs": {},
    "payload": None,
    "options": {},
    "cron": None,
    "every": None,
    "at": (),
    "timezone": "UTC",
    "misfire": "run_once",
    "misfire_limit": 100,
    "misfire_grace_seconds": 60.0,
    "overlap": "allow",
    "jitter_seconds": 0.0,
    "start": None,
    "end": None,
    "paused": False,
}
"""Every field of a schedule but its name, as it is if nobody says otherwise. The names are in stored data."""


def to_data(schedule: ScheduledTask) -> dict[str, Any]:
    """What is not at its default, in the order of the fields, so that equal schedules have equal bytes."""
    data: dict[str, Any] = {"name": schedule.name}
    for name, default in DEFAULTS.items():
        value = getattr(schedule, name)
        if value != default:
            data[name] = list(value) if isinstance(value, tuple) else value
    if "options" in data:
        data["options"] = msgspec.to_builtins(data["options"])
    return data


def to_fields(data: Any) -> dict[str, Any]:
    """The arguments of a `ScheduledTask` that `data` stands for.

    Raises:
        ConfigError: `data` is no mapping, a key is unknown or missing, or a value cannot be read.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"a schedule must be a mapping, not {data!r:.60}")
    found: dict[str, Any] = dict(data)
    name = found.get("name")
    if name is None:
        raise ConfigError("a schedule has no name: give it one, which stands in the ids of its tasks")
    for key in found:
        if key != "name" and key not in DEFAULTS:
            near = difflib.get_close_matches(str(key), DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DEFAULTS)}"
            raise ConfigError(f"schedule {shown_name(name)}: {key!r} is not known: {hint}")
    try:
        for key in ("at", "start", "end"):
            if key in found:
                found[key] = _read_time(key, found[key])
        options = found.get("options")
        if isinstance(options, Mapping) and isinstance(options.get("retry"), list | tuple):
            found["options"] = {**options, "retry": _read_retry(options["retry"])}
    except ConfigError as error:
        raise ConfigError(f"schedule {shown_name(name)}: {error}") from None
    return found


def shown_name(name: Any) -> str:
    """A schedule's name, or what was given for it, as errors show it."""
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_time(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_read_time(key, item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(
            f"{key} {value[:40]!r} is no time: write it as 2025-03-31T09:00, or a day as 2025-03-31"
        ) from None


def _read_retry(value: Any) -> Retry:
    try:
        return read_retry(value)
    except ValueError as error:
        raise ConfigError(f"options retry {value!r} is no retry policy: {error}") from None
