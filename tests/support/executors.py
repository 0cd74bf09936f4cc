"""What the executors' suite needs: a listener that can be waited for, and a bench that makes tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fairque.core.codec import decode_error, decode_value
from fairque.core.models import Claim, Task, TaskError
from fairque.core.states import TaskState
from fairque.worker.executors import Executor, Outcome
from fairque.worker.executors.base import XComRequest
from tests.support import executor_tasks

PATIENCE = 20.0


def until(condition: Callable[[], object], what: str = "the condition", patience: float = PATIENCE) -> None:
    """Poll for something that nobody can signal."""
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true within {patience} s"
        time.sleep(0.005)


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._events: list[tuple[str, Task[Any], Any]] = []
        self.also: Callable[[Outcome], object] | None = None  # called for each outcome

    def on_begin(self, task: Task[Any]) -> None:
        self._note("begin", task)

    def on_outcome(self, outcome: Outcome) -> None:
        self._note("outcome", outcome.task, outcome)
        if self.also is not None:
            self.also(outcome)

    def on_timeout(self, task: Task[Any]) -> None:
        self._note("timeout", task)

    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None:
        self._note("progress", task, (done, total, text))

    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        self._note("xcom", task, request)
        return None

    def _note(self, name: str, task: Task[Any], detail: Any = None) -> None:
        with self._change:
            self._events.append((name, task, detail))
            self._change.notify_all()

    def events(self, task: Task[Any]) -> list[str]:
        """The names of what was heard of a task, in order."""
        with self._change:
            return [name for name, about, _ in self._events if about.task_id == task.task_id]

    def wait(self, name: str, task: Task[Any]) -> Any:
        """Wait for an event of a task; its detail."""

        def find() -> list[Any]:
            return [
                event[2] for event in self._events if event[0] == name and event[1].task_id == task.task_id
            ]

        with self._change:
            assert self._change.wait_for(find, PATIENCE), f"no {name} of {task} within {PATIENCE} s"
            return find()[0]


class Bench:
    """An executor under test, with a recorder, and tasks in the form that it shall run."""

    def __init__(self, executor: Executor, *, is_async: bool = False, lone: bool = False) -> None:
        self.executor = executor
        self.recorder = Recorder()
        self.is_async = is_async
        self.lone = lone

    def task(self, name: str, *args: Any, **options: Any) -> Task[Any]:
        """A claimed task of a function in executor_tasks."""
        function = getattr(executor_tasks, f"{name}_async" if self.is_async else name)
        return self.claimed(function.with_options(**options)(*args))

    def payload(self, payload: Any, **options: Any) -> Task[Any]:
        return self.claimed(Task.create(payload=payload, **options))

    def claimed(self, task: Task[Any], **fields: Any) -> Task[Any]:
        """As a worker gets it from the server."""
        fields = {"state": TaskState.STARTED, "attempt": 1, "claim": Claim(b"token", "incarnation"), **fields}
        return msgspec.structs.replace(task, lone=self.lone, **fields)

    def submit(self, task: Task[Any]) -> Task[Any]:
        self.executor.submit(task)
        return task

    def run(self, task: Task[Any]) -> Outcome:
        """Submit a task and wait for its outcome."""
        self.executor.submit(task)
        return self.outcome(task)

    def outcome(self, task: Task[Any]) -> Outcome:
        outcome = self.recorder.wait("outcome", task)
        assert isinstance(outcome, Outcome)
        return outcome

    def begun(self, task: Task[Any]) -> Task[Any]:
        """Submit a task and wait until it has begun."""
        self.executor.submit(task)
        self.recorder.wait("begin", task)
        return task

    def events(self, task: Task[Any]) -> list[str]:
        return self.recorder.events(task)


def result(outcome: Outcome) -> Any:
    """The decoded result."""
    assert outcome.result is not None, error(outcome)
    return decode_value(outcome.result)


def error(outcome: Outcome) -> TaskError:
    """The decoded error."""
    assert outcome.error is not None, outcome
    return decode_error(outcome.error)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except FileNotFoundError:
        return True
