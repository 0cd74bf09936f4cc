"""What a schedule pushes: a function with its arguments, or a payload, and the options of each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fairque.core.codec import decode_value, encode_value
from fairque.core.decorator import TaskFunction
from fairque.core.exceptions import ConfigError
from fairque.core.models import Task
from fairque.core.options import TaskOptions
from fairque.core.registry import check_portable

SCHEDULE_LABEL = "schedule"
TICK_LABEL = "tick"

_KEPT = (
    "user_id",
    "priority",
    "timeout",
    "max_retries",
    "retry",
    "cost",
    "limiter",
    "result_ttl",
    "correlation_id",
    "labels",
)
# Options that say when or after what a task runs, or whether it is a duplicate: the schedule says that.
_REFUSED = {
    "delay": "the schedule says when its tasks are due: use cron=, every= or at=",
    "execute_after": "the schedule says when its tasks are due: use cron=, every= or at=",
    "expires_at": "it would be the same for every run: use timeout=, or end= for the schedule",
    "depends_on": 'no task is there to wait for: schedule a task that enqueues the pipeline, or use overlap="queue"',
    "trigger_rule": 'it is for depends_on, which a schedule has not: use overlap="queue"',
    "dedup_key": 'each tick is pushed once, and a run is no duplicate of another: use overlap="skip"',
    "dedup_window": 'each tick is pushed once, and a run is no duplicate of another: use overlap="skip"',
    "dedup_max_wait": 'each tick is pushed once, and a run is no duplicate of another: use overlap="skip"',
    "on_duplicate": "each tick has an id of its own, so there are no duplicates: leave it out",
}
_PLAIN: Task[Any] = Task()


@dataclass(frozen=True, slots=True)
class Work:
    """What each run of a schedule is: as in a `Task`, in plain data, with the options that are not defaults."""

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    payload: Any
    options: dict[str, Any]


def read_work(
    task: Task[Any] | None,
    function: TaskFunction[..., Any] | str | None,
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    payload: Any,
    options: TaskOptions | Mapping[str, Any] | None,
) -> Work:
    """What is to be pushed, from any of the ways to say it.

    Arguments become the plain data that the server would give back, so that a schedule equals its stored form.

    Raises:
        ConfigError: none of them, or more than one, says it; or an option does not go with a schedule.
        InvalidTaskError: an option or an argument is refused as for any task.
        UnknownFunctionError: the function belongs to a ``__main__`` that no worker can import.
    """
    given = _mapping(options, "options")
    if "task_id" in given:
        raise ConfigError(
            "options task_id: each run has an id of its own, made of name and tick: leave it out"
        )
    built = _build(task, function or None, _sequence(args), _mapping(kwargs, "kwargs"), payload, given)
    if built.function:
        check_portable(built.function)
    for name, way_out in _REFUSED.items():
        value = getattr(built, name)
        if value != getattr(_PLAIN, name):
            raise ConfigError(f"options {name} {value!r}: {way_out}")
    kept = {name: getattr(built, name) for name in _KEPT}
    for label in (SCHEDULE_LABEL, TICK_LABEL):
        if label in built.labels:
            raise ConfigError(
                f"options labels {label!r}: each run gets this label by itself: use another name"
            )
    return Work(
        built.function,
        tuple(decode_value(encode_value(built.args, "args"))),
        decode_value(encode_value(built.kwargs, "kwargs")),
        decode_value(encode_value(built.payload, "payload")),
        {name: value for name, value in kept.items() if value != getattr(_PLAIN, name)},
    )


def as_fields(task: Task[Any]) -> dict[str, Any]:
    """What a task is, as fields of a ScheduledTask."""
    work = read_work(task, None, (), None, None, None)
    return {item.name: getattr(work, item.name) for item in fields(work)}


def _build(
    task: Any,
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    payload: Any,
    options: dict[str, Any],
) -> Task[Any]:
    if task is not None:
        if not isinstance(task, Task):
            hint = (
                "call it with its arguments, or use function="
                if callable(task)
                else "build one with Task.create"
            )
            raise ConfigError(f"task must be a Task, not {task!r}: {hint}")
        if function is not None or args or kwargs or payload is not None or options:
            raise ConfigError(
                "task brings its function, arguments, payload and options with it: leave those out, "
                "and use task.with_options() for the options"
            )
        if task.state is not None:
            raise ConfigError(f"task {task.task_id} came from the server: use a copy, task.with_options()")
        return task
    if function is None:
        if args or kwargs:
            raise ConfigError("args and kwargs are for a function: give function= too, or task=")
        if payload is None:
            raise ConfigError("nothing says what to push: give task=, function= or payload=")
        return Task.create(payload=payload, **options)
    if payload is not None:
        raise ConfigError("a run has a function or a payload, not both: leave one of them out")
    if isinstance(function, TaskFunction):
        return function.with_options(**options)(*args, **kwargs)
    if not isinstance(function, str):
        raise ConfigError(
            f"function must be a @task function or the name that it is registered under, not {function!r}"
        )
    # The defaults of a function that is only named are not known here.
    plain = Task.create(**options)
    return Task(
        function=function, args=args, kwargs=kwargs, **{name: getattr(plain, name) for name in options}
    )


def _sequence(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"args must be a list or a tuple, not {value!r}")
    return tuple(value)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{what} must map names to values, not {value!r}")
    return dict(value)
