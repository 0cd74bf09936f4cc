"""Clusters and sentinels, with the sync and the async client; and what a cancelled call leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from fairque.core.config import RedisConfig
from fairque.queue import connection, connection_pools
from tests.support.clients import Client, blocked_clients, connect, mode, until
from tests.support.failover import sentinel_trio
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess, free_port
from tests.support.topologies import cluster_options, form_cluster, sentinel_process

__all__ = ["connect", "mode"]


@pytest.fixture
def cluster(new_server: Callable[..., ServerProcess]) -> ServerProcess:
    server = new_server(tcp=True, options=cluster_options())
    form_cluster(server)
    return server


def test_a_cluster(connect: Callable[..., Client], cluster: ServerProcess) -> None:
    dead = free_port()
    client = connect(url=f"cluster://127.0.0.1:{cluster.port},127.0.0.1:{dead}")
    for number in range(20):
        client("SET", f"key:{number}", number)
    assert [client("GET", f"key:{number}") for number in range(20)] == [str(n).encode() for n in range(20)]
    sha = cluster.client().script_load("return {KEYS[1], ARGV[1]}")
    assert client("EVALSHA", sha, 1, "{fq}:key", "argument") == [b"{fq}:key", b"argument"]


def test_a_function_call_in_a_cluster_is_one_command(
    connect: Callable[..., Client], cluster: ServerProcess
) -> None:
    """redis-py would ask the server each time which of the arguments are keys."""
    server = cluster.client()
    server.function_load(
        "#!lua name=echo\nredis.register_function('echo', function(keys, args) return keys[1] end)"
    )
    client = connect(url=f"cluster://127.0.0.1:{cluster.port}")
    client("PING")
    server.config_resetstat()
    for number in range(10):
        assert client("FCALL", "echo", 1, f"key:{number}", "a", "b") == f"key:{number}".encode()
    calls = {name: told["calls"] for name, told in server.info("commandstats").items()}
    assert calls.pop("cmdstat_fcall") == 10
    assert not [name for name in calls if "command" in name]


def test_a_cluster_client_repeats_nothing_either(
    connect: Callable[..., Client], cluster: ServerProcess
) -> None:
    sha = cluster.client().script_load("return redis.call('INCR', KEYS[1])")
    with FaultProxy(f"redis://127.0.0.1:{cluster.port}", tcp=True) as proxy:
        cluster.client().config_set("cluster-announce-port", proxy.port)
        client = connect(url=f"cluster://127.0.0.1:{proxy.port}")
        for number in range(1, 11):
            proxy.drop_replies(1, matching=b"EVALSHA")
            with pytest.raises(exceptions.ConnectionError):
                client("EVALSHA", sha, 1, "counter")
            assert proxy.replies_dropped == number
            assert cluster.client().get("counter") == str(number).encode()
        proxy.refuse()
        proxy.reset()
        with pytest.raises(exceptions.ConnectionError):
            client("EVALSHA", sha, 1, "counter")
        proxy.refuse(False)
        assert client("EVALSHA", sha, 1, "counter") == 11


def test_a_cluster_client_waits_for_a_connection(cluster: ServerProcess) -> None:
    config = RedisConfig(url=f"cluster://127.0.0.1:{cluster.port}", max_connections=2)

    async def run() -> None:
        client: Any = connection.create_async_client(config)
        replies = await asyncio.gather(*(client.execute_command("SET", "key", n) for n in range(50)))
        assert len(replies) == 50
        await client.aclose()

    asyncio.run(run())


def test_a_cluster_client_that_waits_too_long_is_told_why(
    cluster: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pools, "POOL_SECONDS", 0.2)
    config = RedisConfig(url=f"cluster://127.0.0.1:{cluster.port}", max_connections=1)

    async def run() -> None:
        client: Any = connection.create_async_blocking_client(config, 60)
        blocked = asyncio.create_task(client.execute_command("BLPOP", "list", 60))
        await asyncio.to_thread(until, lambda: blocked_clients(cluster.client()) == 1)
        with pytest.raises(exceptions.MaxConnectionsError, match=r"redis\.max_connections"):
            await client.execute_command("GET", "key")
        cluster.client().rpush("list", "a")
        assert list(await blocked) == [b"list", b"a"]
        await client.aclose()

    asyncio.run(run())


# Sentinels


def test_sentinels_lead_to_the_primary_and_to_its_successor(
    connect: Callable[..., Client], redis_path: Path, new_server: Callable[..., ServerProcess]
) -> None:
    at_once = {"repl-diskless-sync-delay": "0"}
    primary = new_server(binary=redis_path, tcp=True, options=at_once)
    replica = new_server(
        binary=redis_path, tcp=True, options={"replicaof": f"127.0.0.1 {primary.port}", **at_once}
    )
    until(lambda: replica.client().info("replication")["master_link_status"] == "up")
    watch = [
        f"sentinel monitor mine 127.0.0.1 {primary.port} 1",
        "sentinel down-after-milliseconds mine 500",
        "sentinel failover-timeout mine 5000",
        "requirepass watching",
    ]
    with sentinel_process(redis_path, watch) as port:
        url = f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mine/1"
        client = connect(url=url, sentinel_password="watching")
        client("SET", "key", "value")
        assert primary.client(db=1).get("key") == b"value"
        with contextlib.closing(redis.Redis(port=port, password="watching")) as sentinel:
            until(lambda: _replicas(sentinel) == 1)
        until(lambda: replica.client(db=1).get("key") == b"value")
        primary.kill()
        until(lambda: _set(client, "key", "after"))
        assert replica.client(db=1).get("key") == b"after"


def _replicas(sentinel: redis.Redis) -> int:
    return len(sentinel.execute_command("SENTINEL", "REPLICAS", "mine"))


def _set(client: Client, key: str, value: str) -> bool:
    try:
        client("SET", key, value)
    except (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.TimeoutError):
        return False
    return True


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_all_sentinels_stay_known_however_many_ask_at_once(redis_path: Path, kind: str) -> None:
    """redis-py swaps entries of its list by places that others have changed meanwhile, and so loses some."""
    with sentinel_trio(redis_path, down_after_milliseconds=30_000) as trio:
        gone = free_port()  # the first to be asked answers nothing, so that each call swaps
        nodes = ",".join(f"127.0.0.1:{port}" for port in (gone, *trio.sentinels))
        config = RedisConfig(url=f"sentinel://{nodes}/mine")

        async def ask_at_once() -> Any:
            client: Any = connection.create_async_client(config)
            for _ in range(5):
                pool = client.connection_pool
                await asyncio.gather(*(pool.get_master_address() for _ in range(20)))
            await client.aclose()
            return pool.sentinel_manager.sentinels

        if kind == "tasks":
            sentinels = asyncio.run(ask_at_once())
        else:
            client: Any = connection.create_client(config)
            pool = client.connection_pool
            with ThreadPoolExecutor(20) as threads:
                for future in [threads.submit(pool.get_master_address) for _ in range(200)]:
                    future.result()
            sentinels = pool.sentinel_manager.sentinels
            client.close()
        ports = sorted(one.connection_pool.connection_kwargs["port"] for one in sentinels)
        assert ports == sorted((gone, *trio.sentinels))


def test_a_service_that_no_sentinel_knows(connect: Callable[..., Client], redis_path: Path) -> None:
    unknown = pytest.raises(exceptions.ConnectionError, match="No master found for 'mine'")
    with sentinel_process(redis_path, []) as port, unknown:
        connect(url=f"sentinel://127.0.0.1:{port}/mine")("PING")


@pytest.mark.parametrize("kind", ["one server", "cluster"])
def test_a_cancelled_call_leaves_no_reply_behind(
    request: pytest.FixtureRequest, server: ServerProcess, kind: str
) -> None:
    """2,000 calls over at most 4 connections, many cancelled on their way: each reply is its own."""
    url = server.url
    if kind == "cluster":
        url = f"cluster://127.0.0.1:{request.getfixturevalue('cluster').port}"

    async def run() -> int:
        client: Any = connection.create_async_blocking_client(RedisConfig(url=url, max_connections=4), 5)
        answered = 0

        async def echo(number: int) -> None:
            nonlocal answered
            if number % 29 == 0:
                assert await client.execute_command("BLPOP", "nothing", 0.01) is None
            else:
                reply = await client.execute_command("EVAL", "return ARGV[1]", 1, "key", number)
                assert reply == str(number).encode()
            answered += 1

        for first in range(0, 2000, 50):
            tasks = [asyncio.create_task(echo(number)) for number in range(first, first + 50)]
            for index, task in enumerate(tasks):
                if index % 3 == 0:
                    for _ in range(index % 11):
                        await asyncio.sleep(0)
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
        await echo(1)
        await client.aclose()
        return answered

    assert asyncio.run(run()) > 1000
