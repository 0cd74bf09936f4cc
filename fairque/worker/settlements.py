"""From an executor's outcome to what the server is told, and from its answer to figures and events."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fairque.core.codec import encode_error
from fairque.core.events import (
    EventBus,
    TaskCanceled,
    TaskClaimed,
    TaskFailed,
    TaskFinished,
    TaskReleased,
    TaskRetried,
    TaskSnoozed,
)
from fairque.core.exceptions import TaskTimeoutError, UnknownFunctionError
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.retry import Discard
from fairque.queue.consumer import failing, result_ttl
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Settled, Settlement, token_of
from fairque.worker.executors.base import Outcome, OutcomeKind, RunningTask
from fairque.worker.outbox import Ended

_log = logging.getLogger(__name__)

NO_RETRY = -1
_DONE, _FINISHED = OutcomeKind.DONE, Settled.FINISHED


def settlement_of(engine: Engine, outcome: Outcome) -> Settlement:
    """What the server is told of an outcome."""
    task = outcome.task
    task_id, token, seconds = encode(task.task_id), token_of(task), outcome.duration
    if outcome.kind is _DONE:
        return Settlement(task_id, token, "finish", seconds, outcome.result or b"", result_ttl(engine, task))
    error = outcome.error or b""
    match outcome.kind:
        case OutcomeKind.SNOOZED:
            return Settlement(task_id, token, "snooze", seconds, b"", _micros(outcome.retry_delay))
        case OutcomeKind.DISCARDED:
            error = encode_error(Discard(outcome.reason), task.attempt, datetime.now(UTC))
            return Settlement(task_id, token, "discard", seconds, error, result_ttl(engine, task))
        case OutcomeKind.LOST:
            return Settlement(task_id, token, "crash", seconds, error)
        case OutcomeKind.UNKNOWN:
            error = error or encode_error(
                UnknownFunctionError(outcome.reason), task.attempt, datetime.now(UTC)
            )
            return Settlement(task_id, token, "unknown", 0.0, error)
        case OutcomeKind.RETURNED | OutcomeKind.CANCELED:
            # After a cancel that the server knows of, whatever it is told makes the task canceled.
            return Settlement(task_id, token, "release")
        case _ if outcome.final:
            return Settlement(task_id, token, "invalid", seconds, error)
        case _:
            delay = NO_RETRY if outcome.retry_delay is None else _micros(outcome.retry_delay)
            return Settlement(task_id, token, "fail", seconds, error, delay)


def release_of(task: Task[Any]) -> Settlement:
    """The settlement that gives a task back."""
    return Settlement(encode(task.task_id), token_of(task), "release")


def giving_up(engine: Engine, task: Task[Any], view: RunningTask | None) -> Settlement:
    """Of a task that does not end when its worker leaves (`view`: what the executor says if it is past its timeout): a
    failure then, else it is given back, no attempt used.
    """
    if view is None or view.began is None:
        return release_of(task)
    error = TaskTimeoutError(
        f"task {task.task_id} did not end {view.overdue:.1f} s after its timeout; its process is replaced",
        task_id=task.task_id,
        user_id=task.user_id,
    )
    return failing(engine, task, error, time.monotonic() - view.began)


def claimed_event(task: Task[Any]) -> TaskClaimed:
    """The event of a claim."""
    at, since = _now(), task.enqueued_at
    waited = max(0.0, (at - since).total_seconds()) if since is not None else 0.0
    return TaskClaimed(
        at=at,
        task_id=task.task_id,
        user_id=task.user_id,
        function=task.function,
        attempt=task.attempt,
        waited=waited,
    )


def _micros(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e6)


@dataclass(slots=True)
class Tally:
    """What became of the settlements of one call. `lacking`: functions that turned out to be missing here."""

    completed: int = 0
    released: int = 0
    lacking: set[str] = field(default_factory=set)


def settled(bus: EventBus, told: Sequence[Ended], codes: Sequence[Settled]) -> Tally:
    """Count what the server answered, and tell who listens."""
    tally = Tally()
    nobody_listens = bus.idle
    for ended, code in zip(told, codes, strict=False):
        outcome = ended.outcome
        if code is _FINISHED and nobody_listens and outcome is not None:
            tally.completed += 1  # nearly all of them
            continue
        if code is Settled.RELEASED:
            tally.released += 1
        elif outcome is not None and code is not Settled.PASSED_ON:
            tally.completed += 1
        if outcome is not None:
            if code is Settled.STALE:
                _log.warning("the outcome of task %s came too late", ended.settlement.task_id)
            if outcome.kind is OutcomeKind.UNKNOWN:
                tally.lacking.add(outcome.task.function)
            tell(bus, outcome, code)
    return tally


def tell(bus: EventBus, outcome: Outcome, code: Settled) -> None:
    """The event of what the server made of an outcome."""
    task = outcome.task
    about: dict[str, Any] = {"task_id": task.task_id, "user_id": task.user_id, "function": task.function}
    delay = outcome.retry_delay or 0.0
    match code:
        case Settled.FINISHED if bus.wants(TaskFinished):
            bus.emit(TaskFinished(at=_now(), **about, attempt=task.attempt, duration=outcome.duration))
        case Settled.FAILED if bus.wants(TaskFailed):
            reason, kind = outcome.reason, str(outcome.kind)
            bus.emit(
                TaskFailed(
                    at=_now(),
                    **about,
                    attempt=task.attempt,
                    duration=outcome.duration,
                    error_type=kind,
                    reason=reason,
                )
            )
        case Settled.RETRIED if bus.wants(TaskRetried):
            kind = str(outcome.kind)
            bus.emit(TaskRetried(at=_now(), **about, attempt=task.attempt, delay=delay, error_type=kind))
        case Settled.SNOOZED if bus.wants(TaskSnoozed):
            bus.emit(TaskSnoozed(at=_now(), **about, attempt=task.attempt, delay=delay))
        case Settled.CANCELED if bus.wants(TaskCanceled):
            bus.emit(TaskCanceled(at=_now(), **about, reason=outcome.reason or "canceled"))
        case Settled.RELEASED | Settled.PASSED_ON if bus.wants(TaskReleased):
            bus.emit(TaskReleased(at=_now(), **about, reason=outcome.reason or str(outcome.kind)))
        case _:
            pass


def _now() -> datetime:
    return datetime.now(UTC)
