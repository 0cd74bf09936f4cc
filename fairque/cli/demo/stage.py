"""One run of the load on a worker process under a supervisor: fair, or as one FIFO."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from fairque.cli.demo import tasks
from fairque.cli.demo.load import SMALL_AFTER_SECONDS, Plan
from fairque.cli.demo.tally import Tally
from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import QueueUnavailableError
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from fairque.worker.supervisor import Supervisor

TICK_SECONDS = 0.2
READY_SECONDS = 30.0
STUCK_SECONDS = 30.0
"""Without any news for so long, a run is given up."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker process that was killed. Times are seconds; `at` is after the start of the run."""

    pid: int
    at: float
    held: int
    given_back_after: float
    running_again_after: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown. `lost`: tasks without an outcome; `doubled`: outcomes recorded beyond one a task."""

    tally: Tally
    seconds: float
    complete: bool
    lost: int
    doubled: int
    failed: int
    kill: Kill | None = None


class Stage:
    """Runs `plan` under `config`. `on_tick` is called several times a second, `on_event` with what happens."""

    def __init__(
        self,
        config: FairQueueConfig,
        plan: Plan,
        *,
        as_fifo: bool,
        on_tick: Callable[[Tally, float], None],
        on_event: Callable[[str], None],
    ) -> None:
        self._config, self._plan, self._as_fifo = config, plan, as_fifo
        self._tick, self._tell = on_tick, on_event
        self._begun = 0.0

    def run(self, *, kill: bool, deadline: float) -> Outcome:
        """Push the load and follow it: to its end, or as FIFO until the small tenants' tasks have ended.

        With `kill`, the worker process is killed half-way. The run ends at `deadline` (monotonic) at the latest.

        Raises:
            QueueUnavailableError: the worker did not get ready.
        """
        with TaskQueue(self._config) as queue, _supervised(self._config, self._tell) as supervisor:
            self._wait_until_ready(queue, supervisor)
            tally = Tally(queue, [(tenant.name, tenant.is_whale) for tenant in self._plan.tenants])
            self._begun, tally.begun_at = time.monotonic(), time.time()
            user = "everybody" if self._as_fifo else None
            self._push(queue, tally, self._plan.flood(user))
            killed = self._follow(queue, tally, user, kill, deadline)
            took = time.monotonic() - self._begun
            return self._judge(queue, tally, took, killed)

    def _wait_until_ready(self, queue: TaskQueue, supervisor: _Running) -> None:
        until = time.monotonic() + READY_SECONDS
        while not queue.get_stats().workers:
            if time.monotonic() > until or not supervisor.is_alive:
                raise QueueUnavailableError(
                    f"the demo's worker process did not get ready{supervisor.excuse()}"
                )
            time.sleep(0.02)

    def _push(self, queue: TaskQueue, tally: Tally, batch: Iterator[Task[Any]]) -> None:
        for outcome in queue.push_batch(batch):
            tally.add(outcome.unwrap().task_id, outcome.task.labels["tenant"])

    def _follow(
        self, queue: TaskQueue, tally: Tally, user: str | None, kill: bool, deadline: float
    ) -> Kill | None:
        killed: Kill | None = None
        trickled = False
        news, done = time.monotonic(), 0
        while True:
            passed = time.monotonic() - self._begun
            if not trickled and passed >= SMALL_AFTER_SECONDS:
                self._push(queue, tally, self._plan.trickle(user))
                trickled = True
                self._tell(f"{len(self._plan.small)} small tenants push their tasks")
            tally.look()
            self._tick(tally, passed)
            if kill and killed is None and trickled and tally.done >= self._plan.total / 2 and tally.pid:
                killed = self._kill(tally)
            if trickled and (tally.done == self._plan.total or (self._as_fifo and tally.small_done)):
                return killed
            now = time.monotonic()
            if tally.done > done:
                news, done = now, tally.done
            if now > deadline or now - news > STUCK_SECONDS:
                return killed
            time.sleep(
                TICK_SECONDS if trickled else min(TICK_SECONDS, max(0.0, SMALL_AFTER_SECONDS - passed))
            )

    def _kill(self, tally: Tally) -> Kill:
        """Kill the process that runs the tasks, and see how soon they are queued again and run."""
        victim = tally.pid
        held = {(task.task_id, task.claim) for task in tally.running()}
        self._tell(f"SIGKILL to the worker process {victim}, which holds {len(held)} tasks")
        at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        given_back = again = 0.0
        while time.monotonic() - at < STUCK_SECONDS:
            if not given_back and not held & {(task.task_id, task.claim) for task in tally.running()}:
                given_back = time.monotonic() - at
                self._tell(f"the supervisor has given its tasks back after {given_back:.2f} s")
            tally.look()
            self._tick(tally, time.monotonic() - self._begun)
            if given_back and tally.pid != victim:
                again = time.monotonic() - at
                self._tell(f"the next worker process, {tally.pid}, serves after {again:.2f} s")
                break
            time.sleep(0.01 if not given_back else TICK_SECONDS / 2)
        return Kill(victim, at - self._begun, len(held), given_back, again)

    def _judge(self, queue: TaskQueue, tally: Tally, took: float, killed: Kill | None) -> Outcome:
        """Every pushed task must have one outcome: once in the registries, and once in the server's counters."""
        complete = tally.done == self._plan.total
        tally.bound()
        counters = queue.get_stats().counters
        recorded = sum(counters.get(state.value, 0) for state in (TaskState.FINISHED, TaskState.FAILED))
        failed = sum(state is not TaskState.FINISHED for state in tally.ended.values())
        return Outcome(
            tally=tally,
            seconds=took,
            complete=complete,
            lost=len(tally.pushed) - tally.done,
            doubled=max(0, recorded - tally.done) if complete else 0,
            failed=failed,
            kill=killed,
        )


class _Running:
    """A supervisor in a thread of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fairque-demo-supervisor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._supervisor.run(handle_signals=False)
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the worker
            self._error = error

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def excuse(self) -> str:
        """Why it has ended, if it has."""
        return "" if self._error is None else f": {self._error}"

    def stop(self) -> None:
        self._supervisor.stop()
        self._supervisor.stop()  # the second gives back at once what runs
        self._thread.join(20)


@contextlib.contextmanager
def _supervised(config: FairQueueConfig, tell: Callable[[str], None]) -> Generator[_Running]:
    """A supervisor with one worker process, for the length of a ``with`` block. What it logs is told."""
    with _heard(tell):
        running = _Running(
            Supervisor(
                config,
                modules=[tasks.__name__],
                processes=1,
                path=[path for path in sys.path if path],
                log_level=logging.CRITICAL,
            )
        )
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def _heard(tell: Callable[[str], None]) -> Generator[None]:
    """What `fairque` logs as an error within a ``with`` block is told, and not printed."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(f"supervisor: {record.getMessage()}")

    logger = logging.getLogger("fairque")
    handler = Teller(level=logging.ERROR)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
