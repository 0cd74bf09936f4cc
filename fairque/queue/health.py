"""Whether a queue can be used."""

from __future__ import annotations

from dataclasses import dataclass

from fairque.queue.circuit_breaker import BreakerStats
from fairque.queue.operations.admin import QueueStats


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """`healthy`: the server answers. `problems` says in words what a person should look at.

    `latency` is seconds for one call that reads the totals. `breaker` is what this process's circuit breaker has seen.
    """

    healthy: bool
    latency: float
    workers: int
    queued: int
    running: int
    paused: bool
    problems: tuple[str, ...]
    breaker: BreakerStats | None = None


def health_of(
    stats: QueueStats | None,
    error: Exception | None,
    latency: float,
    breaker: BreakerStats | None = None,
    spooled: int = 0,
) -> QueueHealth:
    """The finding, from the numbers or from the error that came instead. `spooled`: tasks in this process's spool."""
    waits = [f"{spooled} tasks wait in the local spool: see `fairque spool ls`"] if spooled else []
    if stats is None:
        told = (f"{type(error).__name__}: {error}", *waits)
        return QueueHealth(False, latency, 0, 0, 0, False, told, breaker)
    queued, running = stats.states["queued"], stats.states["started"]
    problems = waits
    if queued and not stats.workers:
        problems.append(f"{queued} tasks wait and no worker is alive: start one with `fairque worker`")
    if stats.paused:
        problems.append("the queue is paused: `fairque resume`")
    if stats.states["failed"]:
        count = stats.states["failed"]
        problems.append(f"{count} dead letter{'' if count == 1 else 's'}: see `fairque dlq list`")
    workers = len(stats.workers)
    return QueueHealth(True, latency, workers, queued, running, stats.paused, tuple(problems), breaker)
