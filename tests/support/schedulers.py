"""Schedulers for tests: in this process, and in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque.core.config import FairQueueConfig
from fairque.core.events import Event, EventBus
from fairque.core.schedules.models import ScheduledTask
from fairque.queue.operations.schedule_views import Leader
from fairque.queue.queue import TaskQueue
from fairque.scheduler.scheduler import TaskScheduler
from tests.support.queues import empty
from tests.support.servers import ServerProcess
from tests.support.workers import until

ROOT = Path(__file__).parents[2]
LEASE = 1.0


class SchedulerProcess:
    """A scheduler in a process of its own, which does not outlive the test."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.support.scheduler_process", json.dumps(config)],
                cwd=ROOT,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self) -> str:
        return self.log.read_text()

    def scheduler_id(self) -> str:
        """Its name on the server, once it runs."""
        until(lambda: " runs\n" in self.said(), what=self.said)
        return self.said().partition(" runs\n")[0].rpartition(" ")[2]

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


class Office:
    """A queue, and the schedulers that decide its ticks. `close` ends them all."""

    def __init__(self, server: ServerProcess, directory: Path, lease: float = LEASE) -> None:
        self.server, self.directory = server, directory
        self.data: dict[str, Any] = {"redis": {"url": server.url}, "scheduler": {"lease_seconds": lease}}
        self.queue = TaskQueue(self.config())
        self.client: Any = server.client()
        self.events: list[Event] = []
        self._closers: list[Callable[[], object]] = []

    def config(self, **sections: Any) -> FairQueueConfig:
        return FairQueueConfig.from_dict(self.data | sections)

    def scheduler(
        self,
        schedules: Sequence[ScheduledTask] | None = None,
        *,
        sections: dict[str, Any] | None = None,
        **options: Any,
    ) -> TaskScheduler:
        """A scheduler in this process, which runs; what it tells is in `events`."""
        bus = EventBus()
        bus.subscribe(Event, self.events.append)
        scheduler = TaskScheduler(self.config(**(sections or {})), schedules, events=bus, **options)
        scheduler.start()
        self._closers.append(scheduler.stop)
        return scheduler

    def process(self) -> SchedulerProcess:
        """A scheduler in a process of its own."""
        process = SchedulerProcess(self.data, self.directory / f"scheduler{len(self._closers)}.log")
        self._closers.append(process.kill)
        return process

    def leader(self) -> Leader:
        """Who leads, as soon as somebody does."""
        leader: Leader = until(self.queue.schedules.leader)
        return leader

    def told(self, kind: type[Event]) -> list[Any]:
        """The events of a kind, so far."""
        return [event for event in tuple(self.events) if isinstance(event, kind)]

    def close(self) -> None:
        for close in reversed(self._closers):
            close()
        empty(self.queue)
        self.queue.close()
        self.client.close()


@pytest.fixture
def office(server: ServerProcess, flushed: redis.Redis, tmp_path: Path) -> Iterator[Office]:
    """An office on the shared server."""
    made = Office(server, tmp_path)
    yield made
    made.close()
