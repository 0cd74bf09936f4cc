"""What a handle tells: results, their time to live, and news on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairque.core.exceptions import (
    ResultTimeoutError,
    SerializationError,
    TaskCanceledError,
    TaskFailedError,
    TaskNotFoundError,
)
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.retry import Snooze, fixed
from fairque.core.states import TaskState
from fairque.queue.operations import results, tasks
from fairque.queue.operations.claims import token_of
from fairque.queue.operations.results import Progress, TaskUpdate
from tests.support.facades import Clock
from tests.support.proxy import FaultProxy
from tests.support.queue_tasks import Size, resize
from tests.support.queues import MakeQueue, wait_until
from tests.support.servers import ServerProcess


class Waiter:
    """Waits for something in a thread, and notes when it came."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: Exception | None = None
        self.at = 0.0
        self._wait = wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._wait()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.at = time.monotonic()

    def join(self, timeout: float = 10.0) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still waiting after {timeout} s"
        if self.error is not None:
            raise self.error
        return self.value


def watched(client: redis.Redis, task_id: str) -> Callable[[], bool]:
    return lambda: bool(client.exists(f"fq:watchers:{encode(task_id)}"))


def progress(queue: Any, task: Task[Any], done: float, total: float | None, text: str) -> None:
    item = encode(task.task_id), token_of(task), (done, total, text)
    assert queue.run(tasks.set_progress(queue.engine, 60, [item])) == 1


# -- results


def test_a_waiter_is_woken_by_the_finish(queue: Any, other: Any, flushed: redis.Redis) -> None:
    late: list[float] = []
    for number in range(20):
        handle = queue.push(Task.create(payload=number))
        waiter = Waiter(lambda handle=handle: handle.result(10))
        wait_until(watched(flushed, handle.task_id))
        task = other.pop()
        finished = time.monotonic()
        other.finish(task, number)
        assert waiter.join() == number
        late.append(waiter.at - finished)
    late.sort()
    print(f"result after finish: p50 {late[10] * 1e3:.2f} ms, worst {late[-1] * 1e3:.2f} ms")
    assert late[10] < 0.05
    assert late[-1] < 0.5


def test_many_wait_for_one_and_one_for_many(queue: Any, other: Any, flushed: redis.Redis) -> None:
    handle = queue.push(Task.create(payload=1))
    waiters = [Waiter(lambda q=q: q.get_handle(handle.task_id).result(10)) for q in (queue, queue, other)]
    wait_until(lambda: flushed.scard(f"fq:watchers:{handle.task_id}") == 2)
    other.finish(other.pop(), "all")
    assert [waiter.join() for waiter in waiters] == ["all"] * 3
    handles = [outcome.handle for outcome in queue.push_batch(Task.create(payload=n) for n in range(20))]
    waiters = [Waiter(lambda handle=handle: handle.result(10)) for handle in handles]
    for task in reversed(other.pop(count=20)):
        other.finish(task, task.payload)
    assert [waiter.join() for waiter in waiters] == list(range(20))


def test_a_waiter_hears_of_every_end(queue: Any, other: Any, flushed: redis.Redis) -> None:
    ends: dict[type[Exception], Callable[[Any], Any]] = {
        TaskFailedError: lambda handle: other.fail(other.pop(), ValueError("no")),
        TaskCanceledError: lambda handle: other.cancel(handle.task_id),
    }
    for error, end in ends.items():
        handle = queue.push(Task.create(payload=1, max_retries=0))
        waiter = Waiter(lambda handle=handle: handle.result(10))
        wait_until(watched(flushed, handle.task_id))
        end(handle)
        with pytest.raises(error):
            waiter.join(2)
    handle = queue.push(Task.create(payload=1))
    waiter = Waiter(lambda: handle.result(10))
    wait_until(watched(flushed, handle.task_id))
    other.move_to_dlq(handle.task_id)
    with pytest.raises(TaskFailedError):
        waiter.join(2)


