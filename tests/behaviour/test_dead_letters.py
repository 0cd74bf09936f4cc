"""Dead letters: filters, changed arguments, limits, and who is told."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from fairque.core.decorator import task
from fairque.core.events import DeadLettered, DeadLettersPassed, Event, EventBus
from fairque.core.exceptions import (
    InvalidFilterError,
    InvalidStateError,
    InvalidTaskError,
    PayloadTooLargeError,
    SerializationError,
    TaskNotFoundError,
)
from fairque.core.filters import TaskFilter
from fairque.core.models import Task
from fairque.queue.operations.bulk import BulkOutcome
from tests.support.facades import Clock
from tests.support.queues import MakeQueue


@task(name="tests.dead:resize", max_retries=0)
def resize(path: str, width: int = 100) -> str:
    return f"{path} {width}"


def die(queue: Any, error: Exception | None = None, new: Any = None, **options: Any) -> str:
    """A dead letter; its id."""
    task_ = (
        new if new is not None else Task.create(payload=options.pop("payload", 1), max_retries=0, **options)
    )
    handle = queue.push(task_)
    queue.fail(queue.pop(users=[task_.user_id]), error or ValueError("no"))
    return str(handle.task_id)


def all_ids(queue: Any, **options: Any) -> list[str]:
    """Through all pages."""
    ids: list[str] = []
    cursor = None
    while True:
        page = queue.dlq.list(cursor=cursor, limit=2, **options)
        ids += [entry.task.task_id for entry in page]
        cursor = page.cursor
        if cursor is None:
            return ids


def test_they_are_filtered_by_user_function_error_and_age(timed: Any, clock: Clock) -> None:
    old = die(timed, TimeoutError("the bank"), user_id="a")
    clock.advance(100)
    new = [die(timed, ValueError("bank account"), user_id="a") for _ in range(3)]
    other = die(timed, KeyError("x"), new=resize.with_options(user_id="b")("p"))
    assert all_ids(timed) == [old, *new, other]
    assert all_ids(timed, user="a") == [old, *new]
    assert all_ids(timed, where=TaskFilter(error="bank")) == [old, *new]
    assert all_ids(timed, where=TaskFilter(error="timeouterror")) == all_ids(
        timed, user="a", where=TaskFilter(older_than=50)
    )
    assert all_ids(timed, where=TaskFilter(younger_than=50, user="?")) == [*new, other]
    assert all_ids(timed, where=TaskFilter(function="tests.dead:*")) == [other]
    assert (timed.dlq.count(), timed.dlq.count(user="a"), timed.dlq.count(TaskFilter(error="bank"))) == (
        5,
        4,
        4,
    )
    assert [(one.user_id, one.count) for one in timed.dlq.users()] == [("a", 4), ("b", 1)]
    assert timed.dlq.users().items[0].oldest.timestamp() == pytest.approx(clock.seconds - 100, abs=1)


def test_they_are_queued_again_or_removed_by_filter(timed: Any) -> None:
    for number in range(6):
        die(timed, TimeoutError() if number % 2 else ValueError(), user_id=f"u{number % 3}")
    where = TaskFilter(error="Timeout")
    assert timed.dlq.requeue(where, dry_run=True) == BulkOutcome(matched=3, dry_run=True)
    assert timed.dlq.requeue(where, user="u1") == BulkOutcome(matched=1, done=1)
    assert timed.dlq.purge(where, limit=1) == BulkOutcome(matched=1, done=1)
    assert timed.dlq.purge(TaskFilter(user="*"), dry_run=True) == BulkOutcome(matched=4, dry_run=True)
    assert timed.dlq.requeue(user="u0") == 1
    assert timed.dlq.purge() == 3
    assert timed.dlq.count() == 0
    assert len(timed.list_tasks("queued")) == 2
    assert len(timed.dlq.users()) == 0


def test_one_is_queued_again_with_other_arguments(timed: Any) -> None:
    name = die(timed, new=resize.with_options(labels={"a": "b"}, timeout=7, limiter=None)("p", width=3))
    timed.set_limiter("bank", None)
    assert timed.dlq.requeue(name, kwargs={"width": 4}) == 1
    claimed = timed.pop()
    assert (claimed.args, claimed.kwargs, claimed.run, claimed.attempt) == (("p",), {"width": 4}, 1, 1)
    assert (claimed.labels, claimed.timeout, claimed.function) == ({"a": "b"}, 7, "tests.dead:resize")
    assert claimed() == "p 4"
    timed.fail(claimed, ValueError())
    assert timed.dlq.requeue(timed.get_task(name), args=["q", 5], kwargs={}) == 1
    assert timed.pop()() == "q 5"


def test_another_payload_under_a_limiter_and_with_a_dedup_key(timed: Any) -> None:
    from fairque.core.policies import LimiterPolicy

    timed.set_limiter("bank:%", LimiterPolicy(max_concurrency=5))
    name = die(timed, payload={"x": 1}, limiter="bank:%", dedup_key="k", user_id="ü")
    assert timed.dlq.requeue(name, payload=None) == 1
    claimed = timed.pop()
    assert (claimed.payload, claimed.limiter, claimed.dedup_key, claimed.user_id) == (
        None,
        "bank:%",
        "k",
        "ü",
    )
    timed.fail(claimed, ValueError())
    assert timed.dlq.requeue(name, payload=[1, {"y": b"z"}]) == 1
    assert timed.get_task(name).payload == [1, {"y": b"z"}]
    timed.set_limiter("bank:%", None)


def test_arguments_that_a_push_would_refuse_are_refused_and_nothing_is_changed(make_queue: MakeQueue) -> None:
    queue = make_queue(max_payload_bytes=1000)
    name, payload = die(queue, new=resize("p")), die(queue)
    refusals: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InvalidTaskError, "depth", {"kwargs": {"depth": 1}}),
        (InvalidTaskError, "width", {"args": ["p", "wide"]}),
        (PayloadTooLargeError, "the limit is 1,000", {"args": ["p" * 1000]}),
        (InvalidTaskError, "no payload", {"payload": 1}),
    ]
    for kind, told, options in refusals:
        with pytest.raises(kind, match=told):
            queue.dlq.requeue(name, **options)
    with pytest.raises(SerializationError, match="object"):
        queue.dlq.requeue(payload, payload=[object()])
    with pytest.raises(InvalidTaskError, match="no args and kwargs"):
        queue.dlq.requeue(payload, args=[1])
    with pytest.raises(TaskNotFoundError):
        queue.dlq.requeue("nowhere", args=[1])
    assert queue.dlq.count() == 2
    waiting = queue.push(Task.create(payload=1))
    with pytest.raises(InvalidStateError, match="is queued, so it is no dead letter"):
        queue.dlq.requeue(waiting.task_id, payload=2)
    with pytest.raises(InvalidStateError, match="is queued, so it is no dead letter"):
        queue.dlq.purge([payload, waiting.task_id])
    assert queue.dlq.count() == 2


def test_what_does_not_go_together_is_refused(queue: Any) -> None:
    with pytest.raises(InvalidFilterError, match="name its id"):
        queue.dlq.requeue(TaskFilter(user="a"), payload=1)
    with pytest.raises(InvalidFilterError, match="dry_run goes with a TaskFilter"):
        queue.dlq.purge("x", dry_run=True)
    with pytest.raises(InvalidFilterError, match="limit goes with a TaskFilter"):
        queue.dlq.requeue("x", limit=1)
    with pytest.raises(
        InvalidFilterError, match=r"queue\.dlq is for tasks that are failed, not for canceled ones"
    ):
        queue.dlq.purge(TaskFilter(state="canceled"))
    with pytest.raises(InvalidTaskError, match="is no cursor"):
        queue.dlq.list(cursor="x")
    with pytest.raises(InvalidTaskError, match="a page has 1 to 1000"):
        queue.dlq.list(limit=0)
    with pytest.raises(InvalidTaskError, match="is no cursor"):
        queue.dlq.users(cursor="-1")


def test_old_ones_go_by_their_ttl(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(clock=clock, dead_letter_ttl_seconds=100)
    for _ in range(3):
        die(queue, user_id="a")
    clock.advance(60)
    young = die(queue, user_id="b")
    assert queue.cleanup_expired_tasks()["dead_letters_expired"] == 0
    clock.advance(41)
    assert queue.cleanup_expired_tasks()["dead_letters_expired"] == 3
    assert all_ids(queue) == [young]
    assert queue.get_stats().counters["dead_letters_expired"] == 3
    assert [one.user_id for one in queue.dlq.users()] == ["b"]


def test_the_oldest_go_when_a_user_has_too_many(
    make_queue: MakeQueue, clock: Clock, flushed: redis.Redis
) -> None:
    queue = make_queue(clock=clock, max_dead_letters=3)
    ids = []
    for _ in range(5):
        ids.append(die(queue, user_id="a"))
        clock.advance(1)
    other = die(queue, user_id="b")
    assert all_ids(queue) == [*ids[2:], other]
    assert queue.get_stats().counters["dead_letters_dropped"] == 2
    assert not flushed.exists(f"fq:task:{ids[0]}", f"fq:errors:{ids[0]}")


def test_a_limit_that_became_lower_is_met_in_chunks(make_queue: MakeQueue, clock: Clock) -> None:
    generous, strict = make_queue(clock=clock), make_queue(clock=clock, max_dead_letters=7)
    generous.push_batch(Task.create(payload=n, max_retries=0, user_id=f"u{n % 2}") for n in range(600))
    while tasks := generous.pop(count=100):
        for one in tasks:
            generous.fail(one, ValueError())
    die(strict, user_id="u0")
    assert strict.dlq.count(user="u0") == 291  # ten with each that comes
    assert strict.cleanup_expired_tasks()["dead_letters_dropped"] == 284 + 293
    assert sorted((one.user_id, one.count) for one in strict.dlq.users()) == [("u0", 7), ("u1", 7)]


def test_many_that_die_in_one_call_leave_the_allowed_number(make_queue: MakeQueue) -> None:
    queue = make_queue(max_dead_letters=1, unknown_function_seconds=0)
    queue.push_batch(Task.create(task_id=name, payload=1, max_retries=0) for name in "cabd")
    for name in "cabd":
        queue.move_to_dlq(name)
    assert all_ids(queue) == ["d"]


def test_each_death_is_told_once_and_when_there_are_many(make_queue: MakeQueue, clock: Clock) -> None:
    heard: list[Event] = []
    bus = EventBus()
    bus.subscribe(DeadLettered, heard.append)
    bus.subscribe(DeadLettersPassed, heard.append)
    queue, other = make_queue(clock=clock, events=bus, dead_letter_alert=2), make_queue(clock=clock)
    first = die(other, user_id="a:b")
    waiting = queue.push(Task.create(payload=1, user_id="a:b", delay=60))
    queue.move_to_dlq(waiting.task_id, "the customer left")
    third = die(queue, user_id="a:b")
    assert queue.dlq.tell() == 3 + 1
    told = [event for event in heard if isinstance(event, DeadLettered)]
    assert [(one.task_id, one.user_id, one.count) for one in told] == [
        (first, "a:b", 1),
        (waiting.task_id, "a:b", 2),
        (third, "a:b", 3),
    ]
    assert told[0].reason == "no retries left"
    assert told[0].attempt == 1
    assert told[1].reason == "moved to the dead letters by a caller"
    assert told[1].attempt == 0
    assert told[0].at.timestamp() == pytest.approx(clock.seconds, abs=1)
    assert [(one.user_id, one.count) for one in heard if isinstance(one, DeadLettersPassed)] == [("a:b", 2)]
    assert queue.dlq.tell() == other.dlq.tell() == 0


def test_news_that_nobody_asks_for_is_bounded(queue: Any, flushed: redis.Redis) -> None:
    queue.push_batch(Task.create(payload=n, max_retries=0) for n in range(1200))
    while tasks := queue.pop(count=400):
        for one in tasks:
            queue.fail(one, ValueError())
    assert flushed.llen("fq:news:dead") == 1000
    assert 0 < flushed.ttl("fq:news:dead") <= 3600
    told = 0
    while count := queue.dlq.tell():
        told += count
    assert told == 1000


def test_thousands_are_paged_through_in_short_calls(queue: Any) -> None:
    queue.push_batch(Task.create(payload=n, max_retries=0, user_id=f"u{n % 7}") for n in range(2100))
    while tasks := queue.pop(count=700):
        for one in tasks:
            queue.fail(one, ValueError("rare" if one.payload % 700 == 0 else "often"))
    assert queue.dlq.count(TaskFilter(error="rare")) == 3
    assert sorted(all_ids(queue, where=TaskFilter(error="rare"))) == sorted(
        entry.task.task_id for entry in queue.dlq.list(limit=10, where=TaskFilter(error="rare"))
    )
    assert queue.dlq.purge(TaskFilter(error="often")) == BulkOutcome(matched=2097, done=2097)
    assert queue.dlq.count() == 3
