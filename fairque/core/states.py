"""The states of a task and the one table of transitions.

``scripts/lib/states.lua`` is its copy on the server; a test holds them equal, and the diagram in the docs is
made from this table.
"""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task is. `code` is how the packed record writes it."""

    QUEUED = "queued"
    STARTED = "started"
    DEFERRED = "deferred"
    SCHEDULED = "scheduled"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def code(self) -> int:
        """The state's number in a packed record."""
        return _CODES[self]

    @property
    def is_terminal(self) -> bool:
        """Whether only an explicit requeue leads out of it."""
        return self in TERMINAL

    @classmethod
    def from_code(cls, code: int) -> TaskState:
        """The state with that number; ValueError if there is none."""
        try:
            return _STATES[code]
        except KeyError:
            raise ValueError(f"no task state has the code {code}") from None


_CODES = {state: number for number, state in enumerate(TaskState, start=1)}
_STATES = {number: state for state, number in _CODES.items()}

TERMINAL = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED})

NEW = None
"""The state before the first: a task that the server does not know."""

TRANSITIONS: dict[tuple[TaskState | None, TaskState], str] = {
    (NEW, TaskState.QUEUED): "pushed",
    (NEW, TaskState.SCHEDULED): "pushed with a delay",
    (NEW, TaskState.DEFERRED): "pushed with unmet dependencies",
    (TaskState.SCHEDULED, TaskState.QUEUED): "its time came, or it was given an earlier one",
    (TaskState.DEFERRED, TaskState.QUEUED): "dependencies met",
    (TaskState.DEFERRED, TaskState.SCHEDULED): "dependencies met, delayed",
    (TaskState.QUEUED, TaskState.STARTED): "claimed",
    (TaskState.QUEUED, TaskState.SCHEDULED): "given another time",
    (TaskState.STARTED, TaskState.FINISHED): "succeeded",
    (TaskState.STARTED, TaskState.QUEUED): "released, lease lost, or retried at once",
    (TaskState.STARTED, TaskState.SCHEDULED): "retry with a delay, or snoozed",
    (TaskState.STARTED, TaskState.DEFERRED): "it waits for the tasks that it has made of a list",
    (TaskState.STARTED, TaskState.FAILED): "no retries left, gave up, or moved to the dead letters",
    (TaskState.QUEUED, TaskState.FAILED): "moved to the dead letters, or nobody can run it",
    (TaskState.SCHEDULED, TaskState.FAILED): "moved to the dead letters, or nobody can run it",
    (TaskState.DEFERRED, TaskState.FAILED): "a dependency failed, or moved to the dead letters",
    (TaskState.QUEUED, TaskState.CANCELED): "canceled or expired",
    (TaskState.SCHEDULED, TaskState.CANCELED): "canceled or expired",
    (TaskState.DEFERRED, TaskState.CANCELED): "canceled, expired, or by the trigger rule",
    (TaskState.STARTED, TaskState.CANCELED): "cancel was asked for; left at settle or lease loss",
    (TaskState.FAILED, TaskState.QUEUED): "requeued: a new run",
    (TaskState.FAILED, TaskState.DEFERRED): "requeued, with dependencies that run again",
    (TaskState.CANCELED, TaskState.QUEUED): "requeued: a new run",
    (TaskState.CANCELED, TaskState.DEFERRED): "requeued, with dependencies that run again",
}
