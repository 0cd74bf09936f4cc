"""The embedded server: one Valkey for all processes of one data directory, started when first needed.

It listens on a Unix socket only, in a directory of mode 0700, keeps an append-only file (fsync each second: a
crash of the machine can cost the last second, a crash of a process nothing), and outlives the process that
started it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fairque.core.exceptions import ConfigError, QueueUnavailableError
from fairque.queue.embedded_home import POLL_SECONDS, START_TIMEOUT_SECONDS, ServerHome, is_ready
from fairque.queue.server_binary import find_server

STOP_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServer:
    """A running embedded server; `started` says whether this call started it."""

    socket_path: str
    data_dir: Path
    pid: int
    started: bool

    @property
    def url(self) -> str:
        """Its unix:// URL."""
        return f"unix://{quote(self.socket_path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What is known of an embedded server that has its data open.

    `ready` is False while it loads its data, and when it does not answer; what it did not tell is 0 or empty.
    """

    socket_path: str
    data_dir: Path
    log_path: Path
    ready: bool
    pid: int
    software: str
    version: str
    uptime_seconds: int
    used_memory_bytes: int
    keys: int


def default_data_dir() -> Path:
    """FAIRQUE_DATA_DIR, else `fairque` in XDG_DATA_HOME, else ~/.local/share/fairque.

    Raises ConfigError if the user has no home directory and neither variable is set.
    """
    configured = os.environ.get("FAIRQUE_DATA_DIR")
    if configured:
        return Path(configured)
    xdg = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(xdg):  # the specification says to ignore a relative one
        return Path(xdg, "fairque")
    try:
        return Path.home() / ".local" / "share" / "fairque"
    except RuntimeError as error:
        raise ConfigError(
            "There is no home directory for the embedded server: set FAIRQUE_DATA_DIR"
        ) from error


def ensure_server(data_dir: Path | None = None, *, timeout: float = START_TIMEOUT_SECONDS) -> EmbeddedServer:
    """The running server of this data directory, started if there is none; returns when it is ready.

    `timeout` is in seconds; a server that is loading its data is waited for without a limit, as long as it
    lives. Raises ServerNotFoundError (no server program), QueueUnavailableError (it did not start or does not
    answer; with the end of its log) and ConfigError (the directory cannot be used).
    """
    home = ServerHome.of(data_dir or default_data_dir())
    info = home.ask()
    if is_ready(info):
        return _server(home, info, started=False)
    deadline = time.monotonic() + timeout
    home.create()
    with home.start_lock(deadline):
        alive = home.take_alive_lock()
        started = alive is not None
        if alive is not None:
            try:
                home.launch(find_server(), alive)
            finally:
                os.close(alive)  # the server has it now, or nobody
    return _server(home, home.wait_until_ready(deadline), started=started)


def server_status(data_dir: Path | None = None) -> ServerStatus | None:
    """What the server of this data directory says of itself, or None if none is running. Starts nothing."""
    home = ServerHome.of(data_dir or default_data_dir())
    info = home.ask()
    if not info and not home.is_alive():
        return None
    return ServerStatus(
        socket_path=home.socket_path(),
        data_dir=home.data_dir,
        log_path=home.log,
        ready=is_ready(info),
        pid=int(info.get("process_id", 0)) or home.recorded_pid(),
        software=str(info.get("server_name", "redis")) if info else "",
        version=str(info.get("valkey_version", info.get("redis_version", ""))),
        uptime_seconds=int(info.get("uptime_in_seconds", 0)),
        used_memory_bytes=int(info.get("used_memory", 0)),
        keys=int(info.get("db0", {}).get("keys", 0)),
    )


def stop_server(data_dir: Path | None = None, timeout: float = STOP_TIMEOUT_SECONDS) -> bool:
    """Shut the server of this data directory down, its data on disk. False if none was running.

    Raises QueueUnavailableError if it is still there after `timeout` seconds. It is asked through its socket
    and never killed: the socket cannot belong to somebody else, a process id can.
    """
    home = ServerHome.of(data_dir or default_data_dir())
    deadline = time.monotonic() + timeout
    if not home.private.is_dir():
        return False
    with home.start_lock(deadline):  # held to the end, so that nobody starts a new one in between
        was_running = False
        while True:
            alive = home.take_alive_lock()
            if alive is not None:
                os.close(alive)
                return was_running
            was_running = True
            home.ask_to_shut_down()  # each time: it may not have listened yet, or was too busy
            if time.monotonic() >= deadline:
                raise QueueUnavailableError(
                    home.describe(f"The embedded server did not stop within {timeout:g} s")
                )
            time.sleep(POLL_SECONDS)


def _server(home: ServerHome, info: dict[str, Any], *, started: bool) -> EmbeddedServer:
    return EmbeddedServer(
        socket_path=home.socket_path(),
        data_dir=home.data_dir,
        pid=int(info["process_id"]),
        started=started,
    )
