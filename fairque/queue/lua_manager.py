"""The only place where a script meets a connection: two small drivers over one set of operations.

Scripts are functions of one library on the server. A server that does not know a function, and has thus run
nothing, is told the library on the same connection, and asked again.

A reply that did not come is asked for again if the call allows it (`Call.resend`), on a new connection, at
once and then with growing pauses; redis-py itself repeats nothing. Each attempt is told to the circuit breaker, and
while that is open none is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hiredis import pack_command
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from fairque.core.breaker import PASS
from fairque.core.exceptions import (
    CircuitOpenError,
    FairQueueError,
    NotReplicatedError,
)
from fairque.queue import denied
from fairque.queue.assured import Assured, read_both, read_both_async
from fairque.queue.circuit_breaker import NO_BREAKER, Patience, RedisCircuitBreaker
from fairque.queue.connection import AsyncClient, SyncClient
from fairque.queue.operations.base import Call, Flow
from fairque.queue.replies import map_error, unavailable
from fairque.queue.spare import give_back, give_back_async, lend, lend_async
from fairque.scripts import Clock, load

T = TypeVar("T")

RESEND_PAUSES = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Seconds to wait before each repetition; then the caller gets QueueUnavailableError."""

LOADS = 20
"""How often a call tells the server the library: somebody may delete it again before the function is called."""

_AWAY = (RedisConnectionError, RedisTimeoutError, OSError)
_NO_FUNCTION = "Function not found"


class _BaseLuaScriptManager:
    """The library of one clock, what a call looks like on the wire, and the breaker that it goes through."""

    def __init__(self, clock: Clock = "server", breaker: RedisCircuitBreaker | None = None) -> None:
        self.breaker = breaker or NO_BREAKER
        self.library = load(clock)
        self._loading = ("FUNCTION", "LOAD", "REPLACE", self.library.text)
        self.assured = Assured(self.library)

    def _command(self, call: Call) -> tuple[Any, ...]:
        script = self.library.scripts[call.script]
        script.check(1, len(call.argv))
        return ("FCALL", script.function, 1, f"{call.argv[0]!s}:clock", *call.argv)


def _is_missing(error: ResponseError) -> bool:
    """Whether the server does not know the function: nothing has run."""
    return str(error).startswith(_NO_FUNCTION)


def _pauses(call: Call) -> Sequence[float]:
    return RESEND_PAUSES if call.resend else ()


