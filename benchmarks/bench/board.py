"""The board: a file that producers, workers and the harness map into their memory.

Tasks leave their marks on it, the same two marks whatever system runs them, so counting costs none of the systems a
call to the server: when a task began, and which worker process has run it. Only the standard library is used here,
since this module runs in the environment of every peer.

Layout (little endian, the board of the Node processes is the same): a header of 4,096 bytes with the gate (int64 at 8)
and one ready byte for each worker (from 1,024); then for each task 16 bytes, when it began (int64, ns of the monotonic
clock, which all processes of a machine share) and who ran it (the number of the worker; plus 128 if it ran more than
once); then for each task when its push began (int64, ns).
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

HEADER = 4096
GATE_AT = 8
READY_AT = 1024
MAX_WORKERS = 127
TWICE = 128
POLL_SECONDS = 0.001


class Board:
    """One board of `capacity` tasks. `worker` is the number that this process leaves on tasks (1 to 127)."""

    def __init__(self, path: str | Path, capacity: int, worker: int = 0) -> None:
        self.path, self.capacity, self.worker = str(path), capacity, worker
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            self._map = mmap.mmap(descriptor, size_of(capacity))
        finally:
            os.close(descriptor)
        view = memoryview(self._map)
        marks_end = HEADER + 16 * capacity
        self._marks = view[HEADER:marks_end].cast("q")
        self._pushed = view[marks_end : marks_end + 8 * capacity].cast("q")

    @classmethod
    def create(cls, path: str | Path, capacity: int) -> Board:
        """An empty board in a new file."""
        Path(path).write_bytes(b"")
        os.truncate(path, size_of(capacity))
        return cls(path, capacity)

    @classmethod
    def from_environment(cls) -> Board:
        """The board of the run that this process belongs to (see `processes.environment`)."""
        return cls(
            os.environ["BENCH_BOARD"], int(os.environ["BENCH_CAPACITY"]), int(os.environ["BENCH_WORKER"])
        )

    def close(self) -> None:
        """Unmap it."""
        self._marks.release()
        self._pushed.release()
        self._map.close()

    # -- the gate: workers are held until all of them have been loaded

    def wait_at_gate(self) -> None:
        """Say that this worker is ready, and return when the gate is open."""
        self._map[READY_AT + self.worker] = 1
        while not self._map[GATE_AT]:
            time.sleep(POLL_SECONDS)

    def open_gate(self) -> None:
        """Let the workers begin."""
        self._map[GATE_AT] = 1

    def ready(self) -> int:
        """How many workers are at the gate, or past it."""
        return self._map[READY_AT : READY_AT + MAX_WORKERS + 1].count(1)

    # -- marks of tasks

    def begin(self, index: int) -> None:
        """The task begins now."""
        self._marks[2 * index] = time.monotonic_ns()

    def end(self, index: int) -> None:
        """The task has run."""
        place = 2 * index + 1
        self._marks[place] = self.worker | TWICE if self._marks[place] else self.worker

    def push(self, index: int) -> None:
        """The push of the task begins now."""
        self._pushed[index] = time.monotonic_ns()

    # -- what the harness reads

    def done(self, first: int, count: int) -> int:
        """How many of `count` tasks from `first` have run."""
        start = HEADER + 16 * first + 8
        return count - self._map[start : start + 16 * count : 16].count(0)

    def has_begun(self, index: int) -> bool:
        """Whether the task has begun."""
        return self._marks[2 * index] != 0

    def begun(self, first: int, count: int) -> list[float]:
        """When each of the tasks began, in seconds of the monotonic clock; 0 if it has not."""
        return [ns / 1e9 for ns in self._marks[2 * first : 2 * (first + count) : 2].tolist()]

    def pushed(self, first: int, count: int) -> list[float]:
        """When the push of each of the tasks began, in seconds; 0 if that was not noted."""
        return [ns / 1e9 for ns in self._pushed[first : first + count].tolist()]

    def workers(self, first: int, count: int) -> list[int]:
        """Who has run each of the tasks; 0 for nobody."""
        return [who & ~TWICE for who in self._marks[2 * first + 1 : 2 * (first + count) : 2].tolist()]

    def run_twice(self, first: int, count: int) -> int:
        """How many of the tasks ran more than once."""
        return sum(1 for who in self._marks[2 * first + 1 : 2 * (first + count) : 2].tolist() if who & TWICE)


def size_of(capacity: int) -> int:
    """Bytes of a board for so many tasks."""
    return HEADER + 24 * capacity
