"""Whether a queue can be used."""

from __future__ import annotations

from dataclasses import dataclass

from fairque.queue.operations.admin import QueueStats


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """`healthy`: the server answers. `problems` says in words what a person should look at.

    `latency` is seconds for one call that reads the totals.
    """

    healthy: bool
    latency: float
    workers: int
    queued: int
    running: int
    paused: bool
    problems: tuple[str, ...]


def health_of(stats: QueueStats | None, error: Exception | None, latency: float) -> QueueHealth:
    """The finding, from the numbers or from the error that came instead."""
    if stats is None:
        return QueueHealth(False, latency, 0, 0, 0, False, (f"{type(error).__name__}: {error}",))
    queued, running = stats.states["queued"], stats.states["started"]
    problems: list[str] = []
    if queued and not stats.workers:
        problems.append(f"{queued} tasks wait and no worker is alive: start one with `fairque worker`")
    if stats.paused:
        problems.append("the queue is paused: `fairque resume`")
    if stats.states["failed"]:
        count = stats.states["failed"]
        problems.append(f"{count} dead letter{'' if count == 1 else 's'}: see `fairque dlq list`")
    return QueueHealth(True, latency, len(stats.workers), queued, running, stats.paused, tuple(problems))
