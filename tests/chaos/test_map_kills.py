"""A worker that is killed while a list becomes tasks, or these become one again: at each of the calls that it makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import redis

from fairque.core.states import TaskState
from fairque.scripts import SCRIPTS
from tests.support import flow_tasks
from tests.support.flow_tasks import Total, add, double, numbers
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess
from tests.support.workers import WorkerProcess, Workshop, until

FULL = float(os.environ.get("FAIRQUE_CHAOS_MINUTES", "0")) > 0
FATES = ("never comes", "comes late", "is not answered")
SHORT = [
    ("expand", 1, "is not answered"),
    ("expand", 2, "never comes"),
    ("expand", 2, "comes late"),
    ("expand", 2, "is not answered"),
    ("gather", 1, "comes late"),
    ("settle_and_claim", 3, "is not answered"),
]
ALL = [
    (script, number, fate)
    for script, count in (("settle_and_claim", 6), ("get_results", 3), ("expand", 3), ("gather", 1))
    for number in range(1, count + 1)
    for fate in FATES
]
ITEMS = 5
NODES = ITEMS + 3


class Nth:
    """The call of a script that comes as the `number`th."""

    def __init__(self, script: str, number: int) -> None:
        self._function = f"{SCRIPTS[script].function}\r\n".encode()
        self._number = number
        self._seen = 0

    def __call__(self, request: bytes) -> bool:
        if self._function not in request:
            return False
        self._seen += 1
        return self._seen == self._number


@pytest.fixture
def proxy(flushed: redis.Redis, server: ServerProcess) -> Iterator[FaultProxy]:
    """Between the worker that is killed and the server."""
    with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.mark.parametrize(("script", "number", "fate"), ALL if FULL else SHORT)
def test_a_map_survives_the_death_of_its_worker_at_any_call(
    make_workshop: Callable[..., Workshop], proxy: FaultProxy, script: str, number: int, fate: str
) -> None:
    workshop = make_workshop(lease_seconds=1)
    order = {
        "config": {**workshop.order(id="victim"), "redis": {"url": proxy.url}},
        "modules": [flow_tasks.__name__],
        "processes": 0,
        "log_level": "INFO",
    }
    victim = WorkerProcess(order, workshop.directory / "victim.log")
    try:
        until(lambda: workshop.alive("victim"), what=victim.said)
        if fate == "is not answered":
            proxy.drop_replies(1, matching=Nth(script, number))
        else:
            proxy.hold(1, matching=Nth(script, number))
        found = numbers(ITEMS)
        handle = workshop.queue.enqueue(found >> double.map(found.output).reduce(add))

        def reached() -> bool:
            return bool(proxy.held) or proxy.replies_dropped > 0

        # It may be done with fewer calls: then it dies of old age.
        until(lambda: reached() or not handle.info().is_running)
    finally:
        victim.kill_all()
    workshop.worker()
    if fate == "never comes":
        proxy.release(forward=False)
    elif fate == "comes late":
        proxy.release(forward=True)
    assert handle.result(30) == Total(ITEMS * (ITEMS - 1), [2 * n for n in range(ITEMS)])
    info = handle.info()
    assert (info.state, info.total, info.finished) == ("finished", NODES, NODES)
    assert workshop.queue.get_user_stats("default").finished == NODES
    assert all(node.task and node.task.state is TaskState.FINISHED for node in handle.tree())
    # What is said to it is kept until it is known to be dead.
    until(lambda: not workshop.alive("victim"))
    workshop.assert_settled()
