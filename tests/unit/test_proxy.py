"""Each fault of the proxy, seen from a client and from the server behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.proxy import FaultProxy
from tests.support.resp import Splitter, command_name
from tests.support.servers import ServerProcess

pytestmark = pytest.mark.no_leak_check

SCRIPT = "return redis.call('INCR', KEYS[1])"


@pytest.fixture(params=["unix", "tcp"])
def proxy(
    request: pytest.FixtureRequest, server: ServerProcess, flushed: redis.Redis
) -> Iterator[FaultProxy]:
    with FaultProxy(server.url, tcp=request.param == "tcp") as running:
        yield running


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Callable[..., redis.Redis]]:
    clients: list[redis.Redis] = []

    def new(**options: Any) -> redis.Redis:
        client = redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), **options)
        clients.append(client)
        return client

    yield new
    for client in clients:
        client.close()


Connect = Callable[..., redis.Redis]


@pytest.mark.parametrize("protocol", [2, 3])
def test_it_is_transparent(proxy: FaultProxy, connect: Connect, protocol: int) -> None:
    client = connect(protocol=protocol)
    blob = bytes(range(256)) * 5000
    client.set("k", blob)
    client.hset("h", mapping={"a": "1", "b": "\r\n"})
    with client.pipeline() as pipe:
        for n in range(50):
            pipe.rpush("l", n)
        pipe.lrange("l", 0, -1)
        pipe.get("missing")
        answers = pipe.execute()
    assert client.get("k") == blob
    assert client.hgetall("h") == {b"a": b"1", b"b": b"\r\n"}
    assert answers[-2:] == [[b"%d" % n for n in range(50)], None]
    assert proxy.commands["RPUSH"] == 50
    assert proxy.commands["GET"] == 2
    assert proxy.requests == proxy.replies
    assert proxy.connections == 1


def test_a_dropped_reply_was_carried_out(proxy: FaultProxy, connect: Connect, flushed: redis.Redis) -> None:
    client = connect()
    assert client.eval(SCRIPT, 1, "n") == 1
    proxy.drop_replies(2, matching=b"EVAL")
    for expected in (2, 3):
        client.ping()  # does not match
        with pytest.raises(redis.ConnectionError):
            client.eval(SCRIPT, 1, "n")
        assert flushed.get("n") == b"%d" % expected
    assert client.eval(SCRIPT, 1, "n") == 4
    assert proxy.replies_dropped == 2


def test_a_thousand_dropped_replies(proxy: FaultProxy, connect: Connect, flushed: redis.Redis) -> None:
    client = connect()
    proxy.drop_replies(1000, matching=lambda request: command_name(request) == "INCRBY")
    for _ in range(1000):
        with pytest.raises(redis.ConnectionError):
            client.incr("n")
    assert flushed.get("n") == b"1000"
    assert client.incr("n") == 1001
    assert proxy.replies_dropped == 1000


def test_only_replies_of_what_was_carried_out_are_dropped(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    proxy.drop_replies(1, matching=b"EVALSHA")
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha("0" * 40, 0)
    assert proxy.replies_dropped == 0
    sha = str(client.script_load(SCRIPT))
    with pytest.raises(redis.ConnectionError):
        client.evalsha(sha, 1, "n")
    proxy.drop_replies(1, matching=b"EVALSHA", errors=True)
    with pytest.raises(redis.ConnectionError):
        client.evalsha("0" * 40, 0)
    assert proxy.replies_dropped == 2


def test_replies_before_the_dropped_one_arrive(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    proxy.drop_replies(1, matching=b"INCR")
    with client.pipeline(transaction=False) as pipe:
        pipe.set("a", 1)
        pipe.incr("a")
        with pytest.raises(redis.ConnectionError):
            pipe.execute()
    assert client.get("a") == b"2"


def test_a_dropped_request_was_not_carried_out(
    proxy: FaultProxy, connect: Connect, flushed: redis.Redis
) -> None:
    client = connect()
    proxy.drop_requests(1, matching=b"INCR")
    with pytest.raises(redis.ConnectionError):
        client.incr("n")
    assert flushed.get("n") is None
    assert proxy.requests_dropped == 1
    assert client.incr("n") == 1


def test_reset_closes_every_connection(proxy: FaultProxy, connect: Connect) -> None:
    client, other = connect(), connect()
    client.ping()
    other.ping()
    assert proxy.reset() == 2
    proxy.wait_for(lambda p: p.connections == 0)
    with proxy_socket(proxy) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        proxy.reset()
        try:
            assert raw.recv(100) == b""
        except ConnectionResetError:
            pass
    assert client.ping()


def test_reset_wakes_who_waits_for_a_reply(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            client.blpop(["nothing"], 30)
        except redis.ConnectionError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    proxy.wait_for(lambda p: p.commands["BLPOP"] == 1)
    proxy.reset()
    waiting.join(10)
    assert len(failures) == 1


def test_delay(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    client.ping()
    proxy.delay(0.1)
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.2, "once on the way there, once on the way back"
    proxy.delay(0)
    client.ping()


def test_a_black_hole_delivers_later(proxy: FaultProxy, connect: Connect, flushed: redis.Redis) -> None:
    client = connect(socket_timeout=0.1)
    client.ping()
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    assert flushed.get("n") is None
    proxy.black_hole(False)
    proxy.wait_for(lambda p: p.connections == 0)
    assert flushed.get("n") == b"1", "what was on its way arrives, though nobody waits for it"
    assert client.ping()


@pytest.mark.parametrize("size", [1, 7])
def test_slices(proxy: FaultProxy, connect: Connect, size: int) -> None:
    client = connect()
    proxy.slice(size)
    client.rpush("l", *range(40))
    assert client.lrange("l", 0, -1) == [b"%d" % n for n in range(40)]
    with proxy_socket(proxy) as raw:
        raw.sendall(b"PING\r\n")
        pieces = [raw.recv(100)]
        while b"".join(pieces) != b"+PONG\r\n":
            pieces.append(raw.recv(100))
    assert len(pieces) > 1 or size == 7


def test_a_held_request_runs_late(proxy: FaultProxy, connect: Connect, flushed: redis.Redis) -> None:
    client = connect(socket_timeout=0.1)
    proxy.hold(matching=b"INCR")
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    proxy.wait_held()
    client.close()
    assert flushed.get("n") is None
    assert proxy.release() == 1
    proxy.wait_for(lambda p: p.connections == 0)
    assert flushed.get("n") == b"1"


def test_a_held_request_can_be_dropped(proxy: FaultProxy, connect: Connect, flushed: redis.Redis) -> None:
    client = connect(socket_timeout=0.1)
    proxy.hold(matching=b"INCR")
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    proxy.wait_held()
    proxy.release(forward=False)
    proxy.wait_for(lambda p: p.connections == 0)
    assert flushed.get("n") is None


def test_refused_connections(proxy: FaultProxy, connect: Connect) -> None:
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        connect().ping()
    proxy.heal()
    assert connect().ping()


def test_a_server_that_is_away(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server(append_only=True)
    with FaultProxy(server.url) as proxy, redis.Redis.from_url(proxy.url) as client:
        client.set("k", "v")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)).ping()
        server.start()
        assert client.get("k") == b"v"


def test_heal_takes_all_back(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    proxy.delay(5)
    proxy.slice(1)
    proxy.black_hole()
    proxy.refuse()
    proxy.hold()
    proxy.drop_replies(5)
    proxy.drop_requests(5)
    proxy.heal()
    assert client.ping()


async def test_the_async_client_too(proxy: FaultProxy, flushed: redis.Redis) -> None:
    client = redis.asyncio.Redis.from_url(proxy.url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0))
    try:
        assert await asyncio.gather(*(client.incr("n") for _ in range(20)))
        proxy.drop_replies(1, matching=b"INCR")
        with pytest.raises(redis.ConnectionError):
            await client.incr("n")
        assert flushed.get("n") == b"21"
    finally:
        await client.aclose()


def proxy_socket(proxy: FaultProxy) -> socket.socket:
    """A bare connection to the proxy, for looking at pieces."""
    if proxy.port:
        return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(10)
    raw.connect(proxy.socket_path)
    return raw


FRAMES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":42\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"$4\r\n\r\n\r\n\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"%1\r\n+k\r\n~2\r\n#t\r\n,1.5\r\n",
    b">3\r\n+message\r\n+c\r\n=7\r\ntxt:abc\r\n",
    b"|1\r\n+ttl\r\n:3\r\n$2\r\nok\r\n",
    b"_\r\n",
    b"(123456789012345678901234567890\r\n",
    b"!5\r\nERR x\r\n",
    b"PING\r\n",
]


@given(st.lists(st.sampled_from(FRAMES), max_size=8), st.data())
def test_messages_are_cut_where_they_end(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    splitter = Splitter()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == frames
