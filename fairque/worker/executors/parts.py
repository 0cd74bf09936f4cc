"""What the executors have in common: a ledger, and a watchdog over its deadlines."""

from __future__ import annotations

from typing import Any, Protocol

from fairque.core.models import Task
from fairque.worker.executors.base import Listener, Outcome, RunningTask
from fairque.worker.executors.ledger import Execution, Ledger


class TaskRunner(Protocol):
    """What executors need of the runner."""

    def is_async(self, task: Task[Any]) -> bool:
        """Whether the task's function is `async def`."""
        ...

    def child_init(self, modules: tuple[str, ...] | None = None) -> dict[str, object]:
        """What a child process builds such a runner from. Raises ConfigError when it could not."""
        ...

    def timeout(self, task: Task[Any]) -> float | None:
        """Seconds that the task may run."""
        ...

    def failure(self, execution: Execution, error: BaseException) -> Outcome:
        """The outcome of a task that ended with `error`."""
        ...

    def run(self, execution: Execution) -> Outcome:
        """Run the task here and now; raises nothing."""
        ...

    async def run_async(self, execution: Execution) -> Outcome:
        """Run the task on this event loop; raises nothing."""
        ...

    def has_hooks(self, outcome: Outcome) -> bool:
        """Whether `after` has something to do."""
        ...

    def after(self, execution: Execution, outcome: Outcome) -> None:
        """Run the handler's hook; raises nothing."""
        ...

    async def after_async(self, execution: Execution, outcome: Outcome) -> None:
        """Run the handler's hook; raises nothing."""
        ...


class LedgerExecutor:
    """The half of an executor that is only bookkeeping."""

    def __init__(self, runner: TaskRunner, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"an executor needs at least one slot, not {slots}")
        self.slots = slots
        self._runner = runner
        self._ledger = Ledger()

    def start(self, listener: Listener) -> None:
        self._ledger.listener = listener

    def cancel(self, task_id: str, token: bytes | None = None) -> bool:
        return bool(self._ledger.cancel(task_id, token))

    def running(self) -> tuple[RunningTask, ...]:
        return self._ledger.running()

    def stuck(self) -> tuple[RunningTask, ...]:
        return self._ledger.stuck()

    def drain(self) -> None:
        self._ledger.drain()

    def stop(self, timeout: float) -> tuple[Task[Any], ...]:
        left_over = self.finish(timeout)
        self.leave()
        return left_over

    def finish(self, timeout: float) -> tuple[Task[Any], ...]:
        """The first half of `stop`: drain and wait, but keep threads and the loop for stop hooks."""
        self.drain()
        self._ledger.wait(timeout)
        return self._ledger.abandon()

    def leave(self) -> None:
        """Let go of threads, loops and processes; may be called twice."""
