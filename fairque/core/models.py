"""The task as users build and read it, and the other records of the public API.

All are immutable. A Task is checked where it is built by hand or by `Task.create`; a `@task` function checks
its options once, and what comes from the server was checked when it was pushed, so those two ways skip the
check.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar, Unpack, cast

import msgspec

from fairque.core.compose import Node, R_co
from fairque.core.exceptions import InvalidTaskError
from fairque.core.options import (
    CHECKS,
    OnDuplicate,
    Priority,
    TaskOptions,
    TriggerRule,
    check_options,
    check_together,
)
from fairque.core.policies import UserPolicy
from fairque.core.references import OutputRef, find_references
from fairque.core.retry_rules import Retry
from fairque.core.states import TaskState

__all__ = ["Claim", "DLQEntry", "Priority", "QueueSizes", "Task", "TaskError", "UserPolicy", "new_task_id"]

D = TypeVar("D")

_ID_CHARS = bytes((string.digits + string.ascii_letters).encode()[byte % 62] for byte in range(256))


def new_task_id() -> str:
    """16 random characters of ``0-9A-Za-z``: 95 bits, so ids made anywhere never meet, in little memory."""
    # One byte a character: the first 8 characters of the alphabet are a little likelier, which costs less
    # than one bit in all, and this is six times faster than arithmetic on one large number.
    return os.urandom(16).translate(_ID_CHARS).decode()


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to settle a task: the fencing token of this run, and the worker incarnation that holds it."""

    token: bytes
    incarnation: str


