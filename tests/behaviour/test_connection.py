"""Clients against real servers, each test for the sync and the async client alike."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from fairque.core.config import RedisConfig
from fairque.queue import connection
from fairque.queue.embedded import server_status, stop_server
from tests.support.clients import Client, blocked_clients, connect, mode, until
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess

__all__ = ["connect", "mode"]


# Where servers are


def test_a_unix_socket(connect: Callable[..., Client], server: ServerProcess) -> None:
    client = connect(url=f"{server.url}?db=3")
    assert client("PING")
    assert client("CLIENT", "GETNAME") == b"fairque"
    assert _info(client)["db"] == "3"
    assert _info(client)["resp"] == "2"


def test_tcp_by_url_and_by_host(
    connect: Callable[..., Client], new_server: Callable[..., ServerProcess]
) -> None:
    server = new_server(tcp=True)
    by_url = connect(url=f"redis://127.0.0.1:{server.port}/2")
    by_host = connect(host="127.0.0.1", port=server.port, db=2)
    by_url("SET", "key", "value")
    assert by_host("GET", "key") == b"value"


def test_who_logs_in(connect: Callable[..., Client], new_server: Callable[..., ServerProcess]) -> None:
    server = new_server(tcp=True)
    server.client().execute_command("ACL", "SETUSER", "alice", "on", ">p/ss w", "~*", "+@all")
    server.client().execute_command("ACL", "SETUSER", "default", "off")
    for place in (f"redis://{{}}127.0.0.1:{server.port}", f"unix://{{}}{server.socket_path}"):
        assert connect(url=place.format("alice:p%2Fss%20w@"))("ACL", "WHOAMI") == b"alice"
        assert connect(url=place.format(""), username="alice", password="p/ss w")("ACL", "WHOAMI") == b"alice"
        with pytest.raises(exceptions.AuthenticationError) as refused:
            connect(url=place.format("alice:wr0ng@"))("PING")
        assert "wr0ng" not in str(refused.value)


def test_a_configuration_makes_its_client(server: ServerProcess) -> None:
    config = RedisConfig(url=server.url)
    with contextlib.closing(config.create_redis_client()) as client:
        assert client.ping()

    async def ping() -> object:
        async_client = config.create_async_redis_client()
        try:
            return await async_client.execute_command("PING")
        finally:
            await async_client.aclose()

    assert asyncio.run(ping())


def test_creating_a_client_does_not_connect(connect: Callable[..., Client]) -> None:
    client = connect(url="unix:///nowhere/at/all")
    with pytest.raises(exceptions.ConnectionError, match="/nowhere/at/all"):
        client("PING")


# What a connection costs, and what never happens


def test_a_connection_costs_one_command(connect: Callable[..., Client], server: ServerProcess) -> None:
    with FaultProxy(server.url) as proxy:
        client = connect(url=proxy.url)
        client("PING")
        client("PING")
        assert proxy.commands == {"CLIENT": 1, "PING": 2}
    with FaultProxy(server.url) as proxy:
        connect(url=f"{proxy.url}?db=1")("PING")
        assert proxy.commands == {"CLIENT": 1, "SELECT": 1, "PING": 1}


@pytest.mark.no_leak_check
def test_no_command_is_repeated(
    connect: Callable[..., Client], server: ServerProcess, flushed: redis.Redis
) -> None:
    script = "return redis.call('INCR', KEYS[1])"
    with FaultProxy(server.url) as proxy:
        client = connect(url=proxy.url)
        sha = client("SCRIPT", "LOAD", script)
        for number in range(1, 21):
            proxy.drop_replies(1, matching=b"EVALSHA")
            with pytest.raises(exceptions.ConnectionError):
                client("EVALSHA", sha, 1, "counter")
            assert proxy.replies_dropped == number
            assert flushed.get("counter") == str(number).encode()


@pytest.mark.no_leak_check
def test_a_slow_reply_is_no_reason_to_repeat(
    connect: Callable[..., Client],
    server: ServerProcess,
    flushed: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "REPLY_SECONDS", 0.3)
    with FaultProxy(server.url) as proxy:
        client = connect(url=proxy.url)
        client("PING")
        proxy.hold(1, matching=b"INCR")
        with pytest.raises(exceptions.TimeoutError):
            client("INCR", "counter")
        proxy.release()
        until(lambda: flushed.get("counter"))
        assert client("GET", "counter") == b"1"
        assert proxy.commands["INCR"] == 1


def test_an_idle_connection_outlives_a_restart(
    connect: Callable[..., Client], new_server: Callable[..., ServerProcess]
) -> None:
    server = new_server()
    client = connect(url=server.url)
    client("PING")
    server.restart()
    if client.loop is not None:
        [idle] = client.raw.connection_pool._available_connections
        until(idle._reader.at_eof)
    assert client("PING")


# Waiting


def test_a_blocking_client_waits_longer(
    connect: Callable[..., Client],
    server: ServerProcess,
    flushed: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "REPLY_SECONDS", 0.3)
    assert connect(url=server.url, block_seconds=1)("BLPOP", "nothing", 1) is None
    with pytest.raises(exceptions.TimeoutError):
        connect(url=server.url)("BLPOP", "nothing", 1)


@pytest.mark.no_leak_check
def test_who_finds_all_connections_busy_waits(server: ServerProcess, flushed: redis.Redis) -> None:
    config = RedisConfig(url=server.url, max_connections=2)

    async def run() -> None:
        client: Any = connection.create_async_blocking_client(config, 60)
        blocked = [asyncio.create_task(client.blpop("list", 60)) for _ in range(2)]
        await asyncio.to_thread(until, lambda: blocked_clients(flushed) == 2)
        third = asyncio.create_task(client.echo("third"))
        assert not (await asyncio.wait([third], timeout=0.1))[0]
        flushed.rpush("list", "a")
        assert await third == b"third"
        flushed.rpush("list", "b")
        assert sorted([value for _, value in await asyncio.gather(*blocked)]) == [b"a", b"b"]
        await client.aclose()

    asyncio.run(run())


@pytest.mark.no_leak_check
def test_who_waits_too_long_is_told_why(
    mode: str, server: ServerProcess, flushed: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POOL_SECONDS", 0.2)
    config = RedisConfig(url=server.url, max_connections=1)
    client = Client(mode, config, block_seconds=60)
    taken = client.raw.connection_pool.get_connection()
    if client.loop is not None:
        client.run(taken)
    with pytest.raises(exceptions.MaxConnectionsError) as refused:
        client("PING")
    assert f"all 1 connections to {server.socket_path} have been busy for 0.2 s" in str(refused.value)
    assert "redis.max_connections" in str(refused.value)
    client.close()


def _info(client: Client) -> dict[str, str]:
    pairs = (part.partition("=") for part in client("CLIENT", "INFO").decode().split())
    return {name: value for name, _, value in pairs}


# The embedded server


@pytest.fixture
def data_dir(valkey_path: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="fq-", dir="/tmp"))
    yield directory
    status = server_status(directory)
    if status is not None:
        os.kill(status.pid, signal.SIGKILL)
        until(lambda: server_status(directory) is None)
    shutil.rmtree(directory)


def test_the_embedded_server_starts_when_it_is_needed(connect: Callable[..., Client], data_dir: Path) -> None:
    client = connect(url=f"embedded://{data_dir}")
    assert server_status(data_dir) is None
    client("SET", "key", "value")
    status = server_status(data_dir)
    assert status is not None
    assert connect(url=f"embedded://{data_dir}")("GET", "key") == b"value"
    assert stop_server(data_dir)
    assert client("GET", "key") == b"value"
    again = server_status(data_dir)
    assert again is not None
    assert again.pid != status.pid
