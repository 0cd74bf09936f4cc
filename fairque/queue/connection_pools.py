"""The pools and connections behind `connection.py`: bounded, waiting, and honest about why nothing came.

redis-py's blocking pools wait for a free connection, but say only "No connection available." when none comes;
its sentinel pools and its async cluster do not wait at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NoReturn

from redis import asyncio as aioredis
from redis.asyncio import connection as aioconnection
from redis.asyncio import sentinel as aiosentinel
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import Sentinel, SentinelConnectionPool

from fairque.queue.cancellable import cancellable
from fairque.queue.embedded import ensure_server

POOL_SECONDS = 20.0
"""How long a caller waits for a free connection."""
_NO_CONNECTION = ("No connection available.",)


class Pool(BlockingConnectionPool):
    """A bounded pool for threads; who finds all connections busy waits for one."""

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        try:
            return super().get_connection()  # type: ignore[no-untyped-call]
        except RedisConnectionError as exc:
            _explain(exc, self)


class AsyncPool(aioconnection.BlockingConnectionPool):
    """A bounded pool for one event loop."""

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        try:
            return await super().get_connection()  # type: ignore[no-untyped-call]
        except RedisConnectionError as exc:
            _explain(exc, self)
        except asyncio.CancelledError:
            # A wake-up that reached this waiter together with its cancellation goes on to the
            # next one. (Python 3.13 does so itself; before, it is lost.)
            async with self._condition:
                self._condition.notify()
            raise


class Sentinels(Sentinel):
    """Sentinels that threads may ask at the same time.

    redis-py swaps two entries of its list by places that others may have changed meanwhile: sentinels were named twice
    then, and others were lost. Here each call has a list of its own, which becomes everybody's when it is done.
    """

    def discover_master(self, service_name: str) -> Any:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        found = Sentinel.discover_master(asked, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = asked.sentinels
        return found


class AsyncSentinels(aiosentinel.Sentinel):
    """`Sentinels` for one event loop."""

    async def discover_master(self, service_name: str) -> Any:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        found = await aiosentinel.Sentinel.discover_master(asked, service_name)
        self.sentinels = asked.sentinels
        return found


class SentinelPool(SentinelConnectionPool, Pool):
    """A bounded pool of connections to whatever server the sentinels call the primary."""

    def close(self) -> None:
        super().close()
        self.sentinel_manager.close()


class AsyncSentinelPool(aiosentinel.SentinelConnectionPool, AsyncPool):
    """`SentinelPool` for one event loop."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection to the embedded server, which is started if it is not running, also on reconnecting."""

    def __init__(self, *, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._data_dir = data_dir

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        # Here and not in _connect, where redis-py would turn our exceptions into its own.
        if not self.is_connected:
            self.path = ensure_server(self._data_dir).socket_path
        super().connect_check_health(*args, **kwargs)


class AsyncUnixConnection(aioconnection.UnixDomainSocketConnection):
    """redis-py's own does the handshake twice, and reports a wrong password as a failed connection."""

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)


class AsyncEmbeddedConnection(AsyncUnixConnection):
    """`EmbeddedConnection` for asyncio; the event loop goes on while the server starts."""

    def __init__(self, *, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._data_dir = data_dir

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            server = await asyncio.to_thread(ensure_server, self._data_dir)
            self.path = server.socket_path
        await super().connect_check_health(*args, **kwargs)


class Cluster(RedisCluster):
    """A cluster client that closes its connections, and calls a lost cluster a lost connection."""

    def determine_slot(self, *args: Any) -> Any:
        # redis-py asks a server at each FCALL which of its arguments are keys.
        if _is_call(args):
            return self.keyslot(args[3])  # type: ignore[no-untyped-call]
        return super().determine_slot(*args)

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RedisClusterException as exc:
            _as_connection_error(exc)

    def close(self) -> None:
        # redis-py leaves the connections of pools that it did not make itself to the garbage collector.
        for node in self.get_nodes():  # type: ignore[no-untyped-call]
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect()
        super().close()


class AsyncCluster(aioredis.RedisCluster):
    """A cluster client that waits when all connections are busy, instead of failing."""

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        super().__init__(max_connections=max_connections, **options)
        # The nodes that it finds are made with these, those that it was given were made without.
        self.connection_kwargs["connection_class"] = cancellable(self.connection_kwargs["connection_class"])
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = cancellable(node.connection_class)  # type: ignore[arg-type]
        # Counts all nodes together, so no node's own limit can be hit.
        self._free = asyncio.Semaphore(max_connections)
        self._limit = max_connections

    async def _determine_slot(self, command: str, *args: Any) -> int:
        if _is_call((command, *args)):
            return self.keyslot(args[2])
        return await super()._determine_slot(command, *args)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(POOL_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise _exhausted(self._limit, "the cluster", POOL_SECONDS) from None
        try:
            return await super().execute_command(*args, **kwargs)
        except RedisClusterException as exc:
            _as_connection_error(exc)
        finally:
            self._free.release()


def _is_call(command: Sequence[Any]) -> bool:
    """Whether it is FCALL, function, 1, key, ..., as all calls of scripts are."""
    return bool(command[0] == "FCALL" and command[2] == 1)


def _explain(exc: RedisConnectionError, pool: Any) -> NoReturn:
    if exc.args != _NO_CONNECTION:
        raise exc
    options = pool.connection_kwargs
    server = options.get("path", "the server")
    if "host" in options:
        server = f"{options['host']}:{options['port']}"
    raise _exhausted(pool.max_connections, server, pool.timeout) from None


def _exhausted(limit: int, server: str, seconds: float) -> MaxConnectionsError:
    return MaxConnectionsError(
        f"all {limit} connections to {server} have been busy for {seconds:g} s: "
        "raise redis.max_connections, or use fewer threads or tasks at once"
    )


def _as_connection_error(exc: RedisClusterException) -> NoReturn:
    """When a node is lost, redis-py looks for the others; if that fails too, its error hides the first."""
    if isinstance(exc.__cause__ or exc.__context__, RedisConnectionError | RedisTimeoutError):
        raise RedisConnectionError(str(exc)) from exc
    raise exc
