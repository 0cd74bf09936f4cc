"""One queue for all, first in, first out: what a queue without tenants does, to stand beside the fair one."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tests.model.simulation import Due
from tests.model.values import Claimed, Entry, Exchange, Job, Limits, Outcome, Permits, Scheduler


class PlainFifo:
    """It knows no policies: scenarios that set some cannot run on it."""

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()
        self._workers = 0

    def join(self, now: int, slots: int, entry: str = "") -> int:
        self._workers += 1
        return self._workers

    def push(self, now: int, jobs: Sequence[Job]) -> list[bool]:
        self._queue.extend(jobs)
        return [True] * len(jobs)

    def exchange(
        self,
        now: int,
        worker: int,
        outcomes: Sequence[Outcome] = (),
        want: int = 0,
        *,
        beat: bool = False,
        users: Sequence[str] = (),
    ) -> Exchange:
        """All that ended is gone; the oldest are next."""
        jobs = [self._queue.popleft() for _ in range(min(want, len(self._queue)))]
        return Exchange(
            (1,) * len(outcomes), tuple(Claimed(job.task_id, job.user, 1.0, False) for job in jobs)
        )

    def leave(self, now: int, worker: int, begun: bool) -> None:
        raise NotImplementedError

    def renew(self, now: int, worker: int) -> None:
        raise NotImplementedError

    def cancel(self, now: int, task_id: str) -> None:
        raise NotImplementedError

    def set_policy(self, now: int, user: str, limits: Limits) -> None:
        raise NotImplementedError

    def set_group(self, now: int, name: str, limits: Limits) -> None:
        raise NotImplementedError

    def set_limiter(self, now: int, name: str, permits: Permits) -> None:
        raise NotImplementedError

    def assign(self, now: int, entries: Mapping[str, Entry]) -> None:
        raise NotImplementedError

    def pause(self, now: int, paused: bool) -> None:
        raise NotImplementedError


class Fifo:
    """The ground on which scenarios meet it."""

    def open(self, config: Mapping[str, Any]) -> tuple[Scheduler, Due | None]:
        return PlainFifo(), None
