"""What a worker cannot run: functions that it lacks, and records that make no sense."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairque.core import record
from fairque.core.exceptions import TaskFailedError
from fairque.core.models import Task
from fairque.core.registry import Registry, default_registry
from fairque.core.states import TaskState
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.workers import Workshop, until

RARE = "rare"
RARE_MODULE = "tests.support.rare_tasks"
UNKNOWN_SECONDS = 2.0


@pytest.fixture
def workshop(make_workshop: Callable[..., Workshop]) -> Workshop:
    return make_workshop(unknown_function_seconds=UNKNOWN_SECONDS)


def test_a_function_that_nobody_has_ends_as_a_dead_letter(workshop: Workshop) -> None:
    workshop.worker()
    workshop.worker()
    calls = workshop.client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"]
    begun = time.monotonic()
    handle = workshop.push(Task(function="nobody:has_it"))
    others = workshop.push_all(worker_tasks.quick(number) for number in range(50))
    for handle_ in others:
        handle_.result(10)  # the rest flow on
    with pytest.raises(TaskFailedError, match="nobody:has_it"):
        handle.result(20)
    assert UNKNOWN_SECONDS < time.monotonic() - begun < UNKNOWN_SECONDS + 3
    task = handle.task()
    assert task is not None
    assert task.reason == "no live worker knows the function"
    assert (task.attempt, task.retries, task.crashes) == (0, 0, 0)
    [error] = workshop.queue.get_errors(handle.task_id)
    assert "worker" in error.message
    # It went round a few times, not in a hot loop.
    assert workshop.stats().counters["passed_on"] <= 8
    assert workshop.client.info("commandstats")["cmdstat_fcall"]["calls"] - calls < 400
    workshop.assert_settled()


def test_a_payload_that_nobody_handles_ends_as_a_dead_letter(workshop: Workshop) -> None:
    workshop.worker()
    handle = workshop.push(Task.create(payload={"a": 1}))
    with pytest.raises(TaskFailedError, match="TaskHandler"):
        handle.result(20)
    workshop.assert_settled()


@pytest.mark.parametrize("incapable", [1, 3])
def test_a_worker_that_has_the_function_gets_the_task(workshop: Workshop, incapable: int) -> None:
    assert RARE not in default_registry()
    workshop.process(modules=[RARE_MODULE])
    for _ in range(incapable):
        workshop.worker()
    until(lambda: workshop.client.zcard("fq:waiters") == incapable + 1)
    tasks = [Task[str](function=RARE, args=(workshop.path, f"r{n}")) for n in range(5)]
    handles = workshop.push_all(tasks)
    assert [handle.result(10) for handle in handles] == [f"r{n}" for n in range(5)]
    assert workshop.ledger.count("begin") == {f"r{n}": 1 for n in range(5)}
    workshop.assert_settled()


@pytest.mark.parametrize(
    ("function", "processes"),
    [(worker_tasks.nap, 0), (worker_tasks.hold, 1)],
    ids=["busy", "holds-interpreter"],
)
def test_a_busy_worker_that_has_the_function_keeps_it_from_the_dead_letters(
    workshop: Workshop, function: Any, processes: int
) -> None:
    """As long as one lives that could run it, a task waits for it."""
    modules = ["tests.support.worker_tasks", RARE_MODULE]
    workshop.process(processes, modules=modules, max_concurrent_tasks=1)
    long = workshop.push(function(workshop.path, "long", round(2 * UNKNOWN_SECONDS + 1)))
    workshop.wait_for("begin", "long")
    workshop.worker()
    handle = workshop.push(Task[str](function=RARE, args=(workshop.path, "r")))
    assert handle.result(20) == "r"
    assert long.state() is TaskState.FINISHED
    workshop.assert_settled()


def test_workers_that_announce_what_they_cannot_run_do_not_pass_it_round(
    make_workshop: Callable[..., Workshop],
) -> None:
    """As processes that were started without the module."""
    # Long enough for a process to start meanwhile.
    workshop = make_workshop(unknown_function_seconds=3 * UNKNOWN_SECONDS)
    broken = [Worker(workshop.config()) for _ in range(2)]
    for worker in broken:
        worker._runner.registry = Registry()
        worker.start()
    try:
        until(lambda: workshop.client.zcard("fq:waiters") == 2)
        handle = workshop.push(worker_tasks.work(workshop.path, "w"))
        until(lambda: handle.state() is TaskState.SCHEDULED)
        assert workshop.stats().counters["passed_on"] <= 4
        workshop.process()
        assert handle.result(10) == "w"
        lost = workshop.push(Task(function="nobody:has_it"))
        with pytest.raises(TaskFailedError, match="nobody:has_it"):
            lost.result(20)
        assert workshop.stats().counters["passed_on"] <= 8
    finally:
        for worker in broken:
            worker.stop(0)


def overwrite(workshop: Workshop, task_id: str, body: bytes) -> None:
    """Put other bytes behind the record's header and names."""
    key = f"fq:task:{task_id}"
    whole = workshop.client.get(key)
    stored = record.unpack(whole)
    workshop.client.set(key, whole[: len(whole) - len(stored.body)] + body)


