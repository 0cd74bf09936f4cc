"""Tasks in threads: the default.

Threads are made when they are needed and are daemons, so leaving is never blocked by one that does not
return. There can be more of them than slots, because a handler's hooks run after the outcome was told, when
the slot is free already: the next task must not wait behind a slow hook.

A thread that has told an outcome takes what is submitted meanwhile itself, so busy threads change hands with nobody. Of
those that are idle, one at a time is called: on its way it calls the next one if more waits. Tasks that are over before
a second thread could begin, of which there may be thousands, so wake one thread and not ten, while tasks that block
have their threads in well under a millisecond. (Go's scheduler does the same: one "spinning" thread at a time.)
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from fairque.core.models import Task
from fairque.worker.executors.interrupt import interruption
from fairque.worker.executors.ledger import Execution
from fairque.worker.executors.parts import LedgerExecutor, TaskRunner
from fairque.worker.executors.watchdog import Watchdog

_log = logging.getLogger(__name__)


class _Here(threading.local):
    """What a thread knows of itself: that it has no task, and which one it is to take."""

    free = False
    following: Execution | None = None


class ThreadExecutor(LedgerExecutor):
    """Runs each task in one of its threads."""

    name = "thread"

    def __init__(self, runner: TaskRunner, slots: int) -> None:
        super().__init__(runner, slots)
        self._watchdog = Watchdog(self._ledger.expire)
        self._ledger.expect = self._watchdog.expect
        self._here = _Here()
        self._lock = threading.Lock()
        self._waiting: deque[Execution] = deque()
        # Of threads that wait; each is held until its thread is called. The last that came is called first.
        self._idle: list[threading.Lock] = []
        self._coming = False  # a thread was called and has not looked yet
        self._threads = 0
        self._limit = 2 * slots
        self._left = False

    def submit(self, task: Task[Any]) -> None:
        execution = self._ledger.open(task)
        if execution is None:
            return
        here = self._here
        if here.free and here.following is None:
            here.following = execution
            return
        with self._lock:
            self._waiting.append(execution)
            call = self._whom_to_call()
        call()

    def _whom_to_call(self) -> Callable[[], object]:
        """What calls another thread if tasks wait and nobody is on the way; to be called without the lock."""
        if not self._waiting or self._coming:
            return _nobody
        if self._idle:
            self._coming = True
            return self._idle.pop().release
        if self._threads < self._limit:
            self._coming = True
            self._threads += 1
            return self._start_thread
        return _nobody  # whoever ends its task next takes it

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="fairque-task", daemon=True).start()
        except RuntimeError:  # the system has no thread left to give
            with self._lock:
                self._coming = False
                self._threads -= 1
                alone = not self._threads
            if alone:
                raise
            _log.warning("no further thread can be started: %d run all tasks", self._threads)

    def _work(self) -> None:
        interrupt = interruption()
        seat = threading.Lock()
        seat.acquire()
        execution = self._wait(seat, called=True)
        while execution is not None:
            execution = self._run(execution, interrupt) or self._wait(seat, called=False)

    def _wait(self, seat: threading.Lock, *, called: bool) -> Execution | None:
        """The next task that waits, as soon as there is one; None: the executor has left."""
        while True:
            with self._lock:
                if called:
                    self._coming = False
                execution = self._waiting.popleft() if self._waiting else None
                call = self._whom_to_call()
                if execution is None and not self._left:
                    self._idle.append(seat)
                    call = seat.acquire
            call()
            if execution is not None or self._left:
                return execution
            called = True

    def _run(self, execution: Execution, interrupt: Callable[[bool], None]) -> Execution | None:
        """Run a task; the one that this thread shall take next, if it was told of one."""
        if not self._ledger.take(execution):
            return None
        execution.interrupt = interrupt
        outcome = self._runner.run(execution)
        if self._runner.has_hooks(outcome):
            self._ledger.settle(execution, outcome)
            self._runner.after(execution, outcome)
            return None
        here = self._here
        here.free = True
        self._ledger.settle(execution, outcome)
        here.free = False
        following, here.following = here.following, None
        return following

    def leave(self) -> None:
        self._watchdog.stop()
        with self._lock:
            self._left = True
            idle, self._idle = self._idle, []
        for seat in idle:
            seat.release()


def _nobody() -> None:
    """Nobody needs to be called."""
