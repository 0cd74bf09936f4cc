"""Workers for tests: in this process, in processes of their own, and under supervisors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque.core.config import FairQueueConfig
from fairque.core.events import Event, EventBus
from fairque.core.exceptions import QueueUnavailableError
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.handles import TaskHandle
from fairque.queue.operations.admin import QueueStats
from fairque.queue.queue import TaskQueue
from fairque.worker.handler import TaskHandler
from fairque.worker.supervisor import Supervisor
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.invariants import assert_consistent
from tests.support.servers import ServerProcess
from tests.support.worker_process import ROOT
from tests.support.worker_tasks import Ledger

LEASE = 2.0
SECONDS = 30.0
MODULES = (worker_tasks.__name__,)


def until(condition: Callable[[], Any], seconds: float = SECONDS, what: Callable[[], object] = str) -> Any:
    """What `condition` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s {what()}"
        time.sleep(0.005)
    return value


class WorkerProcess:
    """A worker, or a supervisor, in a process group of its own."""

    def __init__(self, order: dict[str, Any], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.support.worker_process", json.dumps(order)],
                cwd=ROOT,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Only this process."""
        self.popen.kill()
        self.popen.wait()

    def kill_all(self) -> None:
        """This process and its children, which lead groups of their own."""
        children = child_pids(self.pid)
        self.popen.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.popen.wait()

    def wait(self, timeout: float = SECONDS) -> int:
        return self.popen.wait(timeout)


def child_pids(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == pid and fields[0] != b"Z":
                found.append(int(entry.name))
    return found


def probe(port: int, path: str) -> int:
    """The status that the health server answers with."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Supervised:
    """A supervisor in a thread of this process; its workers are processes."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.supervisor.run(handle_signals=False)

    def pid(self) -> int:
        """Of its one worker."""
        [pid] = until(self.supervisor.pids)
        return int(pid)

    def stop(self, timeout: float = SECONDS) -> float:
        """Stop it and wait; how many seconds that took."""
        begun = time.monotonic()
        self.supervisor.stop()
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"the supervisor is not out after {timeout} s"
        return time.monotonic() - begun


class Workshop:
    """A queue on a server, and whoever works for it. `close` ends them all."""

    def __init__(self, server: ServerProcess, directory: Path, **queue: Any) -> None:
        self.server = server
        self.directory = directory
        self.ledger = Ledger(directory / "ledger")
        self.path = str(self.ledger.path)
        self._queue_options = {"lease_seconds": LEASE} | queue
        self.queue = TaskQueue(self.config())
        self.client: Any = server.client()
        self._closers: list[Callable[[], object]] = []
        self._count = 0

    def config(self, **entry: Any) -> FairQueueConfig:
        return FairQueueConfig.from_dict(self.order(**entry))

    def order(self, **entry: Any) -> dict[str, Any]:
        """The configuration as a mapping."""
        return {
            "redis": {"url": self.server.url},
            "queue": self._queue_options,
            "workers": [{"shutdown_timeout_seconds": 5} | entry],
        }

    # -- workers

    def worker(
        self,
        handler: TaskHandler | None = None,
        *,
        events: EventBus | None = None,
        **entry: Any,
    ) -> Worker:
        """A worker in this process, which is ready."""
        worker = Worker(self.config(**entry), handler, events=events)
        worker.start()
        self._closers.append(lambda: worker.stop(0))
        return worker

    def process(
        self, processes: int = 0, *, modules: Sequence[str] = MODULES, log: str = "INFO", **entry: Any
    ) -> WorkerProcess:
        """A worker in a process of its own (0), or a supervisor with so many; all are ready."""
        self._count += 1
        name = f"process{self._count}"
        order = {
            "config": self.order(id=name, **entry),
            "modules": list(modules),
            "processes": processes,
            "log_level": log,
        }
        process = WorkerProcess(order, self.directory / f"{name}.log")
        self._closers.append(process.kill_all)
        until(lambda: len(self.alive(name)) >= max(1, processes), what=process.said)
        return process

    def supervise(
        self,
        processes: int = 1,
        *,
        modules: Sequence[str] = MODULES,
        path: Sequence[str] = (),
        scheduler: bool = False,
        **entry: Any,
    ) -> Supervised:
        """A supervisor in this process, with its workers ready."""
        self._count += 1
        name = f"supervised{self._count}"
        supervisor = Supervisor(
            self.config(id=name, **entry),
            modules=modules,
            processes=processes,
            path=[str(ROOT), *path],
            scheduler=scheduler,
        )
        supervised = Supervised(supervisor)

        def close() -> None:
            supervisor.stop()
            supervisor.stop()
            supervised.thread.join(SECONDS)

        self._closers.append(close)
        until(lambda: len(self.alive(name)) >= processes)
        return supervised

    def alive(self, worker_id: str) -> list[str]:
        """The live incarnations of an entry."""
        return [w.incarnation for w in self.stats().workers if w.fields.get("worker_id") == worker_id]

    # -- tasks

    def push(self, task: Task[Any]) -> TaskHandle[Any]:
        return self.queue.push(task)

    def push_all(self, tasks: Sequence[Task[Any]] | Iterator[Task[Any]]) -> list[TaskHandle[Any]]:
        handles: list[TaskHandle[Any]] = []
        for outcome in self.queue.push_batch(tasks):
            assert outcome.handle is not None, outcome.error
            handles.append(outcome.handle)
        return handles

    def stats(self) -> QueueStats:
        return self.queue.get_stats()

    def count(self, state: TaskState | str) -> int:
        return self.stats().states.get(str(state), 0)

    def wait_for(self, word: str, key: str, times: int = 1, seconds: float = SECONDS) -> None:
        """Until the ledger says it of the task."""
        until(lambda: self.ledger.count(word)[key] >= times, seconds, lambda: (word, key, self.stats()))

    def wait_until_done(self, count: int, seconds: float = 60.0) -> None:
        """Until so many tasks have finished."""
        until(
            lambda: self.count(TaskState.FINISHED) >= count,
            seconds,
            lambda: (self.stats(), self.process_logs()),
        )

    def process_logs(self) -> str:
        return "".join(path.read_text() for path in self.directory.glob("*.log"))

    def assert_settled(self) -> None:
        """Nothing waits or runs, and all that is stored twice agrees."""
        states = self.stats().states
        for state in (TaskState.QUEUED, TaskState.STARTED, TaskState.SCHEDULED):
            assert states.get(str(state), 0) == 0, self.stats()
        self.assert_consistent()

    def assert_consistent(self) -> None:
        """All that is stored twice agrees."""
        assert_consistent(self.client)

    def close(self) -> None:
        for close in reversed(self._closers):
            close()
        with contextlib.suppress(QueueUnavailableError):  # what stays until somebody says so
            self.queue.dlq.purge()
            for state in (TaskState.QUEUED, TaskState.SCHEDULED):
                for task in self.queue.list_tasks(state, limit=1000).items:
                    task_id = task.task_id
                    self.queue.delete_task(task_id)
        self.queue.close()


class Heard:
    """The events of a bus, by name."""

    def __init__(self) -> None:
        self.bus = EventBus()
        self.events: list[Event] = []
        self.bus.subscribe(Event, self.events.append)

    def names(self, task_id: str | None = None) -> list[str]:
        return [
            type(event).__name__
            for event in tuple(self.events)
            if task_id is None or getattr(event, "task_id", None) == task_id
        ]


@pytest.fixture
def workshop(server: ServerProcess, flushed: redis.Redis, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop on the shared server."""
    made = Workshop(server, tmp_path)
    yield made
    made.close()


@pytest.fixture
def make_workshop(
    server: ServerProcess, flushed: redis.Redis, tmp_path: Path
) -> Iterator[Callable[..., Workshop]]:
    """Workshops with options of the queue, on the shared server."""
    made: list[Workshop] = []

    def make(**queue: Any) -> Workshop:
        made.append(Workshop(server, tmp_path, **queue))
        return made[-1]

    yield make
    for workshop in made:
        workshop.close()
