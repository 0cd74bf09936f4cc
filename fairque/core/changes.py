"""What may be changed of a task that waits, and the check of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict

from fairque.core.exceptions import InvalidTaskError
from fairque.core.options import CHECKS, Priority, check_together
from fairque.core.retry_rules import Retry


class TaskChanges(TypedDict, total=False):
    """The options of a task that `update_task` takes. What is left out stays as it is.

    None is the queue's default again; of `expires_at`: it never expires. `delay` (seconds from now) and
    `execute_after` say when it is due; a time that has come queues it at once.
    """

    priority: Priority | int
    delay: float | timedelta
    execute_after: datetime
    expires_at: datetime | None
    timeout: float | timedelta | None
    max_retries: int | None
    retry: Retry | None
    result_ttl: float | timedelta | None
    correlation_id: str | None
    labels: Mapping[str, str]


IN_BODY = ("timeout", "retry", "result_ttl", "correlation_id", "labels")
"""What scripts do not read."""
_KNOWN = tuple(TaskChanges.__annotations__)
_NEVER_NONE = ("priority", "delay", "execute_after", "labels")


@dataclass(frozen=True, slots=True)
class Checked:
    """Changes, each in the form in which a Task holds it: `header` is what scripts read, `body` what they do not."""

    header: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


def check_changes(changes: Mapping[str, Any]) -> Checked:
    """What is to be changed.

    Raises:
        InvalidTaskError: there is nothing, an option cannot be changed or is none, a value is of the wrong type or out
            of range, or both `delay` and `execute_after` are given.
    """
    if not changes:
        raise InvalidTaskError(f"there is nothing to change: give one or more of {', '.join(_KNOWN)}")
    found = Checked()
    for name, value in changes.items():
        if name not in _KNOWN:
            raise InvalidTaskError(_unknown(name))
        if value is None and name in _NEVER_NONE:
            raise InvalidTaskError(f"{name} cannot be None: leave it out if it shall stay as it is")
        (found.body if name in IN_BODY else found.header)[name] = CHECKS[name](value, name)
    check_together(found.header)
    return found


def _unknown(name: str) -> str:
    if name in CHECKS:
        return (
            f"{name} of a task cannot be changed once it is pushed: cancel it, and push a copy with another {name}; "
            f"what can be changed is {', '.join(_KNOWN)}"
        )
    from difflib import get_close_matches

    near = get_close_matches(name, _KNOWN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"what can be changed is {', '.join(_KNOWN)}"
    return f"a task has no option {name!r}: {hint}"
