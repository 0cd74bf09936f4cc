"""What a push stores, when it is refused, and what then is not written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import redis

from fairque.core.events import EventBus, TaskPushed
from fairque.core.exceptions import (
    DuplicateTaskError,
    FairQueueError,
    InvalidTaskError,
    PayloadTooLargeError,
    SerializationError,
    UnknownDependencyError,
    UnknownFunctionError,
)
from fairque.core.middleware import Middleware
from fairque.core.models import Priority, Task
from fairque.core.policies import LimiterPolicy
from fairque.core.retry import Discard, Snooze, fixed
from fairque.core.states import TaskState
from tests.support.facades import Clock
from tests.support.queue_tasks import fetch, resize
from tests.support.queues import MakeQueue, at, wait_until

# -- what is stored


def test_a_task_comes_out_as_it_went_in(queue: Any) -> None:
    payload = {
        "text": "é🙂",
        "bytes": b"\x00\xff",
        "n": [1, 2.5, None, True],
        "when": datetime(2026, 1, 2, tzinfo=UTC),
    }
    queue.set_limiter("api", LimiterPolicy(max_concurrency=2))
    sent = Task.create(
        payload=payload, user_id="alice", priority=Priority.HIGH, timeout=9, max_retries=7, retry=fixed(3),
        cost=2.5, correlation_id="c-1", labels={"a": "b"}, result_ttl=60, limiter="api",
    )  # fmt: skip
    handle = queue.push(sent)
    assert handle.task_id == sent.task_id
    assert not handle.existing
    for task in (queue.get_task(sent.task_id), handle.task(), queue.pop()):
        assert task.task_id == sent.task_id
        assert task.payload == payload
        for name in ("user_id", "priority", "timeout", "max_retries", "retry", "cost", "correlation_id", "labels",
                     "result_ttl", "limiter"):  # fmt: skip
            assert getattr(task, name) == getattr(sent, name), name
        assert task.created_at.tzinfo is UTC
        assert abs((datetime.now(UTC) - task.created_at).total_seconds()) < 60


def test_a_function_is_pushed_with_its_arguments_and_options(queue: Any) -> None:
    queue.push(resize("a.png", width=7))
    queue.push(fetch.with_options(user_id="bob")("http://x"))
    urgent, plain = queue.pop(count=2, users=["bob"])[0], queue.pop()
    assert (plain.function, plain.args, plain.kwargs) == (
        "tests.support.queue_tasks:resize",
        ("a.png",),
        {"width": 7},
    )
    assert plain().height == 5
    assert (urgent.user_id, urgent.priority, urgent.max_retries, urgent.timeout) == ("bob", 5, 1, 30)


def test_all_kinds_of_data_are_carried_exactly(queue: Any) -> None:
    when = datetime(2026, 5, 5, 1, 2, 3, 4, UTC)
    values = (UUID(int=7), Decimal("1.10"), timedelta(days=2, microseconds=3), when, when.date(), b"\xff")
    queue.push(Task(function="f", args=values, kwargs={"key": values[0]}))
    task = queue.pop()
    assert task.args == values
    assert task.kwargs == {"key": values[0]}


def test_observers_are_told_of_what_was_stored(make_queue: MakeQueue) -> None:
    bus = EventBus()
    seen: list[TaskPushed] = []
    bus.subscribe(TaskPushed, seen.append)
    queue = make_queue(events=bus)
    queue.push(Task.create(payload=1, task_id="one", user_id="u"))
    queue.push(Task.create(payload=1, task_id="one", on_duplicate="return"))
    with pytest.raises(DuplicateTaskError):
        queue.push(Task.create(payload=1, task_id="one"))
    queue.push_batch(
        [Task.create(payload=2, task_id="two", priority=6), Task.create(payload=3, task_id="two")]
    )
    found = [(event.task_id, event.user_id, event.priority) for event in seen]
    assert found == [("one", "u", 3), ("two", "default", 6)]
    assert all(abs((datetime.now(UTC) - event.at).total_seconds()) < 60 for event in seen)


class Labelling(Middleware):
    """Adds a label; refuses what it is told to."""

    def push(self, task: Task[Any], call_next: Any) -> Any:
        return call_next(self._changed(task))

    async def push_async(self, task: Task[Any], call_next: Any) -> Any:
        return await call_next(self._changed(task))

    def _changed(self, task: Task[Any]) -> Task[Any]:
        if task.payload == "refuse":
            raise InvalidTaskError("not on my watch")
        return task.with_options(task_id=task.task_id, labels={"by": "middleware"})


def test_middleware_goes_around_every_push(make_queue: MakeQueue) -> None:
    queue = make_queue(middleware=[Labelling()])
    queue.push(Task.create(payload=1))
    one, refused, none = queue.push_batch([Task.create(payload=2), Task.create(payload="refuse"), "no task"])
    assert one.ok
    assert "not on my watch" in str(refused.error)
    assert "push takes a Task" in str(none.error)
    assert [task.labels for task in queue.list_tasks()] == [{"by": "middleware"}] * 2
    with pytest.raises(InvalidTaskError, match="watch"):
        queue.push(Task.create(payload="refuse"))


# -- duplicate ids, deduplication


def test_an_id_is_taken_once(queue: Any, other: Any) -> None:
    queue.push(Task.create(task_id="one", payload=1))
    with pytest.raises(DuplicateTaskError, match="task one already") as refused:
        other.push(Task.create(task_id="one", payload=2))
    assert refused.value.task_id == "one"
    handle = other.push(Task.create(task_id="one", payload=3, on_duplicate="return"))
    assert handle.existing
    assert handle.task().payload == 1
    queue.finish(queue.pop(), "first")
    assert handle.result(5) == "first"
    with pytest.raises(DuplicateTaskError):  # also once it has ended, for as long as its result is kept
        queue.push(Task.create(task_id="one", payload=2))
    assert queue.pop() is None


def test_the_same_object_cannot_be_pushed_twice(queue: Any) -> None:
    task = Task.create(payload=1)
    queue.push(task)
    with pytest.raises(DuplicateTaskError):
        queue.push(task)
    queue.push(task.with_options())
    with pytest.raises(InvalidTaskError, match="came from the server"):
        queue.push(queue.pop())


def test_a_dedup_key_lets_one_live_task_through(queue: Any, other: Any) -> None:
    first = queue.push(Task.create(payload=1, user_id="u", dedup_key="daily"))
    with pytest.raises(DuplicateTaskError, match="'daily' of user 'u' is held by task") as refused:
        other.push(Task.create(payload=2, user_id="u", dedup_key="daily"))
    assert refused.value.task_id == first.task_id
    existing = other.push(Task.create(payload=3, user_id="u", dedup_key="daily", on_duplicate="return"))
    assert (existing.task_id, existing.existing) == (first.task_id, True)
    # Another tenant, another key and no key are other matters.
    other.push(Task.create(payload=4, user_id="v", dedup_key="daily"))
    other.push(Task.create(payload=5, user_id="u", dedup_key="weekly"))
    other.push(Task.create(payload=6, user_id="u"))
    assert len(queue.list_tasks()) == 4


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "delete", "discard", "expire", "move_to_dlq"])
def test_a_dedup_key_is_free_when_its_task_has_ended(timed: Any, clock: Clock, end: str) -> None:
    options: dict[str, Any] = {"dedup_key": "k: {%}", "max_retries": 0}
    expires = at(clock, 60) if end == "expire" else None
    handle = timed.push(Task.create(payload=1, expires_at=expires, **options))
    with pytest.raises(DuplicateTaskError):
        timed.push(Task.create(payload=2, **options))
    match end:
        case "finish":
            timed.finish(timed.pop())
        case "fail":
            timed.fail(timed.pop(), ValueError("no"))
        case "discard":
            timed.fail(timed.pop(), Discard("no"))
        case "cancel":
            handle.cancel()
        case "delete":
            timed.delete_task(handle.task_id)
        case "move_to_dlq":
            timed.move_to_dlq(handle.task_id)
        case "expire":
            clock.advance(61)
            timed.cleanup_expired_tasks()
    assert not timed.push(Task.create(payload=3, **options)).existing


def test_a_dedup_key_holds_while_its_task_is_retried(queue: Any) -> None:
    queue.push(Task.create(payload=1, dedup_key="k", retry=fixed(60)))
    queue.fail(queue.pop(), ValueError("again"))
    with pytest.raises(DuplicateTaskError):
        queue.push(Task.create(payload=2, dedup_key="k"))


def test_a_dedup_window_counts_from_the_push_whatever_becomes_of_the_task(
    queue: Any, flushed: redis.Redis
) -> None:
    first = queue.push(Task.create(payload=1, dedup_key="k", dedup_window=0.3))
    queue.finish(queue.pop())
    with pytest.raises(DuplicateTaskError):
        queue.push(Task.create(payload=2, dedup_key="k", dedup_window=0.3))
    returned = queue.push(Task.create(payload=2, dedup_key="k", dedup_window=0.3, on_duplicate="return"))
    assert returned.task_id == first.task_id
    wait_until(lambda: not flushed.exists("fq:dedup:default:k"))
    second = queue.push(Task.create(payload=3, dedup_key="k", dedup_window=0.3))
    wait_until(lambda: not flushed.exists("fq:dedup:default:k"))
    third = queue.push(
        Task.create(payload=4, dedup_key="k", dedup_window=0.3)
    )  # though the second still waits
    assert len({first.task_id, second.task_id, third.task_id}) == 3


def test_many_at_once_with_one_key_are_one_task(queue: Any, make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(4)]
    refused: list[DuplicateTaskError] = []

    def push(one: Any) -> None:
        for number in range(25):
            try:
                one.push(Task.create(payload=number, dedup_key="k"))
            except DuplicateTaskError as error:
                refused.append(error)

    threads = [threading.Thread(target=push, args=(one,)) for one in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 99
    assert len(queue.list_tasks()) == 1


# -- batches


def test_a_batch_tells_what_became_of_each(queue: Any) -> None:
    queue.push(Task.create(task_id="taken", payload=0))
    batch: list[Any] = [
        Task.create(task_id="a", payload=1),
        Task.create(task_id="bad", payload={"x": object()}),
        Task.create(task_id="b", payload=2),
        Task.create(task_id="taken", payload=3),
        Task.create(task_id="taken", payload=4, on_duplicate="return"),
        Task.create(task_id="a", payload=5),
        Task.create(task_id="large", payload=bytes(2_000_000)),
        Task(function="__main__:f", task_id="main"),
        resize,
        queue.get_task("taken"),
        Task.create(task_id="c", payload=6),
    ]
    outcomes = queue.push_batch(iter(batch))
    assert [outcome.task for outcome in outcomes] == batch
    assert [outcome.handle.task_id if outcome.ok else type(outcome.error) for outcome in outcomes] == [
        "a", SerializationError, "b", DuplicateTaskError, "taken", DuplicateTaskError, PayloadTooLargeError,
        UnknownFunctionError, InvalidTaskError, InvalidTaskError, "c",
    ]  # fmt: skip
    assert [outcome.handle.existing for outcome in outcomes if outcome.ok] == [False, False, True, False]
    assert {task.task_id for task in queue.list_tasks()} == {"a", "b", "c", "taken"}
    assert outcomes[0].unwrap().state() is TaskState.QUEUED
    with pytest.raises(SerializationError):
        outcomes[1].unwrap()


def test_a_batch_of_chunks_keeps_its_order(queue: Any, flushed: redis.Redis) -> None:
    read: list[int] = []
    stored: list[int] = []

    def tasks() -> Iterator[Task[Any]]:
        for number in range(1234):
            read.append(number)
            stored.append(flushed.zcard("fq:state:queued"))
            yield Task.create(payload=number)

    outcomes = queue.push_batch(tasks())
    assert len(outcomes) == 1234
    assert all(outcome.ok for outcome in outcomes)
    assert stored[500] == 500  # a generator is read as it goes
    assert stored[1233] == 1000
    claimed = [task.payload for _ in range(5) for task in queue.pop(count=300)]
    assert claimed == list(range(1234))


def test_an_empty_batch_is_nothing(queue: Any, flushed: redis.Redis) -> None:
    assert queue.push_batch([]) == []
    assert flushed.dbsize() == 0


def test_a_batch_of_large_tasks_goes_in_calls_of_four_megabytes(queue: Any) -> None:
    outcomes = queue.push_batch(Task.create(payload=bytes(900_000)) for _ in range(12))
    assert all(outcome.ok for outcome in outcomes)
    first = queue.list_tasks(limit=1000)
    assert len(first) == 5  # neither is a page longer than that
    second = queue.list_tasks(limit=1000, cursor=first.cursor)
    third = queue.list_tasks(limit=1000, cursor=second.cursor)
    assert len({task.task_id for page in (first, second, third) for task in page}) == 12
    assert third.cursor is None


# -- when it is due


def test_a_delay_is_kept_to_the_microsecond(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1, delay=90))
    task = handle.task()
    assert task.state is TaskState.SCHEDULED
    assert task.execute_after == task.entered_at
    due = task.entered_at.timestamp() - clock.seconds
    assert due == pytest.approx(90, abs=0.01)
    clock.advance(89.9)
    assert timed.pop() is None
    clock.advance(0.2)
    claimed = timed.pop()
    assert claimed.payload == 1
    assert claimed.execute_after is None


def test_execute_after_is_a_time(timed: Any, clock: Clock) -> None:
    when = at(clock, 3600)
    assert timed.push(Task.create(payload=1, execute_after=when)).task().execute_after == when
    assert timed.push(Task.create(payload=2, execute_after=at(clock, -5))).state() is TaskState.QUEUED
    assert timed.pop().payload == 2
    assert timed.pop() is None
    clock.advance(3601)
    assert timed.pop().payload == 1


def test_a_delayed_task_stands_where_it_would_if_pushed_when_due(timed: Any, clock: Clock) -> None:
    timed.push(Task.create(payload="due at 10", delay=10))
    clock.advance(5)
    timed.push(Task.create(payload="pushed at 5"))
    clock.advance(15)
    timed.push(Task.create(payload="pushed at 20"))
    assert [task.payload for task in timed.pop(count=3)] == ["pushed at 5", "due at 10", "pushed at 20"]


def test_a_short_delay_passes_in_real_time(queue: Any) -> None:
    queue.push(Task.create(payload=1, delay=0.2))
    assert queue.pop() is None
    assert queue.pop(wait=10).payload == 1


def test_what_expires_never_starts(timed: Any, clock: Clock) -> None:
    waiting = timed.push(Task.create(payload=1, expires_at=at(clock, 60)))
    scheduled = timed.push(Task.create(payload=2, delay=100, expires_at=at(clock, 60)))
    kept = timed.push(Task.create(payload=3, expires_at=at(clock, 600)))
    clock.advance(61)
    assert timed.cleanup_expired_tasks()["expired"] == 2
    for handle in (waiting, scheduled):
        assert handle.task().state is TaskState.CANCELED
        assert handle.task().reason == "expired"
    assert timed.pop().task_id == kept.task_id
    clock.advance(1000)
    assert kept.task().state is TaskState.STARTED  # an expiry is about the start only


def test_what_has_expired_is_not_handed_out_even_without_a_sweep(timed: Any, clock: Clock) -> None:
    handle = timed.push(Task.create(payload=1, expires_at=at(clock, 1)))
    timed.push(Task.create(payload=2))
    timed.pop(users=["nobody"])  # sweeps, so that the next call does not
    clock.advance(1.1)
    assert timed.pop().payload == 2
    assert handle.task().reason == "expired"


@pytest.mark.parametrize("end", ["release", "retry", "snooze", "close"])
def test_an_expiry_holds_for_another_start_too(
    make_queue: MakeQueue, timed: Any, clock: Clock, end: str
) -> None:
    handle = timed.push(Task.create(payload=1, expires_at=at(clock, 60), retry=fixed(100)))
    holder = make_queue(clock=clock)
    task = holder.pop()
    match end:
        case "release":
            holder.release(task)
        case "retry":
            holder.fail(task, ValueError("once"))
        case "snooze":
            holder.fail(task, Snooze(100))
        case "close":
            holder.close()
    clock.advance(61)
    assert timed.cleanup_expired_tasks()["expired"] == 1
    assert (handle.state(), handle.task().reason) == (TaskState.CANCELED, "expired")
    assert len(timed.get_errors(handle.task_id)) == (end == "retry")


def test_a_sweep_goes_on_until_all_is_done(timed: Any, clock: Clock) -> None:
    timed.push_batch(Task.create(payload=1, expires_at=at(clock, 5)) for _ in range(750))
    timed.push_batch(Task.create(payload=1, delay=5) for _ in range(750))
    clock.advance(10)
    done = timed.cleanup_expired_tasks()
    assert (done["promoted"], done["expired"], done["forgotten"], done["orphans"]) == (750, 750, 0, 0)
    assert len(timed.list_tasks(limit=1000)) == 750


def test_registries_forget_what_was_kept_long_enough(
    make_queue: MakeQueue, clock: Clock, flushed: redis.Redis
) -> None:
    queue = make_queue(clock=clock, result_ttl_seconds=100)
    handles = [outcome.handle for outcome in queue.push_batch(Task.create(payload=1) for _ in range(2600))]
    for handle in handles[:1300]:
        handle.cancel()
    while tasks := queue.pop(count=500):
        for task in tasks:
            queue.finish(task)
    for handle in handles[:1300:50]:
        flushed.expire(f"fq:task:{handle.task_id}", 3600)  # as with a longer result_ttl
    gone = [handle.task_id for number, handle in enumerate(handles) if number >= 1300 or number % 50]
    for start in range(0, len(gone), 500):  # what their TTL does
        flushed.delete(*(f"fq:task:{task_id}" for task_id in gone[start : start + 500]))
    clock.advance(101)
    assert queue.cleanup_expired_tasks()["forgotten"] == len(gone)
    assert flushed.zcard("fq:state:finished") == 0
    assert flushed.zcard("fq:state:canceled") == 26


# -- what is refused, and writes nothing


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Task.create(payload={"a": [1, object()]}), SerializationError, r"payload\['a'\]\[1\]|payload.*object"),
        (lambda: Task(function="f", args=(1, lambda: 0)), SerializationError, r"args\[1\]"),
        (lambda: Task(function="f", kwargs={"x": open}), SerializationError, "kwargs"),
        (lambda: Task.create(payload=bytes(1 << 20)), PayloadTooLargeError, "queue.max_payload_bytes"),
        (lambda: Task(function="__main__:f"), UnknownFunctionError, "name="),
        (lambda: Task.create(payload=1, depends_on="other"), UnknownDependencyError, "other"),
        (lambda: Task.create(payload=1, dedup_key="%" * 86), InvalidTaskError, "dedup_key"),
        (lambda: Task.create(payload=1, dedup_key="a" * 253 + ":"), InvalidTaskError, "dedup_key"),
        (lambda: resize, InvalidTaskError, "call it with its arguments"),
        (lambda: {"payload": 1}, InvalidTaskError, "push takes a Task"),
        (lambda: None, InvalidTaskError, "push takes a Task"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_before_it_is_sent(
    queue: Any, flushed: redis.Redis, make: Callable[[], Any], error: type[FairQueueError], words: str
) -> None:
    with pytest.raises(error, match=words):
        queue.push(make())
    [outcome] = queue.push_batch([make()])
    assert type(outcome.error) is error
    assert set(flushed.keys("*")) <= {b"fq:meta"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: resize(1, 2, 3), "resize"),
        (lambda: resize(), "path"),
        (lambda: resize("a", size=1), "size"),
        (lambda: Task.create(payload=1, priority=7), "priority"),
        (lambda: Task.create(payload=1, priority=0), "priority"),
        (lambda: Task.create(payload=1, user_id=""), "user_id"),
        (lambda: Task.create(payload=1, delay=-1), "delay"),
        (lambda: Task.create(payload=1, delay=float("nan")), "delay"),
        (lambda: Task.create(payload=1, execute_after=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda: Task.create(payload=1, expires_at="soon"), "expires_at"),
        (lambda: Task.create(payload=1, max_retries=-1), "max_retries"),
        (lambda: Task.create(payload=1, cost=0), "cost"),
        (lambda: Task.create(payload=1, on_duplicate="ignore"), "on_duplicate"),
        (lambda: Task.create(payload=1, colour="red"), "colour"),
        (lambda: Task.create(payload=1, dedup_window=3), "dedup_key"),
    ],
)  # fmt: skip
def test_a_task_that_makes_no_sense_is_not_even_built(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidTaskError, match=words):
        make()


def test_the_limit_of_a_payload_is_exact_and_configurable(make_queue: MakeQueue) -> None:
    queue = make_queue(max_payload_bytes=1000)
    with pytest.raises(PayloadTooLargeError, match="the limit is 1,000") as refused:
        queue.push(Task.create(payload=b"x" * 1000, user_id="u", task_id="t"))
    assert (refused.value.task_id, refused.value.user_id) == ("t", "u")
    queue.push(Task.create(payload=b"x" * 990))


# -- awkward names


AWKWARD = [
    "a:b", "{user}", "*", "?", "[a-z]", "new\nline", "tab\t", "\x00", "\x7f", "%", "%3A", "a b", "🙂", "naïve",
    "user:x:critical", "default", "'; drop", "\\", "\u202eright", "x" * 256,
]  # fmt: skip


def test_every_tenant_gets_exactly_its_own(queue: Any, flushed: redis.Redis) -> None:
    for name in AWKWARD:
        queue.push(Task.create(payload=name, user_id=name, task_id=name, dedup_key=name[:80]))
        queue.push(Task.create(payload=name, user_id=name, priority=6))
    for name in AWKWARD:
        sizes = queue.get_queue_sizes(name)
        assert (sizes.critical, sizes.normal, sizes.running) == (1, 1, 0)
        assert {task.payload for task in queue.list_tasks(user=name, limit=1000)} == {name}
    claimed = queue.pop(count=1000)
    assert sorted(task.user_id for task in claimed) == sorted(AWKWARD * 2)
    assert all(task.payload == task.user_id for task in claimed)
    for task in claimed:
        queue.finish(task, task.user_id)
    for name in AWKWARD:
        assert queue.get_handle(name).result(5) == name
        assert [update.task_id for update in queue.get_handle(name).events(5)] == [name]
        assert queue.get_user_stats(name).finished == 2
        with pytest.raises(DuplicateTaskError) as refused:
            queue.push(Task.create(payload=1, task_id=name, user_id=name))
        assert refused.value.task_id == name
        handle = queue.push(Task.create(payload=1, task_id=name, on_duplicate="return"))
        assert handle.task_id == name
        assert handle.result(1) == name
    assert not [key for key in flushed.keys("*") if any(byte < 32 or byte == 127 for byte in key)]


@pytest.mark.parametrize("name", ["x" * 257, "x" * 10_000, ":" * 100, "🙂" * 65, "\ud800"])
def test_a_name_that_cannot_be_a_key_is_refused_by_name(queue: Any, flushed: redis.Redis, name: str) -> None:
    for make in (
        lambda: Task.create(payload=1, user_id=name),
        lambda: Task.create(payload=1, task_id=name),
        lambda: queue.get_queue_sizes(name),
        lambda: queue.get_task(name),
        lambda: queue.cancel(name),
        lambda: queue.pause_user(name),
        lambda: queue.list_tasks(user=name),
        lambda: queue.pop(users=[name]),
    ):
        with pytest.raises(InvalidTaskError, match=r"256|surrogate"):
            make()
    assert not [key for key in flushed.keys("*") if b"queue" in key]
