"""The circuit breaker on real connections: what callers, workers and the server see of an outage."""

from __future__ import annotations

import asyncio
import pickle
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fairque.core.breaker import CircuitState
from fairque.core.config import FairQueueConfig
from fairque.core.events import BreakerClosed, BreakerEvent, BreakerHalfOpened, BreakerOpened, EventBus
from fairque.core.exceptions import CircuitOpenError, FairQueueError, QueueUnavailableError
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.queue import TaskQueue
from fairque.worker.worker import Worker
from tests.support.facades import Facades
from tests.support.proxy import FaultProxy
from tests.support.queues import wait_until
from tests.support.servers import ServerProcess
from tests.support.worker_process import ROOT
from tests.support.worker_tasks import Ledger, work

PERIOD = 0.4
QUICK = {"failure_threshold": 2, "failure_seconds": 0, "recovery_timeout_seconds": PERIOD}


@pytest.fixture
def proxy(server: ServerProcess, flushed: redis.Redis) -> Iterator[FaultProxy]:
    """What stands between the queues and the server."""
    with FaultProxy(server.url) as proxy:
        yield proxy


def config(url: str, **breaker: Any) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url}, "breaker": {**QUICK, **breaker}})


def cut_off(proxy: FaultProxy) -> None:
    """The server is away: no connection is left, and no new one is taken."""
    proxy.refuse()
    proxy.reset()


def task() -> Task[Any]:
    return Task.create(payload=1)


def clean(queue: Any) -> None:
    for found in queue.list_tasks(TaskState.QUEUED, limit=1000):
        queue.delete_task(found.task_id)


def trip(queue: Any) -> None:
    """Call until the circuit is open."""
    wait_until(lambda: not queue.get_health().healthy and queue.breaker.is_open)


def test_with_the_server_gone_calls_fail_at_once(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url, recovery_timeout_seconds=60))
    queue.get_stats()
    cut_off(proxy)
    trip(queue)
    before = proxy.connections_refused
    times = []
    for _ in range(1000):
        one = task()
        begun = time.perf_counter()
        with pytest.raises(CircuitOpenError):
            queue.push(one)
        times.append(time.perf_counter() - begun)
    median, worst = statistics.median(times) * 1e6, max(times) * 1e3
    print(f"1,000 refused pushes ({facades.mode}): median {median:.0f} µs, worst {worst:.1f} ms")
    # The async queue is called from another thread here, which takes longer than the call.
    assert statistics.median(times) < 0.005
    assert proxy.connections_refused == before
    assert queue.breaker.stats.rejected >= 1000


def test_what_is_refused_says_when_to_come_again(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url, recovery_timeout_seconds=60))
    queue.get_stats()
    cut_off(proxy)
    trip(queue)
    with pytest.raises(CircuitOpenError, match=r"tries again in \d.*breaker\.wait_seconds") as refused:
        queue.get_stats()
    assert isinstance(refused.value, QueueUnavailableError)
    assert 50 < refused.value.retry_after_seconds <= 60
    again = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 - our own
    assert again.retry_after_seconds == refused.value.retry_after_seconds
    [outcome] = queue.push_batch([task()])
    assert isinstance(outcome.error, CircuitOpenError)
    health = queue.get_health()
    assert not health.healthy
    assert health.breaker.is_open
    assert health.breaker.opened == 1
    assert health.breaker.retry_after > 50
    assert health.breaker.away > 0
    assert health.breaker.last_error


def test_one_probe_goes_out_per_period_whoever_calls(proxy: FaultProxy) -> None:
    """Six threads with three queues, and an async queue with five callers, while a listener waits for a result."""
    settings = config(proxy.url)
    queues = [TaskQueue(settings) for _ in range(3)]
    for queue in queues:
        queue.get_stats()
    handle = queues[0].push(task())
    stop, ready = threading.Event(), threading.Event()
    refused = 0

    def call(queue: TaskQueue) -> None:
        nonlocal refused
        while not stop.is_set():
            try:
                queue.get_stats()
            except QueueUnavailableError:
                refused += 1
                stop.wait(0.001)

    async def call_async() -> None:
        async def caller(queue: AsyncTaskQueue) -> None:
            while not stop.is_set():
                try:
                    await queue.get_stats()
                except QueueUnavailableError:
                    await asyncio.sleep(0.001)

        async with AsyncTaskQueue(settings) as queue:
            await queue.get_stats()
            ready.set()
            await asyncio.gather(*(caller(queue) for _ in range(5)))

    def wait_for_result() -> None:
        with pytest.raises(FairQueueError):
            handle.result()

    breaker = breaker_for(settings)
    threads = [threading.Thread(target=call, args=(queue,)) for queue in queues * 2]
    threads += [
        threading.Thread(target=asyncio.run, args=(call_async(),)),
        threading.Thread(target=wait_for_result),
    ]
    for thread in threads:
        thread.start()
    try:
        assert ready.wait(20)
        cut_off(proxy)
        wait_until(lambda: breaker.is_open)
        wait_until(lambda: breaker.stats.probes >= 1)
        first, begun = (breaker.stats.probes, proxy.connections_refused), time.monotonic()
        wait_until(lambda: breaker.stats.probes >= first[0] + 6)
        last, seconds = (breaker.stats.probes, proxy.connections_refused), time.monotonic() - begun
        print(
            f"{last[0] - first[0]} probes and {last[1] - first[1]} connections in {seconds:.2f} s, {refused} refused"
        )
        assert seconds > (last[0] - first[0] - 1) * PERIOD
        # A probe may be on its way while the two are read.
        assert abs((last[0] - first[0]) - (last[1] - first[1])) <= 1
        proxy.heal()
        wait_until(lambda: not breaker.is_open)
    finally:
        stop.set()
        proxy.heal()
        queues[1].cancel(handle.task_id)
        for thread in threads:
            thread.join(20)
        for queue in queues:
            queue.close()


