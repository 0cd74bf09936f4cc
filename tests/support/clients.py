"""Clients of `fairque.queue.connection` for tests: sync and async ones behind one face."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis

from fairque.core.config import RedisConfig
from fairque.queue import connection

SECONDS = 20.0


class Client:
    """A sync client, or an async one on an event loop that runs in a thread, behind one face."""

    def __init__(self, mode: str, config: RedisConfig, block_seconds: float = 0.0) -> None:
        self.raw: Any
        self.loop = asyncio.new_event_loop() if mode == "async" else None
        if self.loop is None:
            self.raw = connection.create_blocking_client(config, block_seconds)
            return
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.raw = self.run(self._create(config, block_seconds))
        except BaseException:
            self._end_loop()
            raise

    @staticmethod
    async def _create(config: RedisConfig, block_seconds: float) -> object:
        return connection.create_async_blocking_client(config, block_seconds)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def __call__(self, *command: object) -> Any:
        reply = self.raw.execute_command(*command)
        return reply if self.loop is None else self.run(reply)

    def close(self) -> None:
        if self.loop is None:
            self.raw.close()
        else:
            self.run(self.raw.aclose())
            self._end_loop()

    def _end_loop(self) -> None:
        assert self.loop is not None
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(mode: str) -> Iterator[Callable[..., Client]]:
    """`connect(url=..., block_seconds=...)`: a client of the mode under test, closed at the end."""
    clients: list[Client] = []

    def create(block_seconds: float = 0.0, **fields: Any) -> Client:
        clients.append(Client(mode, RedisConfig(**fields), block_seconds))
        return clients[-1]

    yield create
    for client in clients:
        client.close()


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` gives as soon as it is true."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.01)
    return value


def blocked_clients(client: redis.Redis) -> int:
    """How many clients of a server wait in a blocking command."""
    return int(client.info("clients")["blocked_clients"])
