"""Events reach those who observe them, and observers can do no harm."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime

import pytest

from fairque.core.events import (
    Event,
    EventBus,
    TaskEvent,
    TaskFinished,
    TaskPushed,
    WorkerStarted,
)
from fairque.core.exceptions import ConfigError

AT = datetime(2030, 1, 1, tzinfo=UTC)
PUSHED = TaskPushed(task_id="t", user_id="alice", at=AT, priority=3)
FINISHED = TaskFinished(task_id="t", user_id="alice", at=AT, attempt=1, duration=0.5)
WORKER = WorkerStarted(worker_id="w", incarnation="i", at=AT)


def test_an_observer_gets_its_kind_and_no_other() -> None:
    bus = EventBus()
    seen: list[Event] = []
    bus.subscribe(TaskPushed, seen.append)

    for event in (PUSHED, FINISHED, WORKER):
        bus.emit(event)

    assert seen == [PUSHED]


def test_a_base_stands_for_all_below_it() -> None:
    bus = EventBus()
    tasks: list[Event] = []
    everything: list[Event] = []
    bus.subscribe(TaskEvent, tasks.append)
    bus.subscribe(Event, everything.append)

    for event in (PUSHED, FINISHED, WORKER):
        bus.emit(event)

    assert tasks == [PUSHED, FINISHED]
    assert everything == [PUSHED, FINISHED, WORKER]


def test_unsubscribe_ends_it_and_may_be_called_again() -> None:
    bus = EventBus()
    seen: list[Event] = []
    unsubscribe = bus.subscribe(TaskPushed, seen.append)

    unsubscribe()
    unsubscribe()
    bus.emit(PUSHED)

    assert seen == []
    assert not bus.wants(TaskPushed)


def test_a_failing_observer_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise ZeroDivisionError

    bus.subscribe(TaskPushed, broken)
    bus.subscribe(TaskPushed, seen.append)
    with caplog.at_level(logging.ERROR):
        bus.emit(PUSHED)

    assert seen == [PUSHED]
    assert "observer of TaskPushed failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_observer_may_unsubscribe_while_it_is_told() -> None:
    bus = EventBus()
    seen: list[str] = []

    def once(_: Event) -> None:
        seen.append("once")
        unsubscribe()

    unsubscribe = bus.subscribe(TaskPushed, once)
    bus.subscribe(TaskPushed, lambda _: seen.append("always"))
    bus.emit(PUSHED)
    bus.emit(PUSHED)

    assert seen == ["once", "always", "always"]


def test_wants_tells_whether_an_event_need_be_made() -> None:
    bus = EventBus()
    assert not bus.wants(TaskPushed)

    bus.subscribe(TaskEvent, print)

    assert bus.wants(TaskPushed)
    assert not bus.wants(WorkerStarted)


def test_what_cannot_work_is_refused_at_once() -> None:
    async def later(_: Event) -> None: ...

    with pytest.raises(ConfigError, match="async"):
        EventBus().subscribe(TaskPushed, later)
    with pytest.raises(ConfigError, match="type of event"):
        EventBus().subscribe("TaskPushed", print)  # type: ignore[arg-type]


def test_events_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PUSHED.user_id = "bob"  # type: ignore[misc]
