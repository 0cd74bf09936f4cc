"""The embedded server: started once however many ask, outlives who started it, keeps its data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from fairque.core.exceptions import ConfigError, QueueUnavailableError, ServerNotFoundError
from fairque.queue import embedded, embedded_home, server_binary
from fairque.queue.embedded import EmbeddedServer, ensure_server, server_status, stop_server


@pytest.fixture(autouse=True)
def _program(valkey_path: Path) -> None:
    """All of these need a server program."""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not tmp_path, whose length would leave no room for a socket beside the data.
    directory = Path(tempfile.mkdtemp(prefix="fq-", dir="/tmp"))
    yield directory
    for home in (directory, *directory.glob("*")):
        if home.is_dir():
            _end(home)
    shutil.rmtree(directory)


def _end(data_dir: Path) -> None:
    status = server_status(data_dir)
    if status is not None:
        os.kill(status.pid, signal.SIGKILL)
        _until(lambda: server_status(data_dir) is None)


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def _client(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_is_started_on_first_use_and_then_shared(data_dir: Path) -> None:
    assert server_status(data_dir) is None
    first = ensure_server(data_dir)
    second = ensure_server(data_dir)
    assert (first.started, second.started) == (True, False)
    assert (second.pid, second.socket_path) == (first.pid, first.socket_path)
    status = server_status(data_dir)
    assert status is not None
    assert status.ready
    assert (status.pid, status.software) == (first.pid, "valkey")
    assert status.uptime_seconds < 60


def test_its_settings(data_dir: Path) -> None:
    with _client(ensure_server(data_dir)) as client:
        settings = {
            name: client.config_get(name)[name]
            for name in ("appendonly", "appendfsync", "maxmemory-policy", "port", "unixsocketperm", "save")
        }
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "unixsocketperm": "700",
        "save": "",
    }


def test_nobody_else_can_reach_it(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    server = ensure_server(data_dir)
    socket = Path(server.socket_path)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    open_to_others = [p for p in (data_dir / "embedded").rglob("*") if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert open_to_others == []
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755, "the user's own directory is left as it was"


_ENSURE = """
import sys
from pathlib import Path
from fairque.queue.embedded import ensure_server
sys.stdin.readline()
server = ensure_server(Path(sys.argv[1]))
print(server.pid, server.started, flush=True)
"""


def test_eight_processes_at_once_get_one_server(data_dir: Path) -> None:
    command = [sys.executable, "-c", _ENSURE, str(data_dir)]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    for starter in starters:  # they have started when the line comes, or read it as soon as they have
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    answers = [starter.communicate(timeout=60)[0].split() for starter in starters]
    assert len({pid for pid, _ in answers}) == 1
    assert sorted(started for _, started in answers) == ["False"] * 7 + ["True"]
    # It outlives all of them, in a session of its own.
    status = server_status(data_dir)
    assert status is not None
    assert str(status.pid) == answers[0][0]
    assert os.getsid(status.pid) != os.getsid(0)


def test_a_killed_server_is_started_again_with_its_data(data_dir: Path) -> None:
    server = ensure_server(data_dir)
    with _client(server) as client:
        client.set("k", "v")
    os.kill(server.pid, signal.SIGKILL)
    _until(lambda: server_status(data_dir) is None)
    assert Path(server.socket_path).exists(), "the stale socket is what this test is about"
    again = ensure_server(data_dir)
    assert again.started
    assert again.pid != server.pid
    with _client(again) as client:
        assert client.get("k") == b"v"


def test_stop_keeps_the_data(data_dir: Path) -> None:
    assert stop_server(data_dir) is False
    server = ensure_server(data_dir)
    with _client(server) as client:
        client.set("k", "v")
    assert stop_server(data_dir) is True
    assert server_status(data_dir) is None
    assert stop_server(data_dir) is False
    with _client(ensure_server(data_dir)) as client:
        assert client.get("k") == b"v"


def test_a_server_that_hangs_is_named_and_no_second_one_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_home, "ANSWER_SECONDS", 0.3)
    server = ensure_server(data_dir)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        status = server_status(data_dir)
        assert status is not None
        assert not status.ready
        assert status.pid == server.pid
        with pytest.raises(QueueUnavailableError, match=f"process {server.pid}.*does not answer"):
            ensure_server(data_dir, timeout=0.1)
        with pytest.raises(QueueUnavailableError, match="did not stop within"):
            stop_server(data_dir, timeout=0.1)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert ensure_server(data_dir).pid == server.pid


def test_a_server_that_cannot_start_shows_its_log(data_dir: Path) -> None:
    ensure_server(data_dir)
    stop_server(data_dir)
    manifest = next((data_dir / "embedded" / "appendonlydir").glob("*.manifest"))
    manifest.write_text("nonsense\n")
    with pytest.raises(QueueUnavailableError, match=r"(?s)server\.log.*manifest"):
        ensure_server(data_dir)


def test_a_program_that_cannot_run_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = data_dir / "valkey-server"
    program.write_text("#!/bin/sh\necho no such luck; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "find_server", lambda: program)
    with pytest.raises(QueueUnavailableError, match="no such luck"):
        ensure_server(data_dir)
    program.write_bytes(b"\x00")
    with pytest.raises(QueueUnavailableError, match="cannot be run"):
        ensure_server(data_dir)


def test_without_a_program_the_ways_out_are_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_binary, "bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(data_dir))
    with pytest.raises(ServerNotFoundError, match=r"fairque\[embedded\].*redis\.url"):
        ensure_server(data_dir)


@pytest.mark.parametrize("program", ["valkey-server", "redis-server"])
def test_a_program_on_the_path_serves_too(
    program: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_binary, "bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(data_dir))
    path = data_dir / program
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    assert server_binary.find_server() == path


def test_debians_redis_serves_too(data_dir: Path, redis_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_server", lambda: redis_path)
    ensure_server(data_dir)
    status = server_status(data_dir)
    assert status is not None
    assert status.software == "redis"
    assert stop_server(data_dir)


@pytest.mark.parametrize("with_runtime_dir", [True, False])
def test_a_long_path_gets_a_short_socket(
    with_runtime_dir: bool, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = data_dir / "run"
    runtime.mkdir()
    long = data_dir / ("long" * 25)
    if with_runtime_dir:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    server = ensure_server(long)
    parent = runtime / "fairque" if with_runtime_dir else Path(f"/tmp/fairque-{os.geteuid()}")
    assert Path(server.socket_path).parent == parent
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    # Another process with another environment finds the same server.
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert ensure_server(long).pid == server.pid
    _end(long)
    Path(server.socket_path).unlink()


def test_a_short_directory_of_somebody_else_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = data_dir / "run"
    runtime.mkdir()
    (runtime / "fairque").symlink_to(data_dir)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with pytest.raises(ConfigError, match="not a directory of this user"):
        ensure_server(data_dir / ("long" * 25))


def test_a_copied_data_directory_is_not_the_originals(data_dir: Path) -> None:
    original = ensure_server(data_dir / "a")
    shutil.copytree(
        data_dir / "a", data_dir / "b", ignore=lambda _, names: [n for n in names if n.endswith(".sock")]
    )
    copy = ensure_server(data_dir / "b")
    assert copy.started
    assert copy.pid != original.pid


def test_a_damaged_record_is_no_obstacle(data_dir: Path) -> None:
    ensure_server(data_dir)
    stop_server(data_dir)
    for damage in ("", "[]", json.dumps({"home": str(data_dir / "embedded")})):
        (data_dir / "embedded" / "server.json").write_text(damage)
        assert server_status(data_dir) is None
    assert ensure_server(data_dir).started


def test_the_data_directory_comes_from_the_environment(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRQUE_DATA_DIR", str(data_dir / "set"))
    monkeypatch.setenv("XDG_DATA_HOME", str(data_dir))
    assert embedded.default_data_dir() == data_dir / "set"
    assert ensure_server().data_dir == (data_dir / "set").resolve()
    monkeypatch.delenv("FAIRQUE_DATA_DIR")
    assert embedded.default_data_dir() == data_dir / "fairque"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert embedded.default_data_dir() == Path("/home/somebody/.local/share/fairque")


def test_a_directory_that_cannot_be_made_is_named(data_dir: Path) -> None:
    (data_dir / "file").write_text("")
    with pytest.raises(ConfigError, match="FAIRQUE_DATA_DIR"):
        ensure_server(data_dir / "file")
