"""The test support proves itself: servers come and go with their test, leaks are seen."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.keys import assert_no_leaks, leaked_keys
from tests.support.servers import ServerProcess


def test_a_killed_server_comes_back_with_its_data(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server(append_only=True)
    client = server.client()
    client.set("k", "v")
    pid = server.pid
    server.restart()
    assert server.pid != pid
    assert client.get("k") == b"v"


def test_a_server_on_tcp(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server(tcp=True)
    with redis.Redis.from_url(server.tcp_url) as client:
        assert client.ping()


def test_options_are_set_back(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server()
    client = server.client()
    with server.configured(maxmemory="1048576", maxmemory_policy="noeviction"):
        assert client.info("memory")["maxmemory"] == 1048576
    assert client.info("memory")["maxmemory"] == 0


def test_a_frozen_server_goes_on(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server()
    server.freeze()
    with pytest.raises(redis.TimeoutError):
        server.client(socket_timeout=0.05).ping()
    server.thaw()
    assert server.client().ping()


_START_AND_LINGER = """
import sys, time
from pathlib import Path
from tests.support.servers import ServerProcess
server = ServerProcess(Path(sys.argv[1])).start()
print(server.pid, server.directory, flush=True)
time.sleep(60)
"""


def test_a_server_goes_with_a_killed_test_run(valkey_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the kernel's help is Linux's")
    command = [sys.executable, "-c", _START_AND_LINGER, str(valkey_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
    shutil.rmtree(directory)
    server_pid = int(pid)
    deadline = time.monotonic() + 10
    while _alive(server_pid):
        assert time.monotonic() < deadline, "the server outlived the process that started it"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaks_are_keys_without_ttl_or_reason(flushed: redis.Redis) -> None:
    flushed.set("fq:result:1", "x", ex=60)
    flushed.hset("fq:stats", "finished", 1)
    flushed.sadd("fq:state:started", "1")
    flushed.set("elsewhere", "x", ex=60)
    assert leaked_keys(flushed, "fq", ["stats", "state:*"]) == ["elsewhere"]
    with pytest.raises(AssertionError, match="2 keys were left"):
        assert_no_leaks(flushed, "fq", ["stats"])
    flushed.flushall()


@pytest.mark.leaves_keys("dead:*")
def test_a_marker_gives_a_reason(flushed: redis.Redis) -> None:
    flushed.set("fq:dead:1", "x")


def test_each_test_starts_empty(flushed: redis.Redis) -> None:
    assert flushed.dbsize() == 0
