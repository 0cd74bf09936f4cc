"""Clients for the server that a `RedisConfig` names, sync and async, set up so that nothing happens twice.

What redis-py would do by itself, and must not, since a script may have run when its reply is lost:

- no command is repeated, neither by a connection nor by the cluster client (redirections, which say that
  nothing has run, are still followed);
- RESP2, no health checks, no library info, no maintenance notifications: a connection costs what the server
  asks for (AUTH, SELECT) and one CLIENT SETNAME;
- pools are bounded, and who finds all connections busy waits for one.

A client connects when it is first used; only the sync cluster client asks for the topology at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from redis import Redis, RedisCluster
from redis import asyncio as aioredis
from redis.asyncio import cluster as aiocluster
from redis.asyncio import connection as aioconnection
from redis.asyncio import sentinel as aiosentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from fairque.core.config import RedisConfig
from fairque.core.exceptions import ConfigError
from fairque.core.redis_url import RedisAddress
from fairque.queue.cancellable import cancellable
from fairque.queue.connection_pools import (
    POOL_SECONDS,
    AsyncCluster,
    AsyncEmbeddedConnection,
    AsyncPool,
    AsyncSentinelPool,
    AsyncSentinels,
    AsyncUnixConnection,
    Cluster,
    EmbeddedConnection,
    Pool,
    SentinelPool,
    Sentinels,
)

SyncClient: TypeAlias = Redis | RedisCluster
AsyncClient: TypeAlias = aioredis.Redis | aioredis.RedisCluster

CLIENT_NAME = "fairque"
CONNECT_SECONDS = 5.0
"""How long connecting may take."""
REPLY_SECONDS = 5.0
"""How long a reply may take, beyond what the command blocks on the server. Scripts take at most 50 ms."""
SENTINEL_SECONDS = 2.0
"""How long a sentinel may take before the next one is asked."""


def create_client(config: RedisConfig) -> SyncClient:
    """A client for the server of `config`; threads may share it.

    Raises:
        ConfigError: a TLS file is missing.
        redis.RedisError: only with `cluster://`, whose client connects at once.
    """
    return create_blocking_client(config, 0.0)


def create_blocking_client(config: RedisConfig, block_seconds: float) -> SyncClient:
    """A client for commands that block on the server for up to `block_seconds`, such as BLPOP.

    It waits for a reply that long and `REPLY_SECONDS` more. Keep it apart from the client of the short
    commands, which should notice a dead server sooner.

    Raises: as `create_client`.
    """
    address, options = config.address, _options(config, block_seconds)
    if address.kind == "cluster":
        return _cluster(address, options)
    if address.kind == "sentinel":
        sentinel = Sentinels(list(address.nodes), sentinel_kwargs=_sentinel_options(config))  # type: ignore[no-untyped-call]
        pool = SentinelPool(address.service, sentinel, ssl=address.tls, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    connection: Any = {
        "tcp": SSLConnection if address.tls else Connection,
        "unix": UnixDomainSocketConnection,
        "embedded": EmbeddedConnection,
    }[address.kind]
    return Redis.from_pool(Pool(connection_class=connection, **_place(address), **options))  # type: ignore[no-untyped-call]


def create_async_client(config: RedisConfig) -> AsyncClient:
    """A client for the server of `config`, for one event loop. It connects when it is first used.

    Raises:
        ConfigError: a TLS file is missing.
    """
    return create_async_blocking_client(config, 0.0)


def create_async_blocking_client(config: RedisConfig, block_seconds: float) -> AsyncClient:
    """`create_blocking_client` for one event loop.

    Raises:
        ConfigError: a TLS file is missing.
    """
    address, options = config.address, _options(config, block_seconds)
    if address.kind == "cluster":
        return _async_cluster(address, options)
    if address.kind == "sentinel":
        nodes, sentinel_options = list(address.nodes), _sentinel_options(config)
        sentinel = AsyncSentinels(nodes, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        managed = (
            aiosentinel.SentinelManagedSSLConnection if address.tls else aiosentinel.SentinelManagedConnection
        )
        options["connection_class"] = cancellable(managed)
        found = AsyncSentinelPool(address.service, sentinel, ssl=address.tls, **options)  # type: ignore[no-untyped-call]
        return aioredis.Redis.from_pool(found)
    connection: Any = {
        "tcp": aioconnection.SSLConnection if address.tls else aioconnection.Connection,
        "unix": AsyncUnixConnection,
        "embedded": AsyncEmbeddedConnection,
    }[address.kind]
    pool = AsyncPool(connection_class=cancellable(connection), **_place(address), **options)
    return aioredis.Redis.from_pool(pool)


def _options(config: RedisConfig, block_seconds: float) -> dict[str, Any]:
    """What every connection and pool of this server is made with."""
    return {
        "db": config.db,
        "username": config.username,
        "password": config.password,
        "max_connections": config.max_connections,
        "timeout": POOL_SECONDS,
        **_conduct(REPLY_SECONDS + block_seconds, CONNECT_SECONDS),
        **_tls(config),
    }


def _sentinel_options(config: RedisConfig) -> dict[str, Any]:
    """What the connections to the sentinels are made with: they have credentials of their own."""
    return {
        "username": config.sentinel_username,
        "password": config.sentinel_password,
        "ssl": config.ssl,
        **_conduct(SENTINEL_SECONDS, SENTINEL_SECONDS),
        **_tls(config),
    }


def _conduct(reply_seconds: float, connect_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": connect_seconds,
        "client_name": CLIENT_NAME,
        "driver_info": None,  # no CLIENT SETINFO
        "protocol": 2,  # with which redis-py asks for no maintenance notifications either
        "decode_responses": False,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
    }


def _tls(config: RedisConfig) -> dict[str, Any]:
    if not config.ssl:
        return {}
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        file = getattr(config, name)
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"redis.{name}: there is no file {file!r}")
    return {
        "ssl_cert_reqs": config.ssl_cert_reqs,
        "ssl_ca_certs": config.ssl_ca_certs,
        "ssl_certfile": config.ssl_certfile,
        "ssl_keyfile": config.ssl_keyfile,
        "ssl_check_hostname": config.ssl_check_hostname,
    }


def _place(address: RedisAddress) -> dict[str, Any]:
    if address.kind == "unix":
        return {"path": address.path}
    if address.kind == "embedded":
        return {"data_dir": Path(address.path) if address.path else None}
    [(host, port)] = address.nodes
    return {"host": host, "port": port}


def _cluster(address: RedisAddress, options: dict[str, Any]) -> RedisCluster:
    del options["db"]  # always 0
    first, *others = address.nodes
    return Cluster(
        # The pool's class can be chosen only together with a URL.
        url=str(RedisAddress("tcp", (first,), tls=address.tls)),
        startup_nodes=[ClusterNode(*node) for node in others],  # type: ignore[no-untyped-call]
        connection_pool_class=Pool,
        **options,
    )


def _async_cluster(address: RedisAddress, options: dict[str, Any]) -> aioredis.RedisCluster:
    del options["timeout"]  # AsyncCluster waits by itself
    nodes = [aiocluster.ClusterNode(host, port) for host, port in address.nodes]
    return AsyncCluster(startup_nodes=nodes, ssl=address.tls, **options)