class Task(msgspec.Struct, Node[R_co], frozen=True, kw_only=True, weakref=True):
    """One piece of work: a registered function with its arguments, or a payload for a `TaskHandler`.

    Calling a `@task` function builds one, `Task.create` builds one with a payload. It is not sent until it is
    pushed. The fields from `state` on are filled in by the server, and are at their defaults before a push.
    Numbers of time are seconds; times are aware. None means the queue's default.

    Raises:
        InvalidTaskError: an option is of the wrong type or out of range.
    """

    task_id: str = msgspec.field(default_factory=new_task_id)
    user_id: str = "default"
    function: str = ""
    """The registered name; empty for a payload task."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # msgspec makes a new dict for each task
    payload: Any = None
    priority: Priority = Priority.NORMAL
    delay: float | None = None
    execute_after: datetime | None = None
    expires_at: datetime | None = None
    timeout: float | None = None
    max_retries: int | None = None
    retry: Retry | None = None
    depends_on: tuple[str, ...] = ()
    trigger_rule: TriggerRule = "all_success"
    await_missing_seconds: float | None = None
    """How long those in `depends_on` may take to be pushed; None: they must be there."""
    dedup_key: str | None = None
    dedup_window: float | None = None
    dedup_max_wait: float | None = None
    on_duplicate: OnDuplicate = "reject"
    cost: float = 1.0
    limiter: str | None = None
    result_ttl: float | None = None
    correlation_id: str | None = None
    labels: Mapping[str, str] = {}

    state: TaskState | None = None
    attempt: int = 0
    """How many times it has begun in this run."""
    retries: int = 0
    """Retries used in this run."""
    crashes: int = 0
    """How many times its process died while it ran alone."""
    run: int = 0
    """How many times it was requeued after its end."""
    created_at: datetime | None = None
    enqueued_at: datetime | None = None
    entered_at: datetime | None = None
    """When it entered its state; scheduled: when it is due."""
    reason: str = ""
    """Why it ended, or waits again."""
    cancel_requested: bool = False
    lone: bool = False
    """It runs alone in its process, because a process died while it ran."""
    claim: Claim | None = None

    _checked: bool = False

    def __post_init__(self) -> None:
        if self._checked:
            return
        given = {
            name: value
            for name, value, default in zip(CHECKS, _OPTIONS(self), _DEFAULTS, strict=True)
            if value is not default
        }
        for name, value in check_options(given).items():
            msgspec.structs.force_setattr(self, name, value)
        check_together(given)
        if not isinstance(self.function, str):
            raise InvalidTaskError(f"function must be a registered name, not {self.function!r}")
        if self.function and self.payload is not None:
            raise InvalidTaskError(f"a task has a function ({self.function}) or a payload, not both")
        if not isinstance(self.kwargs, dict):
            raise InvalidTaskError(f"kwargs must be a dict, not {self.kwargs!r}")
        msgspec.structs.force_setattr(self, "args", tuple(self.args))
        msgspec.structs.force_setattr(self, "_checked", True)

    @classmethod
    def create(cls, *, payload: Any = None, **options: Unpack[TaskOptions]) -> Task[Any]:
        """A task that carries `payload` (data, see the codec) for a `TaskHandler`.

        Raises:
            InvalidTaskError: an option is unknown, of the wrong type or out of range.
        """
        checked = check_options(options)
        check_together(checked)
        return Task(payload=payload, _checked=True, **checked)

    @classmethod
    def _restore(cls, **fields: Any) -> Task[Any]:
        """A task from fields that are known to be good, because they come from the server."""
        return Task(_checked=True, **fields)

    def with_options(self, **options: Unpack[TaskOptions]) -> Task[R_co]:
        """A copy with a new id (unless `task_id` is given) and these options; unknown to the server.

        Raises:
            InvalidTaskError: an option is unknown, of the wrong type or out of range.
        """
        fields: dict[str, Any] = dict(zip(CHECKS, _OPTIONS(self), strict=True))
        del fields["task_id"]
        # Options that are replaced, not contradicted.
        if options.get("delay") is not None:
            fields["execute_after"] = None
        elif options.get("execute_after") is not None:
            fields["delay"] = None
        fields.update(check_options(options))
        check_together(fields)
        fields["labels"] = dict(fields["labels"])
        return Task(
            function=self.function,
            args=self.args,
            kwargs=dict(self.kwargs),
            payload=self.payload,
            _checked=True,
            **fields,
        )

    @property
    def output(self) -> R_co:
        """What the task will return, for use as an argument of another task, which thereby waits for this one.

        It is not known yet: it can be passed on, whole or an item of it (``output["key"]``), and nothing else.
        """
        return cast(R_co, OutputRef(self.task_id))

    def output_or(self, default: D) -> R_co | D:
        """As `output`, but `default` if this task fails or is canceled.

        That matters to a task whose trigger rule lets it run all the same.
        """
        return cast(R_co | D, OutputRef(self.task_id, default=default))

    def __call__(self) -> Any:
        """Run this task's function here and now, and return its result (`async def`: the coroutine).

        Raises:
            InvalidTaskError: it is a payload task, or an argument is the output of another task.
            UnknownFunctionError: no function of that name is registered in this process.
            SerializationError: an argument that came from the server does not fit the function's annotations.
        """
        if not self.function:
            raise InvalidTaskError(
                "this task carries a payload and no function: a worker with a TaskHandler runs it",
                task_id=self.task_id,
                user_id=self.user_id,
            )
        if references := find_references(self.args, self.kwargs):
            raise InvalidTaskError(
                f"an argument is the {repr(references[0])[1:-1]}, which is known once that task has run: run "
                "this one in a worker, or call it with the value",
                task_id=self.task_id,
                user_id=self.user_id,
            )
        from fairque.core.codec import rebuild_arguments
        from fairque.core.registry import default_registry

        function = default_registry().resolve(self.function).fn
        if self.state is None:
            return function(*self.args, **self.kwargs)
        # Its arguments were bytes on the server: dataclasses and models are still plain data.
        args, kwargs = rebuild_arguments(function, self.args, self.kwargs)
        return function(*args, **kwargs)

    def __hash__(self) -> int:
        return hash(self.task_id)

    def __repr__(self) -> str:
        parts = [f"{self.task_id!r}", f"user_id={self.user_id!r}"]
        if self.function:
            arguments = [repr(value) for value in self.args]
            arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
            parts.append(_shorten(f"{self.function}({', '.join(arguments)})"))
        else:
            parts.append(_shorten(f"payload={self.payload!r}"))
        if self.state is not None:
            parts.append(f"state={self.state.value} attempt={self.attempt}")
        return f"<Task {' '.join(parts)}>"


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


_OPTIONS = attrgetter(*CHECKS)
_NO_DEFAULT = object()  # a factory makes it: the value is always looked at
_FIELDS = {item.name: item for item in msgspec.structs.fields(Task)}
_DEFAULTS = tuple(
    _NO_DEFAULT if _FIELDS[name].default is msgspec.NODEFAULT else _FIELDS[name].default for name in CHECKS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """What one attempt of a task died of. `type` is the exception's qualified name."""

    attempt: int
    type: str
    message: str
    traceback: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DLQEntry:
    """A dead letter: the task, why it is here, and the error of every attempt, oldest first."""

    task: Task[Any]
    reason: str
    entered_at: datetime
    errors: tuple[TaskError, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSizes:
    """How many tasks of one user are queued (CRITICAL, others, those under limiters), wait for a time or for other
    tasks, and run."""

    critical: int
    normal: int
    running: int
    limited: int = 0
    delayed: int = 0
