"""What became of each task of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fairque.core.exceptions import FairQueueError
from fairque.core.models import Task

H = TypeVar("H")


@dataclass(frozen=True, slots=True)
class PushOutcome(Generic[H]):
    """One task of a batch: its handle if it is in the queue (or the local spool), else the error that kept it out."""

    task: Task[Any]
    handle: H | None
    error: FairQueueError | None

    @property
    def ok(self) -> bool:
        """Whether the task is in the queue, or in the local spool (`handle.spooled`)."""
        return self.error is None

    def unwrap(self) -> H:
        """The handle, or the error raised."""
        if self.handle is None:
            raise self.error or FairQueueError(f"task {self.task.task_id} is not in the queue")
        return self.handle
