"""Which thread runs what: tasks that block have one each, tasks that do not need only one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.registry import Registry
from fairque.worker.executors import Outcome
from fairque.worker.executors.asyncio import AsyncioExecutor
from fairque.worker.executors.base import OutcomeKind
from fairque.worker.executors.thread import ThreadExecutor
from fairque.worker.handler import TaskHandler
from fairque.worker.runner import Runner
from tests.support.executors import Bench, result, until

SLOTS = 8
registry = Registry()
meeting = threading.Barrier(SLOTS)
go_on = threading.Event()


@task(registry=registry)
def meet() -> int:
    """Ends when there are as many as there are slots."""
    return meeting.wait(10)


@task(registry=registry)
def where() -> int:
    return threading.get_ident()


@task(registry=registry)
async def where_async() -> int:
    return threading.get_ident()


class SlowHooks(TaskHandler):
    """Hooks that end when they are told to."""

    def on_task_success(self, task: Task[Any], duration: float) -> None:
        go_on.wait(10)


def make(kind: Any, handler: TaskHandler | None = None) -> Bench:
    bench = Bench(kind(Runner(handler, registry=registry), SLOTS))
    bench.executor.start(bench.recorder)
    return bench


@pytest.fixture(params=[ThreadExecutor, AsyncioExecutor])
def any_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = make(request.param)
    yield bench
    assert bench.executor.stop(10) == ()


def chain(bench: Bench, function: Any, length: int) -> list[int]:
    """Each task's outcome submits the next, as a worker does; in which threads they ran."""
    tasks = [bench.claimed(function()) for _ in range(length)]
    following = iter(tasks[1:])

    def submit_next(_outcome: Outcome) -> None:
        if (next_task := next(following, None)) is not None:
            bench.executor.submit(next_task)

    bench.recorder.also = submit_next
    bench.executor.submit(tasks[0])
    ran = [result(bench.outcome(each)) for each in tasks]
    bench.recorder.also = None
    return ran


def test_tasks_that_block_have_a_thread_each() -> None:
    bench = make(ThreadExecutor)
    for _ in range(3):  # with threads that have to be made, and with those that wait
        tasks = [bench.submit(bench.claimed(meet())) for _ in range(SLOTS)]
        assert sorted(result(bench.outcome(each)) for each in tasks) == list(range(SLOTS))
    assert bench.executor.stop(10) == ()


def test_what_an_outcome_brings_runs_where_it_was_told(any_bench: Bench) -> None:
    function = where_async if isinstance(any_bench.executor, AsyncioExecutor) else where
    assert len(set(chain(any_bench, function, 300))) == 1


def test_what_an_outcome_brings_does_not_wait_for_hooks() -> None:
    bench = make(ThreadExecutor, SlowHooks())
    go_on.clear()
    ran = chain(bench, where, 2)
    assert len(set(ran)) == 2
    go_on.set()
    assert bench.executor.stop(10) == ()


def test_two_that_an_outcome_brings_both_run() -> None:
    bench = make(ThreadExecutor)
    first, *others = (bench.claimed(where()) for _ in range(5))

    def submit_all(_outcome: Outcome) -> None:
        bench.recorder.also = None
        for other in others:
            bench.executor.submit(other)

    bench.recorder.also = submit_all
    bench.executor.submit(first)
    for each in (first, *others):
        assert bench.outcome(each).kind is OutcomeKind.DONE
    assert bench.executor.stop(10) == ()


def test_what_an_outcome_brings_after_a_drain_comes_back(any_bench: Bench) -> None:
    """The thread has been given it but has not begun when the drain comes."""
    function = where_async if isinstance(any_bench.executor, AsyncioExecutor) else where
    first, second = (any_bench.claimed(function()) for _ in range(2))

    def submit_and_drain(_outcome: Outcome) -> None:
        any_bench.recorder.also = None
        any_bench.executor.submit(second)
        any_bench.executor.drain()

    any_bench.recorder.also = submit_and_drain
    any_bench.executor.submit(first)
    assert any_bench.outcome(first).kind is OutcomeKind.DONE
    assert any_bench.outcome(second).kind is OutcomeKind.RETURNED


def test_threads_leave_with_their_executor() -> None:
    bench = make(ThreadExecutor)
    before = threading.active_count()
    tasks = [bench.submit(bench.claimed(meet())) for _ in range(SLOTS)]
    for each in tasks:
        bench.outcome(each)
    assert bench.executor.stop(10) == ()
    until(lambda: threading.active_count() <= before, "the end of the threads")


def test_a_system_without_threads_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(ThreadExecutor)
    assert isinstance(result(bench.run(bench.claimed(where()))), int)
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("fairque-task"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    tasks = [bench.submit(bench.claimed(where())) for _ in range(20)]
    assert len({result(bench.outcome(each)) for each in tasks}) == 1
    with pytest.raises(RuntimeError, match="can't start"):
        make(ThreadExecutor).submit(bench.claimed(where()))
    assert bench.executor.stop(10) == ()
