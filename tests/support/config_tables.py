"""The tables of docs/configuration.md, made from the models.

`python -m tests.support.config_tables` writes them into the page; a test fails when the page differs.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig, SchedulerConfig, WorkerConfig
from fairque.core.config_outages import BreakerConfig, SpoolConfig
from fairque.core.policies import AnyPolicy, GroupPolicy, LimiterPolicy, UserPolicy

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MODELS: dict[str, type[BaseModel]] = {
    "redis": RedisConfig,
    "workers": WorkerConfig,
    "queue": QueueConfig,
    "scheduler": SchedulerConfig,
    "breaker": BreakerConfig,
    "spool": SpoolConfig,
}
POLICIES: dict[str, type[AnyPolicy]] = {"users": UserPolicy, "groups": GroupPolicy, "limiters": LimiterPolicy}
_BLOCK = r"<!-- table: {name} -->\n.*?<!-- end -->"
_UNITS = {"_seconds": "seconds", "_milliseconds": "milliseconds", "_bytes": "bytes", "_mb": "MiB"}
_RATE = "number (per second), or text such as `100/m`"
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", list: "list"}


def tables() -> dict[str, str]:
    """The tables by name."""
    made = {name: _table(model) for name, model in MODELS.items()}
    made["sections"] = "\n".join(
        ["| section | holds |", "|---|---|"]
        + [f"| `{name}` | {_prose(field)} |" for name, field in FairQueueConfig.model_fields.items()]
    )
    return made | {name: _policy_table(kind) for name, kind in POLICIES.items()}


def filled(page: str) -> str:
    """`page` with its tables as they should be."""
    for name, table in tables().items():
        block = f"<!-- table: {name} -->\n{table}\n<!-- end -->"
        found = re.findall(_BLOCK.format(name=name), page, flags=re.DOTALL)
        assert len(found) == 1, f"docs/configuration.md has {len(found)} tables {name!r}"
        page = page.replace(found[0], block)
    return page


def _table(model: type[BaseModel]) -> str:
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{name}` | {_value(name, field)} | {_default(field.default)} | {_prose(field)} |")
    return "\n".join(rows)


def _policy_table(kind: type[AnyPolicy]) -> str:
    """Policies are dataclasses, whose limits the code checks; their docstring says the rest."""
    hints = get_type_hints(kind)
    rows = [
        f"| `{field.name}` | {_RATE if field.name == 'rate_limit' else _type(hints[field.name])} "
        f"| {_default(field.default)} |"
        for field in dataclasses.fields(kind)
    ]
    about = inspect.getdoc(kind) or ""
    return "\n".join(
        ["| field | value | default |", "|---|---|---|", *rows, "", about.split("\n\nRaises:")[0]]
    )


def _value(name: str, field: FieldInfo) -> str:
    limits = {type(limit).__name__: limit for limit in field.metadata}
    low, high = limits.get("Ge"), limits.get("Le")
    text = _type(field.annotation)
    if low or high or "Gt" in limits:
        least = f"{low.ge:g}" if low else f"more than {limits['Gt'].gt:g}"
        text += f" from {least}" if low else f" {least}"
        if high:
            most = f"{high.le:,}".replace(".0", "")
            text += f" to {most}" if low else f", at most {most}"
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), None)
    if name == "prefix":
        text = "text of 1 to 64 characters"
    return f"{text} ({unit})" if unit else text


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return " or ".join(_type(kind) for kind in kinds)
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{value}"`' if value == "*" else f"`{value}`" for value in get_args(annotation))
    return _TYPES[get_origin(annotation) or annotation]


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == "*":
        return '`"*"`'
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _prose(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
