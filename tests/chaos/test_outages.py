"""Servers that say nothing, come back, or are full: everybody waits for them, and nothing is done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from fairque.core.exceptions import FairQueueError, QueueFullError
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from tests.support import worker_tasks
from tests.support.servers import ServerProcess
from tests.support.workers import Workshop, until

SILENCE = 6.5
"""Seconds: some leases, and more than anybody waits for a reply."""
BACK_SECONDS = 5.0


def test_workers_outlive_the_silence_of_their_server(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """It is stopped: connections stay, calls are taken, and no answer comes. Then it carries out all of them."""
    lease = 1.0
    server = new_server(append_only=True)
    workshop = Workshop(server, tmp_path, lease_seconds=lease)
    try:
        worker = workshop.worker(max_concurrent_tasks=3)
        supervised = workshop.supervise(max_concurrent_tasks=3)
        workshop.push_all(worker_tasks.work(workshop.path, f"s{n}", 0.02) for n in range(400))
        until(lambda: workshop.count(TaskState.FINISHED) > 50)
        server.freeze()
        silent = time.monotonic()
        until(lambda: not worker.is_healthy() and not supervised.supervisor.is_healthy(), 2 * lease + 2)
        time.sleep(max(0.0, silent + SILENCE - time.monotonic()))
        assert not worker.is_healthy()
        server.thaw()
        back = time.monotonic()
        done = workshop.count(TaskState.FINISHED)
        until(lambda: workshop.count(TaskState.FINISHED) > done, BACK_SECONDS)
        until(lambda: worker.is_healthy() and supervised.supervisor.is_healthy(), BACK_SECONDS)
        print(f"both work again {time.monotonic() - back:.2f} s after {SILENCE} s of silence")
        workshop.wait_until_done(400)
        assert set(workshop.ledger.count("begin").values()) == {1}
        counters = workshop.stats().counters
        assert counters["finished"] == 400
        assert counters.get("workers_dead", 0) == counters.get("lost", 0) == 0
        workshop.assert_settled()
    finally:
        workshop.close()


def test_no_push_fails_while_the_server_is_restarted(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Its restarts take less time than a call is repeated for; its functions are deleted besides."""
    server = new_server(append_only=True, options={"appendfsync": "always"})
    workshop = Workshop(server, tmp_path)
    failed: list[FairQueueError] = []
    over = threading.Event()
    pushed: list[str] = []

    def push(name: str) -> None:
        with TaskQueue(workshop.config()) as queue:
            while not over.wait(0.005):
                key = f"{name}{len(pushed)}-{time.monotonic_ns()}"
                try:
                    queue.push(worker_tasks.work(workshop.path, key))
                except FairQueueError as error:
                    failed.append(error)
                    return
                pushed.append(key)

    producers = [threading.Thread(target=push, args=(name,)) for name in ("a", "b", "c")]
    try:
        workshop.worker(max_concurrent_tasks=4)
        for producer in producers:
            producer.start()
        for _ in range(4):
            count = len(pushed)
            until(lambda count=count: failed or len(pushed) > count + 30)
            server.restart()
            workshop.client.function_flush("SYNC")
        over.set()
        for producer in producers:
            producer.join()
        assert failed == []
        workshop.wait_until_done(len(pushed))
        assert workshop.ledger.count("begin") == dict.fromkeys(pushed, 1)
        assert workshop.stats().counters["pushed"] == len(pushed)
        workshop.assert_settled()
    finally:
        over.set()
        workshop.close()


def test_a_full_server_takes_nothing_new_and_finishes_what_it_has(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server()
    workshop = Workshop(server, tmp_path)
    client = workshop.client
    try:
        workshop.worker(max_concurrent_tasks=4)
        workshop.queue.pause()
        waiting = workshop.push_all(worker_tasks.work(workshop.path, f"w{n}", 0.005) for n in range(300))
        failing = workshop.push(worker_tasks.hopeless(workshop.path, "failing"))
        canceled = workshop.push(worker_tasks.work(workshop.path, "canceled"))
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 1000)
        until(lambda: _refused(workshop))
        assert canceled.cancel()
        workshop.queue.resume()
        for handle in waiting:
            handle.result(20)
        until(lambda: failing.state() is TaskState.FAILED)
        assert _refused(workshop)
        client.config_set("maxmemory", 0)
        room = time.monotonic()
        assert workshop.push(worker_tasks.work(workshop.path, "again")).result(BACK_SECONDS) == "again"
        print(f"{time.monotonic() - room:.2f} s after there was room")
        begun = workshop.ledger.count("begin")
        assert begun == {f"w{n}": 1 for n in range(300)} | {"failing": 3, "again": 1}
        workshop.assert_settled()
    finally:
        workshop.close()


def _refused(workshop: Workshop) -> bool:
    try:
        workshop.push(worker_tasks.payload("x" * 1000)).cancel()
    except QueueFullError:
        return True
    return False
