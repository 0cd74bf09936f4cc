"""What only processes can do: crash, be killed, be replaced, and leave with their worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairque.core.exceptions import ConfigError
from fairque.worker.executors import OutcomeKind, create_executor
from fairque.worker.executors.process import ProcessExecutor, ProcessSettings
from fairque.worker.runner import Runner
from tests.support import executor_tasks
from tests.support.executors import Bench, Recorder, error, gone, result, until

MODULES = (executor_tasks.__name__,)
Make = Callable[..., Bench]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a bench of a process executor, with these settings."""
    benches: list[Bench] = []

    def start(slots: int = 1, runner: Runner | None = None, **settings: object) -> Bench:
        runner = runner or Runner()
        chosen = ProcessSettings(init=runner.child_init(MODULES), **settings)  # type: ignore[arg-type]
        bench = Bench(ProcessExecutor(runner, slots, chosen))
        benches.append(bench)
        bench.executor.start(bench.recorder)
        return bench

    yield start
    for bench in benches:
        bench.executor.stop(0)


def pids(bench: Bench) -> tuple[int, ...]:
    assert isinstance(bench.executor, ProcessExecutor)
    return bench.executor.pids()


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [("exit_hard", (1,), "left with exit code 1"), ("kill_self", (), "was killed by SIGKILL (9)")],
)
@pytest.mark.parametrize("where", ["process", "alone"])
def test_a_crash_is_one_task_lost(
    where: str, name: str, args: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    executor = create_executor("process" if where == "process" else "thread", 2, Runner(), modules=MODULES)
    bench = Bench(executor)
    executor.start(bench.recorder)
    release = tmp_path / "release"
    neighbour = bench.begun(bench.task("wait_for", str(release)))
    bench.lone = where == "alone"
    task = bench.task(name, *args)
    outcome = bench.run(task)
    assert (outcome.kind, outcome.retry_delay, outcome.final) == (OutcomeKind.LOST, None, False)
    assert says in error(outcome).message
    assert outcome.duration > 0
    assert bench.events(task) == ["begin", "outcome"]
    assert result(bench.run(bench.task("add", 1, 2))) == 3
    release.touch()
    assert result(bench.outcome(neighbour)) == "released"
    assert executor.stop(10) == ()


def test_a_crash_is_heard_by_the_handler(make: Make, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    bench = make(runner=Runner(executor_tasks.Notes()))
    assert bench.run(bench.task("exit_hard", 3, labels={"notes": str(notes)})).kind is OutcomeKind.LOST
    until(lambda: notes.exists() and notes.read_text(), "the hook")
    assert notes.read_text() == "failure TaskProcessLostError True\n"


def test_a_task_in_a_system_call_is_killed_at_its_timeout(make: Make, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    bench = make(runner=Runner(executor_tasks.Notes()))
    (first,) = pids(bench)
    task = bench.task("sleep_long", timeout=0.2, labels={"notes": str(notes)})
    outcome = bench.run(task)
    assert outcome.kind is OutcomeKind.TIMED_OUT
    assert 0.2 <= outcome.duration < 1.2
    assert f"its process {first} was killed" in error(outcome).message
    assert outcome.retry_delay is not None
    assert bench.events(task) == ["begin", "timeout", "outcome"]
    assert gone(first)
    until(lambda: notes.exists() and notes.read_text(), "the hook")
    assert notes.read_text() == "timeout True\n"
    assert result(bench.run(bench.task("pid"))) != first


def test_a_task_that_holds_the_interpreter_is_killed_too(make: Make) -> None:
    bench = make()
    outcome = bench.run(bench.task("hold_interpreter", timeout=0.2))
    assert outcome.kind is OutcomeKind.TIMED_OUT
    assert outcome.duration < 1.2


def test_what_a_task_started_dies_with_it(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    bench = make()
    outcome = bench.run(bench.task("start_program", str(file), timeout=1.0))
    assert outcome.kind is OutcomeKind.TIMED_OUT
    program = int(file.read_text())
    until(lambda: gone(program), "the end of the program")


def test_a_task_that_ignores_its_cancellation_is_killed(make: Make, tmp_path: Path) -> None:
    bench = make(cancel_grace=0.1)
    task = bench.begun(bench.task("stubborn", str(tmp_path / "never")))
    assert bench.executor.cancel(task.task_id)
    outcome = bench.outcome(task)
    assert (outcome.kind, outcome.retry_delay) == (OutcomeKind.CANCELED, None)
    assert bench.events(task) == ["begin", "outcome"]


def test_cancelled_before_it_began(make: Make, tmp_path: Path) -> None:
    release = tmp_path / "release"
    bench = make()
    bench.begun(bench.task("wait_for", str(release)))
    waiting = bench.submit(bench.task("add", 1, 1))
    assert bench.executor.cancel(waiting.task_id)
    assert bench.outcome(waiting).kind is OutcomeKind.CANCELED
    assert bench.events(waiting) == ["outcome"]
    release.touch()


def test_children_are_replaced_after_so_many_tasks(make: Make) -> None:
    bench = make(max_tasks=3)
    seen = [result(bench.run(bench.task("pid"))) for _ in range(9)]
    assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [3, 3, 3]


def test_children_are_replaced_when_they_grow(make: Make) -> None:
    bench = make(max_memory_mb=300)
    seen = [result(bench.run(bench.task("eat", 180))) for _ in range(4)]
    assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [2, 2]


def test_hooks_run_in_each_process(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hooks"
    monkeypatch.setenv(executor_tasks.HOOK_FILE, str(file))
    bench = make(slots=2, max_tasks=1)
    ran = [result(bench.run(bench.task("pid"))) for _ in range(4)]
    bench.executor.stop(5)
    lines = file.read_text().splitlines()
    for pid in ran:
        assert lines.count(f"start {pid}") == lines.count(f"stop {pid}") == 1
    assert os.getpid() not in ran
    assert f"start {os.getpid()}" not in lines


def test_hooks_run_in_a_worker_with_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hooks"
    monkeypatch.setenv(executor_tasks.HOOK_FILE, str(file))
    executor = create_executor("thread", 1, Runner())
    executor.start(Recorder())
    executor.stop(1)
    executor.stop(1)
    assert file.read_text().splitlines() == [f"start {os.getpid()}", f"stop {os.getpid()}"]


def test_children_on_demand_leave_when_idle(make: Make) -> None:
    bench = make(slots=3, eager=False, idle=0.05)
    assert pids(bench) == ()
    first = result(bench.run(bench.task("pid")))
    until(lambda: not pids(bench), "the idle child leaving")
    assert result(bench.run(bench.task("pid"))) != first


def test_a_child_that_somebody_kills_is_replaced(make: Make) -> None:
    bench = make()
    (first,) = pids(bench)
    os.kill(first, signal.SIGKILL)
    until(lambda: pids(bench) not in ((), (first,)), "another child")
    assert result(bench.run(bench.task("add", 1, 2))) == 3


def test_children_leave_requests_to_stop_to_their_worker(make: Make, tmp_path: Path) -> None:
    release = tmp_path / "release"
    bench = make()
    task = bench.begun(bench.task("wait_for", str(release)))
    (pid,) = pids(bench)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    release.touch()
    assert result(bench.outcome(task)) == "released"


@pytest.mark.parametrize("task", ["wait_for_cancel", "hold_interpreter"])
def test_children_are_gone_when_their_worker_is(task: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = f"""
import sys, threading
from fairque.worker.executors.process import ProcessExecutor, ProcessSettings
from fairque.worker.runner import Runner
from tests.support import executor_tasks
from tests.support.executors import Bench
runner = Runner()
bench = Bench(ProcessExecutor(runner, 2, ProcessSettings(init=runner.child_init())))
bench.executor.start(bench.recorder)
for _ in range(2):
    bench.begun(bench.task("{task}"))
executor_tasks.note(sys.argv[1], " ".join(map(str, bench.executor.pids())))
threading.Event().wait()
"""
    worker = subprocess.Popen([sys.executable, "-c", program, str(said)])
    until(lambda: said.exists() and said.read_text().endswith("\n"), "the worker")
    children = [int(pid) for pid in said.read_text().split()]
    assert len(children) == 2
    worker.kill()
    killed = time.monotonic()
    until(lambda: all(gone(pid) for pid in children), "the children's end")
    assert time.monotonic() - killed < 1
    worker.wait()


def test_a_program_has_its_own_functions_in_its_children(tmp_path: Path) -> None:
    """Also when they stand in the script that was started, and the script lies anywhere."""
    script = tmp_path / "my_script.py"
    script.write_text(
        """
from fairque.core.decorator import task
from fairque.worker.executors import create_executor
from fairque.worker.runner import Runner
from tests.support.executors import Bench, result

@task
def double(number: int) -> int:
    return 2 * number

if __name__ == "__main__":
    bench = Bench(create_executor("process", 1, Runner()))
    bench.executor.start(bench.recorder)
    task = bench.claimed(double(21))
    print(task.function, result(bench.run(task)))
    bench.executor.stop(5)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("my_script:double 42\n", "")


def test_what_is_started_in_vain_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose children cannot start any more keeps no task from others."""
    module = tmp_path / "fragile_module.py"
    module.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    runner = Runner()
    settings = ProcessSettings(init=runner.child_init((*MODULES, "fragile_module")))
    bench = Bench(ProcessExecutor(runner, 1, settings))
    bench.executor.start(bench.recorder)
    module.write_text("raise ImportError('broken by a deployment')")
    assert bench.run(bench.task("exit_hard", 1)).kind is OutcomeKind.LOST
    assert bench.run(bench.task("add", 1, 2)).kind is OutcomeKind.RETURNED
    module.write_text("")
    assert result(bench.run(bench.task("add", 1, 2))) == 3
    bench.executor.stop(5)


def test_a_handler_that_no_child_could_make_is_refused() -> None:
    class Needy(executor_tasks.Notes):
        def __init__(self, pool: object) -> None: ...

    Needy.__qualname__ = "Needy"
    with pytest.raises(ConfigError, match="needs pool"):
        create_executor("process", 1, Runner(Needy(None)))
