"""The only place where a script meets a connection: two small drivers over one set of operations.

A reply that did not come is asked for again if the call allows it (`Call.resend`), on a new connection, at
once and then with growing pauses; redis-py itself repeats nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fairque.core.exceptions import (
    FairQueueError,
    InvalidStateError,
    QueueFullError,
    QueueUnavailableError,
    StaleCallError,
    TaskNotFoundError,
    WorkerDeadError,
)
from fairque.core.keys import decode
from fairque.queue.connection import AsyncClient, SyncClient
from fairque.queue.operations.base import Call, Flow
from fairque.scripts import Clock, Script, load_all

T = TypeVar("T")

RESEND_PAUSES = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Seconds to wait before each repetition; then the caller gets QueueUnavailableError."""

_AWAY = (RedisConnectionError, RedisTimeoutError, OSError)
# Replies of a server that is there but cannot serve now: nothing has run.
_NOT_NOW = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "BUSY", "TRYAGAIN", "NOREPLICAS")


def map_error(error: RedisError, script: str) -> FairQueueError:
    """What an error reply means to callers. The codes are those in the scripts' headers."""
    text = str(error)
    code, _, detail = text.partition(" ")
    # The server adds where in the script it was. Ids are encoded, but may hold spaces.
    detail = decode(detail.rpartition(" script:")[0] or detail)
    match code:
        case "FQ_DEAD":
            return WorkerDeadError(
                f"worker incarnation {detail} is not alive: its lease ran out, or it never joined. Its tasks are "
                "queued again; start as a new incarnation"
            )
        case "FQ_CALL":
            number, _, last = detail.partition(" ")
            return StaleCallError(f"call number {number} is lower than the last one seen ({last})")
        case "FQ_NOT_FOUND":
            return TaskNotFoundError(
                f"there is no task {detail}: it never existed, was deleted, or its result_ttl has passed",
                task_id=detail,
            )
        case "FQ_STATE":
            task_id, state, wanted = detail.rsplit(" ", 2)
            return InvalidStateError(
                f"task {task_id} is {state} and cannot be {wanted}", task_id=task_id, state=state
            )
        case _ if isinstance(error, OutOfMemoryError) or code == "OOM" or "maxmemory" in text:
            return QueueFullError(
                "the server has reached its maxmemory and takes no new tasks; it still drains. Raise maxmemory, or "
                "delete what is not needed"
            )
        case _ if isinstance(error, AuthenticationError | AuthorizationError) or code in (
            "NOAUTH",
            "NOPERM",
            "WRONGPASS",
        ):
            return QueueUnavailableError(
                f"the server refuses this client: {text}; see redis.username and redis.password"
            )
        case _ if code in _NOT_NOW:
            return QueueUnavailableError(f"the server cannot serve now: {text}")
        case _:
            return FairQueueError(f"script {script} failed: {text}")


class _BaseLuaScriptManager:
    """The scripts of one clock, and what a call looks like on the wire."""

    def __init__(self, clock: Clock = "server") -> None:
        self.scripts = load_all(clock)

    def _command(self, call: Call) -> tuple[Script, tuple[Any, ...]]:
        script = self.scripts[call.script]
        script.check(1, len(call.argv))
        return script, (1, f"{call.argv[0]!s}:clock", *call.argv)


def _pauses(call: Call) -> Iterator[float]:
    return iter(RESEND_PAUSES if call.resend else ())


def _unavailable(error: Exception, call: Call) -> QueueUnavailableError:
    told = str(error) or type(error).__name__
    return QueueUnavailableError(f"no answer from the server to {call.script}: {told}")


class LuaScriptManager(_BaseLuaScriptManager):
    """Sends scripts over a sync client; threads may share it."""

    def __init__(self, client: SyncClient, clock: Clock = "server") -> None:
        super().__init__(clock)
        self.client: Any = client
        self._pool: Any = client.connection_pool if isinstance(client, Redis) else None

    def execute(self, call: Call) -> Any:
        """The decoded reply of one call.

        Raises:
            FairQueueError: what the server, or its absence, means (see `map_error`).
        """
        script, arguments = self._command(call)
        pauses = _pauses(call)
        while True:
            try:
                return self._send(script, arguments)
            except ResponseError as error:
                raise map_error(error, call.script) from None
            except FairQueueError:
                raise
            except _AWAY as error:
                pause = next(pauses, None)
                if pause is None:
                    raise _unavailable(error, call) from error
                time.sleep(pause)
            except RedisError as error:
                raise map_error(error, call.script) from error

    def _send(self, script: Script, arguments: tuple[Any, ...]) -> Any:
        if self._pool is None:
            try:
                return self.client.execute_command("EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return self.client.execute_command("EVAL", script.source, *arguments)
        connection: Any = self._pool.get_connection()
        try:
            connection.send_command("EVALSHA", script.sha, *arguments, check_health=False)
            try:
                return connection.read_response()
            except NoScriptError:
                connection.send_command("EVAL", script.source, *arguments, check_health=False)
                return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # Whatever is still to come on this connection belongs to nobody.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def run(self, flow: Flow[T]) -> T:
        """Drive an operation to its end."""
        return run_sync(self, flow)


class AsyncLuaScriptManager(_BaseLuaScriptManager):
    """Sends scripts over an async client, within one event loop."""

    def __init__(self, client: AsyncClient, clock: Clock = "server") -> None:
        super().__init__(clock)
        self.client: Any = client
        self._pool: Any = client.connection_pool if isinstance(client, AsyncRedis) else None

    async def execute(self, call: Call) -> Any:
        """The decoded reply of one call.

        Raises:
            FairQueueError: what the server, or its absence, means (see `map_error`).
        """
        script, arguments = self._command(call)
        pauses = _pauses(call)
        while True:
            try:
                return await self._send(script, arguments)
            except ResponseError as error:
                raise map_error(error, call.script) from None
            except FairQueueError:
                raise
            except _AWAY as error:
                pause = next(pauses, None)
                if pause is None:
                    raise _unavailable(error, call) from error
                await asyncio.sleep(pause)
            except RedisError as error:
                raise map_error(error, call.script) from error

    async def _send(self, script: Script, arguments: tuple[Any, ...]) -> Any:
        if self._pool is None:
            try:
                return await self.client.execute_command("EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return await self.client.execute_command("EVAL", script.source, *arguments)
        connection: Any = await self._pool.get_connection()
        try:
            await connection.send_command("EVALSHA", script.sha, *arguments, check_health=False)
            try:
                return await connection.read_response()
            except NoScriptError:
                await connection.send_command("EVAL", script.source, *arguments, check_health=False)
                return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # Also a cancellation: a reply that is still to come must reach nobody else.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def run(self, flow: Flow[T]) -> T:
        """Drive an operation to its end."""
        return await run_async(self, flow)


def run_sync(manager: LuaScriptManager, flow: Flow[T]) -> T:
    """Drive an operation: send what it yields, hand it what comes back."""
    try:
        call = next(flow)
        while True:
            try:
                reply = manager.execute(call)
            except FairQueueError as error:
                call = flow.throw(error)
            else:
                call = flow.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def run_async(manager: AsyncLuaScriptManager, flow: Flow[T]) -> T:
    """As `run_sync`, awaiting."""
    try:
        call = next(flow)
        while True:
            try:
                reply = await manager.execute(call)
            except FairQueueError as error:
                call = flow.throw(error)
            else:
                call = flow.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
