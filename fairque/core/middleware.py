"""The onion around push and execute: what a plugin does before and after, and may change or refuse.

Middleware is one of the two shapes of a plugin (the other is events). The first in the list is the outermost:
it is entered first and left last. A hook that a class does not override is not called at all, and no
middleware costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from fairque.core.exceptions import ConfigError
from fairque.core.models import Task

T = TypeVar("T")
Next: TypeAlias = Callable[[Task[Any]], T]
"""The rest of the onion: call it with the task (or a changed one) at most once, and return its answer."""
NextAsync: TypeAlias = Callable[[Task[Any]], Awaitable[T]]


class Middleware:
    """Override what you need; each method by itself passes on.

    Push and execute come in a plain and an ``async`` form, for the two kinds of queue and of task function. A
    class that overrides one form of a hook must override the other too: what it does must not depend on who
    pushes. Not calling `call_next` refuses the task, by raising, or answers in its place.
    """

    def push(self, task: Task[Any], call_next: Next[T]) -> T:
        """Around a push by TaskQueue. What `call_next` answers is what push returns."""
        return call_next(task)

    async def push_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
        """Around a push by AsyncTaskQueue."""
        return await call_next(task)

    def execute(self, task: Task[Any], call_next: Next[T]) -> T:
        """Around the call of a plain function. `call_next` answers its result, or raises as it did."""
        return call_next(task)

    async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
        """Around the call of an ``async def``. Awaiting `call_next` gives its result, or raises as it did."""
        return await call_next(task)


def check_middleware(middlewares: Sequence[Middleware]) -> None:
    """Refuse what would silently be skipped.

    Raises:
        ConfigError: something is no Middleware, or overrides only one form of push or execute.
    """
    for middleware in middlewares:
        if not isinstance(middleware, Middleware):
            raise ConfigError(
                f"{middleware!r} is no Middleware: derive its class from fairque.core.middleware.Middleware"
            )
        for plain, in_async in (("push", "push_async"), ("execute", "execute_async")):
            has_plain, has_async = _overrides(middleware, plain), _overrides(middleware, in_async)
            if has_plain != has_async:
                there, missing = (plain, in_async) if has_plain else (in_async, plain)
                raise ConfigError(
                    f"{type(middleware).__name__} overrides {there}() but not {missing}(): "
                    "half of the tasks would pass it by; define both"
                )


def compose(
    middlewares: Sequence[Middleware], endpoint: Next[T], hook: Literal["push", "execute"] = "execute"
) -> Next[T]:
    """One function that goes through the `hook` of each, outermost first, to `endpoint`, and back in reverse
    order.

    It is `endpoint` itself if no middleware overrides the hook. Compose once and call it for each task.
    """
    for middleware in reversed(middlewares):
        if _overrides(middleware, hook):
            endpoint = _layer(getattr(middleware, hook), endpoint)
    return endpoint


def compose_async(
    middlewares: Sequence[Middleware], endpoint: NextAsync[T], hook: Literal["push", "execute"] = "execute"
) -> NextAsync[T]:
    """As `compose`, for coroutine functions: `hook` stands for its ``_async`` form."""
    return compose(middlewares, endpoint, f"{hook}_async")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _layer(around: Callable[[Task[Any], Next[T]], T], inner: Next[T]) -> Next[T]:
    return lambda task: around(task, inner)


def _overrides(middleware: Middleware, method: str) -> bool:
    return getattr(type(middleware), method) is not getattr(Middleware, method)
