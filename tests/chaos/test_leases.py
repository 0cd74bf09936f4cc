"""Leases that run out for the wrong reason, servers that come and go: one outcome for each task all the same."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairque.core.config import RedisConfig
from fairque.core.states import TaskState
from fairque.queue.lua_manager import RESEND_PAUSES
from fairque.queue.operations import claims
from fairque.queue.queue import TaskQueue
from fairque.scripts import SCRIPTS, load
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess
from tests.support.workers import LEASE, Workshop, child_pids, until


class Loses:
    """Of each call of a script, the replies to the first `times` ways it was sent."""

    def __init__(self, script: str, times: int = 1) -> None:
        self._function = f"{SCRIPTS[script].function}\r\n".encode()
        self.times = times
        self._seen: Counter[bytes] = Counter()

    def __call__(self, request: bytes) -> bool:
        if self._function not in request:
            return False
        self._seen[request] += 1
        return self._seen[request] <= self.times


@contextmanager
def stopped(pid: int) -> Generator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("processes", [0, 1], ids=["alone", "supervised"])
def test_a_worker_that_was_stopped_for_two_leases_comes_too_late(workshop: Workshop, processes: int) -> None:
    process = workshop.process(processes, max_concurrent_tasks=2)
    pid = child_pids(process.pid)[0] if processes else process.pid
    handle = workshop.push(worker_tasks.where(workshop.path, "w", 1))
    workshop.wait_for("begin", "w")
    with stopped(pid):
        begun = time.monotonic()
        other = workshop.worker()
        elsewhere = handle.result(15)
        assert elsewhere != pid
        time.sleep(max(0.0, begun + 2 * LEASE - time.monotonic()))
    workshop.wait_for("end", "w", 2)  # it did its work, for nothing
    assert other.stop(5)
    # It has noticed, and serves on under a new name.
    assert workshop.push(worker_tasks.where(workshop.path, "next", 0)).result(15) == pid
    assert handle.result(1) == elsewhere
    assert workshop.queue.get_user_stats("default").finished == 2
    assert workshop.stats().counters["finished"] == 2
    assert workshop.ledger.count("begin") == {"w": 2, "next": 1}
    workshop.assert_settled()


def test_an_incarnation_declared_dead_starts_anew_and_keeps_its_slots(workshop: Workshop) -> None:
    worker = workshop.worker(max_concurrent_tasks=2)
    handle = workshop.push(worker_tasks.work(workshop.path, "w", 1.5))
    workshop.wait_for("begin", "w")
    first = worker.incarnation
    workshop.queue.run(claims.leave(workshop.queue.engine, first, ()))
    until(lambda: worker.incarnation != first)
    assert handle.result(10) == "w"
    assert workshop.ledger.count("begin") == {"w": 2}  # the first is refused, the second counts
    workshop.wait_for("end", "w", 2)
    both = workshop.push_all(worker_tasks.work(workshop.path, f"b{n}", 1) for n in range(2))
    for n in range(2):
        workshop.wait_for("begin", f"b{n}", seconds=0.9)
    for task in both:
        task.result(10)
    assert workshop.stats().counters["finished"] == 3
    workshop.assert_settled()


def test_a_dead_incarnation_that_is_to_leave_does_not_rage(workshop: Workshop) -> None:
    worker = workshop.worker(max_concurrent_tasks=1)
    workshop.push(worker_tasks.nap(workshop.path, "n", 3))
    workshop.wait_for("begin", "n")
    worker.ask_to_stop(2)
    workshop.queue.run(claims.leave(workshop.queue.engine, worker.incarnation, ()))

    def calls() -> int:
        return int(workshop.client.info("commandstats")["cmdstat_fcall"]["calls"])

    before = calls()
    assert worker.join(3)
    assert calls() - before < 30
    workshop.assert_consistent()


def test_a_worker_whose_replies_are_lost_runs_nothing_twice(make_workshop: Callable[..., Workshop]) -> None:
    """Each reply once, and two of them so often that the worker takes the server for away."""
    workshop = make_workshop(prefetch_milliseconds=0)
    workshop.client.function_load(load().text, replace=True)
    with FaultProxy(workshop.server.url) as proxy:
        loses = Loses("settle_and_claim")
        proxy.drop_replies(10_000, matching=loses)
        config = workshop.config(max_concurrent_tasks=2)
        worker = Worker(config.model_copy(update={"redis": RedisConfig(url=proxy.url)}))
        worker.start()
        try:
            workshop.push_all(worker_tasks.work(workshop.path, f"l{n}") for n in range(1000))
            workshop.wait_until_done(1000)
            lost = proxy.replies_dropped
            loses.times = 1 + len(RESEND_PAUSES)
            workshop.queue.pause()
            workshop.push_all(worker_tasks.work(workshop.path, f"m{n}", 0.5) for n in range(8))
            workshop.queue.resume()
            while workshop.count(TaskState.FINISHED) < 1008:
                # Nor does an answer that comes late bring more than fits.
                assert workshop.count(TaskState.STARTED) <= 2
                if proxy.replies_dropped >= lost + 2 * (1 + len(RESEND_PAUSES)):
                    loses.times = 0
        finally:
            worker.stop(1)
    assert lost > 50
    assert set(workshop.ledger.count("begin").values()) == {1}
    workshop.assert_settled()


def test_a_server_that_lost_what_it_had_acknowledged_is_told_again(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """As after a failover. What had ended is settled from the worker's memory; what was claimed since runs again."""
    server = new_server()
    workshop = Workshop(server, tmp_path)
    try:
        worker = workshop.worker(max_concurrent_tasks=2)
        ended = workshop.push(worker_tasks.work(workshop.path, "ended", 1))
        workshop.wait_for("begin", "ended")
        workshop.queue.pause()
        since = workshop.push(worker_tasks.work(workshop.path, "since", 3))
        workshop.client.save()
        workshop.queue.resume()
        workshop.wait_for("begin", "since")
        assert ended.result(10) == "ended"
        incarnation = worker.incarnation
        server.restart()
        assert ended.state() is TaskState.STARTED
        until(lambda: ended.state() is TaskState.FINISHED, 2 * LEASE)
        assert ended.result(1) == "ended"
        workshop.queue.resume()
        assert since.result(10) == "since"
        assert worker.incarnation == incarnation
        assert workshop.ledger.count("begin") == {"ended": 1, "since": 2}
        workshop.assert_settled()
    finally:
        workshop.close()


