"""`current_task()` inside and outside a task."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from fairque.core.context import TaskContext, current_task, running
from fairque.core.exceptions import InvalidTaskError, NotInTaskError
from fairque.core.models import Task

TASK = Task._restore(task_id="t", user_id="alice", attempt=2)


def test_outside_a_task_it_says_so() -> None:
    with pytest.raises(NotInTaskError, match="inside a running task"):
        current_task()


def test_inside_a_task_it_is_that_task() -> None:
    with running(TaskContext(TASK)):
        context = current_task()
        assert (context.task_id, context.user_id, context.attempt) == ("t", "alice", 2)
        assert not context.cancelled
        context.progress(1, 2)  # where nobody listens, it does nothing
    with pytest.raises(NotInTaskError):
        current_task()


def test_progress_and_cancellation_go_through_the_callbacks() -> None:
    reports: list[tuple[float, float | None, str]] = []
    context = TaskContext(TASK, lambda *report: reports.append(report), lambda: bool(reports))

    assert not context.cancelled
    context.progress(1, 10, "reading")
    context.progress(2)

    assert reports == [(1, 10, "reading"), (2, None, "")]
    assert context.cancelled
    for wrong in (-1, float("nan")):
        with pytest.raises(InvalidTaskError, match="done"):
            context.progress(wrong)


def test_each_thread_has_its_own() -> None:
    with running(TaskContext(TASK)), ThreadPoolExecutor(1) as pool, pytest.raises(NotInTaskError):
        pool.submit(current_task).result()


async def test_each_coroutine_has_its_own() -> None:
    both_run = asyncio.Barrier(2)

    async def run(task_id: str) -> str:
        with running(TaskContext(Task._restore(task_id=task_id))):
            await both_run.wait()
            return current_task().task_id

    assert await asyncio.gather(run("a"), run("b")) == ["a", "b"]