def test_a_server_that_swallows_everything_is_away_too(
    proxy: FaultProxy, facades: Facades, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("REPLY_SECONDS", "CONNECT_SECONDS"):
        monkeypatch.setattr(f"fairque.queue.connection.{limit}", 0.2)
    queue = facades.make(config(proxy.url))
    queue.get_stats()
    proxy.black_hole()
    trip(queue)
    told = queue.breaker.stats.last_error.lower()
    assert "timeout" in told or "timed out" in told
    proxy.black_hole(False)
    wait_until(lambda: queue.get_health().healthy)
    # What was swallowed comes late, and reaches nobody.
    handles = [queue.push(Task.create(payload=number)) for number in range(20)]
    assert [handle.task().payload for handle in handles] == list(range(20))
    clean(queue)


def test_a_call_may_wait_for_the_server(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url, wait_seconds=20))
    other = facades.make(config(proxy.url, wait_seconds=20))
    queue.get_stats()
    cut_off(proxy)
    waited: list[Any] = []
    threads = [
        threading.Thread(target=lambda made=made: waited.append(made.push(task())))
        for made in (queue, other, queue)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: queue.breaker.stats.probes >= 2)
    assert not waited
    proxy.heal()
    for thread in threads:
        thread.join(20)
    assert len(waited) == 3
    assert {handle.state() for handle in waited} == {TaskState.QUEUED}
    clean(queue)


def test_waiting_ends(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url, wait_seconds=1.0, recovery_timeout_seconds=60))
    cut_off(proxy)
    trip(queue)
    begun = time.monotonic()
    with pytest.raises(CircuitOpenError):
        queue.push(task())
    assert 0.9 < time.monotonic() - begun < 10


def test_a_short_restart_costs_nobody_an_error(proxy: FaultProxy, facades: Facades) -> None:
    """With the defaults, calls ride it out, and so do those that begin meanwhile."""
    queue = facades.make(FairQueueConfig.from_dict({"redis": {"url": proxy.url}}))
    queue.get_stats()
    errors: list[Exception] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                queue.get_stats()
            except FairQueueError as error:
                errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    cut_off(proxy)
    wait_until(lambda: queue.breaker.stats.failed >= 12)  # each has failed, and tries again
    proxy.heal()
    wait_until(lambda: not queue.breaker.troubled)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert queue.breaker.stats.opened == 0


def test_observers_are_told(proxy: FaultProxy, facades: Facades) -> None:
    bus, heard = EventBus(), []
    bus.subscribe(BreakerEvent, heard.append)
    queue = facades.make(config(proxy.url), events=bus)
    queue.get_stats()
    cut_off(proxy)
    trip(queue)
    proxy.heal()
    wait_until(lambda: queue.get_health().healthy)
    kinds = [type(event) for event in heard]
    assert kinds[0] is BreakerOpened
    assert kinds[-2:] == [BreakerHalfOpened, BreakerClosed]
    assert heard[0].failures >= 2
    assert heard[0].reason
    assert heard[0].retry_after == pytest.approx(PERIOD)
    assert heard[-1].away >= PERIOD
    assert {event.server for event in heard} == {proxy.url}


def test_an_answer_that_is_an_error_is_an_answer(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url, failure_threshold=1))
    for _ in range(20):
        with pytest.raises(FairQueueError):
            queue.cancel("nobody")
    assert queue.breaker.stats.failed == 0


