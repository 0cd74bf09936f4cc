"""A thread that blocks on a list of the server and hands on what comes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from fairque.queue.circuit_breaker import NO_BREAKER, RedisCircuitBreaker
from fairque.queue.connection import SyncClient

PAUSE_SECONDS = 0.2
"""Between tries while the server is away. That it is away is for others to report: this only costs wake-ups."""


class BlockingReader:
    """Sends `command()` over a client of its own, again and again; `on_reply` gets each reply that is not empty, as the
    server sent it.

    `on_return` is called when the server answers again after it did not: replies may have been lost. What fails here
    is not told to `breaker`, but while that is open nothing is tried. A daemon thread; it begins with `start` and ends
    with `close`.
    """

    def __init__(
        self,
        make_client: Callable[[], SyncClient],
        command: Callable[[], tuple[Any, ...]],
        on_reply: Callable[[Any], object],
        name: str,
        on_return: Callable[[], object] = lambda: None,
        breaker: RedisCircuitBreaker = NO_BREAKER,
    ) -> None:
        self._breaker = breaker
        self._make_client = make_client
        self._command = command
        self._on_reply = on_reply
        self._on_return = on_return
        self._closed = threading.Event()
        self._client: Any = None
        self._pool: Any = None
        self._connection: Any = None
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)

    @property
    def started(self) -> bool:
        """Whether it has begun."""
        return self._client is not None

    def start(self) -> None:
        """Begin to read."""
        self._client = self._make_client()
        self._pool = self._client.connection_pool if isinstance(self._client, Redis) else None
        self._thread.start()

    def _read(self) -> None:
        away = False
        while not self._closed.is_set():
            try:
                if away:
                    self._ask("PING")
                    away = False
                    self._on_return()
                reply = self._ask(*self._command())
            except Exception as error:
                # close() cuts the connection, wherever the client may be with it: that can fail in any way.
                if self._closed.is_set():
                    return
                self._let_go()
                if not isinstance(error, RedisError | OSError):
                    raise
                away = True
                self._closed.wait(PAUSE_SECONDS)
                # Whoever makes calls finds out when the server is back.
                while self._breaker.is_open and not self._closed.wait(PAUSE_SECONDS):
                    pass
                continue
            if reply:
                self._on_reply(reply)

    def _ask(self, *command: Any) -> Any:
        """The reply to a command. One connection is kept for all of them: looking for one each time takes longer than
        the command, and somebody waits for what it brings."""
        if self._pool is None:  # a cluster's client, which knows where to send it
            return self._client.execute_command(*command)
        if self._connection is None:
            self._connection = self._pool.get_connection()
        self._connection.send_command(*command, check_health=False)
        return self._connection.read_response()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)

    def close(self) -> None:
        """End the thread at once: its connection is cut."""
        self._closed.set()
        if self._client is None:
            return
        if self._pool is not None:
            with contextlib.suppress(RedisError, OSError):
                self._pool.disconnect(inuse_connections=True)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1)
        with contextlib.suppress(RedisError, OSError):
            self._client.close()
