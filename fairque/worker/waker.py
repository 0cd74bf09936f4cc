"""The thread that blocks on the worker's wake list, so that the control loop need not poll."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from fairque.core.config import RedisConfig
from fairque.queue.connection import create_blocking_client

_PAUSE_SECONDS = 0.2
_log = logging.getLogger(__name__)


class Waker:
    """Blocks for up to `block_seconds` at a time and hands each message on (see lib/wake.lua).

    `set_key` says whose list it is, also while it blocks: a new incarnation has a new list.
    """

    def __init__(
        self, redis: RedisConfig, block_seconds: float, on_message: Callable[[bytes], object]
    ) -> None:
        self._redis = redis
        self._block = block_seconds
        self._on_message = on_message
        self._key: str | None = None
        self._closed = threading.Event()
        self._client: Any = None
        self._thread = threading.Thread(target=self._listen, name="fairque-waker", daemon=True)

    def start(self, key: str) -> None:
        """Listen on `key`."""
        self._client = create_blocking_client(self._redis, self._block)
        self.set_key(key)
        self._thread.start()

    def set_key(self, key: str) -> None:
        """Listen on another list from the next message, or the end of this block, on."""
        self._key = key

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                reply = self._client.execute_command("BLPOP", self._key, self._block)
            except (RedisError, OSError, ValueError):
                # The control loop reports that the server is away; here it only costs the wake-ups.
                if self._closed.wait(_PAUSE_SECONDS):
                    return
                continue
            if reply:
                self._on_message(reply[1])

    def close(self) -> None:
        """End the thread: its connection is cut."""
        self._closed.set()
        if self._client is None:
            return
        with contextlib.suppress(RedisError, OSError):
            pool = getattr(self._client, "connection_pool", None)
            if pool is not None:
                pool.disconnect(inuse_connections=True)
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        with contextlib.suppress(RedisError, OSError):
            self._client.close()
