"""Clients against real servers, each test for the sync and the async client alike."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from fairque.core.config import RedisConfig
from fairque.core.exceptions import ConfigError
from fairque.queue import connection, connection_pools
from fairque.queue.embedded import server_status, stop_server
from tests.support.proxy import FaultProxy
from tests.support.require import require_program
from tests.support.servers import ServerProcess, free_port

SECONDS = 20.0
CLUSTER_OPTIONS = {"cluster-enabled": "yes"}


class Client:
    """A sync client, or an async one on an event loop that runs in a thread, behind one face."""

    def __init__(self, mode: str, config: RedisConfig, block_seconds: float = 0.0) -> None:
        self.raw: Any
        self.loop = asyncio.new_event_loop() if mode == "async" else None
        if self.loop is None:
            self.raw = connection.create_blocking_client(config, block_seconds)
            return
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.raw = self.run(self._create(config, block_seconds))
        except BaseException:
            self._end_loop()
            raise

    @staticmethod
    async def _create(config: RedisConfig, block_seconds: float) -> object:
        return connection.create_async_blocking_client(config, block_seconds)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def __call__(self, *command: object) -> Any:
        reply = self.raw.execute_command(*command)
        return reply if self.loop is None else self.run(reply)

    def close(self) -> None:
        if self.loop is None:
            self.raw.close()
        else:
            self.run(self.raw.aclose())
            self._end_loop()

    def _end_loop(self) -> None:
        assert self.loop is not None
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(mode: str) -> Iterator[Callable[..., Client]]:
    """`connect(url=..., block_seconds=...)`: a client of the mode under test, closed at the end."""
    clients: list[Client] = []

    def create(block_seconds: float = 0.0, **fields: Any) -> Client:
        clients.append(Client(mode, RedisConfig(**fields), block_seconds))
        return clients[-1]

    yield create
    for client in clients:
        client.close()


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` gives as soon as it is true."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.01)
    return value


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
        await asyncio.to_thread(until, lambda: _blocked(flushed) == 2)
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


def _blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


def _info(client: Client) -> dict[str, str]:
    pairs = (part.partition("=") for part in client("CLIENT", "INFO").decode().split())
    return {name: value for name, _, value in pairs}


# TLS


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: an authority, certificates it signed (and their keys, named .key), and a stranger."""

    directory: Path

    def __call__(self, name: str) -> str:
        return str(self.directory / name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    openssl = str(require_program("openssl", "apt-get install openssl"))
    made = Certificates(tmp_path_factory.mktemp("tls"))

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=made.directory)

    def authority(name: str) -> None:
        run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"),
        )

    def signed(name: str, alternative_names: str) -> None:
        (made.directory / f"{name}.ext").write_text(f"subjectAltName={alternative_names}\n")
        run(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )

    authority("ca")
    authority("stranger")
    signed("server", "DNS:localhost,IP:127.0.0.1")
    signed("elsewhere", "DNS:elsewhere.example")
    signed("client", "DNS:client.example")
    return made


def tls_options(certificates: Certificates, name: str, *, clients: str = "no") -> dict[str, str]:
    return {
        "tls-port": str(free_port()),
        "tls-cert-file": certificates(f"{name}.crt"),
        "tls-key-file": certificates(f"{name}.key"),
        "tls-ca-cert-file": certificates("ca.crt"),
        "tls-auth-clients": clients,
    }


@contextlib.contextmanager
def tls_server(redis_path: Path, options: dict[str, str]) -> Generator[int]:
    with ServerProcess(redis_path, options=options):
        yield int(options["tls-port"])


@pytest.fixture(scope="module")
def mutual(redis_path: Path, certificates: Certificates) -> Iterator[int]:
    """The port of a server for localhost that wants a certificate from its clients too."""
    with tls_server(redis_path, tls_options(certificates, "server", clients="yes")) as port:
        yield port


@pytest.fixture(scope="module")
def elsewhere(redis_path: Path, certificates: Certificates) -> Iterator[int]:
    """The port of a server whose certificate is for another host."""
    with tls_server(redis_path, tls_options(certificates, "elsewhere")) as port:
        yield port


def test_tls_with_certificates_on_both_sides(
    connect: Callable[..., Client], mutual: int, certificates: Certificates
) -> None:
    fields = {
        "ssl_ca_certs": certificates("ca.crt"),
        "ssl_certfile": certificates("client.crt"),
        "ssl_keyfile": certificates("client.key"),
    }
    assert connect(url=f"rediss://localhost:{mutual}", **fields)("PING")
    assert connect(url=f"rediss://127.0.0.1:{mutual}/0", **fields)("PING")
    assert connect(host="localhost", port=mutual, ssl=True, **fields)("PING")
    in_url = "&".join(f"{name}={value}" for name, value in fields.items())
    assert connect(url=f"rediss://localhost:{mutual}?{in_url}")("PING")


def test_tls_without_the_clients_certificate(
    connect: Callable[..., Client], mutual: int, certificates: Certificates
) -> None:
    client = connect(url=f"rediss://localhost:{mutual}", ssl_ca_certs=certificates("ca.crt"))
    with pytest.raises(exceptions.ConnectionError):
        client("PING")


