"""What TaskQueue and AsyncTaskQueue have in common, which is all but the waiting."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus, TaskPushed, TaskSpooled
from fairque.core.middleware import Middleware, check_middleware
from fairque.core.registry import default_registry
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.consumer import Consumer
from fairque.queue.forks import begins_anew
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import new_incarnation
from fairque.queue.operations.push import Pushed
from fairque.queue.spool import spool_for


class BaseTaskQueue:
    """The configuration, the engine over it, and this object's name on the server. Opens nothing."""

    def __init__(
        self,
        config: FairQueueConfig | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        events: EventBus | None = None,
    ) -> None:
        self.config = config or FairQueueConfig.create_default()
        check_middleware(middleware)
        self.events = events or EventBus()
        self.engine = Engine(
            self.config.queue, self.config.key_prefix, bus=self.events, middleware=middleware
        )
        self._begin_session()
        begins_anew(self)

    def _begin_session(self) -> None:
        self.client_id = new_incarnation()
        self.breaker = breaker_for(self.config, self.events)
        """The circuit breaker that this process has for the server; `breaker.stats` are its state and counters."""
        self.spool = spool_for(self.config)
        """Where tasks wait that are pushed with `on_unavailable="spool"` while the server is away."""
        self._consumer = Consumer(self.engine)
        self._opened = False

    def _begin_anew(self) -> list[Any]:
        """In a forked child: nothing of the parent's is used; returns what must not be closed."""
        self._begin_session()
        return []


@lru_cache(maxsize=1024)
def result_type_of(function: str) -> Any:
    """The annotated result of a registered function (of an ``async def``: what awaiting it gives), or None."""
    if function not in default_registry():
        return None
    fn = inspect.unwrap(default_registry().resolve(function).fn)
    try:
        found = typing.get_type_hints(fn).get("return")
    except (NameError, TypeError, AttributeError):
        return None
    return None if found is Any or found is type(None) else found


def tell_pushed(events: EventBus, pushed: Pushed) -> Pushed:
    """What became of a push, of which observers are told if it stored a task."""
    if pushed.spooled and not pushed.existing and events.wants(TaskSpooled):
        task = pushed.task
        events.emit(
            TaskSpooled(
                at=datetime.now(UTC), task_id=task.task_id, user_id=task.user_id, function=task.function
            )
        )
    if pushed.spooled:
        return pushed
    if pushed.ok and not pushed.existing and events.wants(TaskPushed):
        task = pushed.task
        events.emit(
            TaskPushed(
                at=datetime.now(UTC),
                task_id=task.task_id,
                user_id=task.user_id,
                function=task.function,
                priority=task.priority,
            )
        )
    return pushed
