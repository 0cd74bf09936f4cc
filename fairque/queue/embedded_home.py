"""The files of one embedded server, and what can be done and asked through them.

Three files in `DATA_DIR/embedded` keep processes apart:

- `start.lock` is held while a process decides whether to start, or stops, the server;
- `alive.lock` is opened by the starter and inherited by the server, so the kernel says, with no guess about
  process ids, whether a server has this data open: two on one append-only file would destroy it;
- `server.json` names the socket, since its place may depend on the environment of whoever started the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fairque.core.exceptions import ConfigError, QueueUnavailableError

# A socket's path may have 107 bytes on Linux and 103 on macOS.
MAX_SOCKET_PATH_BYTES = 100
START_TIMEOUT_SECONDS = 30.0
ANSWER_SECONDS = 2.0
POLL_SECONDS = 0.01
LOG_TAIL_BYTES = 2000

_OWNER_ONLY = 0o700


def is_ready(info: dict[str, Any]) -> bool:
    """Whether the answer is that of a server that has its data loaded."""
    return bool(info) and not info.get("loading")


@dataclass(frozen=True, slots=True)
class ServerHome:
    """The files of one embedded server, and what can be asked of them."""

    data_dir: Path
    private: Path

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        chosen = data_dir.expanduser().resolve()
        # A directory below, since the data directory itself may be the user's own and shared with others.
        return cls(chosen, chosen / "embedded")

    @property
    def log(self) -> Path:
        return self.private / "server.log"

    @property
    def _record(self) -> Path:
        return self.private / "server.json"

    @property
    def _pid_file(self) -> Path:
        return self.private / "server.pid"

    def create(self) -> None:
        try:
            self.data_dir.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            _make_private(self.private)
        except OSError as error:
            raise ConfigError(
                f"The embedded server cannot keep its data in {self.data_dir}: {error.strerror or error}. "
                "Name another directory in FAIRQUE_DATA_DIR, or a running server in redis.url"
            ) from error

    def socket_path(self) -> str:
        """Where the socket is or will be: as recorded by who started the server, else chosen now."""
        try:
            record = json.loads(self._record.read_bytes())
            # A copy of a data directory carries the record of the original, whose server is another.
            if record["home"] == str(self.private):
                return str(record["socket"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none was started yet, or the record was cut short: the next start writes it anew
        return self._choose_socket_path()

    def _choose_socket_path(self) -> str:
        beside = str(self.private / "server.sock")
        if len(os.fsencode(beside)) <= MAX_SOCKET_PATH_BYTES:
            return beside
        name = hashlib.sha256(os.fsencode(self.private)).hexdigest()[:20] + ".sock"
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isabs(runtime):
            short = os.path.join(runtime, "fairque", name)
            if len(os.fsencode(short)) <= MAX_SOCKET_PATH_BYTES and os.path.isdir(runtime):
                return short
        return f"/tmp/fairque-{os.geteuid()}/{name}"  # noqa: S108 - owner and mode are checked before use

    @contextlib.contextmanager
    def start_lock(self, deadline: float) -> Generator[None]:
        descriptor = self._open_lock("start.lock")
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise QueueUnavailableError(
                        f"Another process has held {self.private / 'start.lock'} for too long; it is "
                        f"starting or stopping the embedded server and may hang. Log: {self.log}"
                    )
                time.sleep(POLL_SECONDS)
            try:
                yield
            finally:
                # Not left to close(): a child forked meanwhile has a copy and would keep the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def take_alive_lock(self) -> int | None:
        """The locked descriptor if no server lives, else None. Only under the start lock: looking locks."""
        descriptor = self._open_lock("alive.lock")
        if _try_lock(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def is_alive(self) -> bool:
        """Whether a server has the data open, or is just being started or stopped."""
        if not self.private.is_dir():
            return False
        try:
            with self.start_lock(time.monotonic() + ANSWER_SECONDS):
                alive = self.take_alive_lock()
        except QueueUnavailableError:
            return True
        if alive is not None:
            os.close(alive)
        return alive is None

    def _open_lock(self, name: str) -> int:
        return os.open(self.private / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def launch(self, program: Path, alive: int) -> None:
        """Start the server as a daemon that inherits the alive lock; returns before it answers."""
        socket_path = self._choose_socket_path()
        if os.path.dirname(socket_path) != str(self.private):
            try:
                _make_private(Path(socket_path).parent)
            except OSError as error:
                raise ConfigError(
                    f"The path of {self.private} is too long for a socket, and "
                    f"{os.path.dirname(socket_path)} cannot be used instead: {error.strerror or error}. "
                    "Name a shorter FAIRQUE_DATA_DIR"
                ) from error
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)  # left by a server that was killed
        self._pid_file.unlink(missing_ok=True)
        # Before the start: whoever finds the server alive, also after this process was killed, finds its
        # socket.
        record = {"home": str(self.private), "socket": socket_path}
        fresh = self._record.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(record))
        fresh.replace(self._record)
        options = {
            "port": "0",
            "unixsocket": socket_path,
            "unixsocketperm": "700",
            "dir": str(self.private),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self.log),
            "pidfile": str(self._pid_file),
            "daemonize": "yes",
        }
        command = [str(program), *(part for name, value in options.items() for part in (f"--{name}", value))]
        try:
            # It forks, leaves our session and returns; what stops it before it has a log goes to its output.
            done = subprocess.run(
                command,
                cwd=self.private,
                # With a locale that the machine lacks, it would refuse to start.
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(alive,),
                umask=0o077,
                timeout=START_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise QueueUnavailableError(f"The embedded server {program} cannot be run: {error}") from error
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace")[-LOG_TAIL_BYTES:].strip()
            raise QueueUnavailableError(
                self.describe(f"The embedded server {program} ended at once, saying {said!r}")
            )

    def wait_until_ready(self, deadline: float) -> dict[str, Any]:
        while True:
            info = self.ask()
            if is_ready(info):
                return info
            if not info:
                if not self.is_alive():
                    raise QueueUnavailableError(self.describe("The embedded server ended while it started"))
                if time.monotonic() >= deadline:
                    raise QueueUnavailableError(
                        self.describe(
                            f"The embedded server (process {self.recorded_pid() or 'unknown'}) is running "
                            f"but does not answer on {self.socket_path()}; if it hangs, end that process"
                        )
                    )
            time.sleep(POLL_SECONDS)

    def ask(self) -> dict[str, Any]:
        """What the server at our socket says (INFO), or an empty dict if nobody answers."""
        with contextlib.closing(self._client()) as client:
            try:
                return dict(client.info("server", "persistence", "memory", "keyspace"))
            except (redis.RedisError, OSError):
                return {}

    def ask_to_shut_down(self) -> None:
        with contextlib.closing(self._client()) as client, contextlib.suppress(redis.RedisError, OSError):
            client.shutdown()

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=self.socket_path(),
            socket_timeout=ANSWER_SECONDS,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def recorded_pid(self) -> int:
        """What the server wrote as its process id, or 0: good for a message, not for a signal."""
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0

    def describe(self, message: str) -> str:
        """The message, with where the log is and how it ends."""
        try:
            tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            tail = "(there is none)"
        return f"{message}. Its log {self.log} ends:\n{tail}"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_private(directory: Path) -> None:
    """Make a directory that only this user can enter; PermissionError if it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=_OWNER_ONLY)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{directory} is not a directory of this user")
    if stat.S_IMODE(found.st_mode) != _OWNER_ONLY:
        directory.chmod(_OWNER_ONLY)
