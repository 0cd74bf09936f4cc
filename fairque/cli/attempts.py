"""The failed attempts of a task, as `--json` prints them, and as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fairque.cli.views import error_data
from fairque.cli.words import moment, span

if TYPE_CHECKING:
    from fairque.cli.output import Output
    from fairque.core.attempts import TaskAttempt

COLUMNS = (">run", ">attempt", "worker", "started", ">took", "error", ">again in")


def attempt_data(attempt: TaskAttempt) -> dict[str, Any]:
    """One attempt as JSON has it; times in ISO 8601, spans in seconds."""
    return {
        "run": attempt.run,
        **error_data(attempt),
        "worker": attempt.worker,
        "started_at": attempt.started_at,
        "failed_at": attempt.failed_at,
        "seconds": attempt.seconds,
        "retry_in": attempt.retry_in,
        "held_back": attempt.held_back,
    }


def print_attempts(out: Output, attempts: Sequence[TaskAttempt]) -> None:
    """A table of them, oldest first, and the traceback of the last."""
    if not attempts:
        out.note("no attempt has failed")
        return
    out.line("")
    out.table(COLUMNS, [_row(attempt) for attempt in attempts])
    if attempts[-1].traceback:
        out.line("\nthe last one's traceback")
        out.line(attempts[-1].traceback.rstrip(), style="dim")


def _row(attempt: TaskAttempt) -> tuple[object, ...]:
    text = f"{attempt.type}: {attempt.message}"
    return (
        attempt.run,
        attempt.attempt,
        attempt.worker or "",
        moment(attempt.started_at or attempt.failed_at),
        "" if attempt.seconds is None else span(attempt.seconds),
        text.splitlines()[0] if len(text) <= 80 else f"{text.splitlines()[0][:79]}…",
        _again(attempt),
    )


def _again(attempt: TaskAttempt) -> str:
    if attempt.retry_in is None:
        return "never"
    held = f" ({span(attempt.held_back)} by the budget)" if attempt.held_back else ""
    return f"{span(attempt.retry_in)}{held}" if attempt.retry_in else "at once"
