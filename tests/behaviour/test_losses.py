"""Who has the tasks of a dead worker given back tells observers of it: of the worker, and of each task."""

from __future__ import annotations

import os
import signal
from typing import Any

from fairque.core.events import Event, EventBus, TaskCanceled, TaskFailed, TaskLost, WorkerDead
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.operations import claims
from tests.support import worker_tasks
from tests.support.facades import Clock
from tests.support.queues import MakeQueue
from tests.support.workers import Heard, Workshop, until

LEASE = 15.0


def listener() -> tuple[EventBus, list[Event]]:
    bus = EventBus()
    heard: list[Event] = []
    for kind in (TaskLost, TaskFailed, TaskCanceled, WorkerDead):
        bus.subscribe(kind, heard.append)
    return bus, heard


def beat(clock: Clock, queue: Any, seconds: float = 1.6 * LEASE) -> None:
    """As somebody lives who looks for work."""
    for _ in range(round(seconds / (LEASE / 6))):
        clock.advance(LEASE / 6)
        queue.pop(users=["nobody"])


def test_who_notices_a_silent_consumer_tells_of_it(make_queue: MakeQueue, clock: Clock) -> None:
    bus, heard = listener()
    silent, other = make_queue(clock=clock), make_queue(clock=clock, events=bus)
    other.push(Task.create(payload=1, task_id="a:b", user_id="u:1"))
    other.push(Task.create(payload=2, task_id="canceled", user_id="u:2"))
    assert len(silent.pop(count=2, worker_id=None)) == 2
    incarnation = silent._consumer.session.incarnation
    other.cancel("canceled")
    beat(clock, other)
    lost = [event for event in heard if isinstance(event, TaskLost)]
    assert [(event.task_id, event.user_id, event.incarnation, event.began) for event in lost] == [
        ("a:b", "u:1", incarnation, True)
    ]
    assert [event.task_id for event in heard if isinstance(event, TaskCanceled)] == ["canceled"]
    [dead] = [event for event in heard if isinstance(event, WorkerDead)]
    assert (dead.incarnation, dead.recovered) == (incarnation, 1)
    assert heard[-1] is dead
    beat(clock, other)
    assert len(heard) == 3


def test_a_renewal_tells_of_it_too(make_queue: MakeQueue, clock: Clock) -> None:
    bus, heard = listener()
    silent, other = make_queue(clock=clock), make_queue(clock=clock, events=bus)
    for number in range(2):
        other.push(Task.create(payload=number, task_id=f"t{number}"))
    mine = other.pop()
    assert silent.pop() is not None
    for _ in range(10):
        clock.advance(LEASE / 6)
        assert other.renew(mine) == []
    assert [type(event) for event in heard] == [TaskLost, WorkerDead]
    other.finish(mine)


def test_many_tasks_of_a_dead_one_are_told_of_once_each(make_queue: MakeQueue, clock: Clock) -> None:
    """They go back in chunks, over several calls."""
    bus, heard = listener()
    silent, other = make_queue(clock=clock), make_queue(clock=clock, events=bus)
    count = 250
    other.push_batch([Task.create(payload=number, task_id=f"t{number}") for number in range(count)])
    assert len(silent.pop(count=count)) == count
    beat(clock, other, 3 * LEASE)
    lost = [event.task_id for event in heard if isinstance(event, TaskLost)]
    assert sorted(lost) == sorted(f"t{number}" for number in range(count))
    assert [event.recovered for event in heard if isinstance(event, WorkerDead)] == [count]


def test_a_third_crash_alone_is_told_as_a_failure(make_queue: MakeQueue, clock: Clock) -> None:
    bus, heard = listener()
    heir = make_queue(clock=clock, events=bus)
    handle = heir.push(Task.create(payload=1, max_retries=0))
    for _ in range(4):
        assert make_queue(clock=clock).pop() is not None
        beat(clock, heir, 3 * LEASE)
    assert handle.state() is TaskState.FAILED
    assert [type(event) for event in heard if not isinstance(event, WorkerDead)] == [TaskLost] * 3 + [
        TaskFailed
    ]
    [failed] = [event for event in heard if isinstance(event, TaskFailed)]
    assert (failed.task_id, failed.attempt, failed.error_type) == (handle.task_id, 4, "lost")
    assert failed.reason == handle.task().reason


def test_what_goes_back_in_order_is_not_lost(make_queue: MakeQueue, clock: Clock) -> None:
    bus, heard = listener()
    one, other = make_queue(clock=clock), make_queue(clock=clock, events=bus)
    other.push(Task.create(payload=1))
    assert one.pop() is not None
    one.close()
    beat(clock, other)
    assert heard == []
    assert other.pop() is not None


def test_a_supervisor_tells_what_a_dead_process_held_and_what_had_begun(workshop: Workshop) -> None:
    heard = Heard()
    supervised = workshop.supervise(1, max_concurrent_tasks=1)
    supervised.supervisor.events.subscribe(Event, heard.events.append)
    [incarnation] = workshop.alive("supervised1")
    handle = workshop.push(worker_tasks.work(workshop.path, "w", 1))
    workshop.wait_for("begin", "w")
    os.kill(supervised.pid(), signal.SIGKILL)
    until(lambda: len(heard.events) == 2)
    lost, dead = heard.events
    assert isinstance(lost, TaskLost)
    assert isinstance(dead, WorkerDead)
    assert (lost.task_id, lost.function, lost.incarnation, lost.began) == (
        handle.task_id, worker_tasks.work.name, incarnation, True,
    )  # fmt: skip
    assert (dead.worker_id, dead.incarnation, dead.recovered) == ("supervised1", incarnation, 1)
    assert handle.result(10) == "w"


def test_a_worker_tells_of_another_that_was_killed(workshop: Workshop) -> None:
    heard = Heard()
    process = workshop.process(max_concurrent_tasks=1)
    [incarnation] = workshop.alive("process1")
    handle = workshop.push(worker_tasks.work(workshop.path, "w", 0.5))
    workshop.wait_for("begin", "w")
    worker = workshop.worker(events=heard.bus)
    process.kill_all()
    assert handle.result(15) == "w"
    [dead] = until(lambda: [event for event in tuple(heard.events) if isinstance(event, WorkerDead)])
    assert (dead.worker_id, dead.incarnation, dead.recovered) == ("process1", incarnation, 1)
    names = heard.names(handle.task_id)
    assert names.index("TaskLost") < names.index("TaskClaimed")
    workshop.queue.run(claims.leave(workshop.queue.engine, worker.incarnation, ()))  # nobody is told twice
    assert len([event for event in heard.events if isinstance(event, WorkerDead)]) == 1