def test_a_replica_counts_as_no_server(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server()
    with TaskQueue(config(server.url, recovery_timeout_seconds=60)) as queue:
        queue.get_stats()
        server.client().replicaof("127.0.0.1", 1)
        for _ in range(2):
            with pytest.raises(QueueUnavailableError):
                queue.push(task())
        with pytest.raises(CircuitOpenError):
            queue.push(task())
        assert "replica" in queue.breaker.stats.last_error


def test_a_probe_whose_caller_is_cancelled_makes_room_for_another(proxy: FaultProxy) -> None:
    async def scene() -> None:
        async with AsyncTaskQueue(config(proxy.url)) as queue:
            await queue.get_stats()
            cut_off(proxy)
            while not queue.breaker.is_open:
                with pytest.raises(QueueUnavailableError):
                    await queue.get_stats()
            proxy.heal()
            proxy.hold(1)
            await asyncio.to_thread(wait_until, lambda: queue.breaker.stats.retry_after == 0)
            probe = asyncio.create_task(queue.get_stats())
            await asyncio.to_thread(proxy.wait_held)
            assert queue.breaker.state is CircuitState.HALF_OPEN
            with pytest.raises(CircuitOpenError):
                await queue.get_stats()
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            assert queue.breaker.state is CircuitState.OPEN
            proxy.heal()
            await queue.get_stats()
            assert not queue.breaker.is_open

    asyncio.run(scene())


def test_one_breaker_for_a_server_in_a_process() -> None:
    one = config("redis://db:6379/0")
    assert breaker_for(one) is breaker_for(config("redis://alice:secret@db:6379/1"))
    kept = breaker_for(one)
    assert breaker_for(config("redis://db:6380/0")) is not kept
    assert breaker_for(config("redis://db:6379/0", wait_seconds=1)) is not kept
    assert "secret" not in breaker_for(config("redis://alice:secret@db:6379/1")).server


def test_without_a_breaker_every_call_tries_for_itself(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(
        FairQueueConfig.from_dict({"redis": {"url": proxy.url}, "breaker": {"enabled": False}})
    )
    cut_off(proxy)
    for tries in (6, 12):
        with pytest.raises(QueueUnavailableError, match="no answer"):
            queue.get_stats()
        assert proxy.connections_refused == tries
    assert not queue.breaker.is_open


FORK = """
import os
from fairque.core.config import FairQueueConfig
from fairque.queue.circuit_breaker import breaker_for

breaker = breaker_for(FairQueueConfig.from_dict({"breaker": {"failure_threshold": 1, "failure_seconds": 0}}))
breaker.note(ConnectionError(), 0)
assert breaker.is_open
with breaker._lock:  # as if another thread were just at it
    child = os.fork()
    if child == 0:
        os._exit(0 if not breaker.is_open and breaker.stats.failed == 0 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_begins_anew() -> None:
    subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, check=True, timeout=60)


def test_a_worker_lives_through_it_and_goes_on(proxy: FaultProxy, tmp_path: Any) -> None:
    ledger = Ledger(tmp_path / "ledger")
    bus, heard = EventBus(), []
    bus.subscribe(BreakerEvent, heard.append)
    settings = FairQueueConfig.from_dict(
        {"redis": {"url": proxy.url}, "breaker": QUICK, "queue": {"lease_seconds": 2}}
    )
    with TaskQueue(settings) as queue:
        worker = Worker(settings, events=bus)
        worker.start()
        try:
            for round_ in range(2):
                key = f"task{round_}"
                handle = queue.push(work(str(ledger.path), key))
                handle.result(20)
                heard.clear()
                cut_off(proxy)
                wait_until(lambda: sum(isinstance(event, BreakerHalfOpened) for event in heard) >= 2)
                assert worker._thread is not None
                assert worker._thread.is_alive()
                before, probes = proxy.connections_refused, queue.breaker.stats.probes
                wait_until(lambda enough=probes + 2: queue.breaker.stats.probes >= enough)
                # Its wake list waits with it, and makes no tries of its own.
                assert proxy.connections_refused - before <= queue.breaker.stats.probes - probes + 1
                proxy.heal()
                begun = time.monotonic()
                wait_until(lambda: not queue.breaker.is_open)
                queue.push(work(str(ledger.path), f"{key}-after")).result(20)
                assert time.monotonic() - begun < 5
                wait_until(worker.is_healthy)
        finally:
            proxy.heal()
            assert worker.stop(5)


def test_an_idle_worker_fails_nothing(proxy: FaultProxy) -> None:
    """It blocks for seconds on its wake list; that is no failure, nor is it when the connection is lost."""
    settings = FairQueueConfig.from_dict({"redis": {"url": proxy.url}, "breaker": QUICK})
    worker = Worker(settings)
    worker.start()
    try:
        breaker = breaker_for(settings)
        wait_until(lambda: proxy.commands["BLPOP"] >= 1)
        proxy.drop_requests(3, matching=b"BLPOP")
        proxy.reset()
        wait_until(lambda: proxy.requests_dropped >= 3)
        assert not breaker.is_open
        assert breaker.stats.failed <= 1  # the loop's own connection was reset, too
    finally:
        assert worker.stop(5)
