"""Who runs what: the bookkeeping that all executors share, so that each answers exactly once for each submit.

A submitted task is an `Execution`. It waits until the executor takes it; the runner marks where its function
begins and where it has left; and it is answered for once: by `settle` with an outcome, or by `abandon`,
whatever thread comes first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fairque.core.exceptions import NotInTaskError, TaskTimeoutError
from fairque.core.models import Task
from fairque.worker.executors.base import Listener, Outcome, OutcomeKind, RunningTask, XComRequest

_log = logging.getLogger(__name__)
_TIMED_OUT = OutcomeKind.TIMED_OUT


class Execution(msgspec.Struct, eq=False):
    """One submitted task on its way through an executor. Times are monotonic seconds."""

    ledger: Ledger
    task: Task[Any]
    timeout: float | None = None  # seconds, from `begin`
    began: float | None = None
    deadline: float | None = None
    took: float = 0.0
    taken: bool = False  # no longer waiting: it may begin
    left: bool = False  # the function has returned: nothing may interrupt this thread any more
    answered: bool = False
    cancelled: bool = False
    timed_out: bool = False
    reported: bool = False  # on_timeout was called
    error: BaseException | None = None  # what the task raised, for the handler's hook
    # Both are called under the ledger's lock; the first never once the function has left.
    interrupt: Callable[[bool], None] | None = None  # True at the deadline, False to take it back
    on_cancel: Callable[[], None] | None = None

    @classmethod
    def unrun(cls, task: Task[Any]) -> Execution:
        """One that belongs to no executor, for a task that is not going to run."""
        return cls(Ledger(), task)

    def begin(self) -> None:
        """The function is called now: its time begins."""
        ledger = self.ledger
        try:
            ledger.listener.on_begin(self.task)
        except TaskTimeoutError:
            raise
        except Exception:  # noqa: BLE001 - as in `tell`, without its detour
            _log.exception("the worker failed on hearing that task %s begins", self.task.task_id)
        self.began = began = ledger.clock()
        # Last, because from here on an interruption can strike, and it shall strike the task, not the
        # listener.
        if self.timeout is not None:
            self.deadline = began + self.timeout
            if ledger.expect is not None:
                ledger.expect(self.deadline)

    def leave(self) -> None:
        """The function has returned: from here on nothing interrupts it, and its duration is known.

        An interruption can strike in here, once; then this must be called again.
        """
        ledger = self.ledger
        if self.deadline is None:
            self.left = True  # it has none, so nothing can interrupt it
        else:
            with ledger.lock:
                self.left = True
                if self.timed_out and self.interrupt is not None:
                    self.interrupt(False)
        if self.began is not None and not self.took:
            self.took = ledger.clock() - self.began

    def progress(self, done: float, total: float | None, text: str) -> None:
        self.ledger.tell(self.ledger.listener.on_progress, self.task, done, total, text)

    def view(self, now: float) -> RunningTask:
        overdue = 0.0 if self.deadline is None or self.left else max(0.0, now - self.deadline)
        return RunningTask(
            task=self.task,
            began=self.began,
            deadline=self.deadline,
            overdue=overdue,
            cancelled=self.cancelled,
        )


class Ledger:
    """The executions of one executor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.listener: Listener = NOBODY
        self.expect: Callable[[float], None] | None = None  # told each new deadline
        self._open: dict[Execution, None] = {}
        self._change = threading.Condition(self.lock)
        self._draining = False
        self._leave_at: float | None = None
        self._abandoned: tuple[Task[Any], ...] | None = None
        self._report = threading.Lock()

    # the life of an execution

    def open(self, task: Task[Any]) -> Execution | None:
        """A task was submitted. After `drain` it is answered RETURNED at once (None)."""
        execution = Execution(self, task)
        with self.lock:
            if not self._draining:
                self._open[execution] = None
                return execution
        self.tell(self.listener.on_outcome, Outcome(task=task, kind=OutcomeKind.RETURNED))
        return None

    def take(self, execution: Execution) -> bool:
        """Begin with it, unless it was answered for meanwhile (then False)."""
        with self.lock:
            execution.taken = not execution.answered
            return execution.taken

    def settle(self, execution: Execution, outcome: Outcome) -> bool:
        """Answer with an outcome; False when it was answered for before."""
        with self.lock:
            if not self._close(execution):
                return False
        if outcome.kind is _TIMED_OUT:
            self.report_timeout(execution)
        try:
            self.listener.on_outcome(outcome)
        except TaskTimeoutError:
            raise
        except Exception:  # noqa: BLE001 - as in `tell`, without its detour
            _log.exception("the worker failed on hearing of %r", outcome)
        return True

    def _close(self, execution: Execution) -> bool:
        if execution.answered:
            return False
        execution.answered = True
        execution.on_cancel = None  # it refers to the execution: break the cycle
        del self._open[execution]
        if self._draining and not self._open:
            self._change.notify_all()
        return True

    def tell(self, hear: Callable[..., None], *what: object) -> None:
        """Call the listener, whose failure is its own."""
        try:
            hear(*what)
        except TaskTimeoutError:
            raise  # an interruption, which is meant for the task
        except Exception:  # noqa: BLE001 - the executor must live on, whoever listens
            _log.exception("the worker failed on hearing %r", what)

    # deadlines

    def expire(self, now: float) -> float | None:
        """Interrupt and report what is past its deadline; the next deadline, if there is one."""
        due: list[Execution] = []
        following: float | None = None
        with self.lock:
            for execution in self._open:
                deadline = execution.deadline
                if deadline is None or execution.timed_out or execution.left:
                    continue
                if deadline <= now:
                    execution.timed_out = execution.cancelled = True
                    due.append(execution)
                    if execution.interrupt is not None:
                        execution.interrupt(True)
                elif following is None or deadline < following:
                    following = deadline
        for execution in due:
            self.report_timeout(execution)
        return following

    def report_timeout(self, execution: Execution) -> None:
        """Tell the listener once. Whoever comes second waits, so that the outcome never overtakes it."""
        with self._report:
            if not execution.reported:
                execution.reported = True
                self.tell(self.listener.on_timeout, execution.task)

    # what others ask for

    def cancel(self, task_id: str, token: bytes | None = None) -> list[Execution]:
        """Mark as cancelled what runs under `task_id` (and the claim's `token`); those that were found."""
        with self.lock:
            found = [execution for execution in self._open if _is(execution.task, task_id, token)]
            for execution in found:
                execution.cancelled = True
                if execution.on_cancel is not None and not execution.left:
                    execution.on_cancel()
        return found

    def running(self) -> tuple[RunningTask, ...]:
        now = self.clock()
        with self.lock:
            return tuple(execution.view(now) for execution in self._open)

    def stuck(self) -> tuple[RunningTask, ...]:
        return tuple(view for view in self.running() if view.overdue > 0)

    def executions(self) -> tuple[Execution, ...]:
        with self.lock:
            return tuple(self._open)

    # leaving

    def drain(self) -> None:
        """Take no more, and answer RETURNED for what was not taken."""
        with self.lock:
            self._draining = True
        self.give_back()

    def give_back(self) -> None:
        """Answer RETURNED for what was not taken."""
        with self.lock:
            waiting = [execution for execution in self._open if not execution.taken]
            for execution in waiting:
                self._close(execution)
        for execution in waiting:
            self.tell(self.listener.on_outcome, Outcome(task=execution.task, kind=OutcomeKind.RETURNED))

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is open (True) or until the earliest of all callers' timeouts."""
        with self.lock:
            leave_at = self.clock() + max(0.0, timeout)
            if self._leave_at is None or leave_at < self._leave_at:
                self._leave_at = leave_at
                self._change.notify_all()
            while self._open and self._abandoned is None:
                remaining = self._leave_at - self.clock()
                if remaining <= 0:
                    return False
                self._change.wait(remaining)
            return not self._open

    def abandon(self) -> tuple[Task[Any], ...]:
        """No outcome follows for what is still open. The first call decides; all get the same tasks."""
        with self.lock:
            if self._abandoned is None:
                self._abandoned = tuple(execution.task for execution in self._open)
                for execution in self._open:
                    execution.answered = execution.cancelled = True
                self._open.clear()
                self._change.notify_all()
            return self._abandoned


def _is(task: Task[Any], task_id: str, token: bytes | None) -> bool:
    return task.task_id == task_id and (
        token is None or (task.claim is not None and task.claim.token == token)
    )


class _Nobody:
    """The listener before `start`."""

    def on_begin(self, task: Task[Any]) -> None: ...
    def on_outcome(self, outcome: Outcome) -> None: ...
    def on_timeout(self, task: Task[Any]) -> None: ...
    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None: ...

    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        raise NotInTaskError("nobody listens to this executor")


NOBODY = _Nobody()
