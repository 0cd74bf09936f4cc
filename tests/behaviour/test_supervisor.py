"""Worker processes under a supervisor: what it restarts, replaces, kills, and gives back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairque.core.exceptions import TaskFailedError
from fairque.core.states import TaskState
from fairque.worker.supervisor import Supervisor
from tests.support import executor_tasks, worker_tasks
from tests.support.servers import ServerProcess
from tests.support.workers import LEASE, Supervised, Workshop, child_pids, probe, until


def test_processes_share_the_load_and_leave_together(workshop: Workshop) -> None:
    supervised = workshop.supervise(2, max_concurrent_tasks=2)
    pids = set(supervised.supervisor.pids())
    until(supervised.supervisor.is_ready)
    handles = workshop.push_all(worker_tasks.work(workshop.path, f"w{n}", 0.05) for n in range(40))
    for handle in handles:
        handle.result(20)
    assert workshop.ledger.count("begin") == {f"w{n}": 1 for n in range(40)}
    ran = workshop.ledger.pids()
    assert set(ran) == pids
    assert min(ran.values()) >= 10
    assert supervised.stop() < 2
    assert supervised.code == 0
    assert workshop.stats().workers == ()
    workshop.assert_settled()


def test_a_killed_process_is_replaced_and_its_tasks_are_queued_again_at_once(workshop: Workshop) -> None:
    """Only what had begun counts as crashed; what was claimed and had not begun lost nothing."""
    supervised = workshop.supervise(max_concurrent_tasks=2)
    running = workshop.push_all(worker_tasks.work(workshop.path, f"r{n}", 1) for n in range(2))
    for n in range(2):
        workshop.wait_for("begin", f"r{n}")
    pid = supervised.pid()
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: workshop.stats().counters.get("lost", 0) == 2, 2)
    assert time.monotonic() - killed < 1.5
    for handle in running:
        task = handle.task()
        assert task is not None
        assert (task.lone, task.crashes, task.retries) == (True, 0, 0)
        assert handle.result(20)
    assert workshop.ledger.count("begin") == {"r0": 2, "r1": 2}
    assert supervised.supervisor.restarts == 1
    assert [error.type for error in workshop.queue.get_errors(running[0].task_id)] == ["WorkerLost"]
    workshop.assert_settled()


def test_a_process_that_has_run_its_number_of_tasks_is_replaced(workshop: Workshop) -> None:
    supervised = workshop.supervise(max_concurrent_tasks=2, max_tasks_per_process=30)
    first = supervised.pid()
    handles = workshop.push_all(worker_tasks.work(workshop.path, f"w{n}", 0.02) for n in range(100))
    for handle in handles:
        handle.result(30)
    assert workshop.ledger.count("begin") == {f"w{n}": 1 for n in range(100)}
    assert len(workshop.ledger.pids()) >= 2
    until(lambda: first not in supervised.supervisor.pids())
    assert workshop.stats().counters.get("lost", 0) == 0
    workshop.assert_settled()


def test_a_process_that_holds_too_much_memory_is_replaced(workshop: Workshop) -> None:
    supervised = workshop.supervise(max_concurrent_tasks=1, max_memory_mb=150)
    first = supervised.pid()
    workshop.push(worker_tasks.hoard(workshop.path, "h", 150)).result(10)
    until(lambda: first not in supervised.supervisor.pids())
    assert workshop.push(executor_tasks.pid()).result(20) != first
    assert workshop.stats().counters.get("lost", 0) == 0
    workshop.assert_settled()


def test_a_task_that_holds_the_interpreter_for_longer_than_the_lease_keeps_it(workshop: Workshop) -> None:
    supervised = workshop.supervise()
    handle = workshop.push(worker_tasks.hold(workshop.path, "hold", round(2 * LEASE)))
    while handle.state() is not TaskState.FINISHED:
        # Every claim looks for dead workers.
        assert workshop.queue.pop(users=["nobody"]) is None
        assert supervised.supervisor.is_healthy()
        time.sleep(0.1)
    assert workshop.ledger.count("begin")["hold"] == 1
    assert workshop.stats().counters.get("workers_dead", 0) == 0


def test_a_process_stalled_past_its_limit_is_killed(workshop: Workshop) -> None:
    supervised = workshop.supervise(stall_limit_seconds=1.5)
    first = supervised.pid()
    bystander = workshop.push(worker_tasks.work(workshop.path, "bystander", 0.5))
    workshop.wait_for("begin", "bystander")
    begun = time.monotonic()
    workshop.push(worker_tasks.hold(workshop.path, "hold", 3600))
    until(lambda: first not in supervised.supervisor.pids(), 5)
    assert 1.4 < time.monotonic() - begun < 4
    assert bystander.result(20)
    workshop.wait_for("begin", "hold", 2)


def test_a_thread_stuck_past_its_timeout_has_its_process_replaced(workshop: Workshop) -> None:
    """It cannot be interrupted in a system call. The others of its process run on meanwhile."""
    supervised = workshop.supervise(max_concurrent_tasks=2)
    first = supervised.pid()
    stuck = worker_tasks.nap.with_options(timeout=0.5, max_retries=0)(workshop.path, "stuck", 3600)
    begun = time.monotonic()
    handle = workshop.push(stuck)
    other = workshop.push(worker_tasks.work(workshop.path, "other", 3))
    with pytest.raises(TaskFailedError, match="TaskTimeoutError"):
        handle.result(20)
    until(lambda: (pids := supervised.supervisor.pids()) and first not in pids, 10)
    assert time.monotonic() - begun < 0.5 + 2 + 2
    assert workshop.push(executor_tasks.pid()).result(20) not in (first, os.getpid())
    assert other.result(20) == "other"
    assert workshop.ledger.count("begin") == {"stuck": 1, "other": 1}
    workshop.assert_settled()


def test_stopping_is_not_held_up_by_a_stuck_thread(workshop: Workshop) -> None:
    supervised = workshop.supervise(shutdown_timeout_seconds=1)
    stuck = workshop.push(worker_tasks.nap(workshop.path, "stuck", 3600))
    workshop.wait_for("begin", "stuck")
    busy = workshop.push(worker_tasks.hold(workshop.path, "hold", 3600))
    workshop.wait_for("begin", "hold")
    assert supervised.stop() < 1 + 1 + 0.5
    for handle in (stuck, busy):  # given back, and none of them blamed
        task = handle.task()
        assert task is not None
        assert (task.state, task.attempt, task.retries, task.lone) == (TaskState.QUEUED, 0, 0, False)
    workshop.queue.cancel(stuck.task_id)
    workshop.queue.cancel(busy.task_id)
    workshop.assert_settled()


def test_a_second_stop_gives_everything_back_at_once(workshop: Workshop) -> None:
    supervised = workshop.supervise(shutdown_timeout_seconds=60)
    handle = workshop.push(worker_tasks.nap(workshop.path, "nap", 3600))
    workshop.wait_for("begin", "nap")
    supervised.supervisor.stop()
    time.sleep(0.5)  # it must not have left by then
    assert supervised.thread.is_alive()
    assert supervised.stop() < 2
    task = handle.task()
    assert task is not None
    assert (task.state, task.attempt, task.lone) == (TaskState.QUEUED, 0, False)
    handle.cancel()


def test_a_stop_reaches_a_process_that_is_just_starting(workshop: Workshop) -> None:
    supervised = workshop.supervise(shutdown_timeout_seconds=60)
    os.kill(supervised.pid(), signal.SIGKILL)
    until(lambda: supervised.supervisor.restarts == 1)
    assert supervised.stop() < 5


def test_stopping_without_a_server_takes_no_longer(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server(append_only=True)
    workshop = Workshop(server, tmp_path)
    try:
        supervised = workshop.supervise(shutdown_timeout_seconds=1)
        handle = workshop.push(worker_tasks.nap(workshop.path, "nap", 3600))
        workshop.wait_for("begin", "nap")
        server.kill()
        assert supervised.stop() < 1 + 1 + 0.5
        server.start()
        # Whoever comes next gives back what the lease held, and nobody is blamed but by the lease's end.
        workshop.worker()
        workshop.wait_for("begin", "nap", 2)
        handle.cancel()
    finally:
        workshop.close()


def test_children_leave_when_the_supervisor_is_gone(workshop: Workshop) -> None:
    process = workshop.process(1, shutdown_timeout_seconds=5)
    [child] = child_pids(process.pid)
    handle = workshop.push(worker_tasks.work(workshop.path, "w", 1))
    workshop.wait_for("begin", "w")
    process.kill()
    assert handle.result(10) == "w"  # it was let end
    until(lambda: not Path(f"/proc/{child}").exists() or b"Z" in Path(f"/proc/{child}/stat").read_bytes())
    assert workshop.stats().workers == ()
    assert workshop.ledger.count("begin") == {"w": 1}
    workshop.assert_settled()


def test_a_supervisor_that_cannot_start_workers_says_so(workshop: Workshop) -> None:
    supervised = Supervised(Supervisor(workshop.config(), modules=["no_such_module"]))
    supervised.thread.join(20)
    assert supervised.code == 1


def test_health_is_the_supervisors_to_tell(workshop: Workshop) -> None:
    supervised = workshop.supervise(health_port=0)
    until(supervised.supervisor.is_ready)
    assert supervised.supervisor._health is not None
    port = supervised.supervisor._health.port
    assert (probe(port, "/healthz"), probe(port, "/readyz")) == (200, 200)
    os.kill(supervised.pid(), signal.SIGSTOP)
    until(lambda: probe(port, "/healthz") == 503, 2 * LEASE)
    os.kill(supervised.pid(), signal.SIGCONT)
    until(lambda: probe(port, "/healthz") == 200)