class Bomb:
    """Unpickling it would write into the ledger."""

    def __init__(self, ledger: str) -> None:
        self.ledger = ledger

    def __reduce__(self) -> object:
        return worker_tasks.say, (self.ledger, "exploded", "bomb")


def bodies(ledger: str) -> dict[str, bytes]:
    nested = b"\x91" * (2000) + b"\xc0"
    return {
        "empty": b"",
        "garbage": b"\xc1\xff\x00garbage",
        "truncated": b"\x94\x91\x2a",
        "pickle": pickle.dumps(Bomb(ledger)),
        "old-pickle": pickle.dumps(Bomb(ledger), protocol=0),
        "another-shape": b"\xa5hello",
        "wrong-types": b"\x94\x01\x02\x03\x04",
        "nested": nested,
        "text": b'{"args": [1]}',
        "unknown-extension": b"\x94\x91\xc7\x01\x63x\x80\xc0\x80",
    }


def test_a_malformed_record_is_refused_and_never_runs(workshop: Workshop) -> None:
    workshop.queue.pause()
    bad = {name: workshop.push(worker_tasks.work(workshop.path, name)) for name in bodies("")}
    good = workshop.push_all(worker_tasks.work(workshop.path, f"good{n}") for n in range(10))
    for name, body in bodies(workshop.path).items():
        overwrite(workshop, bad[name].task_id, body)
    worker = workshop.worker(max_concurrent_tasks=3)
    workshop.queue.resume()
    for handle in good:
        handle.result(10)
    for name, handle in bad.items():
        with pytest.raises(TaskFailedError, match=r"payload|SerializationError"):
            handle.result(10)
        letter = next(
            entry for entry in workshop.queue.dlq.list().items if entry.task.task_id == handle.task_id
        )
        assert letter.reason == "the payload could not be decoded, or the result could not be stored", name
        [error] = letter.errors
        assert error.type.endswith("SerializationError"), name
    assert "pickle" in workshop.queue.get_errors(bad["pickle"].task_id)[0].message
    assert workshop.ledger.count("begin") == {f"good{n}": 1 for n in range(10)}
    assert not workshop.ledger.count("exploded")
    assert worker.is_healthy()
    workshop.queue.dlq.purge()
    assert workshop.count(TaskState.STARTED) == workshop.count(TaskState.QUEUED) == 0


def test_arguments_that_do_not_fit_the_function_are_not_tried_again(workshop: Workshop) -> None:
    workshop.worker()
    handle = workshop.push(Task(function=worker_tasks.quick.name, args=("a", "b", "c")))
    with pytest.raises(TaskFailedError):
        handle.result(10)
    assert len(workshop.queue.get_errors(handle.task_id)) == 1
    workshop.assert_settled()
