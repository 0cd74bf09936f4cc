"""One listener a queue object: it blocks on the client's wake list and hands the news to whoever waits here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue as queues
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from fairque.queue.circuit_breaker import NO_BREAKER, RedisCircuitBreaker
from fairque.queue.connection import AsyncClient, SyncClient
from fairque.queue.operations.results import TaskUpdate, read_message
from fairque.queue.reader import PAUSE_SECONDS, BlockingReader

BLOCK_SECONDS = 5.0
_MESSAGES = 100
LOOK_AGAIN = TaskUpdate("")
"""In every inbox after the connection was lost: news may have been lost with it."""
_log = logging.getLogger(__name__)


class _Subscribers:
    """Inboxes by encoded task id."""

    def __init__(self) -> None:
        self._inboxes: dict[str, list[Callable[[TaskUpdate], object]]] = {}

    def add(self, task_id: str, put: Callable[[TaskUpdate], object]) -> None:
        self._inboxes.setdefault(task_id, []).append(put)

    def remove(self, task_id: str, put: Callable[[TaskUpdate], object]) -> None:
        found = self._inboxes.get(task_id, [])
        found.remove(put)
        if not found:
            del self._inboxes[task_id]

    def deliver(self, reply: Any) -> None:
        if not reply:
            return
        for data in reply[1]:
            try:
                task_id, update = read_message(data)
            except (ValueError, TypeError):
                _log.warning("news that cannot be read is skipped", extra={"size": len(data)})
                continue
            for put in tuple(self._inboxes.get(task_id, ())):
                put(update)

    def look_again(self) -> None:
        for puts in tuple(self._inboxes.values()):
            for put in tuple(puts):
                put(LOOK_AGAIN)


def _command(key: str) -> tuple[Any, ...]:
    return "BLMPOP", BLOCK_SECONDS, 1, key, "LEFT", "COUNT", _MESSAGES


class Listener:
    """For sync code: a daemon thread that starts with the first subscription."""

    def __init__(
        self, make_client: Callable[[float], SyncClient], key: str, breaker: RedisCircuitBreaker = NO_BREAKER
    ) -> None:
        self._lock = threading.Lock()
        self._subscribers = _Subscribers()
        self._reader = BlockingReader(
            lambda: make_client(BLOCK_SECONDS),
            lambda: _command(key),
            self._deliver,
            "fairque-listener",
            self._look_again,
            breaker,
        )

    def subscribe(
        self, task_id: str, inbox: queues.SimpleQueue[TaskUpdate] | None = None
    ) -> tuple[queues.SimpleQueue[TaskUpdate], Callable[[], None]]:
        """An inbox (a new one, or that) for news of a task (its encoded id), and what ends it."""
        if inbox is None:
            inbox = queues.SimpleQueue()
        put = inbox.put
        with self._lock:
            self._subscribers.add(task_id, put)
            if not self._reader.started:
                self._reader.start()

        def unsubscribe() -> None:
            with self._lock, contextlib.suppress(ValueError, KeyError):
                self._subscribers.remove(task_id, put)

        return inbox, unsubscribe

    def _deliver(self, reply: Any) -> None:
        with self._lock:
            self._subscribers.deliver(reply)

    def _look_again(self) -> None:
        with self._lock:
            self._subscribers.look_again()

    def close(self) -> None:
        """End the thread at once."""
        self._reader.close()


def next_from(inbox: queues.SimpleQueue[TaskUpdate], seconds: float) -> TaskUpdate | None:
    """The next news in an inbox, or None if none came in time."""
    try:
        return inbox.get(timeout=seconds)
    except queues.Empty:
        return None


class AsyncListener:
    """For async code: a task of the event loop that starts with the first subscription."""

    def __init__(
        self, make_client: Callable[[float], AsyncClient], key: str, breaker: RedisCircuitBreaker = NO_BREAKER
    ) -> None:
        self._breaker = breaker
        self._make_client = make_client
        self._key = key
        self._subscribers = _Subscribers()
        self._task: asyncio.Task[None] | None = None
        self._client: AsyncClient | None = None

    def subscribe(
        self, task_id: str, inbox: asyncio.Queue[TaskUpdate] | None = None
    ) -> tuple[asyncio.Queue[TaskUpdate], Callable[[], None]]:
        """An inbox (a new one, or that) for news of a task (its encoded id), and what ends it."""
        if inbox is None:
            inbox = asyncio.Queue()
        put = inbox.put_nowait
        self._subscribers.add(task_id, put)
        if self._task is None:
            self._client = self._make_client(BLOCK_SECONDS)
            self._task = asyncio.get_running_loop().create_task(
                self._listen(self._client), name="fairque-listener"
            )

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError, KeyError):
                self._subscribers.remove(task_id, put)

        return inbox, unsubscribe

    async def _listen(self, client: AsyncClient) -> None:
        away = False
        while True:
            if away and self._breaker.is_open:  # as in BlockingReader
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                if away:
                    await client.execute_command("PING")
                    away = False
                    self._subscribers.look_again()
                reply = await client.execute_command(*_command(self._key))
            except (RedisError, OSError):
                away = True
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._subscribers.deliver(reply)

    async def close(self) -> None:
        """End the task and its connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._client is not None:
            await self._client.aclose()


async def next_from_async(inbox: asyncio.Queue[TaskUpdate], seconds: float) -> TaskUpdate | None:
    """As `next_from`, awaiting."""
    try:
        async with asyncio.timeout(seconds):
            return await inbox.get()
    except TimeoutError:
        return None
