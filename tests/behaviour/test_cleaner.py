"""What a worker does beside its tasks: its turn in the clean-up, and telling observers who has died."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fairque.core.config import FairQueueConfig
from fairque.core.events import DeadLettered, DeadLettersPassed, Event, EventBus
from fairque.core.exceptions import ConfigError
from fairque.core.models import Task
from tests.support import worker_tasks
from tests.support.workers import Workshop, until

MakeWorkshop = Callable[..., Workshop]


def entries(workshop: Workshop, count: int) -> None:
    """Of finished tasks whose records have expired long ago."""
    before = (time.time() - 2 * 86_400) * 1e6
    for start in range(0, count, 5000):
        names = [f"f{number}" for number in range(start, min(count, start + 5000))]
        workshop.client.zadd("fq:state:finished", dict.fromkeys(names, before))


def kept(workshop: Workshop) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in workshop.client.hgetall("fq:cleanup").items()}


def test_a_worker_cleans_up_and_again_after_the_interval(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop(cleanup_interval_seconds=0.2)
    entries(workshop, 3000)
    workshop.client.rpush("fq:errors:nothing", "x")
    workshop.worker()
    until(lambda: workshop.client.zcard("fq:state:finished") == 0)
    until(lambda: not workshop.client.exists("fq:errors:nothing"))
    entries(workshop, 100)
    until(lambda: workshop.client.zcard("fq:state:finished") == 0)
    assert workshop.push(worker_tasks.quick(1)).result(10) == 1


def test_without_an_interval_no_worker_does(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop(cleanup_interval_seconds=0)
    workshop.client.rpush("fq:errors:nothing", "x")
    workshop.worker()
    assert workshop.push(worker_tasks.quick(1)).result(10) == 1
    assert kept(workshop) == {}
    assert workshop.queue.cleanup_expired_tasks()["orphans"] == 1


def test_of_several_workers_one_takes_the_turn(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop(cleanup_interval_seconds=3600)
    workers = [workshop.worker() for _ in range(3)]
    until(lambda: kept(workshop).get("step") == "")
    owner = kept(workshop)["owner"]
    assert owner in [worker.incarnation for worker in workers]
    assert float(kept(workshop)["next"]) > time.time() * 1e6 + 3500e6


def test_observers_of_any_worker_hear_of_each_death_once(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop(dead_letter_alert=3)
    heard: list[Event] = []
    for _ in range(2):
        bus = EventBus()
        bus.subscribe(DeadLettered, heard.append)
        bus.subscribe(DeadLettersPassed, heard.append)
        workshop.worker(events=bus)
    workshop.worker()  # whose observers want nothing, and which must not take the news away
    ids = [
        workshop.push(worker_tasks.hopeless(workshop.path, "h").with_options(max_retries=0)).task_id
        for _ in range(3)
    ]
    waiting = workshop.push(Task.create(payload=1, delay=60))
    workshop.queue.move_to_dlq(waiting.task_id)
    until(lambda: len(heard) >= 5)
    told = [event.task_id for event in heard if isinstance(event, DeadLettered)]
    assert sorted(told) == sorted([*ids, waiting.task_id])
    assert [event.count for event in heard if isinstance(event, DeadLettersPassed)] == [3]
    assert not workshop.client.exists("fq:news:dead")


def test_an_alert_that_no_user_would_get_to_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"queue.dead_letter_alert.* at most max_dead_letters \(10\), not 20"
    ):
        FairQueueConfig.from_dict({"queue": {"max_dead_letters": 10, "dead_letter_alert": 20}})
    assert FairQueueConfig.from_dict({"queue": {"max_dead_letters": 10}}).queue.dead_letter_alert == 100