def test_what_has_ended_stays_ended_however_often_is_swept(make_workshop: Callable[..., Workshop]) -> None:
    """While 20,000 short tasks run, some consumers die with tasks, and everybody looks for dead ones all the time."""
    count, dying = 20_000, 5
    workshop = make_workshop(lease_seconds=1, prefetch_milliseconds=5)
    over = threading.Event()

    def sweep() -> None:
        with TaskQueue(workshop.config()) as queue:
            while not over.is_set():
                queue.cleanup_expired_tasks()
                queue.pop(users=["nobody"])
                over.wait(0.01)

    worker_tasks.counted.clear()
    workshop.push_all(worker_tasks.count(number) for number in range(count))
    lost: set[int] = set()
    for _ in range(dying):
        consumer = TaskQueue(workshop.config())
        lost.update(task.args[0] for task in consumer.pop(3))
        consumer._manager = None  # it never says anything again
    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(2):
            workshop.worker()
        workshop.wait_until_done(count)
    finally:
        over.set()
        sweeper.join()
    assert len(lost) == 3 * dying
    # Those of the dead ran alone, in a process that counts for itself.
    assert worker_tasks.counted == {number: 1 for number in range(count) if number not in lost}
    stats = workshop.stats()
    assert (stats.counters["finished"], stats.counters["lost"]) == (count, 3 * dying)
    assert stats.states["finished"] == count
    user = workshop.queue.get_user_stats("default")
    assert (user.finished, user.failed, user.running, user.normal) == (count, 0, 0, 0)


def test_workers_outlive_the_functions_and_scripts_of_their_server(
    make_workshop: Callable[..., Workshop],
) -> None:
    """Deleted over and over under load, as by somebody who cleans up: no call fails, and nothing runs twice."""
    workshop = make_workshop()
    over = threading.Event()
    flushes = 0

    def flush() -> None:
        nonlocal flushes
        while not over.wait(0.005):
            workshop.client.function_flush("SYNC")
            workshop.client.script_flush("SYNC")
            flushes += 1

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        workshop.worker(max_concurrent_tasks=3)
        workshop.supervise(max_concurrent_tasks=3)
        handles = [workshop.push(worker_tasks.work(workshop.path, f"f{n}", 0.005)) for n in range(300)]
        assert [handle.result(20) for handle in handles] == [f"f{n}" for n in range(300)]
    finally:
        over.set()
        flusher.join()
    assert flushes > 50
    assert set(workshop.ledger.count("begin").values()) == {1}
    counters = workshop.stats().counters
    assert (counters["pushed"], counters["finished"]) == (300, 300)
    assert counters.get("workers_dead", 0) == counters.get("lost", 0) == 0
    workshop.assert_settled()


def test_workers_outlive_their_server(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Killed and restarted under load, away for longer than a lease, then resets of all connections."""
    lease = 1.0
    server = new_server(append_only=True)
    workshop = Workshop(server, tmp_path, lease_seconds=lease)
    try:
        worker = workshop.worker(max_concurrent_tasks=3)
        supervised = workshop.supervise(max_concurrent_tasks=3)
        handles = workshop.push_all(worker_tasks.work(workshop.path, f"r{n}", 0.02) for n in range(500))
        until(lambda: workshop.count(TaskState.FINISHED) > 50)
        server.kill()
        until(lambda: not worker.is_healthy() and not supervised.supervisor.is_healthy(), 2 * lease + 2)
        time.sleep(lease)
        server.start()
        back = time.monotonic()
        until(lambda: workshop.queue.get_health().healthy, 5)
        done = workshop.count(TaskState.FINISHED)
        until(lambda: workshop.count(TaskState.FINISHED) > done, 5)
        until(lambda: worker.is_healthy() and supervised.supervisor.is_healthy(), 5)
        print(f"both work again {time.monotonic() - back:.2f} s after the server's return")
        for _ in range(5):
            workshop.client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.1)
        workshop.wait_until_done(500)
        begun = workshop.ledger.count("begin")
        assert set(begun.values()) == {1}, {key: n for key, n in begun.items() if n > 1}
        assert len(begun) == 500
        assert all(handle.state() is TaskState.FINISHED for handle in handles[::50])
        counters = workshop.stats().counters
        assert counters.get("workers_dead", 0) == counters.get("lost", 0) == 0
        assert set(workshop.ledger.pids()) == {os.getpid(), supervised.pid()}
        workshop.assert_settled()
    finally:
        workshop.close()
