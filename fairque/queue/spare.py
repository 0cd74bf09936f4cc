"""One connection that is kept out of its pool between two calls: a pool takes as long to lend one as the server
takes for the call.

Not while anybody waits for the pool, nor for long: before it lends a connection, a pool looks whether that is
still good.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from fairque.queue.connection_pools import AsyncPool, Pool

SPARE_SECONDS = 1.0


class Spare:
    """Of one pool. `wanted`: how many callers wait for the pool."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0
        self._connection: Any = None
        self._since = 0.0
        self._process = 0

    def take(self) -> tuple[Any, Any]:
        """The connection, if it was used just now; or, to be released to the pool, one that was not."""
        connection, self._connection = self._connection, None
        if connection is None or self._process != os.getpid():
            return None, None  # a parent's connection is the parent's
        if time.monotonic() - self._since > SPARE_SECONDS:
            return None, connection
        return connection, None

    def put(self, connection: Any) -> Any:
        """Keep it; returns one that is to be released to the pool."""
        if self.wanted > 0 or not connection.is_connected:
            return connection
        kept, process = self._connection, os.getpid()
        self._connection, self._since = connection, time.monotonic()
        if self._process != process:
            self._process, kept = process, None
        return kept


_spares: WeakKeyDictionary[Any, Spare] = WeakKeyDictionary()


def _spare_of(pool: Any) -> Spare | None:
    """Of pools that are ours alone; others may be bounded without waiting."""
    spare = _spares.get(pool)
    if spare is None and isinstance(pool, Pool | AsyncPool):
        spare = _spares.setdefault(pool, Spare())
    return spare


def lend(pool: Any) -> Any:
    """A connection of the pool, as its `get_connection` gives one."""
    spare = _spare_of(pool)
    if spare is None:
        return pool.get_connection()
    with spare.lock:
        connection, old = spare.take()
        if connection is not None:
            return connection
        spare.wanted += 1
    try:
        if old is not None:
            pool.release(old)
        return pool.get_connection()
    finally:
        with spare.lock:
            spare.wanted -= 1


def give_back(pool: Any, connection: Any) -> None:
    """Of `lend`."""
    spare = _spare_of(pool)
    released = connection
    if spare is not None:
        with spare.lock:
            released = spare.put(connection)
    if released is not None:
        pool.release(released)


async def lend_async(pool: Any) -> Any:
    """As `lend`, within one event loop."""
    spare = _spare_of(pool)
    if spare is None:
        return await pool.get_connection()
    connection, old = spare.take()
    if connection is not None:
        return connection
    spare.wanted += 1
    try:
        if old is not None:
            await pool.release(old)
        return await pool.get_connection()
    finally:
        spare.wanted -= 1


async def give_back_async(pool: Any, connection: Any) -> None:
    """Of `lend_async`."""
    spare = _spare_of(pool)
    released = connection if spare is None else spare.put(connection)
    if released is not None:
        await pool.release(released)
