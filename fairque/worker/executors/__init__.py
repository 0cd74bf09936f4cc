"""Where tasks run: threads and an event loop, or processes."""

from __future__ import annotations

from typing import Literal

from fairque.worker.executors.base import Executor, Listener, Outcome, OutcomeKind, RunningTask
from fairque.worker.executors.composite import CompositeExecutor
from fairque.worker.executors.parts import TaskRunner
from fairque.worker.executors.process import ProcessExecutor, ProcessSettings

__all__ = ["Executor", "Listener", "Outcome", "OutcomeKind", "RunningTask", "TaskRunner", "create_executor"]


def create_executor(
    kind: Literal["thread", "process"],
    slots: int,
    runner: TaskRunner,
    *,
    modules: tuple[str, ...] | None = None,
    max_tasks_per_process: int | None = None,
    max_memory_mb: float | None = None,
) -> Executor:
    """The executor of a worker that runs at most `slots` tasks at a time.

    `modules` are what child processes import, so that they have the functions; without it, the modules of all
    functions that are registered when the first child is made. The two limits replace child processes between
    tasks; in thread mode the worker itself is the process, and who runs it must see to that.

    Raises:
        ConfigError: processes are asked for, and the handler or a middleware cannot be made in another
        process.
    """
    if kind == "process":
        settings = ProcessSettings(
            init=runner.child_init(modules), max_tasks=max_tasks_per_process, max_memory_mb=max_memory_mb
        )
        return ProcessExecutor(runner, slots, settings)

    def make_alone() -> ProcessExecutor:
        return ProcessExecutor(runner, slots, ProcessSettings(init=runner.child_init(modules), eager=False))

    return CompositeExecutor(runner, slots, make_alone)
