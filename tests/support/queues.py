"""`queue`: fixtures for the suite that drives the sync and the async queue.

At the end of each test the queue's keys must not contradict each other; then what is left is removed by the
queue's own means, and the key-leak check sees whether anything stayed behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from fairque.core.config import FairQueueConfig
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from tests.conftest import passed
from tests.support.facades import MODES, Clock, Facades
from tests.support.invariants import assert_consistent
from tests.support.servers import ServerProcess

MakeQueue = Callable[..., Any]


def config_for(url: str, **settings: Any) -> FairQueueConfig:
    """A configuration for the server at `url`; `settings` are the queue's."""
    return FairQueueConfig.from_dict({"redis": {"url": url}, "queue": settings})


def at(clock: Clock, seconds: float) -> datetime:
    """`seconds` from now, by a test's clock."""
    return datetime.fromtimestamp(clock.seconds + seconds, UTC)


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """Return as soon as the condition holds; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.002)


@pytest.fixture(params=MODES)
def facades(request: pytest.FixtureRequest) -> Iterator[Facades]:
    """Makes sync or async queues; closes them at the end."""
    facades = Facades(request.param)
    yield facades
    facades.close()


@pytest.fixture
def make_queue(
    request: pytest.FixtureRequest, flushed: redis.Redis, server: ServerProcess, facades: Facades
) -> Iterator[MakeQueue]:
    """`make_queue(lease_seconds=1)`: another queue object on the test's server.

    `url` puts something between the two, `clock` injects the time; `middleware` and `events` go to its
    constructor, and all else is settings of the queue.
    """
    made: list[Any] = []
    aging = 60.0

    def make(
        url: str | None = None,
        clock: Clock | None = None,
        middleware: Any = (),
        events: Any = None,
        **settings: Any,
    ) -> Any:
        nonlocal aging
        aging = settings.get("aging_seconds", aging)
        config = config_for(url or server.url, **settings)
        made.append(facades.make(config, clock, middleware=middleware, events=events))
        return made[-1]

    yield make
    if made and passed(request.node):
        assert_consistent(flushed, aging_seconds=aging)
        empty(made[0])
        facades.close()
        assert_consistent(flushed, aging_seconds=aging)
        assert not flushed.exists("fq:workers", "fq:workers:dead", "fq:waiters", "fq:expiring")


@pytest.fixture
def queue(make_queue: MakeQueue) -> Any:
    """A queue with default settings."""
    return make_queue()


@pytest.fixture
def other(make_queue: MakeQueue) -> Any:
    """A second client of the same queue, as another process would be."""
    return make_queue()


@pytest.fixture
def clock() -> Clock:
    """The time of `timed`."""
    return Clock()


@pytest.fixture
def timed(make_queue: MakeQueue, clock: Clock) -> Any:
    """A queue whose time is `clock`'s."""
    return make_queue(clock=clock)


@pytest.fixture
def tidy(request: pytest.FixtureRequest, flushed: redis.Redis, server: ServerProcess) -> Iterator[None]:
    """For tests that make their queues themselves: what `make_queue` does at the end."""
    yield
    if passed(request.node):
        assert_consistent(flushed)
        with TaskQueue(config_for(server.url)) as queue:
            empty(queue)


def empty(queue: Any) -> None:
    """Remove every task, and every schedule, that would otherwise stay."""
    for info in queue.schedules.list().items:
        queue.schedules.remove(info.name)
    for state in (TaskState.STARTED, TaskState.DEFERRED, TaskState.QUEUED, TaskState.SCHEDULED):
        while tasks := queue.list_tasks(state, limit=1000).items:
            for task in tasks:
                if state is TaskState.STARTED:
                    queue.move_to_dlq(task)
                else:
                    queue.delete_task(task)
    queue.dlq.purge()
