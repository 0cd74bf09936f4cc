"""XCom inside a task: asked of whoever listens to the executor, who may be in another process."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec

from fairque.core.checks import check_seconds
from fairque.core.codec import decode_value, encode_value
from fairque.core.exceptions import XComNotFoundError
from fairque.worker.executors.base import XComRequest
from fairque.worker.executors.ledger import Execution

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.25
"""Between two looks for a value that is waited for."""


class TaskXCom:
    """The values of the running task's user."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def _ask(self, request: XComRequest) -> bytes | None:
        execution = self._execution
        return execution.ledger.listener.on_xcom(execution.task, request)

    def push(self, key: str, value: Any, namespace: str, ttl: float | timedelta | None) -> None:
        """Leave a value."""
        seconds = None if ttl is None else check_seconds(ttl, "ttl", zero=False)
        self._ask((namespace, key, encode_value(value, f"XCom {key!r}"), seconds))

    def pull(self, key: str, default: Any, namespace: str, wait: float) -> Any:
        """A value, or the default."""
        deadline, pause = time.monotonic() + wait, FIRST_PAUSE_SECONDS
        while (data := self._ask((namespace, key, None, None))) is None:
            left = deadline - time.monotonic()
            if left <= 0 or self._execution.cancelled:
                if default is msgspec.UNSET:
                    user_id = self._execution.task.user_id
                    raise XComNotFoundError(user_id=user_id, namespace=namespace, key=key)
                return default
            time.sleep(min(left, pause))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return decode_value(data)

    async def push_async(self, key: str, value: Any, namespace: str, ttl: float | timedelta | None) -> None:
        """As `push`, in a thread."""
        await asyncio.to_thread(self.push, key, value, namespace, ttl)

    async def pull_async(self, key: str, default: Any, namespace: str, wait: float) -> Any:
        """As `pull`, in a thread."""
        return await asyncio.to_thread(self.pull, key, default, namespace, wait)
