"""What may be said about a task, how it is written, and the check of each option."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from fairque.core.checks import check_number, check_seconds, check_text, check_time, check_whole
from fairque.core.exceptions import InvalidTaskError
from fairque.core.keys import encode
from fairque.core.retry_rules import Retry, check_retry

if TYPE_CHECKING:
    from fairque.core.models import Task

MAX_RETRIES = 65_535
MAX_NAME_BYTES = 255

OnDuplicate: TypeAlias = Literal["reject", "return", "throttle", "debounce"]
TriggerRule: TypeAlias = Literal["all_success", "all_done", "one_success", "one_failed", "none_failed"]
TRIGGER_RULES = ("all_success", "all_done", "one_success", "one_failed", "none_failed")


class Priority(IntEnum):
    """How urgent a task is among its tenant's own. CRITICAL tasks run first, in the order they came."""

    VERY_LOW = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    VERY_HIGH = 5
    CRITICAL = 6


class TaskOptions(TypedDict, total=False):
    """The options of a task, which are also a function's defaults. Numbers of time are seconds."""

    user_id: str
    task_id: str
    priority: Priority | int
    delay: float | timedelta | None
    execute_after: datetime | None
    expires_at: datetime | None
    timeout: float | timedelta | None
    max_retries: int | None
    retry: Retry | None
    depends_on: str | Task[Any] | Iterable[str | Task[Any]]
    trigger_rule: TriggerRule
    await_missing_seconds: float | timedelta | None
    dedup_key: str | None
    dedup_window: float | timedelta | None
    dedup_max_wait: float | timedelta | None
    on_duplicate: OnDuplicate
    cost: float
    limiter: str | None
    result_ttl: float | timedelta | None
    correlation_id: str | None
    labels: Mapping[str, str]


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`, each checked and in the form in which a Task holds it.

    Raises:
        InvalidTaskError: an option is unknown, of the wrong type or out of range; the error names it, its
        value and
            the limit.
    """
    checked: dict[str, Any] = {}
    for name, value in options.items():
        check = CHECKS.get(name)
        if check is None:
            raise InvalidTaskError(_unknown(name))
        checked[name] = check(value, name)
    return checked


def check_together(options: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other.

    Raises:
        InvalidTaskError: both `delay` and `execute_after` are given, a `dedup_window` without a `dedup_key`, or an
            `on_duplicate` without what it needs.
    """
    if options.get("delay") is not None and options.get("execute_after") is not None:
        raise InvalidTaskError("delay and execute_after both say when the task is due: give one of them")
    if options.get("dedup_window") is not None and options.get("dedup_key") is None:
        raise InvalidTaskError("dedup_window is how long a dedup_key counts: give the dedup_key too")
    _check_dedup(options)


def _check_dedup(options: Mapping[str, Any]) -> None:
    mode, window = options.get("on_duplicate", "reject"), options.get("dedup_window")
    longest = options.get("dedup_max_wait")
    if mode in ("throttle", "debounce") and (options.get("dedup_key") is None or window is None):
        raise InvalidTaskError(f"on_duplicate={mode!r} needs a dedup_key, and a dedup_window in seconds")
    if mode == "debounce":
        for name in ("delay", "execute_after", "depends_on"):
            if options.get(name):
                raise InvalidTaskError(
                    "on_duplicate='debounce' says when the task is due, dedup_window after the last push: "
                    f"leave {name} out"
                )
        if longest is not None and longest < window:
            raise InvalidTaskError(
                "dedup_max_wait is how long debouncing may put a task off: at least its dedup_window of "
                f"{window:g} s, not {longest:g} s"
            )
    elif longest is not None:
        raise InvalidTaskError("dedup_max_wait is for on_duplicate='debounce': give that, or leave it out")


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, CHECKS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CHECKS)}"
    return f"a task has no option {name!r}: {hint}"


def _key_part(value: Any, name: str) -> str:
    encode(value, name)
    return str(value)


def _priority(value: Any, name: str) -> Priority:
    if type(value) is Priority:
        return value
    return Priority(check_whole(value, name, Priority.VERY_LOW, Priority.CRITICAL))


def _depends_on(value: Any, name: str) -> tuple[str, ...]:
    from fairque.core.models import Task

    if isinstance(value, str | Task):
        value = (value,)
    if not isinstance(value, Iterable):
        raise InvalidTaskError(f"{name} takes task ids or tasks, not {value!r}")
    ids = [
        item.task_id if isinstance(item, Task) else _key_part(item, f"{name} (a task id)") for item in value
    ]
    # One dependency named twice is one dependency.
    return tuple(dict.fromkeys(ids))


def _labels(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidTaskError(f"{name} must map strings to strings, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidTaskError(f"{name} must map strings to strings, not {key!r} to {text!r}")
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise InvalidTaskError(f"{name} {key!r} holds a lone surrogate: use valid Unicode text") from None
    return dict(value)


def _one_of(*allowed: str) -> Callable[[Any, str], str]:
    def check(value: Any, name: str) -> str:
        if value not in allowed:
            raise InvalidTaskError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
        return str(value)

    return check


def _optional(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else check(value, name)


def _positive_seconds(value: Any, name: str) -> float:
    return check_seconds(value, name, zero=False)


def _name(value: Any, name: str) -> str:
    return check_text(value, name, MAX_NAME_BYTES)


CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "user_id": _key_part,
    "task_id": _key_part,
    "priority": _priority,
    "delay": _optional(check_seconds),
    "execute_after": _optional(check_time),
    "expires_at": _optional(check_time),
    "timeout": _optional(_positive_seconds),
    "max_retries": _optional(lambda value, name: check_whole(value, name, 0, MAX_RETRIES)),
    "retry": _optional(check_retry),
    "depends_on": _depends_on,
    "trigger_rule": _one_of(*TRIGGER_RULES),
    "await_missing_seconds": _optional(_positive_seconds),
    "dedup_key": _optional(_name),
    "dedup_window": _optional(_positive_seconds),
    "dedup_max_wait": _optional(_positive_seconds),
    "on_duplicate": _one_of("reject", "return", "throttle", "debounce"),
    "cost": lambda value, name: check_number(value, name, 0.01, 10_000),
    "limiter": _optional(_key_part),
    "result_ttl": _optional(_positive_seconds),
    "correlation_id": _optional(_name),
    "labels": _labels,
}
"""One check for each option. It gets the value and the option's name, and returns what the Task holds."""
