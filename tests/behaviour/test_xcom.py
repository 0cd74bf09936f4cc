"""Values that tasks leave for each other, by user, namespace and key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fairque.core.context import TaskContext
from fairque.core.exceptions import (
    ConfigError,
    InvalidTaskError,
    NotInTaskError,
    PayloadTooLargeError,
    SerializationError,
    TaskFailedError,
    XComNotFoundError,
)
from fairque.core.models import Task
from fairque.core.registry import Registry
from fairque.core.xcom import xcom_task
from fairque.worker.worker import Worker
from tests.support import xcom_tasks
from tests.support.facades import Clock
from tests.support.queues import MakeQueue
from tests.support.workers import Workshop
from tests.support.xcom_tasks import describe, leave, leave_much, look, make_total, relay_async, shout


def test_a_value_is_pulled_as_it_was_pushed(queue: Any) -> None:
    queue.xcom.push("k", {"a": [1, b"x"]}, user_id="alice")
    assert queue.xcom.pull("k", user_id="alice") == {"a": [1, b"x"]}
    queue.xcom.push("k", 2, user_id="alice")
    assert queue.xcom.pull("k", user_id="alice") == 2
    queue.xcom.push("none", None)
    assert queue.xcom.pull("none", 5) is None


def test_users_and_namespaces_do_not_meet(queue: Any) -> None:
    queue.xcom.push("k", 1, user_id="a:b", namespace="c")
    for options in ({"user_id": "a", "namespace": "b:c"}, {"user_id": "a:b"}, {"namespace": "c"}):
        with pytest.raises(XComNotFoundError, match="no XCom 'k'") as missing:
            queue.xcom.pull("k", **options)
        assert missing.value.key == "k"
        assert queue.xcom.pull("k", "x", **options) == "x"


def test_what_is_too_large_or_no_data_is_refused(make_queue: MakeQueue) -> None:
    queue = make_queue(max_result_bytes=100)
    with pytest.raises(PayloadTooLargeError, match=r"XCom 'k' .* 1\d\d bytes .*max_result_bytes"):
        queue.xcom.push("k", "x" * 100)
    with pytest.raises(SerializationError, match="XCom 'k'"):
        queue.xcom.push("k", object())
    with pytest.raises(InvalidTaskError):
        queue.xcom.push("", 1)
    with pytest.raises(InvalidTaskError, match="ttl"):
        queue.xcom.push("k", 1, ttl=0)


def test_keys_are_listed_and_deleted(queue: Any) -> None:
    for n in range(5):
        queue.xcom.push(f"k{n}", n, namespace="n", ttl=60 + n)
    queue.xcom.push("other", 1)
    page = queue.xcom.list(namespace="n", limit=3)
    assert [*page, *queue.xcom.list(namespace="n", cursor=page.cursor)] == [f"k{n}" for n in range(5)]
    assert queue.xcom.delete("k0", namespace="n") == 1
    assert queue.xcom.delete(["k1", "none"], namespace="n") == 1
    assert queue.xcom.delete_namespace("n") == 3
    assert not list(queue.xcom.list(namespace="n"))
    assert queue.xcom.pull("other") == 1


def test_a_large_namespace_is_deleted_in_pieces(queue: Any) -> None:
    for n in range(1100):
        queue.xcom.push(f"k{n}", n)
    assert queue.xcom.delete_namespace() == 1100


def test_values_expire(timed: Any, clock: Clock) -> None:
    timed.xcom.push("short", 1, ttl=1)
    timed.xcom.push("long", 1)
    clock.advance(5)
    assert list(timed.xcom.list()) == ["long"]


def test_a_pull_waits_for_the_push(queue: Any, other: Any) -> None:
    timer = threading.Timer(0.2, lambda: other.xcom.push("k", 7))
    timer.start()
    assert queue.xcom.pull("k", wait=10) == 7
    timer.join()
    with pytest.raises(XComNotFoundError):
        queue.xcom.pull("x", wait=0.05)
    assert queue.xcom.pull("x", 1, wait=0.05) == 1


def test_tasks_push_and_pull(workshop: Workshop) -> None:
    workshop.worker(max_concurrent_tasks=3)
    waiting = workshop.queue.push(look("a", wait=10))
    relayed = workshop.queue.push(relay_async("b", "a"))
    workshop.queue.push(leave("b", [1, 2]))
    assert waiting.result(10) == relayed.result(10) == [1, 2]
    assert workshop.queue.push(look("none", default="d")).result(10) == "d"
    with pytest.raises(TaskFailedError, match="XComNotFoundError"):
        workshop.queue.push(look("none")).result(10)
    with pytest.raises(TaskFailedError, match="PayloadTooLargeError"):
        workshop.queue.push(leave_much("big", 1 << 20)).result(10)
    elsewhere = workshop.queue.push(look.with_options(user_id="bob")("a", default="none of his"))
    assert elsewhere.result(10) == "none of his"


def test_processes_push_and_pull(workshop: Workshop) -> None:
    worker = Worker(
        workshop.config(executor="process", max_concurrent_tasks=2), modules=[xcom_tasks.__name__]
    )
    worker.start()
    try:
        waiting = workshop.queue.push(look("a", wait=10))
        workshop.queue.push(leave("b", "v"))
        assert workshop.queue.push(relay_async("b", "a")).result(20) == "v"
        assert waiting.result(10) == "v"
        with pytest.raises(TaskFailedError, match=r"XComNotFoundError: .*no XCom"):
            workshop.queue.push(look("none")).result(10)
    finally:
        assert worker.stop(5)


def test_functions_that_push_and_pull_by_themselves(workshop: Workshop) -> None:
    workshop.worker()
    handle = workshop.queue.enqueue(make_total([1, 2]) >> describe(prefix="all") >> shout())
    assert handle.result(10) == "ALL 3 OF 2"
    assert workshop.queue.xcom.pull("total", namespace="sums") == {"sum": 3, "parts": [1, 2]}


@pytest.mark.parametrize("pull", [["nowhere"], {"args": "k"}])
def test_a_parameter_that_is_not_there_is_refused(pull: Any) -> None:
    def function(*args: int) -> None: ...

    with pytest.raises(ConfigError, match="no parameter"):
        xcom_task(pull_keys=pull, registry=Registry())(function)


def test_outside_of_a_worker_there_is_none() -> None:
    ask: list[Callable[[], Any]] = [
        lambda: TaskContext(Task.create()).xcom_push("k", 1),
        lambda: TaskContext(Task.create()).xcom_pull("k"),
    ]
    for call in ask:
        with pytest.raises(NotInTaskError, match=r"queue\.xcom"):
            call()
