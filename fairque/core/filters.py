"""TaskFilter: which tasks are meant, for dead letters, bulk cancels and bulk retries alike.

What scripts can read (state, user, function, priority, times) they filter; labels and errors lie in bytes that only
clients read, so the client looks at those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from fairque.core.exceptions import ConfigError, InvalidFilterError, InvalidTaskError
from fairque.core.keys import encode
from fairque.core.models import Task, TaskError
from fairque.core.options import Priority
from fairque.core.patterns import is_pattern, lua_pattern
from fairque.core.states import TaskState

_SPECIAL = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")
MAX_SECONDS = 10 * 365 * 86_400
"""No age is larger, nor could a task be as old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Tasks for which every condition that is given holds.

    `function` and `user`: a name, or a pattern (`app.mail:*`, `team-?`). `state`: one or several. `error`: text, in
    any case of letters, in the type or message of the last error, or in the reason why the task ended. `labels`:
    each with this value, or a pattern of it (`*`: any). `older_than`, `younger_than`: seconds that the task has
    been in its state; a scheduled one, since it was pushed. `priority`: one or several.

    Raises:
        InvalidFilterError: a condition cannot be one.
    """

    function: str | None = None
    user: str | None = None
    state: TaskState | str | Sequence[TaskState | str] | None = None
    error: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    older_than: float | None = None
    younger_than: float | None = None
    priority: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("function", "user"):
            _check_pattern(name, getattr(self, name))
        _check_text("error", self.error)
        _check_labels(self.labels)
        for name in ("older_than", "younger_than"):
            _check_age(name, getattr(self, name))
        if (
            self.older_than is not None
            and self.younger_than is not None
            and self.older_than >= self.younger_than
        ):
            raise InvalidFilterError(
                f"older_than ({self.older_than:g} s) must be below younger_than ({self.younger_than:g} s): "
                "else no task fits both"
            )
        _states(self.state)
        _priorities(self.priority)

    @property
    def states(self) -> tuple[TaskState, ...]:
        """The states that were named, if any."""
        return _states(self.state)

    @property
    def priorities(self) -> tuple[int, ...]:
        """The priorities that were named, if any."""
        return _priorities(self.priority)

    @property
    def exact_user(self) -> str | None:
        """The user, if it is named and not by a pattern."""
        if self.user is None or is_pattern(_ESCAPED.sub("", self.user)):
            return None
        return _ESCAPED.sub(r"\1", self.user)

    @property
    def is_empty(self) -> bool:
        """Whether no condition is given, so that every task is meant."""
        return self == TaskFilter()

    @property
    def looks_inside(self) -> bool:
        """Whether it asks for what only clients can read."""
        return self.error is not None or bool(self.labels)

    def of_user(self, user: str | None) -> TaskFilter:
        """This filter for one user; with None it stays as it is.

        Raises:
            InvalidFilterError: it names another user.
        """
        if user is None:
            return self
        if self.user is not None and not fnmatchcase(user, self.user):
            raise InvalidFilterError(f"the filter is about user {self.user!r}, and the call about {user!r}")
        return replace(self, user=_SPECIAL.sub(r"[\g<0>]", user))

    def in_states(
        self, states: tuple[TaskState, ...], default: tuple[TaskState, ...], action: str
    ) -> TaskFilter:
        """This filter with the states that it named, else `default`.

        Raises:
            InvalidFilterError: it names one that is not of `states`, for which `action` makes no sense.
        """
        wrong = [state for state in self.states if state not in states]
        if wrong:
            raise InvalidFilterError(
                f"{action} is for tasks that are {' or '.join(states)}, not for {' or '.join(wrong)} ones"
            )
        return replace(self, state=self.states or default)

    def fits_inside(self, task: Task[object], errors: Sequence[TaskError]) -> bool:
        """Whether what only clients can read fits; `errors`: the last one, or all."""
        for name, wanted in self.labels.items():
            value = task.labels.get(name)
            if value is None or not fnmatchcase(value, wanted):
                return False
        if self.error is None:
            return True
        text = self.error.casefold()
        told = [task.reason] + [f"{error.type}: {error.message}" for error in errors[-1:]]
        return any(text in one.casefold() for one in told)

    def described(self) -> str:
        """The conditions in words, for a question or a log."""
        parts = [" or ".join(self.states)] if self.states else []
        parts += [
            f"{name} {value}" for name, value in (("function", self.function), ("user", self.user)) if value
        ]
        parts += [f"priority {' or '.join(map(str, self.priorities))}"] if self.priorities else []
        parts += [f"error {self.error!r}"] if self.error else []
        parts += [f"label {name}={value}" for name, value in self.labels.items()]
        parts += [f"older than {self.older_than:g} s"] if self.older_than is not None else []
        parts += [f"younger than {self.younger_than:g} s"] if self.younger_than is not None else []
        return ", ".join(parts) or "all"


def _check_pattern(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise InvalidFilterError(f"{name} must be a name or a pattern, not {value!r}")
    try:
        lua_pattern(value) if is_pattern(value) else encode(value, name)
    except (ConfigError, InvalidTaskError) as error:
        raise InvalidFilterError(f"{name}: {error}") from None


def _check_text(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise InvalidFilterError(f"{name} must be text that is looked for, not {value!r}")


def _check_labels(labels: object) -> None:
    if not isinstance(labels, Mapping):
        raise InvalidFilterError(f"labels must map names to values, not {labels!r}")
    for name, value in labels.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidFilterError(f"labels are text, not {name!r}: {value!r}")


def _check_age(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise InvalidFilterError(f"{name} must be 0 to {MAX_SECONDS:,} seconds, not {value!r}")


def _states(given: object) -> tuple[TaskState, ...]:
    named: Iterable[object]
    if given is None:
        return ()
    named = [given] if isinstance(given, str) or not isinstance(given, Iterable) else given
    found: dict[TaskState, None] = {}
    for one in named:
        try:
            found[TaskState(one)] = None  # type: ignore[arg-type]
        except ValueError:
            names = ", ".join(member.value for member in TaskState)
            raise InvalidFilterError(f"there is no state {one!r}: the states are {names}") from None
    if not found:
        raise InvalidFilterError("state must name at least one state, or be left out")
    return tuple(found)


def _priorities(given: object) -> tuple[int, ...]:
    if given is None:
        return ()
    named: Iterable[object] = given if isinstance(given, Iterable) else [given]
    found: dict[int, None] = {}
    for one in named:
        if isinstance(one, bool) or not isinstance(one, int) or one not in list(Priority):
            raise InvalidFilterError(
                f"priority must be {int(min(Priority))} to {int(max(Priority))}, not {one!r}"
            )
        found[int(one)] = None
    if not found:
        raise InvalidFilterError("priority must name at least one, or be left out")
    return tuple(found)
