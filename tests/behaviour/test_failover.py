"""A primary that is killed under load: what was acknowledged is there, and the queue goes on by itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairque import FairQueueConfig, Task, TaskHandler, Worker
from fairque.core.exceptions import FairQueueError, NotReplicatedError
from tests.support.facades import MODES, Facades
from tests.support.failover import Trio, in_sync, sentinel_trio
from tests.support.queues import wait_until

PUSHERS = 4
PER_SECOND = 500
BACK_WITHIN_SECONDS = 5.0


@pytest.fixture
def trio(redis_path: Path) -> Iterator[Trio]:
    with sentinel_trio(redis_path, {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}) as found:
        yield found


class Recorder(TaskHandler):
    """What has run."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def process_task(self, task: Task[Any]) -> None:
        self.seen.add(task.task_id)


class Load:
    """Threads that push `PER_SECOND` tasks a second together; a push that fails is done again, as callers do."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._stop = threading.Event()
        self.acknowledged: dict[str, float] = {}
        self.failures: list[FairQueueError] = []
        self._threads = [threading.Thread(target=self._push) for _ in range(PUSHERS)]

    def _push(self) -> None:
        following = time.monotonic()
        while not self._stop.is_set():
            task = Task.create(payload=1, max_retries=20)
            while not self._stop.is_set():
                try:
                    self._queue.push(task)
                except FairQueueError as error:
                    self.failures.append(error)
                    self._stop.wait(0.05)
                else:
                    self.acknowledged[task.task_id] = time.monotonic()
                    break
            following = max(time.monotonic(), following + PUSHERS / PER_SECOND)
            self._stop.wait(following - time.monotonic())

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_no_acknowledged_task_is_lost_and_service_is_back(mode: str, trio: Trio) -> None:
    config = FairQueueConfig.from_dict(
        {
            "redis": {"url": trio.url},
            "workers": [{"poll_interval_seconds": 0.5}],
            "queue": {"durability": "replicated", "durability_timeout_seconds": 1, "lease_seconds": 3},
        }
    )
    facades, recorder = Facades(mode), Recorder()
    with contextlib.ExitStack() as stack:
        stack.callback(facades.close)
        queue = facades.make(config)
        worker = Worker(config, recorder)
        worker.start()
        stack.callback(worker.stop, 5)
        old = trio.primary()
        with Load(queue) as load:
            wait_until(lambda: len(load.acknowledged) > 500 and len(recorder.seen) > 100, 30)
            assert trio.primary() is old, "it was replaced already, by sentinels that were kept waiting"
            killed_at = time.monotonic()
            old.kill()
            wait_until(lambda: trio.primary() is not old and trio.takes_writes(trio.primary()), 30)
            up_at = time.monotonic()
            wait_until(lambda: any(at > up_at for at in tuple(load.acknowledged.values())), 30)
            back = time.monotonic() - up_at
            before = len(load.acknowledged)
            wait_until(lambda: len(load.acknowledged) > before + 500, 30)
        print(
            f"\n{mode}: new primary after {up_at - killed_at:.2f} s, service back {back:.2f} s later, "
            f"{len(load.acknowledged)} acknowledged, {len(load.failures)} failed pushes, "
            f"{sum(isinstance(error, NotReplicatedError) for error in load.failures)} not replicated"
        )
        assert back <= BACK_WITHIN_SECONDS
        # Known to the new primary, and run by the worker, which went on.
        lost = [task_id for task_id in load.acknowledged if queue.get_task(task_id) is None]
        assert lost == []
        wait_until(lambda: load.acknowledged.keys() <= recorder.seen, 60)
        # The old one comes back as a replica, and takes nothing with it.
        old.start()
        wait_until(lambda: not trio.takes_writes(old) and in_sync(old), 30)
        assert trio.primary() is not old
        assert queue.get_task(next(iter(load.acknowledged))) is not None
        assert queue.push(Task.create(payload=1)).task_id
