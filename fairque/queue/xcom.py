"""`queue.xcom`: values that tasks leave for each other, for sync code."""

from __future__ import annotations

import builtins
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from fairque.core.codec import decode_value
from fairque.queue.listener import next_from
from fairque.queue.operations import xcom
from fairque.queue.operations.results import RECHECK_SECONDS
from fairque.queue.operations.tasks import Page
from fairque.queue.operations.xcom import DEFAULT_NAMESPACE, DEFAULT_USER

if TYPE_CHECKING:
    from fairque.queue.claiming import ClaimingQueue


class XCom:
    """Values by user, namespace and key."""

    def __init__(self, queue: ClaimingQueue) -> None:
        self._queue = queue

    def push(
        self,
        key: str,
        value: Any,
        *,
        user_id: str = DEFAULT_USER,
        namespace: str = DEFAULT_NAMESPACE,
        ttl: float | timedelta | None = None,
    ) -> None:
        """Leave a value, in the place of one that is there. `ttl` in seconds; None: `xcom_ttl_seconds`.

        Raises:
            PayloadTooLargeError: it is over `max_result_bytes`.
            SerializationError: it is no data.
            QueueFullError: the server has no memory for it.
        """
        self._queue.run(xcom.push(self._queue.engine, key, value, user_id, namespace, ttl))

    def pull(
        self,
        key: str,
        default: Any = msgspec.UNSET,
        *,
        user_id: str = DEFAULT_USER,
        namespace: str = DEFAULT_NAMESPACE,
        wait: float = 0,
    ) -> Any:
        """The value, waiting for up to `wait` seconds until it is there; else the default.

        Raises:
            XComNotFoundError: it is not there, and there is no default.
        """
        data = self._queue.run(xcom.pull_encoded(self._queue.engine, key, user_id, namespace))
        if data is None and wait > 0:
            data = self._wait(key, user_id, namespace, time.monotonic() + wait)
        if data is not None:
            return decode_value(data)
        if default is msgspec.UNSET:
            raise xcom.missing(key, user_id, namespace)
        return default

    def _wait(self, key: str, user_id: str, namespace: str, deadline: float) -> bytes | None:
        queue = self._queue
        inbox, unsubscribe = queue._listener.subscribe(xcom.subject(key, user_id, namespace))
        try:
            while True:
                data = queue.run(xcom.watch(queue.engine, key, user_id, namespace, queue.client_id))
                left = deadline - time.monotonic()
                if data is not None or left <= 0:
                    return data
                next_from(inbox, min(left, RECHECK_SECONDS))
        finally:
            unsubscribe()

    def list(
        self,
        *,
        user_id: str = DEFAULT_USER,
        namespace: str = DEFAULT_NAMESPACE,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[str]:
        """One page of the keys of a namespace; pass the page's `cursor` on for the next."""
        return self._queue.run(xcom.list_keys(self._queue.engine, user_id, namespace, cursor, limit))

    def delete(
        self,
        keys: str | Sequence[str],
        *,
        user_id: str = DEFAULT_USER,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> int:
        """Remove values; returns how many there were."""
        names: builtins.list[str] = [keys] if isinstance(keys, str) else [*keys]
        return self._queue.run(xcom.delete(self._queue.engine, names, user_id, namespace))

    def delete_namespace(self, namespace: str = DEFAULT_NAMESPACE, *, user_id: str = DEFAULT_USER) -> int:
        """Remove all values of a namespace; returns how many there were."""
        return self._queue.run(xcom.delete_namespace(self._queue.engine, user_id, namespace))
