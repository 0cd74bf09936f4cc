"""Clusters and sentinels of one process each, for tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.clients import until
from tests.support.servers import ServerProcess, free_port


def cluster_options() -> dict[str, str]:
    """Options of a server that is to be a cluster."""
    return {"cluster-enabled": "yes", "cluster-port": str(free_port())}


def form_cluster(server: ServerProcess) -> None:
    """Make one server a cluster of its own."""
    client: Any = server.client()
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True))


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
    client: Any
    with contextlib.closing(redis.Redis(port=port, retry=Retry(NoBackoff(), 0))) as client:
        try:
            client.execute_command("PING")
        except exceptions.AuthenticationError:
            return True
        except exceptions.ConnectionError:
            return False
        return True
