"""`@xcom_task`: a task function that takes arguments from XCom, and leaves its result there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, cast, get_type_hints, overload

from fairque.core.context import current_task
from fairque.core.decorator import AsyncTaskFunction, TaskFunction, task
from fairque.core.exceptions import ConfigError
from fairque.core.options import TaskOptions
from fairque.core.rebuild import rebuild_value
from fairque.core.registry import Registry

P = ParamSpec("P")
R = TypeVar("R")


class XComTaskDecorator(Protocol):
    """What ``@xcom_task(...)`` returns. Which arguments are pulled, no type says: all may be left out."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTaskFunction[..., R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> TaskFunction[..., R]: ...


def xcom_task(
    *,
    push_key: str | None = None,
    pull_keys: Mapping[str, str] | Sequence[str] = (),
    namespace: str = "default",
    auto_xcom: bool = False,
    name: str | None = None,
    registry: Registry | None = None,
    **options: Unpack[TaskOptions],
) -> XComTaskDecorator:
    """As `task`, for a function that shares values with others of its user.

    `pull_keys` says which parameters are pulled, and from which key (a list: of the same names): when a worker runs
    the function, those that the caller left out are there, or the task fails if their parameter has no default.
    `push_key` is the key under which its result is left when it has succeeded; `auto_xcom` uses the function's own
    name for that.

    Raises:
        ConfigError: the function has no such parameter, and as `task` does.
        InvalidTaskError: an option is unknown, of the wrong type or out of range.
    """
    pulled = dict(pull_keys) if isinstance(pull_keys, Mapping) else {key: key for key in pull_keys}

    def decorate(fn: Callable[..., Any]) -> Any:
        if isinstance(fn, TaskFunction):
            raise ConfigError(f"{fn.name} is a task already: decorate it once, or use with_options()")
        pushed = push_key if push_key is not None or not auto_xcom else fn.__name__
        wrapped = _wrap(fn, pulled, pushed, namespace)
        return task(name=name, registry=registry, **options)(wrapped)

    return cast(XComTaskDecorator, decorate)


def _wrap(
    fn: Callable[..., Any], pulled: Mapping[str, str], pushed: str | None, namespace: str
) -> Callable[..., Any]:
    signature = inspect.signature(fn)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for parameter in pulled:
        if parameter not in signature.parameters or signature.parameters[parameter].kind not in named:
            raise ConfigError(f"{fn.__qualname__} has no parameter {parameter!r} that could be pulled")
    optional = {
        parameter
        for parameter in pulled
        if signature.parameters[parameter].default is not inspect.Parameter.empty
    }

    def left_out(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        given = signature.bind_partial(*args, **kwargs).arguments
        return [parameter for parameter in pulled if parameter not in given]

    def rebuilt(parameter: str, value: Any) -> Any:
        hint = get_type_hints(fn).get(parameter)
        return value if hint is None else rebuild_value(value, hint)

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def around_async(*args: Any, **kwargs: Any) -> Any:
            context = current_task()
            for parameter in left_out(args, kwargs):
                found = await context.xcom_pull_async(
                    pulled[parameter], *([_NONE] if parameter in optional else []), namespace=namespace
                )
                if found is not _NONE:
                    kwargs[parameter] = rebuilt(parameter, found)
            result = await fn(*args, **kwargs)
            if pushed is not None:
                await context.xcom_push_async(pushed, result, namespace=namespace)
            return result

        around: Callable[..., Any] = around_async
    else:

        @functools.wraps(fn)
        def around_sync(*args: Any, **kwargs: Any) -> Any:
            context = current_task()
            for parameter in left_out(args, kwargs):
                found = context.xcom_pull(
                    pulled[parameter], *([_NONE] if parameter in optional else []), namespace=namespace
                )
                if found is not _NONE:
                    kwargs[parameter] = rebuilt(parameter, found)
            result = fn(*args, **kwargs)
            if pushed is not None:
                context.xcom_push(pushed, result, namespace=namespace)
            return result

        around = around_sync
    cast(Any, around).__signature__ = _with_optional(signature, pulled)
    return around


_NONE = object()


def _with_optional(signature: inspect.Signature, pulled: Mapping[str, str]) -> inspect.Signature:
    """As callers see it: what is pulled may be left out, and with it what stands behind is given by name."""
    kinds = inspect.Parameter
    parameters: list[inspect.Parameter] = []
    by_name = False
    for parameter in signature.parameters.values():
        if parameter.kind is kinds.VAR_POSITIONAL:
            by_name = False
        if parameter.name in pulled and parameter.default is kinds.empty:
            parameter = parameter.replace(default=None)
            by_name = True
        elif by_name and parameter.kind is kinds.POSITIONAL_OR_KEYWORD and parameter.default is kinds.empty:
            parameter = parameter.replace(kind=kinds.KEYWORD_ONLY)
        parameters.append(parameter)
    # The kinds are numbered in the order in which parameters stand.
    return signature.replace(parameters=sorted(parameters, key=lambda parameter: parameter.kind))
