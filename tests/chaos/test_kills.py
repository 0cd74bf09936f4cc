"""Processes that are killed, or told to leave, at any moment: nothing is lost, and nobody innocent is blamed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from fairque.core.exceptions import TaskFailedError
from fairque.core.states import TaskState
from tests.support import nest, worker_tasks
from tests.support.worker_process import ROOT
from tests.support.workers import LEASE, MODULES, Workshop, child_pids, until

MINUTES = float(os.environ.get("FAIRQUE_CHAOS_MINUTES", "0"))
LIVES = 60
SLOTS = 4


@pytest.mark.timeout(120 + 120 * MINUTES)
def test_workers_killed_at_random_points_lose_nothing(make_workshop: Callable[..., Workshop]) -> None:
    """In the midst of claims, runs and settles; only what a dead worker held runs again."""
    workshop = make_workshop(lease_seconds=10)
    held_file = workshop.directory / "held"
    held_file.touch()
    count = round(1500 + 20_000 * MINUTES)
    seed = random.randrange(1 << 30)
    order = {
        "config": workshop.order(max_concurrent_tasks=SLOTS),
        "modules": list(MODULES),
        "seed": seed,
        "lives": LIVES,
        "seconds": 60 * MINUTES,
        "longest": 0.12,
        "held": str(held_file),
    }
    chance = random.Random(seed)
    handles = workshop.push_all(
        worker_tasks.work(workshop.path, f"k{n}", chance.choice((0, 0, 0.001, 0.02))) for n in range(count)
    )
    killer = subprocess.Popen([sys.executable, "-m", nest.__name__, json.dumps(order)], cwd=ROOT)
    try:
        assert killer.wait(90 + 90 * MINUTES) == 0
    finally:
        killer.kill()
        killer.wait()
    workshop.worker()
    workshop.wait_until_done(count)
    *lives, last = held_file.read_text().split("\n")[:-1]
    assert last == nest.DONE
    assert len(lives) >= LIVES
    held = Counter(task_id for life in lives for task_id in life.split())
    begun, ended = workshop.ledger.count("begin"), workshop.ledger.count("end")
    for number, handle in enumerate(handles):
        key = f"k{number}"
        assert ended[key] >= 1, (key, seed)
        assert begun[key] <= 1 + held[handle.task_id], (key, seed)
    assert held.total() > LIVES / 2, "they were killed when idle"
    assert sum(begun.values()) > count, "nothing ran twice: were they killed in time?"
    user = workshop.queue.get_user_stats("default")
    assert (user.finished, user.failed, user.running) == (count, 0, 0)
    workshop.assert_settled()


def test_a_supervisor_gives_back_what_each_killed_process_held(workshop: Workshop) -> None:
    supervised = workshop.supervise(2, max_concurrent_tasks=SLOTS)
    handles = workshop.push_all(worker_tasks.work(workshop.path, f"s{n}", 0.05) for n in range(300))
    chance = random.Random()
    for _ in range(4):
        until(lambda: len(supervised.supervisor.pids()) == 2)
        time.sleep(chance.uniform(0.1, 0.5))
        os.kill(chance.choice(supervised.supervisor.pids()), signal.SIGKILL)
        until(lambda: len(supervised.supervisor.pids()) < 2 or workshop.count(TaskState.QUEUED) == 0)
    workshop.wait_until_done(300)
    begun = workshop.ledger.count("begin")
    assert sum(begun.values()) - 300 <= 4 * SLOTS
    for handle in handles:
        task = handle.task()
        assert task is not None
        assert (task.retries, task.crashes) == (0, 0)
    assert workshop.stats().counters.get("workers_dead", 0) <= 4
    workshop.assert_settled()


def test_a_whole_group_that_is_killed_is_noticed_within_one_and_a_half_leases(workshop: Workshop) -> None:
    group = workshop.process(2, max_concurrent_tasks=2)
    handles = workshop.push_all(worker_tasks.work(workshop.path, f"g{n}", 1) for n in range(4))
    for n in range(4):
        workshop.wait_for("begin", f"g{n}")
    workshop.worker(max_concurrent_tasks=1)
    group.kill_all()
    killed = time.monotonic()
    until(lambda: workshop.stats().counters.get("lost", 0) == 4, 3 * LEASE)
    assert time.monotonic() - killed <= 1.5 * LEASE + 0.3
    workshop.wait_until_done(4)
    for handle in handles:
        assert handle.state() is TaskState.FINISHED
    assert max(workshop.ledger.count("begin").values()) == 2
    workshop.assert_settled()


@pytest.mark.parametrize("processes", [0, 1], ids=["alone", "supervised"])
def test_a_worker_told_to_leave_gives_back_at_once_what_it_has_not_begun(
    make_workshop: Callable[..., Workshop], processes: int
) -> None:
    grace = 1.5
    workshop = make_workshop(prefetch_milliseconds=1000)
    process = workshop.process(processes, max_concurrent_tasks=SLOTS, shutdown_timeout_seconds=grace)
    for handle in workshop.push_all(worker_tasks.quick(number) for number in range(50)):
        handle.result(10)  # now it knows that tasks are short, and prefetches
    workshop.queue.pause()
    short = workshop.push(worker_tasks.work(workshop.path, "short", 0.7))
    long = workshop.push_all(worker_tasks.nap(workshop.path, f"long{n}", 3600) for n in range(SLOTS - 1))
    waiting = workshop.push_all(worker_tasks.work(workshop.path, f"w{n}") for n in range(200))
    workshop.queue.resume()
    until(lambda: workshop.count(TaskState.STARTED) >= 100)
    for n in range(SLOTS - 1):
        workshop.wait_for("begin", f"long{n}")
    told = time.monotonic()
    process.signal(signal.SIGTERM)
    until(lambda: workshop.count(TaskState.STARTED) <= SLOTS)
    assert time.monotonic() - told <= 1
    assert process.wait() == 0
    assert grace - 0.1 <= time.monotonic() - told <= grace + 1
    assert short.state() is TaskState.FINISHED
    for handle in (*long, *waiting):
        task = handle.task()
        assert task is not None
        assert (task.state, task.attempt, task.retries, task.crashes, task.lone) == (
            TaskState.QUEUED, 0, 0, 0, False,
        )  # fmt: skip
    assert workshop.ledger.count("begin") == {"short": 1} | {f"long{n}": 1 for n in range(SLOTS - 1)}
    workshop.queue.delete_task(long[0].task_id)
    for handle in long[1:]:
        handle.cancel()
    workshop.worker()
    workshop.wait_until_done(50 + 1 + 200)
    workshop.assert_settled()


def test_a_task_that_kills_its_worker_is_a_dead_letter_after_three_crashes_alone(workshop: Workshop) -> None:
    seconds, slots, count = 0.1, 2 * SLOTS, 240
    supervised = workshop.supervise(2, max_concurrent_tasks=SLOTS)
    until(supervised.supervisor.is_ready)
    begun = time.monotonic()
    others = workshop.push_all(worker_tasks.work(workshop.path, f"o{n}", seconds) for n in range(count // 2))
    killer = workshop.push(worker_tasks.die.with_options(user_id="killer")(workshop.path, "killer"))
    others += workshop.push_all(worker_tasks.work(workshop.path, f"p{n}", seconds) for n in range(count // 2))
    with pytest.raises(TaskFailedError, match="three times"):
        killer.result(60)
    until(lambda: workshop.queue.get_user_stats("default").finished == count)
    took, ideal = time.monotonic() - begun, count * seconds / slots
    print(f"{count} tasks beside the killer: {took:.1f} s, {ideal:.1f} s if undisturbed")
    assert took <= ideal / 0.8 + 4  # the killed process starts once more, and so do those that run alone
    assert workshop.ledger.count("begin")["killer"] == 4
    [letter] = workshop.queue.dlq.list().items
    assert (letter.task.crashes, letter.task.retries) == (3, 0)
    assert letter.reason == "killed its process three times while running alone"
    assert len(letter.errors) == 4
    blamed = 0
    for handle in others:
        task = handle.task()
        assert task is not None
        assert (task.state, task.crashes, task.retries) == (TaskState.FINISHED, 0, 0)
        blamed += task.lone
    assert blamed < SLOTS  # those that ran beside it ran once more, alone; prefetched ones never
    assert supervised.supervisor.restarts == 1
    workshop.assert_settled()


def test_a_task_cancelled_while_all_workers_are_down_never_runs(
    make_workshop: Callable[..., Workshop],
) -> None:
    workshop = make_workshop(lease_seconds=1)
    process = workshop.process(max_concurrent_tasks=1)
    running = workshop.push(worker_tasks.nap(workshop.path, "running", 3600))
    workshop.wait_for("begin", "running")
    queued = workshop.push(worker_tasks.work(workshop.path, "queued"))
    later = workshop.push(worker_tasks.work.with_options(delay=0.5)(workshop.path, "later"))
    assert not child_pids(process.pid)
    process.kill()
    for handle in (running, queued, later):
        assert handle.cancel()
    assert queued.state() is later.state() is TaskState.CANCELED
    workshop.worker()
    until(lambda: running.state() is TaskState.CANCELED)
    assert workshop.push(worker_tasks.work(workshop.path, "after", 0.5)).result(10) == "after"
    assert workshop.ledger.count("begin") == {"running": 1, "after": 1}
    workshop.assert_settled()
