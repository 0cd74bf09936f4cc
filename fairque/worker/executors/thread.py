"""Tasks in threads: the default.

Threads are made when they are needed and are daemons, so leaving is never blocked by one that does not
return. There can be more of them than slots, because a handler's hooks run after the outcome was told, when
the slot is free already: the next task must not wait behind a slow hook.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from fairque.core.models import Task
from fairque.worker.executors.interrupt import interruption
from fairque.worker.executors.ledger import Execution
from fairque.worker.executors.parts import LedgerExecutor, TaskRunner
from fairque.worker.executors.watchdog import Watchdog


class ThreadExecutor(LedgerExecutor):
    """Runs each task in one of its threads."""

    name = "thread"

    def __init__(self, runner: TaskRunner, slots: int) -> None:
        super().__init__(runner, slots)
        self._watchdog = Watchdog(self._ledger.expire)
        self._ledger.expect = self._watchdog.expect
        self._queue: SimpleQueue[Execution | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._waiting = 0
        self._threads = 0
        self._limit = 2 * slots

    def submit(self, task: Task[Any]) -> None:
        execution = self._ledger.open(task)
        if execution is None:
            return
        with self._lock:
            self._waiting += 1
            grow = self._waiting > self._idle and self._threads < self._limit
            if grow:
                self._threads += 1
                self._idle += 1
        self._queue.put(execution)
        if grow:
            threading.Thread(target=self._work, name="fairque-task", daemon=True).start()

    def _work(self) -> None:
        interrupt = interruption()
        while (execution := self._queue.get()) is not None:
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
            self._run(execution, interrupt)

    def _run(self, execution: Execution, interrupt: Callable[[bool], None]) -> None:
        if not self._ledger.take(execution):
            self._rest()
            return
        execution.interrupt = interrupt
        outcome = self._runner.run(execution)
        hooks = self._runner.has_hooks(outcome)
        if not hooks:
            # Before the outcome is told: whoever hears it may submit at once, and shall find this thread.
            self._rest()
        self._ledger.settle(execution, outcome)
        if hooks:
            self._runner.after(execution, outcome)
            self._rest()

    def _rest(self) -> None:
        with self._lock:
            self._idle += 1

    def leave(self) -> None:
        self._watchdog.stop()
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)
