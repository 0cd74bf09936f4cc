"""A worker on a real server: what it runs, what it records, what it tells."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairque.core.exceptions import ConfigError, TaskCanceledError, TaskFailedError
from fairque.core.models import Task
from fairque.core.retry import fixed
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from fairque.worker.worker import Worker
from tests.support import executor_tasks, worker_tasks
from tests.support.servers import ServerProcess
from tests.support.workers import Heard, Workshop, probe, until


def test_sync_and_async_functions_run_and_give_results(workshop: Workshop) -> None:
    workshop.worker()
    handles = workshop.push_all([executor_tasks.add(1, 2), executor_tasks.add_async(3, 4)])
    assert [handle.result(10) for handle in handles] == [3, 7]
    task = handles[0].task()
    assert task is not None
    assert (task.state, task.attempt, task.retries) == (TaskState.FINISHED, 1, 0)
    workshop.assert_settled()


def test_processes_run_functions_elsewhere(workshop: Workshop) -> None:
    Worker(workshop.config(executor="process"), modules=["tests.support.worker_tasks"])
    worker = Worker(
        workshop.config(executor="process", max_concurrent_tasks=2), modules=["tests.support.executor_tasks"]
    )
    worker.start()
    try:
        handles = workshop.push_all([executor_tasks.pid(), executor_tasks.add_async(1, 1)])
        assert handles[0].result(20) != os.getpid()
        assert handles[1].result(20) == 2
    finally:
        assert worker.stop(5)
    workshop.assert_settled()


def test_a_handler_runs_payloads_and_hears_how_they_end(workshop: Workshop) -> None:
    workshop.worker(worker_tasks.Handler())
    payload = {"ledger": workshop.path}
    good = workshop.push(Task.create(user_id="alice", payload=payload))
    bad = workshop.push(Task.create(payload=payload | {"fail": True}, max_retries=0))
    late = workshop.push(Task.create(payload=payload | {"seconds": 10}, timeout=0.2, max_retries=0))
    assert good.result(10) == {"by": "alice"}
    with pytest.raises(TaskFailedError, match="payload"):
        bad.result(10)
    with pytest.raises(TaskFailedError, match="TaskTimeoutError"):
        late.result(10)
    workshop.wait_for("success", good.task_id)
    workshop.wait_for("failure-BrokenError", bad.task_id)
    workshop.wait_for("timeout", late.task_id)
    assert workshop.ledger.count("success") == {good.task_id: 1}


def test_a_failure_is_tried_again_after_its_backoff(workshop: Workshop) -> None:
    workshop.worker()
    begun = time.monotonic()
    handle = workshop.push(worker_tasks.flaky(workshop.path, "f", 2))
    assert handle.result(10) == "attempt 3"
    assert time.monotonic() - begun >= worker_tasks.BACKOFF * 3  # 0.2 s, then 0.4 s
    assert workshop.ledger.count("begin")["f"] == 3
    assert [error.message for error in workshop.queue.get_errors(handle.task_id)] == [
        "attempt 1",
        "attempt 2",
    ]
    workshop.assert_settled()


def test_after_its_retries_a_task_is_a_dead_letter_with_every_error(workshop: Workshop) -> None:
    workshop.worker()
    handle = workshop.push(worker_tasks.hopeless(workshop.path, "h"))
    with pytest.raises(TaskFailedError, match="attempt 3") as failed:
        handle.result(10)
    assert "hopeless" in failed.value.traceback
    [entry] = workshop.queue.dlq.list().items
    assert entry.task.task_id == handle.task_id
    assert entry.reason == "no retries left"
    assert [error.message for error in entry.errors] == ["attempt 1", "attempt 2", "attempt 3"]
    assert {error.attempt for error in entry.errors} == {1, 2, 3}
    workshop.assert_settled()
    # Requeued, it is a new run under the same id.
    assert workshop.queue.dlq.requeue([handle.task_id]) == 1
    until(lambda: workshop.ledger.count("begin")["h"] == 6)
    until(lambda: workshop.queue.dlq.list().items)
    assert workshop.queue.dlq.purge() == 1


def test_what_a_task_raises_decides_what_becomes_of_it(workshop: Workshop) -> None:
    workshop.worker()
    retry, snooze, discard = workshop.push_all(
        [
            executor_tasks.throw.with_options(max_retries=1)("retry_after"),
            executor_tasks.throw("snooze"),
            executor_tasks.throw("discard"),
        ]
    )
    with pytest.raises(TaskCanceledError, match="discarded"):
        discard.result(10)
    until(lambda: retry.state() is TaskState.SCHEDULED and snooze.state() is TaskState.SCHEDULED)
    retried, snoozed = retry.task(), snooze.task()
    assert retried is not None
    assert snoozed is not None
    assert (retried.retries, retried.attempt) == (1, 1)
    assert (snoozed.retries, snoozed.attempt) == (0, 0)
    assert retried.entered_at is not None
    assert snoozed.entered_at is not None
    assert 4 < (retried.entered_at - snoozed.entered_at).total_seconds() < 6  # 7.5 s and 2.5 s
    retry.cancel()
    snooze.cancel()


@pytest.mark.parametrize("function", [worker_tasks.steps, worker_tasks.steps_async], ids=["thread", "async"])
def test_progress_is_seen_and_a_running_task_is_cancelled(workshop: Workshop, function: Any) -> None:
    workshop.worker()
    handle = workshop.push(function(workshop.path, "s"))
    for update in handle.events(10):
        if update.progress is not None:
            assert update.progress.total
            assert handle.cancel()
    assert handle.state() is TaskState.CANCELED
    workshop.wait_for("cancelled", "s")
    with pytest.raises(TaskCanceledError):
        handle.result(1)
    workshop.assert_settled()


def test_a_cancelled_process_task_is_stopped(workshop: Workshop) -> None:
    workshop.worker(executor="process", max_concurrent_tasks=1)
    nap = workshop.push(worker_tasks.nap(workshop.path, "n", 3600))
    workshop.wait_for("begin", "n")
    assert nap.cancel()
    with pytest.raises(TaskCanceledError):
        nap.result(15)
    assert workshop.push(worker_tasks.quick(1)).result(15) == 1
    workshop.assert_settled()


def test_a_prefetched_task_can_be_cancelled(workshop: Workshop) -> None:
    """It waits in the worker, not in the queue, and still never runs."""
    workshop.worker(max_concurrent_tasks=1)
    for handle in workshop.push_all(worker_tasks.quick(number) for number in range(40)):
        handle.result(10)
    workshop.queue.pause()
    first = workshop.push(worker_tasks.work(workshop.path, "first", 1))
    others = workshop.push_all(worker_tasks.work(workshop.path, f"p{n}") for n in range(5))
    workshop.queue.resume()
    workshop.wait_for("begin", "first")
    until(lambda: workshop.count(TaskState.STARTED) > 1)  # one runs, the others are prefetched
    claimed = [handle for handle in others if handle.state() is TaskState.STARTED]
    assert claimed[0].cancel()
    assert first.result(10) == "first"
    with pytest.raises(TaskCanceledError):
        claimed[0].result(10)
    for handle in others:
        if handle is not claimed[0]:
            handle.result(10)
    assert workshop.ledger.count("begin")["p0"] == 0
    workshop.assert_settled()


def test_prefetched_tasks_do_not_wait_behind_a_long_one(workshop: Workshop) -> None:
    """A worker that claimed more than it can run gives it back when its slots turn out to be busy."""
    workshop.worker(max_concurrent_tasks=1)
    for handle in workshop.push_all(worker_tasks.quick(number) for number in range(40)):
        handle.result(10)
    workshop.queue.pause()
    long = workshop.push(worker_tasks.nap(workshop.path, "long", 8))
    short = workshop.push_all(worker_tasks.quick(number) for number in range(20))
    workshop.queue.resume()
    workshop.wait_for("begin", "long")
    workshop.worker(max_concurrent_tasks=1)
    for handle in short:
        handle.result(4)
    assert long.state() is TaskState.STARTED


@pytest.mark.parametrize(
    ("function", "executor"),
    [
        (worker_tasks.loop, "thread"),
        (worker_tasks.nap_async, "thread"),
        (worker_tasks.nap, "process"),
    ],
    ids=["thread", "async", "process"],
)
def test_a_task_past_its_timeout_is_ended(workshop: Workshop, function: Any, executor: str) -> None:
    workshop.worker(executor=executor, max_concurrent_tasks=1)
    assert workshop.push(worker_tasks.quick(1)).result(20) == 1
    begun = time.monotonic()
    limited = function.with_options(timeout=0.3, max_retries=1, retry=fixed(0))
    handle = workshop.push(limited(workshop.path, "t", 3600))
    with pytest.raises(TaskFailedError, match="TaskTimeoutError"):
        handle.result(15)
    assert time.monotonic() - begun < 8
    assert workshop.ledger.count("begin")["t"] == 2
    assert [error.attempt for error in workshop.queue.get_errors(handle.task_id)] == [1, 2]
    assert workshop.push(worker_tasks.quick(2)).result(15) == 2
    workshop.assert_settled()


def test_a_process_past_its_timeout_is_killed_within_a_second(workshop: Workshop) -> None:
    workshop.worker(executor="process", max_concurrent_tasks=1)
    assert workshop.push(worker_tasks.quick(1)).result(20) == 1
    limit = 0.3
    workshop.push(worker_tasks.nap.with_options(timeout=limit, max_retries=0)(workshop.path, "n", 3600))
    workshop.wait_for("begin", "n")
    begun = time.monotonic()
    [pid] = workshop.ledger.pids()
    until(lambda: not Path(f"/proc/{pid}").exists(), limit + 2)
    assert time.monotonic() - begun < limit + 1


def test_hooks_run_once_around_the_tasks_of_a_worker(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "hooks"
    monkeypatch.setenv(executor_tasks.HOOK_FILE, str(notes))
    worker = workshop.worker()
    assert notes.read_text() == f"start {os.getpid()}\n"
    workshop.push(executor_tasks.add(1, 2)).result(10)
    assert worker.stop(5)
    assert notes.read_text() == f"start {os.getpid()}\nstop {os.getpid()}\n"


def test_start_returns_when_ready_and_stop_when_out(workshop: Workshop) -> None:
    worker = workshop.worker()
    assert worker.is_healthy()
    assert worker.is_ready()
    assert [w.incarnation for w in workshop.stats().workers] == [worker.incarnation]
    before = threading.active_count()
    with pytest.raises(ConfigError, match="make a new one"):
        worker.start()
    begun = time.monotonic()
    assert worker.stop(5)
    assert time.monotonic() - begun < 1.5
    assert workshop.stats().workers == ()
    assert not worker.is_healthy()
    until(lambda: threading.active_count() < before)
    assert worker.stop(1)  # stopping twice changes nothing


def test_a_worker_that_cannot_start_leaves_nothing_behind(workshop: Workshop) -> None:
    first = workshop.worker(health_port=0)
    before = {thread.name for thread in threading.enumerate()}
    second = Worker(workshop.config(health_port=first.health_port))
    with pytest.raises(OSError, match="in use"):
        second.start()
    assert len(workshop.stats().workers) == 1
    until(lambda: {thread.name for thread in threading.enumerate()} <= before)
    assert workshop.push(worker_tasks.quick(3)).result(10) == 3


def test_stop_lets_tasks_finish_and_gives_the_rest_back_unused(workshop: Workshop) -> None:
    worker = workshop.worker(max_concurrent_tasks=2)
    short = workshop.push(worker_tasks.work(workshop.path, "short", 0.5))
    long = workshop.push(worker_tasks.nap(workshop.path, "long", 3))
    workshop.wait_for("begin", "short")
    workshop.wait_for("begin", "long")
    queued = workshop.push(worker_tasks.quick(1))
    begun = time.monotonic()
    assert worker.stop(1)
    assert time.monotonic() - begun < 2
    assert short.state() is TaskState.FINISHED
    for handle in (long, queued):
        task = handle.task()
        assert task is not None
        assert (task.state, task.attempt, task.retries, task.crashes) == (TaskState.QUEUED, 0, 0, 0)
    workshop.wait_for("end", "long")  # a thread cannot be killed; what it says is not heard
    assert long.state() is TaskState.QUEUED
    for handle in (long, queued):
        handle.cancel()
    workshop.assert_settled()


def test_health_is_told_over_http(workshop: Workshop) -> None:
    worker = workshop.worker(health_port=0)
    port = worker.health_port
    assert port
    assert (probe(port, "/healthz"), probe(port, "/readyz"), probe(port, "/")) == (200, 200, 404)
    workshop.push(worker_tasks.nap(workshop.path, "n", 1.5))
    workshop.wait_for("begin", "n")
    worker.ask_to_stop(5)
    assert (probe(port, "/healthz"), probe(port, "/readyz")) == (200, 503)
    assert worker.join(6)
    with pytest.raises(OSError, match="refused"):
        probe(port, "/healthz")


def test_health_is_red_without_a_server_and_green_again_with_it(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server(append_only=True)
    workshop = Workshop(server, tmp_path, lease_seconds=1)
    try:
        worker = workshop.worker()
        handle = workshop.push(worker_tasks.work(workshop.path, "before", 1))
        workshop.wait_for("begin", "before")
        server.kill()
        until(lambda: not worker.is_healthy(), 4)
        assert not worker.is_ready()
        server.start()
        until(worker.is_healthy, 5)
        assert handle.result(10) == "before"
        assert workshop.ledger.count("begin") == {"before": 1}
        assert workshop.push(worker_tasks.quick(1)).result(5) == 1
        workshop.assert_settled()
    finally:
        workshop.close()


def test_events_tell_what_happened(workshop: Workshop) -> None:
    heard = Heard()
    worker = workshop.worker(events=heard.bus)
    good = workshop.push(executor_tasks.add(1, 2))
    good.result(10)
    flaky = workshop.push(worker_tasks.flaky(workshop.path, "f", 1))
    flaky.result(10)
    bad = workshop.push(worker_tasks.hopeless.with_options(max_retries=0)(workshop.path, "h"))
    with pytest.raises(TaskFailedError):
        bad.result(10)
    slow = workshop.push(worker_tasks.loop.with_options(timeout=0.1, max_retries=0)(workshop.path, "l", 60))
    with pytest.raises(TaskFailedError):
        slow.result(10)
    snoozed = workshop.push(executor_tasks.throw("snooze"))
    dropped = workshop.push(executor_tasks.throw("discard"))
    with pytest.raises(TaskCanceledError):
        dropped.result(10)
    until(lambda: heard.names(snoozed.task_id)[-1:] == ["TaskSnoozed"])
    snoozed.cancel()
    until(lambda: heard.names(dropped.task_id)[-1:] == ["TaskCanceled"])
    assert worker.stop(5)
    assert heard.names(good.task_id) == ["TaskClaimed", "TaskStarted", "TaskFinished"]
    assert heard.names(flaky.task_id) == [
        "TaskClaimed", "TaskStarted", "TaskRetried", "TaskClaimed", "TaskStarted", "TaskFinished",
    ]  # fmt: skip
    assert heard.names(bad.task_id) == ["TaskClaimed", "TaskStarted", "TaskFailed"]
    assert heard.names(slow.task_id) == ["TaskClaimed", "TaskStarted", "TaskTimedOut", "TaskFailed"]
    assert heard.names(dropped.task_id) == ["TaskClaimed", "TaskStarted", "TaskCanceled"]
    assert heard.names()[0] == "WorkerStarted"
    assert heard.names()[-1] == "WorkerStopped"


def test_workers_share_the_load(workshop: Workshop) -> None:
    workers = [workshop.worker(max_concurrent_tasks=2) for _ in range(3)]
    handles = workshop.push_all(worker_tasks.work(workshop.path, f"w{n}", 0.05) for n in range(60))
    for handle in handles:
        handle.result(20)
    assert workshop.ledger.count("begin") == {f"w{n}": 1 for n in range(60)}
    for worker in workers:
        assert worker._loop is not None
        assert 10 <= worker._loop.completed <= 30
    workshop.assert_settled()


def test_delayed_tasks_start_when_due(workshop: Workshop) -> None:
    for _ in range(3):
        workshop.worker(poll_interval_seconds=5)
    begun = time.monotonic()
    delays = [0.2 + 0.05 * n for n in range(20)]
    handles = workshop.push_all(worker_tasks.begun_at.with_options(delay=delay)() for delay in delays)
    pushed = time.monotonic()
    late = [handle.result(10) - begun - delay for handle, delay in zip(handles, delays, strict=True)]
    assert min(late) >= 0
    assert max(late) < pushed - begun + 0.5
    # One that is due before all that wait already, from a queue that knows nothing of them.
    far = workshop.push(worker_tasks.begun_at.with_options(delay=60)())
    with TaskQueue(workshop.config()) as other:
        begun = time.monotonic()
        near = other.push(worker_tasks.begun_at.with_options(delay=0.3)())
        assert 0.3 <= near.result(10) - begun < 0.8
    far.cancel()
    workshop.assert_settled()


def test_a_push_wakes_an_idle_worker_at_once(workshop: Workshop) -> None:
    """Without waiting for its next look, in `poll_interval_seconds`."""
    workshop.worker(poll_interval_seconds=5)
    for _ in range(5):
        until(lambda: workshop.client.zcard("fq:waiters") == 1)
        pushed = time.monotonic()
        assert workshop.push(worker_tasks.begun_at()).result(10) - pushed < 1
    # From a client that fails, retries and delays: as quickly.
    pushed = time.monotonic()
    retried = worker_tasks.flaky(workshop.path, "f", 1)
    assert workshop.push(retried).result(10) == "attempt 2"
    assert time.monotonic() - pushed < worker_tasks.BACKOFF + 1


def test_one_push_does_not_wake_a_crowd(make_workshop: Callable[..., Workshop]) -> None:
    workshop = make_workshop(lease_seconds=30)
    for _ in range(20):
        workshop.worker(poll_interval_seconds=60, max_concurrent_tasks=1)
    until(lambda: workshop.client.zcard("fq:waiters") == 20)

    def calls() -> int:
        return int(workshop.client.info("commandstats")["cmdstat_fcall"]["calls"])

    before = calls()
    for number in range(10):
        assert workshop.push(worker_tasks.quick(number)).result(10) == number
    # A push, a claim, a settle, and the watcher's two for each; a crowd would have made 20 claims for each.
    assert calls() - before < 10 * 12
