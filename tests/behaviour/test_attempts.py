"""The history of a task: each failed attempt, with where and when it ran, and what came after it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from fairque.core.attempts import HEAD, KEPT, TaskAttempt, read_attempt
from fairque.core.codec import encode_error
from fairque.core.exceptions import SerializationError, TaskFailedError
from fairque.core.models import Task
from fairque.core.retry import Discard, RetryAfter, Snooze, fixed, never
from fairque.core.retry_rules import on
from fairque.queue.operations import claims, tasks
from tests.support import worker_tasks
from tests.support.bench import ERROR, Bench, settlement
from tests.support.facades import Clock
from tests.support.workers import Workshop


def moments(attempt: TaskAttempt, clock: Clock) -> tuple[float | None, float]:
    """When it began and when it failed, in seconds before now."""
    began = None if attempt.started_at is None else clock.seconds - attempt.started_at.timestamp()
    return began, clock.seconds - attempt.failed_at.timestamp()


def test_each_attempt_says_where_and_when_and_what_came_after(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1, retry=fixed(60), max_retries=1))
    first = timed.pop()
    clock.advance(3)
    try:
        raise ConnectionError("line is dead")
    except ConnectionError as error:
        timed.fail(first, error)
    clock.advance(61)
    second = timed.pop()
    clock.advance(2)
    timed.fail(second, ValueError("no"))
    one, two = handle.attempts()
    assert (one.attempt, two.attempt, one.run, two.run) == (1, 2, 0, 0)
    assert (one.type, one.message) == ("ConnectionError", "line is dead")
    assert "raise ConnectionError" in one.traceback
    assert (one.worker, two.worker) == (first.claim.incarnation, second.claim.incarnation)
    assert (one.seconds, two.seconds) == (pytest.approx(3, abs=0.01), pytest.approx(2, abs=0.01))
    assert (one.retry_in, one.held_back) == (pytest.approx(60, abs=0.01), 0)
    assert (two.retry_in, two.held_back) == (None, 0)
    assert moments(one, clock) == (pytest.approx(66, abs=0.01), pytest.approx(63, abs=0.01))
    assert moments(two, clock) == (pytest.approx(2, abs=0.01), pytest.approx(0, abs=0.01))
    assert one.started_at.tzinfo is not None


@pytest.mark.parametrize(
    ("error", "again"),
    [(RetryAfter(7), 7), (ValueError("no"), None), (KeyError("x"), 0), (OSError("gone"), 2)],
)
def test_what_comes_after_is_what_was_decided(timed: Any, error: Exception, again: float | None) -> None:
    rules = on(ValueError, never) | on(KeyError, fixed(0)) | fixed(2)
    handle = timed.push(Task.create(payload=1, retry=rules))
    timed.fail(timed.pop(), error)
    [attempt] = handle.attempts()
    assert attempt.retry_in == (None if again is None else pytest.approx(again, abs=0.001))


def test_a_requeue_keeps_the_history_and_begins_a_run(timed: Any) -> None:
    handle = timed.push(Task.create(payload=1, max_retries=0))
    for text in ("one", "two", "three"):
        timed.fail(timed.pop(), ValueError(text))
        timed.dlq.requeue(handle.task_id)
    assert [(one.run, one.attempt, one.message) for one in handle.attempts()] == [
        (0, 1, "one"), (1, 1, "two"), (2, 1, "three"),
    ]  # fmt: skip
    assert timed.get_errors(handle.task_id) == ()
    timed.fail(timed.pop(), ValueError("four"))
    assert [error.message for error in timed.get_errors(handle.task_id)] == ["four"]
    assert [error.message for error in timed.dlq.list().items[0].errors] == ["four"]
    timed.dlq.requeue(handle.task_id)
    timed.move_to_dlq(handle.task_id)  # no word about why: the errors before are not this run's
    with pytest.raises(TaskFailedError) as failed:
        handle.result(5)
    assert "four" not in str(failed.value)


def test_a_canceled_task_that_is_queued_again_keeps_it_too(timed: Any, flushed: redis.Redis) -> None:
    handle = timed.push(Task.create(payload=1, retry=fixed(60)))
    timed.fail(timed.pop(), ValueError("once"))
    handle.cancel()
    assert flushed.ttl(f"fq:errors:{handle.task_id}") > 0
    timed.dlq.requeue(handle.task_id)
    assert flushed.ttl(f"fq:errors:{handle.task_id}") == -1
    assert [one.message for one in handle.attempts()] == ["once"]
    timed.finish(timed.pop())
    assert flushed.ttl(f"fq:errors:{handle.task_id}") > 0
    assert len(handle.attempts()) == 1  # as long as the task


def test_the_last_ones_are_kept(timed: Any) -> None:
    handle = timed.push(Task.create(payload=1, retry=fixed(0), max_retries=KEPT + 20))
    for number in range(KEPT + 7):
        timed.fail(timed.pop(), ValueError(f"number {number}"))
    kept = handle.attempts()
    assert [one.attempt for one in kept] == list(range(8, KEPT + 8))
    assert kept[-1].message == f"number {KEPT + 6}"
    assert len(timed.get_errors(handle.task_id)) == KEPT
    assert handle.task().attempt == KEPT + 7


def test_what_is_no_failure_leaves_none(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1))
    timed.release(timed.pop())
    timed.fail(timed.pop(), Snooze(5))
    clock.advance(6)
    timed.finish(timed.pop())
    assert handle.attempts() == ()
    assert timed.get_attempts("nowhere") == ()


def test_what_no_worker_ran_says_so(timed: Any) -> None:
    handle = timed.push(Task.create(payload=1))
    timed.move_to_dlq(handle.task_id, "the customer has left")
    [attempt] = handle.attempts()
    assert (attempt.worker, attempt.started_at, attempt.seconds, attempt.retry_in) == (None, None, None, None)
    assert attempt.message == "the customer has left"


def test_a_discard_is_the_last(timed: Any) -> None:
    handle = timed.push(Task.create(payload=1))
    timed.fail(timed.pop(), Discard("out of date"))
    [attempt] = handle.attempts()
    assert (attempt.message, attempt.retry_in) == ("out of date", None)


@pytest.mark.no_leak_check
def test_crashes_are_attempts_too(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.push("t")
    workers = []
    for _ in range(4):  # it runs alone from its first crash on, and three crashes alone are the end
        worker = bench.join()
        workers.append(worker.incarnation)
        task = bench.claim(worker)
        bench.clock.advance(1)
        bench.run(claims.leave(bench.engine, worker.incarnation, [claims.token_of(task)]))
    found = bench.run(tasks.get_attempts(bench.engine, "t"))
    assert [one.worker for one in found] == workers
    assert [one.retry_in for one in found] == [0, 0, 0, None]
    assert [one.seconds for one in found] == [pytest.approx(1, abs=0.01)] * 4
    assert {one.type for one in found} == {"WorkerLost"}


@pytest.mark.no_leak_check
def test_a_cancel_while_it_ran_keeps_what_it_died_of(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    bench.push("t")
    task = bench.claim()
    bench.call("cancel", "t")
    bench.exchange(settlement(task, "fail"))
    [attempt] = bench.run(tasks.get_attempts(bench.engine, "t"))
    assert (attempt.type, attempt.retry_in) == ("ValueError", None)


def test_a_real_worker_writes_it(workshop: Workshop) -> None:
    worker = workshop.worker()
    task = worker_tasks.flaky(workshop.path, "k", 2).with_options(retry=fixed(0), max_retries=5)
    handle = workshop.push(task)
    handle.result(10)
    one, two = handle.attempts()
    assert (one.attempt, two.attempt) == (1, 2)
    assert one.worker == two.worker is not None
    assert one.started_at is not None
    assert one.started_at <= one.failed_at <= two.failed_at
    assert "flaky" in one.traceback
    assert worker is not None


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x01" * HEAD.size, HEAD.pack(1, 1, 0, 1, 2, 3, 4, b"-" * 11) + b"\x95"]
)
def test_malformed_entries_are_told(data: bytes) -> None:
    with pytest.raises(SerializationError):
        read_attempt(data)


def test_an_error_without_a_head_is_an_attempt_all_the_same() -> None:
    attempt = read_attempt(encode_error(ValueError("old"), 4))
    assert (attempt.attempt, attempt.run, attempt.message, attempt.worker) == (4, 0, "old", None)
    assert read_attempt(ERROR).type == "ValueError"
