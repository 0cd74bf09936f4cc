"""The text of a cron pattern: read, checked field by field, and refused with the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fairque.core.exceptions import ConfigError

MAX_LENGTH = 256

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_TERM = re.compile(r"(\*|[0-9A-Z]+)(?:-([0-9A-Z]+))?(?:/([0-9]+))?")
_NTH = re.compile(r"([0-9A-Z]+)#([0-9]+)")
_LAST = re.compile(r"([0-9]+|SUN|MON|TUE|WED|THU|FRI|SAT)L")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five fields: what it is called and what may stand in it."""

    name: str
    low: int
    high: int
    names: Sequence[str] = ()
    """Names of values from `first_name` on."""
    first_name: int = 0

    @property
    def allowed(self) -> str:
        """What a single value may be, as errors say it."""
        numbers = f"from {self.low} to {self.high}"
        return f"{numbers}, or {self.names[0]} to {self.names[-1]}" if self.names else numbers


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day of month", 1, 31)
MONTH = Field(
    "month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1
)
WEEKDAY = Field("day of week", 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))
FIELDS = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)


def read_pattern(pattern: Any) -> tuple[str, ...]:
    """The five fields of `pattern`, in capitals; a word such as ``@daily`` is spelt out.

    Raises:
        ConfigError: it is no pattern; the error names the field, the value and what is allowed.
    """
    if not isinstance(pattern, str):
        raise ConfigError(f"cron must be a pattern such as '30 2 * * MON-FRI', not {pattern!r}")
    text = pattern.strip()
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"cron {text[:40]!r}... has {len(text)} characters; the limit is {MAX_LENGTH}")
    if text.startswith("@"):
        text = _alias(text)
    fields = tuple(text.upper().split())
    if len(fields) != len(FIELDS):
        raise ConfigError(_wrong_count(pattern, len(fields)))
    for field, value in zip(FIELDS, fields, strict=True):
        for term in value.split(","):
            problem = _problem(field, term)
            if problem is not None:
                _refuse(pattern, field, term, problem)
    return tuple(",".join(map(_plain, value.split(","))) for value in fields)


def _plain(term: str) -> str:
    """The term without what says nothing: cronsim reads ``0-0/5`` as ``0/5``, which is another pattern."""
    found = _TERM.fullmatch(term)
    return found[1] if found is not None and found[1] == found[2] else term


def _alias(text: str) -> str:
    found = ALIASES.get(text.lower())
    if found is not None:
        return found
    if text.lower() == "@reboot":
        raise ConfigError(
            "cron '@reboot' names no time: use @on_worker_start for what runs when a worker starts"
        )
    near = difflib.get_close_matches(text.lower(), ALIASES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ALIASES)}"
    raise ConfigError(f"cron {text!r} is not known: {hint}")


def _wrong_count(pattern: str, count: int) -> str:
    names = ", ".join(field.name for field in FIELDS)
    problem = f"cron {pattern!r} has {count} {'field' if count == 1 else 'fields'}; there must be 5: {names}"
    if count == 6:
        return f"{problem}. For seconds use every="
    return problem


def _refuse(pattern: str, field: Field, term: str, problem: str) -> NoReturn:
    raise ConfigError(f"cron {field.name} {term!r} {problem} (in {pattern!r})")


def _problem(field: Field, term: str) -> str | None:
    """What is wrong with one term of a field, or None."""
    if not term:
        return f"is empty: put a value {field.allowed} on each side of a comma"
    if field is DAY and term in ("L", "LW"):
        return None
    if field is WEEKDAY:
        if found := _NTH.fullmatch(term):
            return _bad_value(field, found[1]) or _bad_nth(found[2])
        if found := _LAST.fullmatch(term):
            return _bad_last(field, found[1])
    found = _TERM.fullmatch(term)
    if found is None:
        return f"is no value, list (1,2), range (1-5) or step (*/5); values are {field.allowed}"
    start, end, step = found.groups()
    if start == "*" and end is not None:
        return "is a range that begins with *: write *, or two values"
    if start != "*" and (problem := _bad_value(field, start)):
        return problem
    if end is not None and (problem := _bad_value(field, end) or _bad_range(field, start, end)):
        return problem
    return None if step is None else _bad_step(field, step)


def _number(field: Field, text: str) -> int | None:
    if text.isdigit():
        number = int(text)
        return number if field.low <= number <= field.high else None
    return field.names.index(text) + field.first_name if text in field.names else None


def _bad_value(field: Field, text: str) -> str | None:
    if _number(field, text) is not None:
        return None
    near = difflib.get_close_matches(text, field.names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"must be {field.allowed}{hint}"


def _bad_range(field: Field, start: str, end: str) -> str | None:
    first, last = _number(field, start), _number(field, end)
    if first is None or last is None or first <= last:
        return None
    highest = field.high - 1 if field is WEEKDAY else field.high  # 7 is Sunday once more, as 0 is
    upper = start if first == highest else f"{start}-{highest}"
    lower = end if last == field.low else f"{field.low}-{end}"
    return f"runs backwards: write {upper},{lower}"


def _bad_step(field: Field, step: str) -> str | None:
    if 1 <= int(step) <= field.high:
        return None
    return f"has a step of {step}, which must be from 1 to {field.high}; for longer intervals use every="


def _bad_nth(nth: str) -> str | None:
    return None if 1 <= int(nth) <= 5 else f"asks for week {nth} of a month, which must be from 1 to 5"


def _bad_last(field: Field, day: str) -> str | None:
    if day.isdigit():
        return _bad_value(field, day)
    return f"must be the number of a day and L: write {_number(field, day)}L"
