"""One suite for all executors: whatever runs a task, the worker hears the same.

The kinds: each executor by itself, and those that `create_executor` makes for a worker, with plain functions,
`async def`s, and tasks that must be alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fairque.core.exceptions import ConfigError
from fairque.core.models import Task
from fairque.worker.executors import Executor, OutcomeKind, create_executor
from fairque.worker.executors.asyncio import AsyncioExecutor
from fairque.worker.executors.composite import CompositeExecutor
from fairque.worker.executors.process import ProcessExecutor, ProcessSettings
from fairque.worker.executors.thread import ThreadExecutor
from fairque.worker.runner import Runner
from tests.support import executor_tasks
from tests.support.executors import Bench, Recorder, error, result, until

SLOTS = 2
MODULES = (executor_tasks.__name__,)
KINDS = ["thread", "asyncio", "process", "process-async", "worker", "worker-async", "worker-alone"]
PROCESSES = ("process", "process-async", "worker-alone")
THREADS = ("thread", "worker")


def make_bench(kind: str, runner: Runner, slots: int = SLOTS) -> Bench:
    executor: Executor
    if kind == "thread":
        executor = ThreadExecutor(runner, slots)
    elif kind == "asyncio":
        executor = AsyncioExecutor(runner, slots)
    else:
        base = "process" if kind.startswith("process") else "thread"
        executor = create_executor(cast(Any, base), slots, runner, modules=MODULES)
    bench = Bench(executor, is_async=kind.endswith(("asyncio", "-async")), lone=kind.endswith("-alone"))
    executor.start(bench.recorder)
    return bench


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture(scope="module")
def bench(kind: str) -> Iterator[Bench]:
    """An executor for all tests that leave it in order."""
    bench = make_bench(kind, Runner(max_result_bytes=10_000))
    yield bench
    assert bench.executor.stop(10) == ()


@pytest.fixture
def own_bench(kind: str) -> Iterator[Bench]:
    """An executor for one test, which may stop it."""
    bench = make_bench(kind, Runner())
    yield bench
    bench.executor.stop(0)


def test_a_result(bench: Bench) -> None:
    task = bench.task("add", 1, 2)
    outcome = bench.run(task)
    assert outcome.task == task
    assert (outcome.kind, result(outcome), outcome.error) == (OutcomeKind.DONE, 3, None)
    assert 0 < outcome.duration < 5
    assert bench.events(task) == ["begin", "outcome"]


def test_an_exception_is_a_failure_with_its_traceback(bench: Bench) -> None:
    task = bench.task("fail", "no luck")
    outcome = bench.run(task)
    assert (outcome.kind, outcome.retry_delay, outcome.final) == (OutcomeKind.FAILED, 3, False)
    failure = error(outcome)
    assert failure.type == "tests.support.executor_tasks.BrokenError"
    assert (failure.message, failure.attempt) == ("no luck", 1)
    assert "in _explode" in failure.traceback
    assert "fairque/worker" not in failure.traceback
    assert bench.events(task) == ["begin", "outcome"]


def test_the_retry_policy_can_give_up(bench: Bench) -> None:
    outcome = bench.run(bench.task("give_up"))
    assert (outcome.kind, outcome.retry_delay, outcome.final) == (OutcomeKind.FAILED, None, False)


def test_a_task_decides_itself(bench: Bench) -> None:
    retry = bench.run(bench.task("throw", "retry_after"))
    assert (retry.kind, retry.retry_delay) == (OutcomeKind.RETRY_AFTER, 7.5)
    assert error(retry).message == "rate limited"
    snooze = bench.run(bench.task("throw", "snooze"))
    assert (snooze.kind, snooze.retry_delay, snooze.error) == (OutcomeKind.SNOOZED, 2.5, None)
    discard = bench.run(bench.task("throw", "discard"))
    assert (discard.kind, discard.reason, discard.retry_delay) == (OutcomeKind.DISCARDED, "stale", None)


@pytest.mark.parametrize("what", ["exit", "interrupt", "cancelled", "generator_exit"])
def test_no_exception_ends_the_worker(bench: Bench, what: str) -> None:
    for _ in range(SLOTS + 1):
        assert bench.run(bench.task("throw", what)).kind is OutcomeKind.FAILED
    assert bench.run(bench.task("add", 1, 1)).kind is OutcomeKind.DONE


def test_what_this_worker_lacks_is_left_for_others(bench: Bench) -> None:
    unknown = bench.claimed(Task(function="nowhere:nothing"))
    outcome = bench.run(unknown)
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert "nowhere:nothing" in outcome.reason
    payload = bench.payload({"a": 1})
    outcome = bench.run(payload)
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert "TaskHandler" in outcome.reason
    assert bench.events(unknown) == bench.events(payload) == ["outcome"]


@pytest.mark.parametrize("args", [("one", 2), (1,), (1, 2, 3)])
def test_arguments_that_do_not_fit_never_run(bench: Bench, args: tuple[Any, ...]) -> None:
    function = executor_tasks.add_async if bench.is_async else executor_tasks.add
    task = bench.claimed(Task(function=function.name, args=args))
    outcome = bench.run(task)
    assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, True, None)
    assert outcome.duration == 0
    assert "add" in error(outcome).message
    assert bench.events(task) == ["outcome"]


def test_a_result_that_cannot_be_stored(bench: Bench) -> None:
    outcome = bench.run(bench.task("unserialisable"))
    assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, True, None)
    assert "unserialisable" in error(outcome).message
    assert outcome.duration > 0
    outcome = bench.run(bench.task("large", 20_000))
    assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, True, None)
    assert "10000" in error(outcome).message


def test_a_task_knows_itself_and_reports(bench: Bench) -> None:
    task = bench.task("context", user_id="alice")
    outcome = bench.run(task)
    assert result(outcome)[:4] == [task.task_id, "alice", 1, False]
    assert bench.events(task) == ["begin", "progress", "outcome"]
    assert bench.recorder.wait("progress", task) == (1, 2, "half")


def test_timeout(bench: Bench, tmp_path: Path) -> None:
    for _ in range(SLOTS):
        task = bench.task("wait_for", str(tmp_path / "never"), timeout=0.1)
        outcome = bench.run(task)
        assert outcome.kind is OutcomeKind.TIMED_OUT
        assert outcome.retry_delay is not None
        assert 0.5 <= outcome.retry_delay <= 1
        assert 0.09 <= outcome.duration < 1.2
        failure = error(outcome)
        assert failure.type == "fairque.core.exceptions.TaskTimeoutError"
        assert "0.1 s" in failure.message
        assert "in wait_for" in failure.traceback
        assert bench.events(task) == ["begin", "timeout", "outcome"]
    assert bench.run(bench.task("add", 1, 1)).kind is OutcomeKind.DONE


def test_a_timeout_that_is_not_reached_changes_nothing(bench: Bench) -> None:
    for _ in range(20):
        assert result(bench.run(bench.task("add", 1, 2, timeout=5))) == 3


def test_a_stubborn_task_keeps_its_slot_or_is_killed(kind: str, bench: Bench, tmp_path: Path) -> None:
    release = tmp_path / "release"
    task = bench.begun(bench.task("stubborn", str(release), timeout=0.1))
    bench.recorder.wait("timeout", task)
    if kind in PROCESSES:
        outcome = bench.outcome(task)
        assert 0.09 <= outcome.duration < 1.2
    else:
        until(bench.executor.stuck, "a stuck task")
        (stuck,) = bench.executor.stuck()
        assert stuck.task == task
        assert stuck.overdue > 0
        assert stuck.cancelled
        assert bench.events(task) == ["begin", "timeout"]
        release.touch()
        outcome = bench.outcome(task)
    assert outcome.kind is OutcomeKind.TIMED_OUT
    assert bench.executor.stuck() == ()
    assert bench.events(task) == ["begin", "timeout", "outcome"]


def test_a_coroutine_that_blocks_its_loop_is_noticed(kind: str, bench: Bench, tmp_path: Path) -> None:
    if kind not in ("asyncio", "worker-async"):
        pytest.skip("elsewhere it blocks nobody else")
    release = tmp_path / "release"
    task = bench.begun(bench.task("block_loop", str(release), timeout=0.05))
    bench.recorder.wait("timeout", task)
    until(bench.executor.stuck, "a stuck task")
    release.touch()
    assert bench.outcome(task).kind is OutcomeKind.TIMED_OUT


def test_cancel_is_seen_by_the_task(bench: Bench) -> None:
    task = bench.begun(bench.task("wait_for_cancel"))
    assert not bench.executor.cancel("another")
    assert not bench.executor.cancel(task.task_id, b"another claim")
    assert bench.executor.cancel(task.task_id, b"token")
    outcome = bench.outcome(task)
    assert (outcome.kind, result(outcome)) == (OutcomeKind.DONE, "saw it")
    assert not bench.executor.cancel(task.task_id)


def test_cancel_ends_an_async_task(bench: Bench, tmp_path: Path) -> None:
    if not bench.is_async:
        pytest.skip("only a coroutine can be cancelled without its consent")
    task = bench.begun(bench.task("wait_for", str(tmp_path / "never")))
    assert bench.executor.cancel(task.task_id)
    outcome = bench.outcome(task)
    assert (outcome.kind, outcome.retry_delay) == (OutcomeKind.CANCELED, None)


def test_slots_run_at_the_same_time(bench: Bench, tmp_path: Path) -> None:
    release = tmp_path / "release"
    tasks = [bench.begun(bench.task("wait_for", str(release), timeout=60)) for _ in range(SLOTS)]
    running = bench.executor.running()
    assert {view.task.task_id for view in running} == {task.task_id for task in tasks}
    for view in running:
        assert view.began is not None
        assert view.deadline == pytest.approx(view.began + 60, abs=0.1)
        assert (view.overdue, view.cancelled) == (0, False)
    release.touch()
    assert [result(bench.outcome(task)) for task in tasks] == ["released"] * SLOTS
    assert bench.executor.running() == ()


def test_each_submit_is_answered_once(bench: Bench) -> None:
    tasks: list[Task[Any]] = []
    for number in range(100):
        calls: list[tuple[str, tuple[Any, ...]]] = [("add", (number, 1)), ("fail", ("no",)), ("context", ())]
        name, args = calls[number % 3]
        tasks.append(bench.task(name, *args))
    free = threading.Semaphore(SLOTS)
    bench.recorder.also = lambda outcome: free.release()
    for task in tasks:
        assert free.acquire(timeout=20)
        bench.executor.submit(task)
    for task in tasks:
        bench.outcome(task)
    bench.recorder.also = None
    for task in tasks:
        names = [name for name in bench.events(task) if name != "progress"]
        assert names == ["begin", "outcome"]
    assert bench.executor.running() == ()


def test_stop_waits_for_what_runs(own_bench: Bench, tmp_path: Path) -> None:
    release = tmp_path / "release"
    task = own_bench.begun(own_bench.task("wait_for", str(release)))
    answers: list[tuple[Task[Any], ...]] = []
    stopper = threading.Thread(target=lambda: answers.append(own_bench.executor.stop(30)))
    stopper.start()
    until(lambda: own_bench.run(own_bench.task("add", 1, 1)).kind is OutcomeKind.RETURNED, "the drain")
    release.touch()
    stopper.join(20)
    assert answers == [()]
    assert own_bench.outcome(task).kind is OutcomeKind.DONE


def test_stop_gives_back_what_does_not_end(own_bench: Bench, tmp_path: Path) -> None:
    release = tmp_path / "release"
    stuck = own_bench.begun(own_bench.task("stubborn", str(release)))
    answers: list[tuple[Task[Any], ...]] = []
    stopper = threading.Thread(target=lambda: answers.append(own_bench.executor.stop(60)))
    stopper.start()
    own_bench.executor.drain()
    assert own_bench.executor.stop(0.05) == (stuck,)  # the second call shortens the first
    stopper.join(20)
    assert answers == [(stuck,)]
    release.touch()
    assert own_bench.events(stuck) == ["begin"]  # nobody hears of it any more
    late = own_bench.task("add", 1, 1)
    assert own_bench.run(late).kind is OutcomeKind.RETURNED
    assert own_bench.events(late) == ["outcome"]
    assert own_bench.executor.running() == ()


def test_drain_returns_what_has_not_begun(kind: str, tmp_path: Path) -> None:
    bench = make_bench(kind, Runner(), slots=1)
    release = tmp_path / "release"
    # More than there are slots, which no worker submits, so that something waits.
    tasks = [bench.begun(bench.task("wait_for", str(release)))]
    if kind in THREADS:
        tasks.append(bench.begun(bench.task("wait_for", str(release))))
    waiting = bench.submit(bench.task("add", 1, 1)) if kind in (*THREADS, *PROCESSES) else None
    bench.executor.drain()
    if waiting is not None:
        assert bench.outcome(waiting).kind is OutcomeKind.RETURNED
        assert bench.events(waiting) == ["outcome"]
    release.touch()
    assert bench.executor.stop(20) == ()
    assert [bench.outcome(task).kind for task in tasks] == [OutcomeKind.DONE] * len(tasks)


@pytest.fixture(scope="module")
def handler_bench(kind: str) -> Iterator[Bench]:
    is_async = kind.endswith(("asyncio", "-async"))
    bench = make_bench(kind, Runner(executor_tasks.AsyncNotes() if is_async else executor_tasks.Notes()))
    yield bench
    bench.executor.stop(10)


def heard(path: Path) -> list[str]:
    until(lambda: path.exists() and path.read_text().endswith("\n"), "a hook")
    return path.read_text().splitlines()


def test_handler_runs_payloads(handler_bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    task = handler_bench.payload({"a": [1, 2]}, labels={"notes": str(notes)})
    outcome = handler_bench.run(task)
    assert outcome.kind is OutcomeKind.DONE
    assert result(outcome)["seen"] == {"a": [1, 2]}
    assert heard(notes) == ["success True"]


def test_handler_hears_failures(handler_bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    outcome = handler_bench.run(handler_bench.payload({"fail": True}, labels={"notes": str(notes)}))
    assert outcome.kind is OutcomeKind.FAILED
    assert error(outcome).message == "payload"
    assert heard(notes) == ["failure BrokenError True"]


def test_handler_hears_of_functions(handler_bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert (
        handler_bench.run(handler_bench.task("fail", "x", labels={"notes": str(notes)})).kind
        is OutcomeKind.FAILED
    )
    assert heard(notes) == ["failure BrokenError True"]


def test_handler_hears_timeouts(handler_bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    task = handler_bench.task("wait_for", str(tmp_path / "never"), timeout=0.05, labels={"notes": str(notes)})
    assert handler_bench.run(task).kind is OutcomeKind.TIMED_OUT
    assert heard(notes) == ["timeout True"]


def test_hooks_do_not_take_a_slot_for_ever(handler_bench: Bench, tmp_path: Path) -> None:
    for number in range(3 * SLOTS):
        notes = tmp_path / f"notes{number}"
        assert (
            handler_bench.run(handler_bench.task("add", 1, 1, labels={"notes": str(notes)})).kind
            is OutcomeKind.DONE
        )
    assert heard(tmp_path / "notes0") == ["success True"]


def test_a_worker_sends_each_task_where_it_belongs() -> None:
    bench = make_bench("worker", Runner())
    plain = result(bench.run(bench.claimed(executor_tasks.pid())))
    coroutine = result(bench.run(bench.claimed(executor_tasks.pid_async())))
    bench.lone = True
    alone = result(bench.run(bench.claimed(executor_tasks.pid())))
    assert plain == coroutine == os.getpid() != alone
    bench.executor.stop(5)


def test_a_worker_does_not_run_a_lone_task_that_it_cannot_isolate() -> None:
    class Local(executor_tasks.Notes):
        """Not at the top of a module."""

    with pytest.raises(ConfigError, match="Local must be a class at the top"):
        create_executor("process", 1, Runner(Local()))
    bench = make_bench("worker-alone", Runner(Local()))
    outcome = bench.run(bench.task("add", 1, 1))
    assert (outcome.kind, outcome.final) == (OutcomeKind.FAILED, True)
    assert "Local" in error(outcome).message
    bench.executor.stop(5)


def test_processes_that_cannot_start_say_why() -> None:
    executor = create_executor("process", 1, Runner(), modules=("no_such_module",))
    with pytest.raises(ConfigError, match="no_such_module"):
        executor.start(Recorder())


def test_executors_need_a_slot() -> None:
    for make in (ThreadExecutor, AsyncioExecutor):
        with pytest.raises(ValueError, match="at least one slot"):
            make(Runner(), 0)
    assert isinstance(create_executor("thread", 1, Runner()), CompositeExecutor)
    assert isinstance(ProcessExecutor(Runner(), 1, ProcessSettings()), ProcessExecutor)
