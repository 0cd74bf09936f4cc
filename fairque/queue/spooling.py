"""From a push that found no server to the local spool: what TaskQueue and AsyncTaskQueue have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

from fairque.core.config import FairQueueConfig
from fairque.core.config_outages import OnUnavailable
from fairque.core.exceptions import (
    DuplicateTaskError,
    FairQueueError,
    InvalidStateError,
    InvalidTaskError,
    QueueUnavailableError,
    ResultTimeoutError,
    ServerNotFoundError,
)
from fairque.core.models import Task
from fairque.core.spool_records import SpooledTask
from fairque.queue.operations.base import Flow
from fairque.queue.operations.push import Pushed, at_fixed_time
from fairque.queue.spool import Spool

T = TypeVar("T")
_WORDS = get_args(OnUnavailable)
LOOK_SECONDS = 0.02
"""How often a handle looks whether its task has left the spool."""


def spools(config: FairQueueConfig, on_unavailable: OnUnavailable | None) -> bool:
    """Whether a push goes to the spool if there is no server.

    Raises:
        InvalidTaskError: `on_unavailable` is neither of its two words.
    """
    chosen = config.spool.on_unavailable if on_unavailable is None else on_unavailable
    if chosen not in _WORDS:
        words = " or ".join(map(repr, _WORDS))
        raise InvalidTaskError(f"on_unavailable must be {words}, not {on_unavailable!r}")
    return chosen == "spool"


def refuse(flow: Flow[T], error: FairQueueError) -> T:
    """What an operation makes of it that each of its calls fails so."""
    try:
        next(flow)
        while True:
            flow.throw(error)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def keep(spool: Spool, outcomes: Sequence[Pushed]) -> list[Pushed]:
    """The outcomes, with those for which no server answered in the spool instead. Writes to the disk, and waits for it.

    The server may have some of them all the same, its reply lost; their operation ids will tell.
    """
    now = time.time()
    kept = list(outcomes)
    new: dict[int, SpooledTask] = {}
    ids: set[str] = set()
    for index, pushed in enumerate(outcomes):
        if pushed.packed is None or isinstance(pushed.error, ServerNotFoundError):
            continue
        task = pushed.task
        if task.task_id in ids or spool.holds(task.task_id):
            kept[index] = _again(pushed)
        else:
            ids.add(task.task_id)
            new[index] = _record(task, pushed, now)
    if not new:
        return kept
    try:
        spool.append(list(new.values()))
    except QueueUnavailableError as error:
        for index in new:
            kept[index] = replace(outcomes[index], error=error, packed=None)
    else:
        for index in new:
            kept[index] = replace(outcomes[index], error=None, packed=None, spooled=True)
    return kept


def _record(task: Task[Any], pushed: Pushed, now: float) -> SpooledTask:
    return SpooledTask(
        task_id=task.task_id,
        user_id=task.user_id,
        function=task.function,
        priority=int(task.priority),
        limiter=task.limiter,
        dedup_key=task.dedup_key,
        at=now,
        arguments=list(at_fixed_time(pushed.packed or (), round(now * 1e6))),
    )


def _again(pushed: Pushed) -> Pushed:
    """Of a task whose id is in the spool already."""
    task = pushed.task
    if task.on_duplicate == "return":
        return Pushed(task.task_id, task, existing=True, spooled=True)
    error = DuplicateTaskError(
        f"there is a task {task.task_id} already, in the local spool: choose another task_id, or "
        "on_duplicate='return'",
        task_id=task.task_id,
        user_id=task.user_id,
    )
    return Pushed(task.task_id, task, error=error)


# -- handles


def refuse_cancel(spool: Spool, task_id: str) -> None:
    """A handle's task is to be canceled.

    Raises:
        InvalidStateError: it is in the spool.
    """
    if spool.holds(task_id):
        raise InvalidStateError(
            f"task {task_id} is in the local spool, and can be canceled when the server has it",
            task_id=task_id,
            state="spooled",
        )


def still_spooled(spool: Spool, task_id: str, deadline: float | None, timeout: float | None) -> bool:
    """Whether somebody who waits for a task must wait for the spool first.

    Raises:
        ResultTimeoutError: the deadline (monotonic seconds) is over.
        FairQueueError: the server has refused the task, for this reason.
    """
    if not spool.holds(task_id):
        refusal = spool.refusal_of(task_id)
        if refusal is not None:
            raise refusal
        return False
    if deadline is not None and time.monotonic() >= deadline:
        raise ResultTimeoutError(
            f"task {task_id} is still in the local spool after {timeout} s: the server is away",
            task_id=task_id,
        )
    return True
