"""Where the control loop and the executor's threads meet: slots, prefetched tasks, outcomes, and the wake-up.

Executors answer from their own threads. An answer frees a slot, which takes the next prefetched task at once, in that
same thread; the loop is woken when there is something that it must not let wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from fairque.core.config import WorkerConfig
from fairque.core.events import EventBus, TaskStarted, TaskTimedOut
from fairque.core.exceptions import NotInTaskError
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.worker.executors.base import Executor, Outcome, RunningTask, XComRequest
from fairque.worker.page import Page

LINGER_SECONDS = 0.002
"""How long outcomes may wait for company while prefetched work keeps the slots busy."""
MAX_PREFETCH = 500
PATIENCE_SECONDS = 0.25
"""How long prefetched tasks wait for a slot. Then what runs takes longer than what was measured, and they go back."""
MEASURED = 8
"""Tasks measured before anything is prefetched."""
SMOOTHING = 0.1
OVERHEAD_SECONDS = 25e-6
"""What a task takes at least, with however many slots: it is claimed, handed over and settled."""
STALL_GRACE_SECONDS = 5.0
STUCK_SECONDS = 1.0
"""How long past its timeout a task may hold its slot before its process is replaced."""

Progress = tuple[str, bytes, tuple[float, float | None, str]]
"""The encoded task id, the token, and what was done, of what total, with a text."""


class Slots:
    """The listener of one executor. `page`: shared with the supervisor, if there is one."""

    def __init__(
        self,
        executor: Executor,
        entry: WorkerConfig,
        bus: EventBus,
        page: Page | None,
        xcom: Callable[[Task[Any], XComRequest], bytes | None] | None = None,
    ) -> None:
        self._xcom = xcom
        self._executor, self._entry, self._bus, self._page = executor, entry, bus, page
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._outcomes: deque[Outcome] = deque()
        self._backlog: deque[Task[Any]] = deque()
        self._progress: dict[bytes, Progress] = {}
        self._active = 0
        self._prefetched = 0
        self._moved = 0.0
        self._urgent = False
        self._draining = False
        self._average, self._measured = 0.0, 0

    # -- called by the executor, from any thread

    def on_begin(self, task: Task[Any]) -> None:
        """A task is about to be called."""
        if self._page is not None and task.claim is not None:
            limit = task.timeout or self._entry.task_timeout_seconds
            patience = self._entry.stall_limit_seconds if limit is None else limit + STALL_GRACE_SECONDS
            self._page.begin(task.claim.token, time.monotonic() + patience)
        if not self._bus.idle and self._bus.wants(TaskStarted):
            self._bus.emit(TaskStarted(**_about(task), attempt=task.attempt))

    def on_outcome(self, outcome: Outcome) -> None:
        """A task is over: its slot takes the next prefetched one at once."""
        if self._page is not None and outcome.task.claim is not None:
            self._page.end(outcome.task.claim.token)
        with self._lock:
            self._outcomes.append(outcome)
            first = len(self._outcomes) == 1
            following = self._backlog.popleft() if self._backlog and not self._draining else None
            if following is None:
                self._active -= 1
            else:
                self._moved = time.monotonic()
            if following is None or len(self._backlog) <= self._prefetched // 2:
                self._urgent = True
            wake = first or self._urgent
        if following is not None:
            self._executor.submit(following)
        # Set already: the loop has not looked since, and will see this outcome too.
        if wake and not self._event.is_set():
            self._event.set()

    def on_timeout(self, task: Task[Any]) -> None:
        """A task is past its timeout, and may still hold its slot."""
        if self._page is not None and task.claim is not None:
            # This process lives and deals with it: the supervisor shall not take it for stalled.
            patience = self._entry.shutdown_timeout_seconds + STALL_GRACE_SECONDS
            self._page.extend(task.claim.token, time.monotonic() + patience)
        if self._bus.wants(TaskTimedOut):
            limit = task.timeout or self._entry.task_timeout_seconds or 0.0
            self._bus.emit(TaskTimedOut(**_about(task), attempt=task.attempt, timeout=limit))

    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None:
        """A task tells how far it is; only its last word is kept until the loop passes it on."""
        if task.claim is not None:
            with self._lock:
                first = not self._progress
                self._progress[task.claim.token] = encode(task.task_id), task.claim.token, (done, total, text)
            if first:
                self._event.set()

    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        """A task leaves a value for others, or asks for one."""
        if self._xcom is None:
            raise NotInTaskError("this worker has no queue")
        return self._xcom(task, request)

    # -- called by the loop

    def wake(self) -> None:
        """Make the loop look at once; from any thread."""
        self._urgent = True
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep until something must not wait; False if nothing came for so long."""
        called = self._event.wait(max(0.0, seconds))
        self._event.clear()
        if self._outcomes and not self._urgent:
            self._event.wait(LINGER_SECONDS)
            self._event.clear()
        return called

    @property
    def has_backlog(self) -> bool:
        """Whether prefetched tasks wait here for a slot."""
        return bool(self._backlog)

    def room(self) -> int:
        """Free slots, less what waits here for them."""
        with self._lock:
            return self._entry.max_concurrent_tasks - self._active - len(self._backlog)

    def allowance(self, prefetch_seconds: float) -> int:
        """How many tasks may be claimed beyond the free slots, by the run times measured so far: as many as would begin
        within `prefetch_seconds`, and none if a slot does not even end one in that time."""
        if self._measured < MEASURED or self._average > prefetch_seconds:
            return 0
        each = max(self._average / self._entry.max_concurrent_tasks, OVERHEAD_SECONDS)
        return min(MAX_PREFETCH, int(prefetch_seconds / each))

    def want(self, allowed: int, coming: int = 0) -> int:
        """How many tasks one call should claim, if `allowed` may be prefetched and `coming` were claimed already.

        Not much more than half of all that may be here, so that the slots work on one half while the server looks for
        the other.
        """
        slots, room = self._entry.max_concurrent_tasks, self.room() + allowed - coming
        return max(0, min(room, max(slots + min(slots, allowed), (slots + allowed + 1) // 2)))

    def worth_a_call(self, want: int, allowed: int) -> bool:
        """Whether claiming `want` more, of `allowed` that may be prefetched, should not wait for company."""
        return want > 0 and (2 * want >= allowed or self._active < self._entry.max_concurrent_tasks)

    def start(self, claimed: list[Task[Any]]) -> None:
        """Fill the free slots; what is left over waits here for the next."""
        with self._lock:
            free = max(0, self._entry.max_concurrent_tasks - self._active)
            now, later = claimed[:free], claimed[free:]
            self._active += len(now)
            self._backlog.extend(later)
            self._prefetched = len(self._backlog)
            self._moved = time.monotonic()
        for task in now:
            self._executor.submit(task)

    def collect(self) -> list[Outcome]:
        """The outcomes since the last time."""
        with self._lock:
            outcomes = list(self._outcomes)
            self._outcomes.clear()
            self._urgent = False
        durations = [outcome.duration for outcome in outcomes if outcome.duration]  # the others never began
        if durations:
            self._measured += len(durations)
            weight = min(1.0, len(durations) * max(SMOOTHING, 1 / self._measured))
            self._average += weight * (sum(durations) / len(durations) - self._average)
        return outcomes

    def take_progress(self) -> list[Progress]:
        """The last word of each running task that said something."""
        with self._lock:
            said = list(self._progress.values())
            self._progress.clear()
        return said

    def patience(self) -> float | None:
        """When (monotonic seconds) prefetched tasks have waited too long; None if there are none."""
        with self._lock:
            return self._moved + PATIENCE_SECONDS if self._backlog else None

    def withdraw_late(self, now: float) -> list[Task[Any]]:
        """Take prefetched tasks back that have waited too long; nothing is prefetched then until tasks were measured
        anew."""
        with self._lock:
            if not self._backlog or now < self._moved + PATIENCE_SECONDS:
                return []
            waiting = list(self._backlog)
            self._backlog.clear()
            self._measured = 0
        return waiting

    def withdraw(self, tokens: Iterable[bytes]) -> list[Task[Any]]:
        """Take prefetched tasks back by their tokens; those that were found."""
        wanted = set(tokens)
        with self._lock:
            found = [task for task in self._backlog if task.claim is not None and task.claim.token in wanted]
            for task in found:
                self._backlog.remove(task)
        return found

    def withdraw_task(self, task_id: str) -> list[Task[Any]]:
        """Take a prefetched task back by its id."""
        with self._lock:
            found = [task for task in self._backlog if task.task_id == task_id]
            for task in found:
                self._backlog.remove(task)
        return found

    def drain(self) -> list[Task[Any]]:
        """Begin nothing more; what was prefetched comes back."""
        with self._lock:
            self._draining = True
            waiting = list(self._backlog)
            self._backlog.clear()
        self._executor.drain()
        return waiting

    def clear(self) -> None:
        """Forget what was prefetched and what was answered."""
        with self._lock:
            self._backlog.clear()
            self._outcomes.clear()

    def abandon(self) -> None:
        """The executor was stopped: nothing runs any more that would answer."""
        with self._lock:
            self._active = 0

    @property
    def has_outcomes(self) -> bool:
        """Whether anything is to be collected."""
        return bool(self._outcomes)

    @property
    def has_progress(self) -> bool:
        """Whether anything is to be passed on."""
        return bool(self._progress)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing is to be collected."""
        with self._lock:
            return self._active == 0 and not self._outcomes

    def only_stuck(self) -> bool:
        """Whether nothing runs but tasks that are past their timeout and do not end."""
        stuck = sum(1 for view in self._executor.stuck() if view.overdue > STUCK_SECONDS)
        with self._lock:
            return stuck > 0 and stuck >= self._active

    def late(self) -> dict[str, RunningTask]:
        """What is past its timeout and still runs, by task id."""
        return {view.task.task_id: view for view in self._executor.stuck()}


def _about(task: Task[Any]) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC),
        "task_id": task.task_id,
        "user_id": task.user_id,
        "function": task.function,
    }
