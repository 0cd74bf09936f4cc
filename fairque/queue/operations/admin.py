"""The queue as a whole: its schema, its pause, its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairque.core.exceptions import SchemaMismatchError
from fairque.queue.operations.base import SCHEMA, Engine, Flow

_unpack = msgspec.msgpack.Decoder(strict=False).decode


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A live incarnation: what it told about itself, how many tasks it holds, seconds to the end of its lease."""

    incarnation: str
    lease_left: float
    running: int
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue in numbers: tasks by state, counters since the beginning, and who serves it."""

    states: dict[str, int]
    counters: dict[str, int]
    numbers: dict[str, float]
    workers: tuple[WorkerInfo, ...]

    @property
    def paused(self) -> bool:
        """Whether the whole queue is paused."""
        return bool(self.numbers["paused"])


def open_queue(engine: Engine, *, serves: bool = False) -> Flow[None]:
    """A client's first call; `serves`: that of a worker or scheduler.

    Raises:
        ConfigError: a full server would throw tasks away, which who serves the queue does not risk.
        SchemaMismatchError: the server's data has another layout.
    """
    found = yield engine.call("open", SCHEMA, int(serves))
    if int(found) != SCHEMA:
        raise SchemaMismatchError(
            f"the data under the prefix {engine.keys.prefix!r} has layout {int(found)}; this version reads {SCHEMA}: "
            "upgrade this client, or use another queue.prefix"
        )


def pause(engine: Engine, paused: bool) -> Flow[None]:
    """Stop all claiming, or let it go on; running tasks are not touched."""
    yield engine.call("pause", int(paused))


def get_stats(engine: Engine) -> Flow[QueueStats]:
    """The queue in numbers: O(1), and O(number of workers)."""
    counters, states, numbers, workers = yield engine.call("get_stats")
    values = {name.decode(): float(value) for name, value in zip(numbers[::2], numbers[1::2], strict=True)}
    found = [
        WorkerInfo(
            workers[i].decode(),
            max(0.0, (float(workers[i + 1]) - values["now"]) / 1e6),
            workers[i + 3],
            _unpack(workers[i + 2]) if workers[i + 2] else {},
        )
        for i in range(0, len(workers), 4)
    ]
    return QueueStats(
        {name.decode(): count for name, count in zip(states[::2], states[1::2], strict=True)},
        {name.decode(): int(count) for name, count in zip(counters[::2], counters[1::2], strict=True)},
        values,
        tuple(found),
    )
