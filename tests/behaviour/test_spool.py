"""The local spool: pushes without a server are on the disk, and then on the server, once and in order."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus, TaskEvent, TaskPushed, TaskSetAside, TaskSpooled
from fairque.core.exceptions import (
    DuplicateTaskError,
    InvalidStateError,
    InvalidTaskError,
    QueueUnavailableError,
    ResultTimeoutError,
    SpoolFullError,
    UnknownLimiterError,
)
from fairque.core.middleware import Middleware
from fairque.core.models import Task
from fairque.core.spool_records import decode_task, encode, frame
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from fairque.queue.spool_file import SpoolFile
from fairque.worker.worker import Worker
from tests.support.facades import Facades
from tests.support.proxy import FaultProxy
from tests.support.queues import wait_until
from tests.support.servers import ServerProcess
from tests.support.worker_process import ROOT

BREAKER = {"failure_threshold": 2, "failure_seconds": 0, "recovery_timeout_seconds": 0.1}


@pytest.fixture
def proxy(server: ServerProcess, flushed: redis.Redis) -> Iterator[FaultProxy]:
    """What stands between the queues and the server; the server is empty at the end."""
    with FaultProxy(server.url) as proxy:
        yield proxy
    flushed.flushall()


@pytest.fixture
def settings(proxy: FaultProxy, tmp_path: Path) -> dict[str, Any]:
    return {
        "redis": {"url": proxy.url},
        "breaker": BREAKER,
        "spool": {"directory": str(tmp_path / "spool")},
    }


@pytest.fixture
def queue(settings: dict[str, Any], facades: Facades) -> Any:
    return facades.make(FairQueueConfig.from_dict(settings))


def cut_off(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.reset()


def task(number: int = 0, **options: Any) -> Task[Any]:
    return Task.create(payload=number, **options)


def queued(queue: Any) -> list[Any]:
    """Payloads of the tasks on the server, in the order in which it took them."""
    return [found.payload for found in queue.list_tasks(TaskState.QUEUED, limit=1000).items]


def spool_files(settings: dict[str, Any]) -> list[Path]:
    return sorted(Path(settings["spool"]["directory"]).rglob("*.spool"))


def test_what_is_pushed_without_a_server_is_there_once_and_in_order(
    proxy: FaultProxy, queue: Any, settings: dict[str, Any]
) -> None:
    queue.get_stats()
    cut_off(proxy)
    handles = [queue.push(task(number), on_unavailable="spool") for number in range(20)]
    outcomes = queue.push_batch((task(number) for number in range(20, 60)), on_unavailable="spool")
    handles += [outcome.unwrap() for outcome in outcomes]
    assert all(outcome.ok for outcome in outcomes)
    assert all(handle.spooled for handle in handles)
    assert handles[0].state() is None
    assert handles[0].task() is None
    assert handles[0].progress() is None
    with pytest.raises(InvalidStateError, match="local spool"):
        handles[0].cancel()
    with pytest.raises(ResultTimeoutError, match="local spool"):
        handles[0].result(0.05)
    health = queue.get_health()
    assert any("60 tasks wait in the local spool" in problem for problem in health.problems)
    assert queue.spool.stats.waiting == 60
    assert queue.spool.stats.files == 1
    proxy.heal()
    wait_until(lambda: not any(handle.spooled for handle in handles))
    assert queued(queue) == list(range(60))
    assert {handle.state() for handle in handles} == {TaskState.QUEUED}
    assert handles[0].cancel()
    wait_until(lambda: not spool_files(settings))


def test_without_asking_for_it_nothing_is_spooled(
    proxy: FaultProxy, queue: Any, settings: dict[str, Any]
) -> None:
    cut_off(proxy)
    with pytest.raises(QueueUnavailableError):
        queue.push(task())
    with pytest.raises(QueueUnavailableError):
        queue.push(task(), on_unavailable="raise")
    with pytest.raises(InvalidTaskError, match="on_unavailable must be 'raise' or 'spool'"):
        queue.push(task(), on_unavailable="spol")
    with pytest.raises(InvalidTaskError):
        queue.push_batch([task()], on_unavailable="spol")
    assert not Path(settings["spool"]["directory"]).exists()


def test_the_configuration_may_ask_for_it(
    proxy: FaultProxy, facades: Facades, settings: dict[str, Any]
) -> None:
    settings["spool"]["on_unavailable"] = "spool"
    queue = facades.make(FairQueueConfig.from_dict(settings))
    cut_off(proxy)
    assert queue.push(task()).spooled
    with pytest.raises(QueueUnavailableError):
        queue.push(task(), on_unavailable="raise")
    proxy.heal()
    wait_until(lambda: queue.spool.waiting == 0)
    assert queued(queue) == [0]


def test_a_server_that_answers_is_told_at_once(
    proxy: FaultProxy, queue: Any, settings: dict[str, Any]
) -> None:
    handle = queue.push(task(), on_unavailable="spool")
    assert not handle.spooled
    assert handle.state() is TaskState.QUEUED
    [refused] = queue.push_batch([task(limiter="nobody")], on_unavailable="spool")
    assert isinstance(refused.error, UnknownLimiterError)
    with pytest.raises(DuplicateTaskError):
        queue.push(task(task_id=handle.task_id), on_unavailable="spool")
    assert not spool_files(settings)


def test_a_push_that_ran_but_whose_reply_was_lost_is_not_doubled(proxy: FaultProxy, queue: Any) -> None:
    queue.get_stats()
    proxy.drop_replies(100, matching=b"FCALL")
    handle = queue.push(task(7), on_unavailable="spool")
    assert handle.spooled
    assert proxy.replies_dropped >= 1
    proxy.heal()
    wait_until(lambda: not handle.spooled)
    assert queued(queue) == [7]
    assert queue.spool.stats.set_aside == 0


def test_a_delay_counts_from_the_push(proxy: FaultProxy, queue: Any) -> None:
    cut_off(proxy)
    handle = queue.push(task(delay=3600), on_unavailable="spool")
    soon = queue.push(task(delay=0.001), on_unavailable="spool")
    proxy.heal()
    wait_until(lambda: not (handle.spooled or soon.spooled))
    assert handle.state() is TaskState.SCHEDULED
    assert soon.state() is TaskState.QUEUED


def test_observers_hear_of_both_halves(proxy: FaultProxy, facades: Facades, settings: dict[str, Any]) -> None:
    bus, heard = EventBus(), []
    bus.subscribe(TaskEvent, lambda event: heard.append((type(event), event.task_id)))
    queue = facades.make(FairQueueConfig.from_dict(settings), events=bus)
    cut_off(proxy)
    handle = queue.push(task(), on_unavailable="spool")
    assert heard == [(TaskSpooled, handle.task_id)]
    proxy.heal()
    wait_until(lambda: len(heard) >= 2)
    assert heard[1:] == [(TaskPushed, handle.task_id)]


def test_middleware_sees_the_task_before_the_spool_does(
    proxy: FaultProxy, facades: Facades, settings: dict[str, Any]
) -> None:
    def marked(task: Task[Any]) -> Task[Any]:
        return task.with_options(labels={"seen": "yes"}, task_id=task.task_id)

    class Marking(Middleware):
        def push(self, task: Task[Any], call_next: Any) -> Any:
            return call_next(marked(task))

        async def push_async(self, task: Task[Any], call_next: Any) -> Any:
            return await call_next(marked(task))

    middleware = [Marking()]
    queue = facades.make(FairQueueConfig.from_dict(settings), middleware=middleware)
    cut_off(proxy)
    handle = queue.push(task(), on_unavailable="spool")
    [outcome] = queue.push_batch([task()], on_unavailable="spool")
    assert handle.spooled
    assert outcome.unwrap().spooled
    proxy.heal()
    wait_until(lambda: queue.spool.waiting == 0)
    assert [found.labels for found in queue.list_tasks(TaskState.QUEUED).items] == [{"seen": "yes"}] * 2


def test_what_the_server_refuses_is_set_aside_and_reported(
    proxy: FaultProxy, facades: Facades, settings: dict[str, Any]
) -> None:
    bus, aside = EventBus(), []
    bus.subscribe(TaskSetAside, aside.append)
    queue = facades.make(FairQueueConfig.from_dict(settings), events=bus)
    taken = queue.push(task())
    cut_off(proxy)
    good = queue.push(task(1), on_unavailable="spool")
    limited = queue.push(task(2, limiter="nobody"), on_unavailable="spool")
    double = queue.push(task(3, task_id=taken.task_id), on_unavailable="spool")
    last = queue.push(task(4), on_unavailable="spool")
    with pytest.raises(DuplicateTaskError, match="in the local spool"):
        queue.push(task(5, task_id=good.task_id), on_unavailable="spool")
    same = queue.push(task(5, task_id=good.task_id, on_duplicate="return"), on_unavailable="spool")
    assert same.existing
    assert same.spooled
    proxy.heal()
    wait_until(lambda: not last.spooled)
    assert queued(queue) == [0, 1, 4]
    assert [event.task_id for event in aside] == [limited.task_id, double.task_id]
    kept = queue.spool.aside.items()
    assert [item.task for item in kept] == [True, True]
    assert "limiter" in kept[0].reason
    with pytest.raises(UnknownLimiterError):
        limited.result(5)
    with pytest.raises(DuplicateTaskError):
        double.result(5)


def test_a_full_spool_says_so(proxy: FaultProxy, facades: Facades, settings: dict[str, Any]) -> None:
    settings["spool"]["max_bytes"] = 8 << 20
    queue = facades.make(FairQueueConfig.from_dict(settings))
    cut_off(proxy)
    big = "x" * 900_000
    handles = [queue.push(Task.create(payload=big), on_unavailable="spool") for _ in range(9)]
    with pytest.raises(SpoolFullError, match=r"spool\.max_bytes") as full:
        queue.push(Task.create(payload=big), on_unavailable="spool")
    assert full.value.limit == 8 << 20
    assert full.value.used > 8_000_000
    [outcome] = queue.push_batch([Task.create(payload=big)], on_unavailable="spool")
    assert isinstance(outcome.error, SpoolFullError)
    proxy.heal()
    wait_until(lambda: not any(handle.spooled for handle in handles))
    assert queue.get_stats().states["queued"] == 9


def test_a_disk_without_room_says_so(proxy: FaultProxy, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(proxy)
    for code, kind in ((errno.ENOSPC, SpoolFullError), (errno.EROFS, QueueUnavailableError)):

        def fail(*_: object, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr(SpoolFile, "append", fail)
            with pytest.raises(kind, match="local spool"):
                queue.push(task(), on_unavailable="spool")
    assert queue.spool.waiting == 0


def test_several_threads_spool_together(proxy: FaultProxy, settings: dict[str, Any]) -> None:
    config = FairQueueConfig.from_dict(settings)
    with TaskQueue(config) as queue, TaskQueue(config) as other:
        cut_off(proxy)

        def produce(made: TaskQueue, user: str) -> None:
            for number in range(50):
                made.push(task(number, user_id=user), on_unavailable="spool")

        threads = [
            threading.Thread(target=produce, args=(made, f"u{index}"))
            for index, made in enumerate((queue, other) * 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        proxy.heal()
        wait_until(lambda: queue.spool.waiting == 0)
        for index in range(4):
            found = queue.list_tasks(TaskState.QUEUED, user=f"u{index}", limit=1000).items
            assert [item.payload for item in found] == list(range(50))


def test_bad_records_are_set_aside_and_keep_nothing_back(proxy: FaultProxy, settings: dict[str, Any]) -> None:
    config = FairQueueConfig.from_dict(settings)
    cut_off(proxy)
    with TaskQueue(config) as queue:
        for number in range(6):
            queue.push(task(number, task_id=f"t{number}"), on_unavailable="spool")
    [path] = spool_files(settings)
    left = SpoolFile.take(path)
    assert left is not None
    good = left.read(100, 1 << 20).payloads
    junk = msgspec.structs.replace(decode_task(good[2]), arguments=["t2", b"junk", 0, "reject", -1])
    left.append([b"no record at all", encode(junk)])
    left.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"t1") + 5] ^= 1  # within the second one
    path.write_bytes(data)
    proxy.heal()
    with TaskQueue(config) as queue:
        wait_until(lambda: queue.get_health().healthy)
        wait_until(lambda: not spool_files(settings))
        assert queued(queue) == [0, 2, 3, 4, 5]
        aside = queue.spool.aside.items()
        assert [item.task for item in aside] == [False, False, True]
        assert len(aside[0].data) == len(frame(good[1]))
        assert aside[1].data == b"no record at all"


# -- processes that end


def produce(settings: dict[str, Any], user: str, first: int, last: int) -> subprocess.Popen[str]:
    """A process that has pushed them, and does nothing more."""
    order = json.dumps({"config": settings, "user": user, "first": first, "last": last})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.spool_process", order],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(last - first + 1)]
    assert lines[-1] == ["done"], lines
    assert {word for line in lines[:-1] for word in line[1:]} == {"True"}
    return process


def test_what_a_killed_process_has_spooled_is_there_once_and_in_order(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server(append_only=True)
    settings = {
        "redis": {"url": server.url},
        "breaker": BREAKER,
        "spool": {"directory": str(tmp_path / "spool")},
    }
    server.kill()
    process = produce(settings, "u", 0, 200)
    process.kill()
    process.communicate()
    [left] = spool_files(settings)
    with left.open("ab") as file:
        file.write(b"\xf5FQ\x01\x00\x00")  # its last write was cut short
    # A second one starts while the server is still away, and takes the first one's file over.
    with TaskQueue(FairQueueConfig.from_dict(settings)) as queue:
        later = queue.push(task(200, user_id="u"), on_unavailable="spool")
        server.start()
        wait_until(lambda: not spool_files(settings), 20)
        assert not later.spooled
        found = queue.list_tasks(TaskState.QUEUED, user="u", limit=1000).items
        assert sorted(item.payload for item in found) == list(range(201))
        assert [item.payload for item in found if item.payload < 200] == list(range(200))
        [torn] = queue.spool.aside.items()
        assert (torn.task, torn.data) == (False, b"\xf5FQ\x01\x00\x00")
        assert queue.get_stats().states["queued"] == 201


def test_a_process_killed_while_it_drains_leaves_nothing_double(
    proxy: FaultProxy, settings: dict[str, Any]
) -> None:
    """The server has stored a chunk, but nobody has noted that: the next process tells it once more."""
    cut_off(proxy)
    process = produce(settings, "u", 0, 100)
    proxy.hold(1, matching=lambda request: b"_push" in request)
    proxy.refuse(False)
    proxy.wait_held()
    process.kill()
    process.communicate()
    proxy.release()  # it reaches the server after its sender is gone
    proxy.heal()
    with TaskQueue(FairQueueConfig.from_dict(settings)) as queue:
        wait_until(lambda: queue.get_stats().states["queued"] == 100)
        wait_until(lambda: not spool_files(settings))
        assert queued(queue) == list(range(100))
        assert queue.spool.stats.set_aside == 0


def test_the_files_of_living_processes_are_left_alone(proxy: FaultProxy, settings: dict[str, Any]) -> None:
    cut_off(proxy)
    processes = [produce(settings, user, 0, 20) for user in ("a", "b")]
    assert len(spool_files(settings)) == 2
    proxy.heal()
    with TaskQueue(FairQueueConfig.from_dict(settings)) as queue:
        wait_until(lambda: not spool_files(settings))
        for user in ("a", "b"):
            found = queue.list_tasks(TaskState.QUEUED, user=user, limit=1000).items
            assert [item.payload for item in found] == list(range(20))
    for process in processes:
        process.kill()
        process.communicate()


def test_a_worker_drains_what_was_left_behind(proxy: FaultProxy, settings: dict[str, Any]) -> None:
    cut_off(proxy)
    process = produce(settings, "u", 0, 10)
    process.kill()
    process.communicate()
    proxy.heal()
    worker = Worker(FairQueueConfig.from_dict(settings))
    worker.start()
    try:
        wait_until(lambda: not spool_files(settings))
    finally:
        assert worker.stop(5)


def test_closing_the_last_queue_lets_go_of_the_files(proxy: FaultProxy, settings: dict[str, Any]) -> None:
    config = FairQueueConfig.from_dict(settings)
    cut_off(proxy)
    with TaskQueue(config) as queue:
        assert queue.push(task(1), on_unavailable="spool").spooled
        [path] = spool_files(settings)
        assert SpoolFile.take(path) is None
    taken = SpoolFile.take(path)
    assert taken is not None
    taken.close()
    proxy.heal()
    with TaskQueue(config) as queue:
        wait_until(lambda: queue.get_health().healthy)
        wait_until(lambda: not spool_files(settings))
        assert queued(queue) == [1]


def test_a_server_without_memory_keeps_them_waiting(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server()
    with FaultProxy(server.url) as proxy:
        settings = {
            "redis": {"url": proxy.url},
            "breaker": BREAKER,
            "spool": {"directory": str(tmp_path / "spool")},
        }
        with TaskQueue(FairQueueConfig.from_dict(settings)) as queue:
            queue.get_stats()
            cut_off(proxy)
            handle = queue.push(task(1), on_unavailable="spool")
            with server.configured(maxmemory="1mb"):
                proxy.heal()
                wait_until(lambda: not queue.breaker.is_open)
                wait_until(lambda: proxy.commands["FCALL"] >= 4)
                assert handle.spooled
            wait_until(lambda: not handle.spooled)
            assert queued(queue) == [1]


FORK = """
import os, sys
from fairque.core.config import FairQueueConfig
from fairque.core.models import Task
from fairque.queue.queue import TaskQueue

with TaskQueue(FairQueueConfig.from_dict({"redis": {"url": "unix:///nonexistent/s"}, "breaker":
               {"recovery_timeout_seconds": 60}, "spool": {"directory": sys.argv[1]}})) as queue:
    handle = queue.push(Task.create(payload=1), on_unavailable="spool")
    with queue.spool._lock:  # as if another thread were just at it
        child = os.fork()
    if child == 0:
        fine = not handle.spooled and queue.push(Task.create(payload=2), on_unavailable="spool").spooled
        os._exit(0 if fine and queue.spool.stats.files == 2 and queue.spool.waiting == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert queue.spool.waiting == 1
    assert [look.held for look in queue.spool.looks()] == [True, False]
"""


def test_a_forked_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORK, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
