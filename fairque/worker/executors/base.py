"""What every executor promises, and the records that pass between it and the worker.

An executor runs tasks and answers with outcomes. It never touches the queue, never decides whether retries
are left, and answers exactly once for each task that was submitted: with one `Outcome`, or by naming the task
in what `stop` returns. All executors are held to this by one conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import msgspec

from fairque.core.exceptions import FairQueueError
from fairque.core.models import Task


class OutcomeKind(StrEnum):
    """How the run of a task ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The process that ran it is gone. It had begun."""
    RETRY_AFTER = "retry_after"
    SNOOZED = "snoozed"
    DISCARDED = "discarded"
    CANCELED = "canceled"
    """It was stopped because of a cancel."""
    UNKNOWN = "unknown"
    """This worker cannot run it, another may; never begun."""
    RETURNED = "returned"
    """Never begun; give it back."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one submitted task ended.

    `result` and `error` are encoded (core.codec), ready to be stored. `duration` is seconds on the monotonic
    clock from the call of the function to its return, 0.0 for what never begun. `retry_delay` is seconds: for
    FAILED and TIMED_OUT what the retry policy wants (None: no retry wanted), for RETRY_AFTER and SNOOZED what
    the task asked for. `final` says that another attempt could not end differently.
    """

    task: Task[Any]
    kind: OutcomeKind
    result: bytes | None = None
    error: bytes | None = None
    duration: float = 0.0
    retry_delay: float | None = None
    reason: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTask:
    """A task that was submitted and not answered for. Times are seconds on the monotonic clock.

    `began` and `deadline` are None before the function is called; `deadline` also for a task without a
    timeout. `overdue` is how many seconds the task is past its deadline (0.0: it is not).
    """

    task: Task[Any]
    began: float | None
    deadline: float | None
    overdue: float
    cancelled: bool


XComRequest: TypeAlias = tuple[str, str, bytes | None, float | None]
"""Namespace, key, the encoded value that is pushed (None: one is pulled), its TTL in seconds (None: the queue's)."""


class Listener(Protocol):
    """What an executor tells. Called from any thread, so it must be cheap, thread-safe, and must not
    raise."""

    def on_begin(self, task: Task[Any]) -> None:
        """The function is about to be called: attempt and timeout begin. Not called for what cannot be
        called."""
        ...

    def on_outcome(self, outcome: Outcome) -> None:
        """The task is over and its slot is free. Once for each submit."""
        ...

    def on_timeout(self, task: Task[Any]) -> None:
        """The task is past its timeout. Its slot is taken until `on_outcome` follows; at most once for each
        submit."""
        ...

    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None:
        """The running task reports how far it has come. In the task's thread: its timeout can strike in
        here."""
        ...

    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        """The running task leaves a value, or asks for one. In the task's thread, which waits for the server.

        Raises FairQueueError: the value cannot be stored, or the server does not answer.
        """
        ...


class Executor(Protocol):
    """Runs at most `slots` tasks at a time."""

    name: str
    slots: int

    def start(self, listener: Listener) -> None:
        """Make ready, run the worker's start hooks, and return when a task could run.

        Raises what a start hook raised, and ConfigError when worker processes cannot be made.
        """
        ...

    def submit(self, task: Task[Any]) -> None:
        """Take a task; never blocks. The caller has at most `slots` tasks submitted and not answered for.

        After `drain` or `stop` it is answered RETURNED, before this returns.
        """
        ...

    def cancel(self, task_id: str, token: bytes | None = None) -> bool:
        """Ask a task to end; with `token`, only the run under that claim. False: no such task here.

        A thread only sees `current_task().cancelled`; an `async def` task is cancelled at its next await; a
        process is killed when its task has not ended after the grace.
        """
        ...

    def drain(self) -> None:
        """Begin nothing more: what has not begun is answered RETURNED now, what runs goes on."""
        ...

    def stop(self, timeout: float) -> tuple[Task[Any], ...]:
        """Drain, wait at most `timeout` seconds for what runs, and leave.

        Returns the tasks that still run; no outcome follows for them. Processes are killed first, so those
        tasks run no more; a thread that does not return is left behind as a daemon. Another call, from
        another thread, can shorten the wait but not lengthen it; all calls return the same.
        """
        ...

    def running(self) -> tuple[RunningTask, ...]:
        """What was submitted and not answered for."""
        ...

    def stuck(self) -> tuple[RunningTask, ...]:
        """What is past its deadline and still holds its slot. The worker decides when to recycle the
        process."""
        ...


class TaskProcessLostError(FairQueueError):
    """The process that ran the task is gone: it was killed, crashed or left."""


class TaskKilledError(FairQueueError):
    """The process that ran the task was killed, because the task went on after it was cancelled."""