class LuaScriptManager(_BaseLuaScriptManager):
    """Sends scripts over a sync client; threads may share it."""

    def __init__(
        self, client: SyncClient, clock: Clock = "server", breaker: RedisCircuitBreaker | None = None
    ) -> None:
        super().__init__(clock, breaker)
        self.client: Any = client
        self._pool: Any = client.connection_pool if isinstance(client, Redis) else None

    def execute(self, call: Call) -> Any:
        """The decoded reply of one call.

        Raises:
            FairQueueError: what the server, or its absence, means (see `map_error`).
        """
        command, breaker, permit = self._command(call), self.breaker, PASS
        assured = self.assured.command_for(call) if call.assurance else None
        patience: Patience | None = None
        if breaker.troubled:
            patience = Patience(breaker, _pauses(call))
            permit = breaker.enter(patience.until)
        while True:
            try:
                reply = self._attempt(command, permit, assured)
                return self.assured.check(call, *reply) if assured else reply
            except FairQueueError:
                raise
            except (
                *_AWAY,
                ReadOnlyError,
            ) as error:  # the latter: another server is the primary, and nothing has run here
                patience = patience or Patience(breaker, _pauses(call))
                pause = patience.pause(permit)
                if pause is None:
                    raise unavailable(error, call, self._pool) from error
                time.sleep(pause)
                permit = PASS
                if breaker.troubled:
                    try:
                        permit = breaker.enter(patience.until)
                    except CircuitOpenError:
                        raise unavailable(error, call, self._pool) from error
            except ResponseError as error:
                raise self._meaning(error, call) from None
            except RedisError as error:
                raise map_error(error, call.script) from error

    def _meaning(self, error: ResponseError, call: Call) -> FairQueueError:
        """As `map_error`; if a script lacks a right, the server is asked which."""
        if denied.in_script(str(error)) and call.script != "rights":
            try:
                lacking = self._send(self._command(denied.rights_call(call)))
            except (RedisError, OSError):
                lacking = []
            if refusal := denied.meaning(str(error), [name.decode() for name in lacking]):
                return refusal
        return map_error(error, call.script)

    def _attempt(self, command: tuple[Any, ...], permit: int, assured: tuple[Any, ...] | None) -> Any:
        """One try, of which the breaker is told what it says of the server."""
        try:
            reply = self._send(command, assured)
        except BaseException as error:
            self.breaker.note(error, permit)
            raise
        if self.breaker.troubled:
            self.breaker.answered(permit)
        return reply

    def _send(self, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None) -> Any:
        """The reply, with `assured` a pair: the reply to that too."""
        connection: Any = None if self._pool is None else lend(self._pool)
        try:
            refusal: ResponseError | None = None
            for again in range(LOADS):
                try:
                    if again and connection is not None:
                        return self._load_and_ask(connection, command, assured)
                    return self._ask(connection, command, assured)
                except ResponseError as error:
                    if not _is_missing(error):
                        raise
                    if refusal is not None:
                        raise refusal from None
                if connection is None:
                    refusal = self._load()
            return self._ask(connection, command, assured)
        except ReadOnlyError:
            if connection is not None:
                connection.disconnect()  # where the primary is, is asked anew
            raise
        except ResponseError:
            raise
        except BaseException:
            # Whatever is still to come on this connection belongs to nobody.
            if connection is not None:
                connection.disconnect()
            raise
        finally:
            if connection is not None:
                give_back(self._pool, connection)

    def begin(self, call: Call) -> Callable[[], Any]:
        """Send a call that may be sent again, and return what waits for its reply (as `execute`): between the two the
        caller works while the server does. Both are for one thread, and the second is not optional.
        """
        if self._pool is None or self.breaker.troubled:
            return lambda: self.execute(call)
        try:
            connection = lend(self._pool)
        except RedisError:
            return lambda: self.execute(call)  # which says what that means, if it is still so
        try:
            assured = self.assured.command_for(call) if call.assurance else None
            commands = [self._command(call), *([assured] if assured else ())]
            connection.send_packed_command(
                [pack_command(command) for command in commands], check_health=False
            )
        except BaseException as error:
            connection.disconnect()
            give_back(self._pool, connection)
            if not isinstance(error, _AWAY):
                raise
            return lambda: self.execute(call)
        return lambda: self._end(connection, call, bool(assured))

    def _end(self, connection: Any, call: Call, assured: bool) -> Any:
        try:
            reply = read_both(connection) if assured else connection.read_response()
            if self.breaker.troubled:
                self.breaker.answered(PASS)
            return self.assured.check(call, *reply) if assured else reply
        except NotReplicatedError:
            raise
        except ReadOnlyError as error:
            self.breaker.note(error, PASS)
            connection.disconnect()
        except ResponseError as error:
            if not _is_missing(error):
                self.breaker.note(error, PASS)
                raise self._meaning(error, call) from None
        except _AWAY as error:
            self.breaker.note(error, PASS)
            connection.disconnect()
        except BaseException:
            connection.disconnect()
            raise
        finally:
            give_back(self._pool, connection)
        return self.execute(call)

    def _ask(self, connection: Any, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None) -> Any:
        if connection is None:
            return self.client.execute_command(*command)
        # What redis-py would do before this, it does for arguments of other kinds than ours.
        if assured:
            both = pack_command(command) + pack_command(assured)
            connection.send_packed_command((both,), check_health=False)
            return read_both(connection)
        connection.send_packed_command((pack_command(command),), check_health=False)
        return connection.read_response()

    def _load_and_ask(
        self, connection: Any, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None
    ) -> Any:
        """Both at once: the server takes them one after the other, so that nobody deletes the library in between."""
        both = connection.pack_commands([self._loading, command, *([assured] if assured else ())])
        connection.send_packed_command(both, check_health=False)
        refusal: ResponseError | None = None
        try:
            connection.read_response()
        except ResponseError as error:
            refusal = error
        try:
            if assured:
                return read_both(connection)
            return connection.read_response()
        except ResponseError as error:
            if refusal is not None and _is_missing(error):
                raise refusal from None
            raise

    def _load(self) -> ResponseError | None:
        # Also to those that do not hold the queue now: its slot may move. But one of these that is away, or refuses,
        # is no hindrance; only if the function is still not there does a refusal matter.
        refusal = None
        for node in self.client.get_primaries():
            try:
                self.client.execute_command(*self._loading, target_nodes=node)
            except _AWAY:
                pass
            except ResponseError as error:
                refusal = error
        return refusal

    def run(self, flow: Flow[T]) -> T:
        """Drive an operation to its end."""
        return run_sync(self, flow)


