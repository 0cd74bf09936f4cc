"""Tasks, dead letters and numbers as `--json` prints them, and as people see them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fairque.cli.words import ago, moment, span

if TYPE_CHECKING:
    from fairque.cli.output import Output
    from fairque.core.models import Task, TaskError
    from fairque.queue.operations.admin import QueueStats

COLUMNS = ("id", "state", "user", "what", "priority", "since", ">tries", "reason")


def task_data(task: Task[Any]) -> dict[str, Any]:
    """A task as JSON has it; names as in Python, times in ISO 8601."""
    return {
        "task_id": task.task_id,
        "user_id": task.user_id,
        "state": task.state,
        "reason": task.reason,
        "function": task.function,
        "args": list(task.args),
        "kwargs": task.kwargs,
        "payload": task.payload,
        "priority": task.priority.name.lower(),
        "attempt": task.attempt,
        "retries": task.retries,
        "max_retries": task.max_retries,
        "crashes": task.crashes,
        "run": task.run,
        "created_at": task.created_at,
        "enqueued_at": task.enqueued_at,
        "entered_at": task.entered_at,
        "execute_after": task.execute_after,
        "expires_at": task.expires_at,
        "timeout": task.timeout,
        "dedup_key": task.dedup_key,
        "cost": task.cost,
        "result_ttl": task.result_ttl,
        "correlation_id": task.correlation_id,
        "labels": dict(task.labels),
        "cancel_requested": task.cancel_requested,
        "lone": task.lone,
        "worker": task.claim.incarnation if task.claim else None,
    }


def error_data(error: TaskError) -> dict[str, Any]:
    """One attempt's error."""
    return {
        "attempt": error.attempt,
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "at": error.at,
    }


def dead_data(task: Task[Any], errors: Iterable[TaskError]) -> dict[str, Any]:
    """A dead letter: its task, and the error of every attempt."""
    return {
        "task": task_data(task),
        "reason": task.reason,
        "entered_at": task.entered_at,
        "errors": [error_data(error) for error in errors],
    }


def stats_data(stats: QueueStats) -> dict[str, Any]:
    """The queue in numbers."""
    return {
        "paused": stats.paused,
        "states": stats.states,
        "counters": stats.counters,
        "numbers": stats.numbers,
        "workers": [
            {
                "incarnation": worker.incarnation,
                "running": worker.running,
                "lease_left": worker.lease_left,
                **{key: value for key, value in worker.fields.items() if key != "functions"},
            }
            for worker in stats.workers
        ],
    }


def what(task: Task[Any], limit: int = 60) -> str:
    """What the task does, in a few words: the call, or the payload."""
    if not task.function:
        return _short(f"payload {_value(task.payload)}", limit)
    given = [_value(value) for value in task.args]
    given += [f"{name}={_value(value)}" for name, value in task.kwargs.items()]
    return _short(f"{task.function}({', '.join(given)})", limit)


def _value(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def task_rows(tasks: Iterable[Task[Any]]) -> list[tuple[object, ...]]:
    """Rows under `COLUMNS`."""
    return [
        (
            task.task_id,
            _state(task),
            task.user_id,
            what(task, 48),
            task.priority.name.lower(),
            ago(task.entered_at),
            task.attempt,
            task.reason,
        )
        for task in tasks
    ]


def _state(task: Task[Any]) -> str:
    return (
        f"{task.state} (canceling)" if task.cancel_requested and task.state == "started" else f"{task.state}"
    )


def print_task(out: Output, task: Task[Any]) -> None:
    """All that is known of a task, for people."""
    out.pairs(
        [
            ("id", task.task_id),
            ("state", f"{_state(task)}{f': {task.reason}' if task.reason else ''}"),
            ("since" if task.state != "scheduled" else "due", moment(task.entered_at)),
            ("user", task.user_id),
            ("call" if task.function else "payload", what(task, 2000)),
            ("priority", task.priority.name.lower()),
            ("pushed", moment(task.created_at)),
            ("queued", moment(task.enqueued_at) if task.enqueued_at != task.created_at else None),
            ("expires", moment(task.expires_at)),
            ("attempt", task.attempt or None),
            ("retries", f"{task.retries} of {task.max_retries}" if task.max_retries is not None else None),
            ("crashes", task.crashes or None),
            ("run", task.run or None),
            ("timeout", span(task.timeout) if task.timeout else None),
            ("dedup key", task.dedup_key),
            ("correlation", task.correlation_id),
            ("labels", ", ".join(f"{key}={value}" for key, value in task.labels.items())),
            ("worker", task.claim.incarnation if task.claim else None),
        ]
    )


def print_errors(out: Output, errors: Iterable[TaskError], *, tracebacks: bool = True) -> None:
    """Every attempt's error, for people."""
    for error in errors:
        out.line(f"\nattempt {error.attempt}, {moment(error.at)}: {error.type}: {error.message}", style="red")
        if tracebacks and error.traceback:
            out.line(error.traceback.rstrip(), style="dim")
