"""What operations are made of.

An operation is a generator: it yields `Call`s and gets their decoded replies; an error of the server is
thrown into it. `run_sync` and `run_async` in lua_manager.py move the bytes, so no operation knows whether
anybody awaits. (The shape is psycopg 3's: the protocol in generators, the waiting in two small drivers.)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from fairque.core.config import QueueConfig
from fairque.core.events import EventBus
from fairque.core.keys import Keys
from fairque.core.middleware import Middleware
from fairque.queue.operations.doubts import Doubts
from fairque.queue.operations.durability import Assurance, assurance_of

T = TypeVar("T")
Argument: TypeAlias = bytes | str | int | float


@dataclass(frozen=True, slots=True)
class Call:
    """One script call. `resend`: whether it may be sent again when its reply was lost.

    That is so if the server can tell a repetition (by operation id, call number or token) or if one changes
    nothing. `assurance`: what it waits for before it counts as done, if that is anything.
    """

    script: str
    argv: Sequence[Argument]
    resend: bool = True
    assurance: Assurance | None = None


Flow: TypeAlias = Generator[Call, Any, T]

_SETTINGS = struct.Struct(">B11d")
SCHEMA = 2


class Engine:
    """What all operations of one queue share. Pure: it neither connects nor reads a clock.

    `now` is for tests: the time in µs that scripts take instead of the server's.
    """

    def __init__(
        self,
        config: QueueConfig,
        prefix: str = "fq",
        *,
        bus: EventBus | None = None,
        middleware: Sequence[Middleware] = (),
        now: Callable[[], int] | None = None,
    ) -> None:
        self.config = config
        self.keys = Keys(prefix)
        self.bus = bus or EventBus()
        self.middleware = tuple(middleware)
        self.now = now
        self.assurance = assurance_of(config)
        self.doubts = Doubts(lambda: os.urandom(8))
        self._settings = _SETTINGS.pack(
            config.fairness == "worker_time",
            round(config.aging_seconds * 1e6),
            round(config.lease_seconds * 1e6),
            round(config.result_ttl_seconds * 1e3),
            round(config.user_ttl_seconds * 1e3),
            config.sparse_share,
            round(config.unknown_function_seconds * 1e6),
            config.max_user_share,
            round(config.steal_after_seconds * 1e6),
            round((config.dead_letter_ttl_seconds or 0) * 1e3),
            config.max_dead_letters or 0,
            min(config.dead_letter_alert or 0, config.max_dead_letters or config.dead_letter_alert or 0),
        )

    @property
    def settings(self) -> bytes:
        """What every script gets to know of the configuration, packed as lib/prelude.lua reads it."""
        if self.now is None:
            return self._settings
        return self._settings + struct.pack(">d", self.now())

    def call(self, script: str, *argv: Argument, resend: bool = True) -> Call:
        """A call of `script` with this queue's prefix and settings before `argv`."""
        return Call(script, (self.keys.prefix, self.settings, *argv), resend, self.assurance)


def chunked(
    argv: list[Argument], width: int, sizes: list[int], limit: int = 1000, max_bytes: int = 4 << 20
) -> list[list[Argument]]:
    """`argv`, `width` arguments an item, cut so that no chunk has over `limit` items or `max_bytes` (`sizes`)."""
    chunks: list[list[Argument]] = []
    start = count = total = 0
    for index, size in enumerate(sizes):
        if count and (count == limit or total + size > max_bytes):
            chunks.append(argv[start * width : index * width])
            start, count, total = index, 0, 0
        count, total = count + 1, total + size
    if count:
        chunks.append(argv[start * width :])
    return chunks