class AsyncLuaScriptManager(_BaseLuaScriptManager):
    """Sends scripts over an async client, within one event loop."""

    def __init__(
        self, client: AsyncClient, clock: Clock = "server", breaker: RedisCircuitBreaker | None = None
    ) -> None:
        super().__init__(clock, breaker)
        self.client: Any = client
        self._pool: Any = client.connection_pool if isinstance(client, AsyncRedis) else None

    async def execute(self, call: Call) -> Any:
        """The decoded reply of one call.

        Raises:
            FairQueueError: what the server, or its absence, means (see `map_error`).
        """
        command, breaker, permit = self._command(call), self.breaker, PASS
        assured = self.assured.command_for(call) if call.assurance else None
        patience: Patience | None = None
        if breaker.troubled:
            patience = Patience(breaker, _pauses(call))
            permit = await breaker.enter_async(patience.until)
        while True:
            try:
                reply = await self._attempt(command, permit, assured)
                return self.assured.check(call, *reply) if assured else reply
            except FairQueueError:
                raise
            except (
                *_AWAY,
                ReadOnlyError,
            ) as error:  # the latter: another server is the primary, and nothing has run here
                patience = patience or Patience(breaker, _pauses(call))
                pause = patience.pause(permit)
                if pause is None:
                    raise unavailable(error, call, self._pool) from error
                await asyncio.sleep(pause)
                permit = PASS
                if breaker.troubled:
                    try:
                        permit = await breaker.enter_async(patience.until)
                    except CircuitOpenError:
                        raise unavailable(error, call, self._pool) from error
            except ResponseError as error:
                raise await self._meaning(error, call) from None
            except RedisError as error:
                raise map_error(error, call.script) from error

    async def _meaning(self, error: ResponseError, call: Call) -> FairQueueError:
        """As `map_error`; if a script lacks a right, the server is asked which."""
        if denied.in_script(str(error)) and call.script != "rights":
            try:
                lacking = await self._send(self._command(denied.rights_call(call)))
            except (RedisError, OSError):
                lacking = []
            if refusal := denied.meaning(str(error), [name.decode() for name in lacking]):
                return refusal
        return map_error(error, call.script)

    async def _attempt(self, command: tuple[Any, ...], permit: int, assured: tuple[Any, ...] | None) -> Any:
        """One try, of which the breaker is told what it says of the server."""
        try:
            reply = await self._send(command, assured)
        except BaseException as error:
            self.breaker.note(error, permit)
            raise
        if self.breaker.troubled:
            self.breaker.answered(permit)
        return reply

    async def _send(self, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None) -> Any:
        """The reply, with `assured` a pair: the reply to that too."""
        connection: Any = None if self._pool is None else await lend_async(self._pool)
        try:
            refusal: ResponseError | None = None
            for again in range(LOADS):
                try:
                    if again and connection is not None:
                        return await self._load_and_ask(connection, command, assured)
                    return await self._ask(connection, command, assured)
                except ResponseError as error:
                    if not _is_missing(error):
                        raise
                    if refusal is not None:
                        raise refusal from None
                if connection is None:
                    refusal = await self._load()
            return await self._ask(connection, command, assured)
        except ReadOnlyError:
            if connection is not None:
                await connection.disconnect(nowait=True)  # where the primary is, is asked anew
            raise
        except ResponseError:
            raise
        except BaseException:
            # Also a cancellation: a reply that is still to come must reach nobody else.
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise
        finally:
            if connection is not None:
                await give_back_async(self._pool, connection)

    async def _ask(
        self, connection: Any, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None
    ) -> Any:
        if connection is None:
            return await self.client.execute_command(*command)
        if assured:
            both = pack_command(command) + pack_command(assured)
            await connection.send_packed_command(both, check_health=False)
            return await read_both_async(connection)
        await connection.send_packed_command(pack_command(command), check_health=False)
        return await connection.read_response()

    async def _load_and_ask(
        self, connection: Any, command: tuple[Any, ...], assured: tuple[Any, ...] | None = None
    ) -> Any:
        """As of `LuaScriptManager`."""
        both = connection.pack_commands([self._loading, command, *([assured] if assured else ())])
        await connection.send_packed_command(both, check_health=False)
        refusal: ResponseError | None = None
        try:
            await connection.read_response()
        except ResponseError as error:
            refusal = error
        try:
            if assured:
                return await read_both_async(connection)
            return await connection.read_response()
        except ResponseError as error:
            if refusal is not None and _is_missing(error):
                raise refusal from None
            raise

    async def _load(self) -> ResponseError | None:
        # Also to those that do not hold the queue now: its slot may move. But one of these that is away, or refuses,
        # is no hindrance; only if the function is still not there does a refusal matter.
        refusal = None
        for node in self.client.get_primaries():
            try:
                await self.client.execute_command(*self._loading, target_nodes=node)
            except _AWAY:
                pass
            except ResponseError as error:
                refusal = error
        return refusal

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
