"""What the command line says when it cannot do what it was asked for: one line, and an exit code for scripts."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit codes of all commands; docs/cli.md has the same table."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    NOT_FOUND = 4
    TIMEOUT = 5
    REFUSED = 6
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141

    @property
    def text(self) -> str:
        """What it means."""
        return _TEXTS[self]


_TEXTS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "what was asked for failed: the task failed or was canceled, a check found a fault",
    ExitCode.USAGE: "wrong usage, a bad argument, configuration or task; nothing was done",
    ExitCode.NO_SERVER: "no server answers, or none runs",
    ExitCode.NOT_FOUND: "there is no such task, schedule, group or limiter",
    ExitCode.TIMEOUT: "it has not ended in the given time",
    ExitCode.REFUSED: "refused as things are: a duplicate, a state that does not allow it, a full server or quota",
    ExitCode.INTERNAL: "a fault in fairque itself (FAIRQUE_TRACEBACK=1 shows where)",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.BROKEN_PIPE: "whoever read the output has gone",
}

# What errors know besides their message.
_TOLD = (
    "task_id", "user_id", "state", "reason", "error_type", "traceback",
    "schedule", "group", "tasks", "limiter", "queued", "delayed", "running", "limit", "room_in_seconds",
    "retry_after_seconds", "used",
)  # fmt: skip


def exit_code(error: BaseException) -> ExitCode:
    """The exit code that an error of ours stands for."""
    from fairque.core import exceptions as ours

    match error:
        case ours.NotReplicatedError():
            return ExitCode.FAILED
        case ours.QueueUnavailableError():
            return ExitCode.NO_SERVER
        case (
            ours.TaskNotFoundError()
            | ours.ScheduleNotFoundError()
            | ours.UnknownGroupError()
            | ours.UnknownLimiterError()
        ):
            return ExitCode.NOT_FOUND
        case ours.ResultTimeoutError():
            return ExitCode.TIMEOUT
        case (
            ours.ConfigError()
            | ours.InvalidTaskError()
            | ours.InvalidFilterError()
            | ours.UnknownFunctionError()
        ):
            return ExitCode.USAGE
        case (
            ours.DuplicateTaskError()
            | ours.InvalidStateError()
            | ours.GroupInUseError()
            | ours.UserBusyError()
            | ours.QueueFullError()
            | ours.QuotaExceededError()
            | ours.SchemaMismatchError()
        ):
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED


def error_data(error: BaseException, code: ExitCode) -> dict[str, Any]:
    """The error as `--json` prints it, on standard error."""
    data: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    for name in _TOLD:
        value = getattr(error, name, None)
        if value:
            data[name] = value
    return {"error": data, "exit_code": int(code)}


def help_text() -> str:
    """The table of exit codes, for `--help`."""
    return "Exit codes: " + " · ".join(f"{code.value} {code.text}" for code in ExitCode) + "."
