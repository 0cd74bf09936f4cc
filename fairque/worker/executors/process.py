"""Tasks in child processes: they can be killed, and they do not share an interpreter lock.

One thread does everything: it spawns the children, gives them tasks, hears them, and kills the ones that are
past their timeout, ignore a cancel, or do not leave. A child runs one task at a time.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from fairque.core.exceptions import ConfigError, InvalidTaskError, TaskTimeoutError
from fairque.core.models import Task
from fairque.worker.executors.base import (
    Listener,
    Outcome,
    OutcomeKind,
    TaskKilledError,
    TaskProcessLostError,
)
from fairque.worker.executors.child import Child, describe_exit
from fairque.worker.executors.ledger import Execution
from fairque.worker.executors.parts import LedgerExecutor, TaskRunner
from fairque.worker.executors.wire import Message, pack_task

_log = logging.getLogger(__name__)

_LONGEST_SLEEP = 3600.0
_POLL_SECONDS = 0.1  # how often to look for exits where the kernel does not tell


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """How children are made and when they are replaced. Times in seconds, memory in megabytes.

    `init` is what a child builds its runner from (process_child.py). With `eager`, there are always as many
    children as slots; otherwise they are made when tasks come and leave after `idle` seconds without one. A
    task has `timeout_grace` from its deadline, when it is interrupted in its process, until the process is
    killed.
    """

    init: dict[str, object] = field(default_factory=dict)
    eager: bool = True
    max_tasks: int | None = None
    max_memory_mb: float | None = None
    timeout_grace: float = 0.5
    cancel_grace: float = 5.0
    hook_limit: float = 30.0
    start_limit: float = 60.0
    exit_grace: float = 5.0
    stop_grace: float = 0.75
    idle: float = 60.0


class ProcessExecutor(LedgerExecutor):
    """Runs each task in one of its child processes."""

    name = "process"

    def __init__(self, runner: TaskRunner, slots: int, settings: ProcessSettings) -> None:
        super().__init__(runner, slots)
        self._settings = settings
        self._pending: deque[Execution] = deque()
        self._children: list[Child] = []
        self._started = threading.Event()
        self._sift_wanted = False
        self._answers: deque[tuple[Child, Execution, tuple[object, ...]]] = deque()
        self._draining = False
        self._leaving = False
        self._failures = 0  # starts that failed in a row
        self._complaint = ""
        self._spawn_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        super().start(listener)
        self._selector = selectors.DefaultSelector()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        # It lives as long as any child: a child is killed when the thread that spawned it ends.
        self._thread = threading.Thread(target=self._run, name="fairque-processes", daemon=True)
        self._thread.start()
        if not self._settings.eager:
            return
        self._started.wait()
        if self._complaint:
            self.stop(0)
            raise ConfigError(f"the worker's processes cannot start: {self._complaint}")

    def submit(self, task: Task[Any]) -> None:
        execution = self._ledger.open(task)
        if execution is not None:
            self._pending.append(execution)
            self._ring()

    def cancel(self, task_id: str, token: bytes | None = None) -> bool:
        found = super().cancel(task_id, token)
        self._sift_wanted = True
        self._ring()
        return found

    def drain(self) -> None:
        super().drain()
        self._draining = self._sift_wanted = True
        self._ring()

    def leave(self) -> None:
        thread = self._thread
        if thread is None:
            return
        self._leaving = True
        self._ring()
        if thread is not threading.current_thread():
            thread.join()

    def pids(self) -> tuple[int, ...]:
        """The processes that there are now."""
        return tuple(child.pid for child in tuple(self._children))

    def _ring(self) -> None:
        if self._thread is not None:
            try:
                self._bell.send(b"x")
            except OSError:
                pass  # it has rung already, or the thread is gone

    # the thread

    def _run(self) -> None:
        patience: float | None = 0.0
        while self._children or not self._leaving:
            try:
                self._hear(patience)
                patience = self._serve(time.monotonic())
            except Exception:  # noqa: BLE001 - without this thread no task would run, and children would be killed
                _log.exception("the thread that serves the worker's processes failed; it goes on")
                patience = 1.0
        self._selector.close()
        self._ear.close()
        self._bell.close()

    def _hear(self, patience: float | None) -> None:
        for key, events in self._selector.select(patience):
            child: Child | None = key.data
            if child is None:
                self._ear.recv(4096)
            elif key.fileobj is child.connection and events & selectors.EVENT_READ:
                self._hear_child(child)

    def _hear_child(self, child: Child) -> None:
        for message in child.receive():
            self._understand(child, message)

    def _serve(self, now: float) -> float | None:
        """Do what is due; answers how many seconds to sleep unless something happens (None: for ever)."""
        for child in tuple(self._children):
            self._attend(child, now)
        if self._sift_wanted:
            self._sift()
        self._spawn(now)
        self._give_answers()
        self._dispatch()
        for child in self._children:
            self._watch(child)
        times = [child.kill_at for child in self._children if child.kill_at is not None]
        if self._spawn_at > now and self._missing() > 0:
            times.append(self._spawn_at)
        if not self._settings.eager:
            times += [child.idle_since + self._settings.idle for child in self._children if child.free]
        if any(child.pidfd is None for child in self._children):
            times.append(now + _POLL_SECONDS)
        # Not longer than epoll can count.
        return min(_LONGEST_SLEEP, max(0.0, min(times) - time.monotonic())) if times else None

    def _attend(self, child: Child, now: float) -> None:
        if child.exited():
            self._bury(child)
            return
        execution = child.execution
        if execution is not None and execution.cancelled and not child.told_cancel and not self._leaving:
            child.told_cancel = True
            child.send("cancel")
            child.kill_later(now + self._settings.cancel_grace, "cancel")
        if self._leaving and (execution is not None or not child.ready):
            child.kill("stop")
        elif self._leaving:
            child.leave(self._settings.stop_grace)
        elif child.free and (child.spent or self._draining or self._idle_too_long(child, now)):
            child.leave(self._settings.exit_grace)
        if child.kill_at is not None and child.kill_at <= now:
            child.kill(child.kill_why)

    def _watch(self, child: Child) -> None:
        """Have the selector tell when it can take the rest of what is to be sent."""
        child.flush()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.wants_write else 0)
        if self._selector.get_key(child.connection).events != wanted:
            self._selector.modify(child.connection, wanted, child)

    def _idle_too_long(self, child: Child, now: float) -> bool:
        return not self._settings.eager and now - child.idle_since >= self._settings.idle

    # children

    def _missing(self) -> int:
        if self._draining or self._leaving:
            return 0
        present = [child for child in self._children if not child.leaving and not child.spent]
        if self._settings.eager:
            return self.slots - len(present)
        busy = sum(child.busy for child in present)
        return min(self.slots, busy + len(self._pending)) - len(present)

    def _spawn(self, now: float) -> None:
        if now < self._spawn_at:
            return
        for _ in range(self._missing()):
            try:
                child = Child(self._settings.init)
            except OSError as error:
                self._start_failed(f"a process cannot be made: {error}")
                return
            child.kill_later(now + self._settings.start_limit, "start")
            self._children.append(child)
            self._selector.register(child.connection, selectors.EVENT_READ, child)
            if child.pidfd is not None:
                self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _start_failed(self, complaint: str) -> None:
        self._failures += 1
        self._spawn_at = time.monotonic() + min(5.0, 0.1 * 2.0**self._failures)
        _log.error("a worker process could not start: %s", complaint)
        if not self._started.is_set():
            self._complaint = complaint
            self._started.set()
        elif self._failures >= 3 and not any(child.ready for child in self._children):
            self._ledger.give_back()  # others may be able to run what waits here
            self._sift()

    def _bury(self, child: Child) -> None:
        self._hear_child(child)  # its last words
        self._selector.unregister(child.connection)
        if child.pidfd is not None:
            self._selector.unregister(child.pidfd)
        status = child.bury()
        self._children.remove(child)
        if child.execution is not None:
            self._lost(child, child.execution, status)
        if not child.ready and child.killed != "stop":
            self._start_failed(child.complaint or describe_exit(child.pid, status))

    def _lost(self, child: Child, execution: Execution, status: int) -> None:
        execution.leave()
        error: BaseException
        if execution.began is None:
            never = _canceled(execution) if execution.cancelled else None
            self._ledger.settle(execution, never or Outcome(task=execution.task, kind=OutcomeKind.RETURNED))
            return
        if child.killed == "timeout":
            execution.timed_out = True
            error = TaskTimeoutError(
                f"ran longer than its timeout of {execution.timeout:g} s; its process {child.pid} was killed"
            )
        elif child.killed == "cancel":
            error = TaskKilledError(f"went on after it was cancelled; its process {child.pid} was killed")
        else:
            error = TaskProcessLostError(describe_exit(child.pid, status))
        outcome = self._runner.failure(execution, error)
        self._ledger.settle(execution, outcome)
        if self._runner.has_hooks(outcome):
            # The process whose turn it was is gone. Not in this thread: others wait for it.
            threading.Thread(
                target=self._runner.after, args=(execution, outcome), name="fairque-hook", daemon=True
            ).start()

    # tasks

    def _sift(self) -> None:
        """Forget what waits and was answered for, and answer for what was cancelled."""
        self._sift_wanted = False
        for _ in range(len(self._pending)):
            execution = self._pending.popleft()
            if not execution.cancelled and not execution.answered:
                self._pending.append(execution)
            elif self._ledger.take(execution):
                self._ledger.settle(execution, _canceled(execution))

    def _dispatch(self) -> None:
        for child in self._children:
            while child.free and not child.spent and self._pending:
                execution = self._pending.popleft()
                if not self._ledger.take(execution):
                    continue
                try:
                    message = pack_task(execution.task)
                except InvalidTaskError as error:
                    self._ledger.settle(execution, self._runner.failure(execution, error))
                else:
                    child.give(execution, message)

    def _understand(self, child: Child, message: Message) -> None:
        name, *fields = message
        if name == "ready":
            child.ready = True
            child.kill_at = None
            child.idle_since = time.monotonic()
            self._failures = 0
            self._started.set()
        elif name == "failed":
            child.complaint = fields[0]
        elif name == "idle":
            self._idle(child, fields[0])
        elif child.execution is not None:
            self._hear_task(child, child.execution, name, fields)

    def _hear_task(self, child: Child, execution: Execution, name: str, fields: list[Any]) -> None:
        if name == "begin":
            execution.timeout = self._runner.timeout(execution.task)
            execution.begin()
            if execution.deadline is not None:
                child.kill_later(execution.deadline + self._settings.timeout_grace, "timeout")
        elif name == "progress":
            execution.progress(*fields)
        elif name == "xcom":
            # It waits for the server: not in this thread, on which others wait.
            threading.Thread(
                target=self._answer_xcom, args=(child, execution, *fields), name="fairque-xcom", daemon=True
            ).start()
        elif name == "timeout":
            execution.timed_out = True
            self._ledger.report_timeout(execution)
        elif name == "outcome":
            kind, result, error, duration, retry_delay, reason, final = fields
            outcome = Outcome(
                task=execution.task, kind=OutcomeKind(kind), result=result, error=error, duration=duration,
                retry_delay=retry_delay, reason=reason, final=final,
            )  # fmt: skip
            execution.leave()
            child.execution = None
            child.kill_at = None
            child.kill_later(time.monotonic() + self._settings.hook_limit, "hook")
            # What was interrupted in the middle may have left anything behind.
            child.spent = child.spent or outcome.kind is OutcomeKind.TIMED_OUT
            self._ledger.settle(execution, outcome)

    def _answer_xcom(
        self,
        child: Child,
        execution: Execution,
        number: int,
        namespace: str,
        key: str,
        data: bytes | None,
        ttl: float | None,
    ) -> None:
        value, error = None, None
        try:
            value = self._ledger.listener.on_xcom(execution.task, (namespace, key, data, ttl))
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is raised where it was asked for
            error = (type(failure).__name__, str(failure))
        self._answers.append((child, execution, ("xcom", number, value, error)))
        self._ring()

    def _give_answers(self) -> None:
        while self._answers:
            child, execution, answer = self._answers.popleft()
            if child.execution is execution:
                child.send(*answer)

    def _idle(self, child: Child, memory_mb: float) -> None:
        child.busy = False
        child.kill_at = None
        child.idle_since = time.monotonic()
        settings = self._settings
        if settings.max_tasks is not None and child.tasks >= settings.max_tasks:
            child.spent = True
        if settings.max_memory_mb is not None and memory_mb > settings.max_memory_mb:
            _log.info("process %d uses %.0f MB and is replaced", child.pid, memory_mb)
            child.spent = True


def _canceled(execution: Execution) -> Outcome:
    return Outcome(task=execution.task, kind=OutcomeKind.CANCELED, reason="cancelled before it began")
