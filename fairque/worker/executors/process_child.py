"""What runs in a child process: one task after the other, on the main thread, until it is told to go.

    python -m fairque.worker.executors.process_child FD PARENT

FD is its end of the socket pair on which it talks to the worker (wire.py), PARENT the worker's process
number. A second thread listens, so that a cancel reaches a task that runs, and so that the child leaves when
its worker is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import io
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, cast

import msgspec

from fairque.core import exceptions
from fairque.core.codec import encode_error
from fairque.core.exceptions import FairQueueError, TaskTimeoutError
from fairque.core.models import Task
from fairque.worker import hooks
from fairque.worker.executors.base import Outcome, OutcomeKind, XComRequest
from fairque.worker.executors.interrupt import interruption
from fairque.worker.executors.ledger import Execution, Ledger
from fairque.worker.executors.parts import TaskRunner
from fairque.worker.executors.watchdog import Watchdog
from fairque.worker.executors.wire import FrameReader, Message, frame, receive, unpack_task
from fairque.worker.memory import process_memory_mb
from fairque.worker.runner import Runner
from fairque.worker.spec import RunnerSpec

_PR_SET_PDEATHSIG = 1
_LOG_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"


class Line:
    """The child's end of the connection."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._connection = socket.socket(fileno=fd)
        self._reader = FrameReader()
        self._lock = threading.Lock()
        self._asked = 0
        self._questions: dict[int, SimpleQueue[tuple[bytes | None, tuple[str, str] | None]]] = {}

    def send(self, *message: object) -> None:
        """Send a message; without a worker to hear it, the process ends here."""
        data = frame(*message)
        try:
            with self._lock:
                self._connection.sendall(data)
        except TaskTimeoutError:
            raise  # an interruption, which is an OSError too; the data was sent
        except OSError:
            os._exit(1)

    def receive(self) -> list[Message]:
        """Block for the next messages; none when the worker is gone."""
        try:
            return receive(self._connection, self._reader)
        except OSError:
            return []

    # As the listener of the ledger:

    def on_begin(self, task: Task[Any]) -> None:
        self.send("begin")

    def on_outcome(self, outcome: Outcome) -> None:
        self.send(
            "outcome", outcome.kind, outcome.result, outcome.error, outcome.duration, outcome.retry_delay,
            outcome.reason, outcome.final,
        )  # fmt: skip

    def on_timeout(self, task: Task[Any]) -> None:
        self.send("timeout")

    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None:
        self.send("progress", done, total, text)

    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        answer: SimpleQueue[tuple[bytes | None, tuple[str, str] | None]] = SimpleQueue()
        with self._lock:
            self._asked += 1
            number = self._asked
            self._questions[number] = answer
        try:
            self.send("xcom", number, *request)
            value, error = answer.get()
        finally:
            del self._questions[number]
        if error is not None:
            kind = getattr(exceptions, error[0], FairQueueError)
            raise (kind if issubclass(kind, FairQueueError) else FairQueueError)(error[1])
        return value

    def answer(self, number: int, value: bytes | None, error: tuple[str, str] | None) -> None:
        """What the worker says to a question of a task."""
        if (asked := self._questions.get(number)) is not None:
            asked.put((value, error))


class ChildProcess:
    """Runs what arrives on the line."""

    def __init__(self, line: Line, runner: TaskRunner) -> None:
        self._line = line
        self._runner = runner
        self._ledger = Ledger()
        self._ledger.listener = line
        self._watchdog = Watchdog(self._ledger.expire)
        self._ledger.expect = self._watchdog.expect
        self._inbox: SimpleQueue[Execution | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self, first: list[Message]) -> None:
        """Run tasks until the worker says exit."""
        hooks.run_start_hooks(self.run_async)
        threading.Thread(target=self._listen, args=(first,), name="fairque-line", daemon=True).start()
        self._line.send("ready")
        interrupt = interruption()
        while (execution := self._inbox.get()) is not None:
            self._run(execution, interrupt)
            self._line.send("idle", process_memory_mb())
        hooks.run_stop_hooks(self.run_async)

    def run_async(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for an awaitable on the loop of this process, which turns only meanwhile."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(awaitable)

    def _listen(self, messages: list[Message]) -> None:
        while True:
            for name, *fields in messages:
                if name == "run":
                    self._accept(*fields)
                elif name == "cancel":
                    for execution in self._ledger.executions():
                        self._ledger.cancel(execution.task.task_id)
                elif name == "xcom":
                    self._line.answer(*fields)
                elif name == "exit":
                    self._inbox.put(None)
            messages = self._line.receive()
            if not messages:
                os.killpg(0, signal.SIGKILL)  # with whatever the task has started

    def _accept(self, header: Any, body: bytes) -> None:
        try:
            task = unpack_task(header, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the task's failure
            self._line.send("outcome", OutcomeKind.FAILED, None, encode_error(error, 0), 0.0, None, "", True)
            self._line.send("idle", process_memory_mb())
        else:
            # Opened here and not where it runs, so that a cancel that follows finds it.
            self._inbox.put(self._ledger.open(task))

    def _run(self, execution: Execution, interrupt: Callable[[bool], None]) -> None:
        self._ledger.take(execution)
        if self._runner.is_async(execution.task):
            self.run_async(self._run_async(execution))
            return
        execution.interrupt = interrupt
        outcome = self._runner.run(execution)
        self._ledger.settle(execution, outcome)
        self._runner.after(execution, outcome)

    async def _run_async(self, execution: Execution) -> None:
        loop, task = asyncio.get_running_loop(), cast(asyncio.Task[None], asyncio.current_task())

        def cancel() -> None:
            if not execution.left:
                task.cancel()

        def on_cancel() -> None:
            loop.call_soon_threadsafe(cancel)

        execution.on_cancel = on_cancel
        outcome = await self._runner.run_async(execution)
        self._ledger.settle(execution, outcome)
        await self._runner.after_async(execution, outcome)


def main() -> None:
    """Entry point."""
    line, parent = Line(int(sys.argv[1])), int(sys.argv[2])
    _end_with(parent)
    # A worker that is asked to leave decides itself what becomes of its children, also when the request (a
    # Ctrl-C, a container's or systemd's stop) reaches the whole group. Handlers, unlike "ignore", are not
    # inherited by what a task starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        (_, init), *messages = line.receive()
        child = ChildProcess(line, _build(init))
        child.serve(messages)
    except BaseException:  # noqa: BLE001 - also SystemExit, which a module can raise when it is imported
        line.send("failed", traceback.format_exc())
        os._exit(1)


def _build(init: dict[str, Any]) -> TaskRunner:
    sys.path[:] = init["sys_path"]
    os.environ.pop("PYTHONPATH", None)
    if init["pythonpath"] is not None:
        os.environ["PYTHONPATH"] = init["pythonpath"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # a process that is killed flushes nothing
    runner = _build_runner(init["runner"])
    if not logging.getLogger().handlers:  # none of the imported modules has set up logging
        logging.basicConfig(level=init["log_level"], format=_LOG_FORMAT)
    return runner


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its worker ends (Linux), even while a task holds the
    interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before


def _build_runner(spec: Any) -> Runner:
    spec = msgspec.convert(spec, RunnerSpec)
    for module in spec.modules:
        importlib.import_module(module)
    return Runner(
        None if spec.handler is None else _make(spec.handler),
        middlewares=[_make(name) for name in spec.middlewares],
        task_timeout=spec.task_timeout,
        max_result_bytes=spec.max_result_bytes,
        retry=spec.retry,
    )


def _make(name: str) -> Any:
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found()


if __name__ == "__main__":
    main()
