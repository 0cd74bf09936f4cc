"""How many tasks a worker claims, and where they wait."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fairque.core.config import WorkerConfig
from fairque.core.events import EventBus
from fairque.core.models import Claim, Task
from fairque.worker.executors import Outcome, OutcomeKind, RunningTask
from fairque.worker.slots import MAX_PREFETCH, MEASURED, OVERHEAD_SECONDS, Slots

SLOTS = 4


class Takes:
    """An executor that only notes what it gets."""

    name = "takes"
    slots = SLOTS

    def __init__(self) -> None:
        self.got: list[Task[Any]] = []

    def submit(self, task: Task[Any]) -> None:
        self.got.append(task)

    def drain(self) -> None: ...
    def start(self, listener: object) -> None: ...

    def stop(self, timeout: float) -> tuple[Task[Any], ...]:
        return ()

    def cancel(self, task_id: str, token: bytes | None = None) -> bool:
        return False

    def running(self) -> tuple[RunningTask, ...]:
        return ()

    def stuck(self) -> tuple[RunningTask, ...]:
        return ()


@pytest.fixture
def executor() -> Takes:
    return Takes()


@pytest.fixture
def slots(executor: Takes) -> Slots:
    return Slots(executor, WorkerConfig(max_concurrent_tasks=SLOTS), EventBus(), None)


def claimed(count: int, first: int = 0) -> list[Task[Any]]:
    return [
        Task._restore(task_id=f"t{number}", claim=Claim(number.to_bytes(16), "i"))
        for number in range(first, first + count)
    ]


def done(task: Task[Any], seconds: float = 1e-6) -> Outcome:
    return Outcome(task=task, kind=OutcomeKind.DONE, duration=seconds)


def measure(slots: Slots, seconds: float, count: int = MEASURED) -> None:
    """So many tasks have taken so long."""
    for task in claimed(count, 1000):
        slots.start([task])
        slots.on_outcome(done(task, seconds))
    slots.collect()


def test_nothing_is_prefetched_before_tasks_were_measured(slots: Slots) -> None:
    assert slots.allowance(5) == 0
    measure(slots, 0.001, MEASURED - 1)
    assert slots.allowance(5) == 0
    assert slots.want(0) == SLOTS


@pytest.mark.parametrize(
    ("run_time", "prefetch", "allowed"),
    [
        (1e-6, 0.005, round(0.005 / OVERHEAD_SECONDS)),  # claiming and settling take longer than the function
        (0.001, 0.005, 5 * SLOTS),  # each slot ends five in that time
        (0.004, 0.005, 5),
        (0.006, 0.005, 0),  # none ends one
        (0.001, 0, 0),
        (1e-6, 10, MAX_PREFETCH),
    ],
)
def test_what_is_prefetched_would_begin_within_the_time(
    slots: Slots, run_time: float, prefetch: float, allowed: int
) -> None:
    measure(slots, run_time)
    assert slots.allowance(prefetch) == pytest.approx(allowed, abs=1)


def test_run_times_that_change_are_learned(slots: Slots) -> None:
    measure(slots, 1e-6, 100)
    measure(slots, 0.1, 100)
    assert slots.allowance(0.005) == 0
    measure(slots, 0, 100)  # what never began says nothing
    assert slots.allowance(0.005) == 0


def test_one_call_claims_half_of_a_large_window_and_all_of_a_small_one(slots: Slots) -> None:
    assert slots.want(5) == 2 * SLOTS
    assert slots.want(2) == SLOTS + 2
    assert slots.want(200) == 102
    slots.start(claimed(102))
    assert slots.want(200) == 102
    slots.start(claimed(102, 200))
    assert slots.want(200) == 0
    assert slots.want(100) == 0  # the window has shrunk since


def test_a_call_is_made_for_a_free_slot_or_for_many_tasks(slots: Slots) -> None:
    assert slots.worth_a_call(1, 200)
    slots.start(claimed(SLOTS))
    assert not slots.worth_a_call(0, 200)
    assert not slots.worth_a_call(99, 200)
    assert slots.worth_a_call(100, 200)


def test_a_slot_takes_the_next_at_once(slots: Slots, executor: Takes) -> None:
    tasks = claimed(SLOTS + 2)
    slots.start(tasks)
    assert executor.got == tasks[:SLOTS]
    assert slots.room() == -2
    slots.on_outcome(done(tasks[0]))
    assert executor.got == tasks[: SLOTS + 1]
    assert slots.drain() == tasks[SLOTS + 1 :]
    slots.on_outcome(done(tasks[1]))
    assert executor.got == tasks[: SLOTS + 1]
    assert slots.room() == 1
    assert [outcome.task for outcome in slots.collect()] == tasks[:2]
    for task in tasks[2 : SLOTS + 1]:
        assert not slots.idle
        slots.on_outcome(done(task))
    slots.collect()
    assert slots.idle


def test_the_loop_is_called_when_half_is_over_or_a_slot_is_free(slots: Slots) -> None:
    tasks = claimed(SLOTS + 10)
    slots.start(tasks)
    assert not slots.wait(0)
    slots.on_outcome(done(tasks[0]))
    assert slots.wait(0)  # the first outcome; it lingers, and nothing else comes
    for task in tasks[1:4]:
        slots.on_outcome(done(task))
    assert not slots.wait(0)
    slots.on_outcome(done(tasks[4]))
    assert slots.wait(0)
    slots.collect()
    assert not slots.wait(0)


def test_an_outcome_that_comes_while_the_loop_is_called_already_is_not_lost(slots: Slots) -> None:
    tasks = claimed(SLOTS)
    slots.start(tasks)
    ended = threading.Barrier(SLOTS)

    def end(task: Task[Any]) -> None:
        ended.wait()
        slots.on_outcome(done(task))

    threads = [threading.Thread(target=end, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    found: list[Task[Any]] = []
    while len(found) < SLOTS:
        assert slots.wait(10)
        found += [outcome.task for outcome in slots.collect()]
    for thread in threads:
        thread.join()
    assert {task.task_id for task in found} == {task.task_id for task in tasks}
