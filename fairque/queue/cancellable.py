"""Async connections that can be cancelled at any moment.

Python's `asyncio.wait_for`, with which redis-py sends, forgets a cancellation that comes just when it is done (until
Python 3.12), and takes a task of its own for each command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError


class _Cancellable:
    """Sends as redis-py's connections do, and is cancelled when it is cancelled."""

    async def send_packed_command(
        self: Any, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                self._writer.writelines([command] if isinstance(command, bytes) else command)
                await self._writer.drain()
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            await self.disconnect(nowait=True)  # half a command may have gone
            raise


@cache
def cancellable(kind: Any) -> Any:
    """The same kind of connection, which can be cancelled while it sends."""
    return type(f"Cancellable{kind.__name__}", (_Cancellable, kind), {"__module__": __name__})
