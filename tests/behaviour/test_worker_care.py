"""What a worker takes care of beside its tasks: long ones, what has expired, who is woken, what operators said."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fairque.core.config import FairQueueConfig
from fairque.core.models import UserPolicy
from fairque.core.retry import fixed
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.workers import Workshop, until


def test_a_long_task_without_a_timeout_is_not_taken_for_stalled(workshop: Workshop) -> None:
    """Past `stall_limit_seconds` a process is killed only if the task keeps everything else in it from running."""
    supervised = workshop.supervise(stall_limit_seconds=1)
    pid = supervised.pid()
    handle = workshop.push(worker_tasks.pause(4))
    assert handle.result(20) == 4
    assert supervised.pid() == pid
    task = handle.task()
    assert task is not None
    assert task.attempt == 1


def test_a_program_that_a_task_starts_finds_its_standard_input_empty(workshop: Workshop) -> None:
    workshop.supervise()
    assert workshop.push(worker_tasks.read_stdin()).result(20) == ""


def test_what_has_expired_leaves_the_registries_while_a_worker_serves(
    make_workshop: Callable[..., Workshop],
) -> None:
    workshop = make_workshop(result_ttl_seconds=0.3)
    workshop.worker()
    handles = workshop.push_all(worker_tasks.quick(n) for n in range(50))
    canceled = workshop.push(worker_tasks.quick.with_options(delay=60)(1))
    canceled.cancel()
    assert len(handles) == 50
    until(lambda: workshop.stats().counters.get("finished", 0) == 50)
    until(lambda: workshop.count(TaskState.FINISHED) == workshop.count(TaskState.CANCELED) == 0, 15)


def test_a_pop_that_got_something_does_not_stay_parked(workshop: Workshop) -> None:
    """It would take the next wake-up from an idle worker."""
    workshop.push(worker_tasks.quick(1))
    got = workshop.queue.pop(2, wait=1)
    assert len(got) == 1
    assert workshop.stats().numbers["idle_workers"] == 0
    workshop.queue.finish(got[0])


def test_a_due_time_that_a_settle_brings_wakes_who_is_idle(make_workshop: Callable[..., Workshop]) -> None:
    """Whoever settles does not wait for it, so another one must: long before it would look by itself."""
    workshop = make_workshop(lease_seconds=60)
    handle = workshop.push(worker_tasks.quick.with_options(retry=fixed(0.5))(1))
    claimed = workshop.queue.pop()
    assert claimed is not None
    with TaskQueue(workshop.config()) as idle, ThreadPoolExecutor(1) as pool:
        again = pool.submit(lambda: idle.pop(wait=20))
        until(lambda: workshop.stats().numbers["idle_workers"] == 1)
        begun = time.monotonic()
        workshop.queue.fail(claimed, ValueError("again"))
        task = again.result(20)
        assert time.monotonic() - begun < 2
        assert task is not None
        assert task.task_id == handle.task_id
        idle.finish(task)


def test_a_pause_outlives_the_start_of_a_worker_whose_file_has_a_policy(workshop: Workshop) -> None:
    order = workshop.order()
    order["users"] = {"acme": {"weight": 2}}
    workshop.queue.pause_user("acme")
    worker = Worker(FairQueueConfig.from_dict(order))
    worker.start()
    try:
        assert workshop.queue.get_user_policy("acme") == UserPolicy(weight=2, paused=True)
    finally:
        worker.stop(0)
    workshop.queue.set_user_policy("acme", None)


def test_pausing_a_user_keeps_the_rest_of_its_policy_and_leaves_nothing_behind(workshop: Workshop) -> None:
    queue = workshop.queue
    queue.set_user_policy("a", UserPolicy(weight=3, max_concurrency=2))
    queue.pause_user("a")
    assert queue.get_user_policy("a") == UserPolicy(weight=3, max_concurrency=2, paused=True)
    queue.resume_user("a")
    assert queue.get_user_policy("a") == UserPolicy(weight=3, max_concurrency=2)
    queue.pause_user("b")
    queue.resume_user("b")
    assert queue.get_user_policy("b") is None
