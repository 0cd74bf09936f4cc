"""The executions, as tasks wrote them down: lines in a file that every process adds to, outside of the queue."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Execution:
    """One call of a task's function, in the process `pid`, whose parent is `parent`; monotonic seconds.

    `ended`: None if it never came to its end; `failed`: it raised on purpose there.
    """

    task_id: str
    attempt: int
    pid: int
    parent: int
    begun: float
    ended: float | None = None
    failed: bool = False

    @property
    def name(self) -> str:
        """What it gives as its result: no two have the same."""
        return f"{self.attempt}/{self.pid}/{self.begun!r}"


def write(path: str, word: str, task_id: str, attempt: int, begun: float) -> None:
    """Add one line, in one write."""
    line = f"{word}\t{task_id}\t{attempt}\t{os.getpid()}\t{os.getppid()}\t{begun!r}\t{time.monotonic()!r}\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(path: Path) -> dict[str, list[Execution]]:
    """The executions of each task, in the order in which they began."""
    found: dict[tuple[str, int, float], Execution] = {}
    for line in path.read_text().splitlines():
        word, task_id, attempt, pid, parent, begun, at = line.split("\t")
        place = task_id, int(pid), float(begun)
        if word == "begin":
            found[place] = Execution(task_id, int(attempt), int(pid), int(parent), float(begun))
        else:
            found[place].ended, found[place].failed = float(at), word == "fail"
    by_task: dict[str, list[Execution]] = {}
    for execution in sorted(found.values(), key=lambda one: one.begun):
        by_task.setdefault(execution.task_id, []).append(execution)
    return by_task
