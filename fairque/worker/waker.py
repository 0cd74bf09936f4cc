"""What blocks on the worker's wake list, so that the control loop need not poll."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairque.core.config import RedisConfig
from fairque.queue.circuit_breaker import NO_BREAKER, RedisCircuitBreaker
from fairque.queue.connection import create_blocking_client
from fairque.queue.reader import BlockingReader


class Waker:
    """Blocks for up to `block_seconds` at a time and hands each message on (see lib/wake.lua).

    `set_key` says whose list it is, also while it blocks: a new incarnation has a new list.
    """

    def __init__(
        self,
        redis: RedisConfig,
        block_seconds: float,
        on_message: Callable[[bytes], object],
        breaker: RedisCircuitBreaker = NO_BREAKER,
    ) -> None:
        self._block = block_seconds
        self._on_message = on_message
        self._key = ""
        self._reader = BlockingReader(
            lambda: create_blocking_client(redis, block_seconds),
            self._command,
            self._hear,
            "fairque-waker",
            breaker=breaker,
        )

    def start(self, key: str) -> None:
        """Listen on `key`."""
        self.set_key(key)
        self._reader.start()

    def set_key(self, key: str) -> None:
        """Listen on another list from the next message, or the end of this block, on."""
        self._key = key

    def _command(self) -> tuple[Any, ...]:
        return "BLPOP", self._key, self._block

    def _hear(self, reply: Any) -> None:
        self._on_message(reply[1])

    def close(self) -> None:
        """Listen no more."""
        self._reader.close()
