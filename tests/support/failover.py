"""A primary, two replicas and three sentinels, as processes on ports of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.clients import until
from tests.support.servers import ServerProcess
from tests.support.topologies import sentinel_process

SERVICE = "mine"
_AT_ONCE = {"repl-diskless-sync-delay": "0"}


@dataclass(frozen=True)
class Trio:
    """`servers`: the first began as the primary. `sentinels`: their ports."""

    servers: tuple[ServerProcess, ...]
    sentinels: tuple[int, ...]

    @property
    def url(self) -> str:
        """The sentinel:// URL."""
        return f"sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinels)}/{SERVICE}"

    def primary(self) -> ServerProcess:
        """Whom most sentinels call the primary."""
        told = [self._told(port) for port in self.sentinels]
        port = max(set(told), key=told.count)
        [found] = [server for server in self.servers if server.port == port]
        return found

    def others(self) -> list[ServerProcess]:
        """The servers that are not the primary."""
        primary = self.primary()
        return [server for server in self.servers if server is not primary]

    def takes_writes(self, server: ServerProcess) -> bool:
        """Whether a server runs and is a primary."""
        try:
            return server.running and server.client().info("replication")["role"] == "master"
        except redis.RedisError:
            return False

    @staticmethod
    def _told(port: int) -> int:
        client: Any
        with contextlib.closing(redis.Redis(port=port, retry=Retry(NoBackoff(), 0))) as client:
            _host, master_port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            return int(master_port)


def in_sync(server: ServerProcess) -> bool:
    """Whether a replica follows its primary."""
    return str(server.client().info("replication").get("master_link_status")) == "up"


@contextlib.contextmanager
def sentinel_trio(
    binary: Path, options: Mapping[str, str] | None = None, down_after_milliseconds: int = 2000
) -> Generator[Trio]:
    """Three servers that follow each other, watched by three sentinels that need two to agree.

    A primary that does not answer for `down_after_milliseconds`, maybe since the machine is busy, is replaced.
    """
    options = {**_AT_ONCE, **(options or {})}
    with contextlib.ExitStack() as stack:

        def start(**more: str) -> ServerProcess:
            return stack.enter_context(ServerProcess(binary, tcp=True, options={**options, **more}))

        primary = start()
        replicas = [start(replicaof=f"127.0.0.1 {primary.port}") for _ in range(2)]
        until(lambda: all(in_sync(replica) for replica in replicas))
        watch = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_milliseconds}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 2",
        ]
        sentinels = tuple(stack.enter_context(sentinel_process(binary, watch)) for _ in range(3))
        trio = Trio((primary, *replicas), sentinels)
        until(lambda: all(_knows_all(port) for port in sentinels))
        yield trio


def _knows_all(port: int) -> bool:
    client: Any
    with contextlib.closing(redis.Redis(port=port, retry=Retry(NoBackoff(), 0))) as client:
        return all(
            len(client.execute_command("SENTINEL", what, SERVICE)) == 2 for what in ("SENTINELS", "REPLICAS")
        )