@pytest.mark.parametrize("form", ["url", "host"])
def test_tls_with_a_wrong_authority(
    connect: Callable[..., Client], elsewhere: int, certificates: Certificates, form: str
) -> None:
    place: dict[str, Any] = {"url": f"rediss://localhost:{elsewhere}"}
    if form == "host":
        place = {"host": "localhost", "port": elsewhere, "ssl": True}
    for wrong in ({"ssl_ca_certs": certificates("stranger.crt")}, {}):
        with pytest.raises(exceptions.ConnectionError, match="certificate verify failed"):
            connect(**place, **wrong)("PING")
    assert connect(**place, ssl_cert_reqs="none")("PING")


@pytest.mark.parametrize("form", ["url", "host"])
def test_tls_with_a_wrong_host_name(
    connect: Callable[..., Client], elsewhere: int, certificates: Certificates, form: str
) -> None:
    place: dict[str, Any] = {"url": f"rediss://localhost:{elsewhere}"}
    if form == "host":
        place = {"host": "localhost", "port": elsewhere, "ssl": True}
    trusted = {"ssl_ca_certs": certificates("ca.crt")}
    with pytest.raises(exceptions.ConnectionError, match="Hostname mismatch"):
        connect(**place, **trusted)("PING")
    assert connect(**place, **trusted, ssl_check_hostname=False)("PING")


def test_tls_and_no_tls_do_not_meet(connect: Callable[..., Client], elsewhere: int) -> None:
    with pytest.raises(exceptions.ConnectionError):
        connect(url=f"redis://localhost:{elsewhere}")("PING")


def test_a_missing_tls_file_is_named(mode: str, certificates: Certificates) -> None:
    config = RedisConfig(url="rediss://localhost", ssl_ca_certs=certificates("none.crt"))
    with pytest.raises(ConfigError, match=r"redis\.ssl_ca_certs: there is no file '.*none\.crt'"):
        Client(mode, config)


def test_tls_in_a_cluster(
    connect: Callable[..., Client], redis_path: Path, certificates: Certificates
) -> None:
    options = tls_options(certificates, "server", clients="yes")
    options |= CLUSTER_OPTIONS | {"cluster-port": str(free_port()), "tls-cluster": "yes"}
    with ServerProcess(redis_path, options=options) as server:
        form_cluster(server)
        client = connect(
            url=f"cluster://localhost:{options['tls-port']}",
            ssl=True,
            ssl_ca_certs=certificates("ca.crt"),
            ssl_certfile=certificates("client.crt"),
            ssl_keyfile=certificates("client.key"),
            ssl_check_hostname=False,  # a node announces no name, only an address
        )
        client("SET", "key", "value")
        assert client("GET", "key") == b"value"


# Clusters


def form_cluster(server: ServerProcess, **settings: str) -> None:
    """Make one server a cluster of its own."""
    client = server.client()
    for name, value in settings.items():
        client.config_set(name.replace("_", "-"), value)
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True))


@pytest.fixture
def cluster(new_server: Callable[..., ServerProcess]) -> ServerProcess:
    server = new_server(tcp=True, options=CLUSTER_OPTIONS | {"cluster-port": str(free_port())})
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
        await asyncio.to_thread(until, lambda: _blocked(cluster.client()) == 1)
        with pytest.raises(exceptions.MaxConnectionsError, match=r"redis\.max_connections"):
            await client.execute_command("GET", "key")
        cluster.client().rpush("list", "a")
        assert list(await blocked) == [b"list", b"a"]
        await client.aclose()

    asyncio.run(run())


# Sentinels


@contextlib.contextmanager
def sentinel_process(binary: Path, lines: list[str]) -> Generator[int]:
    """A sentinel with this configuration; yields its port."""
    directory = Path(tempfile.mkdtemp(prefix="fq-", dir="/tmp"))
    port = free_port()
    file = directory / "sentinel.conf"
    file.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {directory}", *lines, ""]))
    process = subprocess.Popen(
        [str(binary), str(file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(port))
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def _answers(port: int) -> bool:
    with contextlib.closing(redis.Redis(port=port, retry=Retry(NoBackoff(), 0))) as client:
        try:
            client.execute_command("PING")
        except exceptions.AuthenticationError:
            return True
        except exceptions.ConnectionError:
            return False
        return True


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


def test_tls_with_sentinels(
    connect: Callable[..., Client], redis_path: Path, certificates: Certificates
) -> None:
    options = tls_options(certificates, "server", clients="yes")
    tls = [f"{name} {value}" for name, value in options.items() if name != "tls-port"]
    tls_port = free_port()
    watch = [
        *tls,
        f"tls-port {tls_port}",
        "tls-replication yes",
        f"sentinel monitor mine 127.0.0.1 {options['tls-port']} 1",
    ]
    with tls_server(redis_path, options), sentinel_process(redis_path, watch):
        client = connect(
            url=f"sentinel://localhost:{tls_port}/mine",
            ssl=True,
            ssl_ca_certs=certificates("ca.crt"),
            ssl_certfile=certificates("client.crt"),
            ssl_keyfile=certificates("client.key"),
        )
        until(lambda: _set(client, "key", "value"))
        assert client("GET", "key") == b"value"


def test_a_service_that_no_sentinel_knows(connect: Callable[..., Client], redis_path: Path) -> None:
    unknown = pytest.raises(exceptions.ConnectionError, match="No master found for 'mine'")
    with sentinel_process(redis_path, []) as port, unknown:
        connect(url=f"sentinel://127.0.0.1:{port}/mine")("PING")


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
