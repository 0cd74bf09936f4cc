"""Both queues behind one face, so that one suite drives the two.

A sync queue stands for itself. An async one lives on an event loop in a thread of its own, and what its
methods return (awaitables, handles, iterators) is turned into what the sync twin would have returned.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.queue.async_dead_letters import AsyncDeadLetters
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.async_schedules import AsyncSchedules
from fairque.queue.async_workflows import AsyncWorkflowHandle
from fairque.queue.async_xcom import AsyncXCom
from fairque.queue.batch import PushOutcome
from fairque.queue.handles import AsyncTaskHandle
from fairque.queue.lua_manager import AsyncLuaScriptManager, LuaScriptManager
from fairque.queue.queue import TaskQueue

SECONDS = 30.0
MODES = ("sync", "async")


class Clock:
    """A server's time that the test moves, for the queues that were made with it."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.micros

    @property
    def seconds(self) -> float:
        return self.micros / 1e6

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float = SECONDS) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Blocking:
    """Something async, with blocking methods."""

    def __init__(self, loop: Loop, target: Any) -> None:
        self._loop = loop
        self.target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        if not callable(value) or isinstance(value, type):
            return _adapt(self._loop, value)

        def call(*args: Any, **kwargs: Any) -> Any:
            return _adapt(self._loop, value(*args, **kwargs))

        return call

    def __repr__(self) -> str:
        return f"<blocking {self.target!r}>"


def _adapt(loop: Loop, value: Any) -> Any:
    if asyncio.iscoroutine(value):
        return _adapt(loop, loop.run(value))
    if isinstance(
        value,
        AsyncTaskHandle
        | AsyncWorkflowHandle
        | AsyncXCom
        | AsyncDeadLetters
        | AsyncSchedules
        | AsyncTaskQueue,
    ):
        return _Blocking(loop, value)
    if isinstance(value, PushOutcome):
        return dataclasses.replace(value, handle=_adapt(loop, value.handle))
    if isinstance(value, AsyncIterator):
        return _iterate(loop, value)
    if isinstance(value, list):
        return [_adapt(loop, item) for item in value]
    return value


def _iterate(loop: Loop, values: AsyncIterator[Any]) -> Iterator[Any]:
    end = object()

    async def following() -> Any:
        return await anext(values, end)

    while (value := loop.run(following())) is not end:
        yield value


class Facades:
    """Makes queues of one mode, and closes them."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._loop = Loop() if mode == "async" else None
        self._queues: list[Any] = []

    def make(self, config: FairQueueConfig, clock: Clock | None = None, **options: Any) -> Any:
        """A queue; with `clock`, its scripts take the time from there."""
        queue: Any
        if self._loop is None:
            queue = TaskQueue(config, **options)
            if clock is not None:
                queue._manager = LuaScriptManager(config.redis.create_redis_client(), "argument")
        else:
            queue = self._loop.run(self._make_async(config, clock, options))
        if clock is not None:
            queue.engine.now = clock
        self._queues.append(queue)
        return queue if self._loop is None else _Blocking(self._loop, queue)

    @staticmethod
    async def _make_async(
        config: FairQueueConfig, clock: Clock | None, options: dict[str, Any]
    ) -> AsyncTaskQueue:
        queue = AsyncTaskQueue(config, **options)
        if clock is not None:
            queue._manager = AsyncLuaScriptManager(config.redis.create_async_redis_client(), "argument")
        return queue

    def close(self) -> None:
        try:
            while self._queues:
                queue = self._queues.pop()
                if self._loop is None:
                    queue.close()
                else:
                    self._loop.run(queue.close())
        finally:
            if self._loop is not None:
                self._loop.close()
                self._loop = None