def test_a_result_may_be_waited_for_only_so_long(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    begun = time.monotonic()
    with pytest.raises(ResultTimeoutError, match=r"has not ended after 0\.2 s") as timeout:
        handle.result(timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < 2
    assert timeout.value.task_id == handle.task_id
    with pytest.raises(TimeoutError):
        handle.result(timeout=0)
    queue.finish(queue.pop(), 1)  # the task went on
    assert handle.result(timeout=0) == 1


def test_what_is_not_there_is_said_at_once(queue: Any) -> None:
    for call in (lambda handle: handle.result(5), lambda handle: list(handle.events(5))):
        with pytest.raises(TaskNotFoundError, match="no task no: such") as missing:
            call(queue.get_handle("no: such"))
        assert missing.value.task_id == "no: such"
    assert queue.get_handle("no: such").state() is None
    assert queue.get_handle("no: such").task() is None
    assert queue.get_handle("no: such").progress() is None


def test_a_result_is_rebuilt_from_the_functions_annotation(queue: Any) -> None:
    handle = queue.push(resize("a.png", width=7))
    queue.finish(queue.pop(), Size(7, 5))
    assert handle.result(5) == Size(7, 5)
    assert queue.get_handle(handle.task_id).result(5) == {
        "width": 7,
        "height": 5,
    }  # no function is known there
    odd = queue.push(resize("b.png"))
    queue.finish(queue.pop(), "not a size")
    with pytest.raises(SerializationError):
        odd.result(5)


@pytest.mark.parametrize("value", [None, 0, "", b"", [], {}, False])
def test_an_empty_result_is_a_result(queue: Any, value: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    queue.finish(queue.pop(), value)
    assert handle.result(5) == value


def test_a_result_and_its_task_are_kept_for_their_time(make_queue: MakeQueue, flushed: redis.Redis) -> None:
    queue = make_queue(result_ttl_seconds=100)
    default, own = queue.push(Task.create(payload=1)), queue.push(Task.create(payload=2, result_ttl=0.3))
    for task in queue.pop(count=2):
        queue.finish(task, "x")
    for kind in ("task", "result"):
        assert 99_000 < flushed.pttl(f"fq:{kind}:{default.task_id}") <= 100_000
        assert 0 < flushed.pttl(f"fq:{kind}:{own.task_id}") <= 300
    wait_until(lambda: own.task() is None)
    with pytest.raises(TaskNotFoundError, match="its result_ttl has passed"):
        own.result(5)
    assert default.result(5) == "x"
    canceled = queue.push(Task.create(payload=3))
    canceled.cancel()
    assert 99_000 < flushed.pttl(f"fq:task:{canceled.task_id}") <= 100_000


def test_without_a_time_nothing_is_kept(make_queue: MakeQueue, flushed: redis.Redis) -> None:
    queue = make_queue(result_ttl_seconds=0)
    handle = queue.push(Task.create(payload=1))
    queue.finish(queue.pop(), "x")
    assert handle.task() is None
    assert not [key for key in flushed.keys("*") if handle.task_id.encode() in key]
    assert flushed.zcard("fq:state:finished") == 0


def test_errors_are_kept_as_long_as_their_task(make_queue: MakeQueue, flushed: redis.Redis) -> None:
    queue = make_queue(result_ttl_seconds=100)
    handle = queue.push(Task.create(payload=1, retry=fixed(0)))
    queue.fail(queue.pop(), ValueError("once"))
    assert flushed.pttl(f"fq:errors:{handle.task_id}") == -1
    queue.finish(queue.pop())
    assert 99_000 < flushed.pttl(f"fq:errors:{handle.task_id}") <= 100_000
    assert [error.message for error in queue.get_errors(handle.task_id)] == ["once"]


# -- news


def test_events_tell_the_whole_life(timed: Any, clock: Clock, flushed: redis.Redis) -> None:
    handle = timed.push(Task.create(payload=1, task_id="a: %🙂", retry=fixed(5)))
    news = handle.events(10)
    seen = [next(news)]
    task = timed.pop()
    progress(timed, task, 0.5, None, "é half\xff")
    progress(timed, task, 3, 4.0, "")
    assert handle.progress() == Progress(3, 4.0, "")
    timed.fail(task, ValueError("no"))
    clock.advance(6)
    timed.fail(timed.pop(), Snooze(5))
    clock.advance(6)
    timed.release(timed.pop())
    timed.finish(timed.pop(), "done")
    seen += news
    assert {update.task_id for update in seen} == {"a: %🙂"}
    states = [(update.state, update.attempt) for update in seen if update.state]
    assert states == [
        (TaskState.QUEUED, 0), (TaskState.STARTED, 1), (TaskState.SCHEDULED, 1), (TaskState.QUEUED, 1),
        (TaskState.STARTED, 2), (TaskState.SCHEDULED, 1), (TaskState.QUEUED, 1), (TaskState.STARTED, 2),
        (TaskState.QUEUED, 1), (TaskState.STARTED, 2), (TaskState.FINISHED, 2),
    ]  # fmt: skip
    told = [update.progress for update in seen if update.progress]
    assert told == [Progress(0.5, None, "é half\xff"), Progress(3, 4.0, "")]
    assert [update.is_last for update in seen] == [False] * (len(seen) - 1) + [True]


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (lambda queue, handle: queue.cancel(handle.task_id), TaskState.CANCELED, "canceled"),
        (lambda queue, handle: queue.move_to_dlq(handle.task_id), TaskState.FAILED, "moved to the dead letters"),
        (lambda queue, handle: queue.fail(queue.pop(), ValueError()), TaskState.FAILED, "no retries left"),
    ],
)  # fmt: skip
def test_events_end_with_the_reason(queue: Any, end: Any, state: TaskState, reason: str) -> None:
    handle = queue.push(Task.create(payload=1, max_retries=0))
    news = handle.events(10)
    next(news)
    end(queue, handle)
    *_, last = news
    assert (last.state, last.is_last) == (state, True)
    assert last.reason.startswith(reason)


def test_events_of_a_task_that_has_ended_are_its_end(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    queue.finish(queue.pop())
    [update] = handle.events(5)
    assert isinstance(update, TaskUpdate)
    assert (update.state, update.is_last) == (TaskState.FINISHED, True)


def test_events_stop_when_nothing_comes(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    news = handle.events(timeout=0.2)
    assert next(news).state is TaskState.QUEUED
    with pytest.raises(ResultTimeoutError, match="no news"):
        next(news)


def test_progress_is_told_only_while_the_claim_stands(queue: Any, flushed: redis.Redis) -> None:
    handle = queue.push(Task.create(payload=1))
    task = queue.pop()
    progress(queue, task, 1, 2, "half")
    assert handle.progress() == Progress(1, 2, "half")
    assert flushed.ttl(f"fq:progress:{task.task_id}") > 0
    queue.release(task)
    item = task.task_id, token_of(task), (2, 2, "late")
    assert queue.run(tasks.set_progress(queue.engine, 60, [item])) == 0
    assert handle.progress() == Progress(1, 2, "half")


def test_what_nobody_waits_for_any_more_goes_away(queue: Any, flushed: redis.Redis) -> None:
    handle = queue.push(Task.create(payload=1))
    with pytest.raises(ResultTimeoutError):
        handle.result(0.05)
    assert 0 < flushed.ttl(f"fq:watchers:{handle.task_id}") <= results.WATCH_SECONDS
    queue.close()
    queue.push(Task.create(payload=2))  # the object opens again
    queue.finish(queue.pop())
    for key in flushed.keys("fq:wake:*"):
        assert flushed.ttl(key) > 0


def test_a_waiter_survives_the_loss_of_its_connections(
    make_queue: MakeQueue, queue: Any, server: ServerProcess, flushed: redis.Redis
) -> None:
    with FaultProxy(server.url) as proxy:
        far = make_queue(url=proxy.url)
        handle = far.push(Task.create(payload=1))
        waiter = Waiter(lambda: handle.result(20))
        wait_until(watched(flushed, handle.task_id))
        for _ in range(3):
            wait_until(proxy.reset)
        queue.finish(queue.pop(), "found")
        assert waiter.join(15) == "found"
        far.close()


def test_news_that_were_lost_on_the_way_are_looked_up(
    make_queue: MakeQueue, queue: Any, server: ServerProcess, flushed: redis.Redis
) -> None:
    """The message about the end is taken from the server, and its reply never comes."""
    with FaultProxy(server.url) as proxy:
        far = make_queue(url=proxy.url)
        handle = far.push(Task.create(payload=1))
        waiter = Waiter(lambda: handle.result(20))
        wait_until(watched(flushed, handle.task_id))
        wait_until(lambda: flushed.info("clients")["blocked_clients"] == 1)
        proxy.drop_replies(1, matching=b"BLMPOP")
        proxy.reset()
        wait_until(lambda: proxy.replies_to_drop.left == 0)  # it listens again, and will lose what comes
        finished = time.monotonic()
        queue.finish(queue.pop(), "found")
        assert waiter.join(10) == "found"
        assert waiter.at - finished < 2
        far.close()


def test_closing_ends_the_listener_at_once(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    with pytest.raises(ResultTimeoutError):
        handle.result(0.05)
    begun = time.monotonic()
    queue.close()
    assert time.monotonic() - begun < 1
