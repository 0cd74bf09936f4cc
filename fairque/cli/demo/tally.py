"""Following a run in the server's records: who has pushed, runs, is done, and how long each task waited."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairque.core.exceptions import TaskNotFoundError
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue

_PAGE = 200
_ENDS = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank); NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Wait:
    """One task's wait. Seconds; `at` is when it began, after the start of the run."""

    at: float
    seconds: float


@dataclass(slots=True)
class Line:
    """One tenant's numbers."""

    tenant: str
    is_whale: bool = False
    pushed: int = 0
    running: int = 0
    done: int = 0
    waits: list[Wait] = field(default_factory=list)

    @property
    def queued(self) -> int:
        """How many of its tasks wait."""
        return max(0, self.pushed - self.done - self.running)

    def wait(self, share: float) -> float:
        """A percentile of its waits, in seconds; NaN if none has begun."""
        return percentile([wait.seconds for wait in self.waits], share)


class Tally:
    """Reads what has ended since it last looked. A wait is from the server's time of the push to the start of
    the work."""

    def __init__(self, queue: TaskQueue, tenants: Iterable[tuple[str, bool]]) -> None:
        self._queue = queue
        self.lines = {name: Line(name, is_whale) for name, is_whale in tenants}
        self.pushed: dict[str, str] = {}
        """Tenant by task id."""
        self._pushed_at: dict[str, float] = {}
        self.ended: dict[str, TaskState] = {}
        self.repeated = 0
        self.begun_at = math.nan
        """When the run began (Unix time)."""
        self.pid = 0
        """The process that began a task last."""
        self._latest = 0.0
        self._cursors: dict[TaskState, str | None] = dict.fromkeys(_ENDS)

    def add(self, task_id: str, tenant: str) -> None:
        """A task has been pushed."""
        self.pushed[task_id] = tenant
        self._pushed_at[task_id] = time.time()
        self.lines[tenant].pushed += 1

    def look(self) -> None:
        """Read the news."""
        for state in _ENDS:
            while self._read_page(state):
                pass
        for line in self.lines.values():
            line.running = 0
        for task in self.running():
            if task.task_id not in self.ended and (tenant := self.pushed.get(task.task_id)):
                self.lines[tenant].running += 1

    def running(self) -> list[Task[Any]]:
        """The tasks that run now."""
        return list(self._queue.list_tasks(TaskState.STARTED, limit=_PAGE).items)

    def _read_page(self, state: TaskState) -> bool:
        """Read one page of what has ended; whether there may be another. The last page is read again next time."""
        page = self._queue.list_tasks(state, cursor=self._cursors[state], limit=_PAGE)
        for task in page.items:
            if task.task_id in self.pushed and task.task_id not in self.ended:
                self._end(task, state)
        if page.cursor is None:
            return False
        self._cursors[state] = page.cursor
        return True

    def _end(self, task: Task[Any], state: TaskState) -> None:
        line = self.lines[self.pushed[task.task_id]]
        self.ended[task.task_id] = state
        line.done += 1
        if state is not TaskState.FINISHED or task.created_at is None:
            return
        try:
            counts = self._queue.wait_for(task.task_id, 0).value()
        except TaskNotFoundError:
            return
        started = float(counts["started"])
        line.waits.append(Wait(started - self.begun_at, max(0.0, started - task.created_at.timestamp())))
        if started > self._latest:
            self._latest, self.pid = started, int(counts["pid"])

    def bound(self) -> None:
        """Count what small tenants' tasks that have not ended have waited so far: they wait at least so long."""
        now = time.time()
        for task_id, tenant in self.pushed.items():
            line = self.lines[tenant]
            if task_id not in self.ended and not line.is_whale:
                line.waits.append(Wait(now - self.begun_at, now - self._pushed_at[task_id]))

    # -- what it comes to

    @property
    def whale(self) -> Line:
        """The line of the tenant that floods the queue."""
        return next(line for line in self.lines.values() if line.is_whale)

    @property
    def small(self) -> list[Line]:
        """The lines of the others."""
        return [line for line in self.lines.values() if not line.is_whale]

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        return len(self.ended)

    @property
    def small_done(self) -> bool:
        """Whether all small tenants' tasks have ended."""
        return all(line.done == line.pushed for line in self.small)

    def small_wait(self, share: float) -> float:
        """A percentile over all small tenants' waits."""
        return percentile([wait.seconds for line in self.small for wait in line.waits], share)
