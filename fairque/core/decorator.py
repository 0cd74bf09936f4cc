"""`@task`: a function whose calls build tasks. Its parameters and its result stay in its type."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from fairque.core.arguments import signature_of
from fairque.core.exceptions import ConfigError
from fairque.core.models import Task
from fairque.core.options import TaskOptions, check_options, check_together
from fairque.core.registry import Registry, default_registry, registered_name

if TYPE_CHECKING:
    from fairque.core.pipeline import Group

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class TaskFunction(Generic[P, R]):
    """A registered function. Calling it builds a `Task`; nothing runs and nothing is sent.

    `fn` is the plain function, `name` the name it is registered under, `options` its tasks' defaults, and
    `is_async` whether it is an ``async def``.
    """

    name: str
    is_async: bool
    __wrapped__: Callable[P, Any]

    def __init__(self, fn: Callable[P, Any], name: str, options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self.name = name
        self.is_async = inspect.iscoroutinefunction(fn)
        self._check = signature_of(fn).check
        self._options = dict(options)
        self._fields: dict[str, Any] = {**options, "function": name, "_checked": True}

    @property
    def fn(self) -> Callable[P, R]:
        """The plain function."""
        return self.__wrapped__

    @property
    def options(self) -> Mapping[str, Any]:
        """The defaults of this function's tasks, as far as they were given."""
        return MappingProxyType(self._options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Task[R]:
        """A task that will call the function with these arguments.

        Raises:
            InvalidTaskError: an argument is missing, unknown, or of the wrong type.
        """
        self._check(args, kwargs)
        fields: dict[str, Any] = self._fields
        if "labels" in fields:
            # Each task has labels of its own, whatever is done to another's.
            fields = {**fields, "labels": {**fields["labels"]}}
        return Task(args=args, kwargs=kwargs, **fields)

    def map(
        # As any callable that builds tasks: only so do type checkers tell the first parameter from the others.
        self: Callable[Concatenate[T, Q], Task[R]],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[T],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> Group[R]:
        """A task for each item, as the first argument; the other arguments are the same for all.

        The items are a list or anything else that can be iterated, or the output of another task: then there
        will be as many tasks as that output has items.

        Raises:
            InvalidTaskError: the items are text, the function's options give all tasks one id, or an item
                does not fit the function.
        """
        from fairque.core.pipeline import fan_out

        return fan_out(cast("TaskFunction[..., Any]", self), items, args, kwargs)

    def with_options(self, **options: Unpack[TaskOptions]) -> Self:
        """The same function with other defaults for the tasks that are built from what this returns.

        Raises:
            InvalidTaskError: an option is unknown, of the wrong type or out of range.
        """
        given = check_options(options)
        merged = {**self._options, **given}
        # An option that replaces its alternative does not contradict it.
        if given.get("delay") is not None and "execute_after" not in given:
            merged.pop("execute_after", None)
        if given.get("execute_after") is not None and "delay" not in given:
            merged.pop("delay", None)
        check_together(merged)
        # Made without __init__: this runs once for each push that names its user.
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._options = merged
        copy._fields = {**merged, "function": self.name, "_checked": True}
        return copy

    def __repr__(self) -> str:
        options = "".join(f" {name}={value!r}" for name, value in self._options.items())
        return f"<TaskFunction {self.name}{options}>"


class AsyncTaskFunction(TaskFunction[P, R]):
    """A registered ``async def``: `R` is what awaiting it gives."""

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """The plain coroutine function."""
        return self.__wrapped__


class TaskDecorator(Protocol):
    """What ``@task(...)`` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTaskFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTaskFunction[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *, name: str | None = None, registry: Registry | None = None, **options: Unpack[TaskOptions]
) -> TaskDecorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    registry: Registry | None = None,
    **options: Unpack[TaskOptions],
) -> Any:
    """Register a function, so that calling it builds a task. Works bare, and with the options of its tasks.

    `name` is what the function is registered as, by default ``module:qualname``; processes that push and
    processes that work must agree on it. `registry` is where, by default `default_registry()`.

    Raises:
        ConfigError: the function has no name that a worker could find it by, it is a generator, or another
        function
            has its name.
        InvalidTaskError: an option is unknown, of the wrong type or out of range.
    """
    checked = check_options(options)
    check_together(checked)

    def decorate(fn: Callable[..., Any]) -> TaskFunction[..., Any]:
        if isinstance(fn, TaskFunction):
            raise ConfigError(f"{fn.name} is a task already: decorate it once, or use with_options()")
        if not callable(fn):
            raise ConfigError(f"@task decorates a function, not {fn!r}; options are given by name")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise ConfigError(f"{fn.__qualname__} is a generator, and a task has one result: return a list")
        kind = AsyncTaskFunction if inspect.iscoroutinefunction(fn) else TaskFunction
        function: TaskFunction[..., Any] = kind(fn, registered_name(fn, name), checked)
        (default_registry() if registry is None else registry).add(function)
        return function

    return decorate if fn is None else decorate(fn)
