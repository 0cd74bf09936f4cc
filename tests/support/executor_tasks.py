"""Task functions for the executors' suite, each in a plain and an `async` form. Child processes import it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.retry import Discard, RetryAfter, Snooze, exponential, fixed
from fairque.worker.handler import TaskHandler
from fairque.worker.hooks import on_worker_start, on_worker_stop

_PAUSE = 0.002
HOOK_FILE = "FAIRQUE_TEST_HOOK_FILE"


def _exists(path: str) -> bool:
    return os.path.exists(path)


def note(path: str | Path, text: str) -> None:
    """Add a line to a file, in one write, so that processes do not mix theirs."""
    with open(path, "a", buffering=1) as file:
        file.write(f"{text}\n")


@on_worker_start
def note_start() -> None:
    if path := os.environ.get(HOOK_FILE):
        note(path, f"start {os.getpid()}")


@on_worker_stop
async def note_stop() -> None:
    if path := os.environ.get(HOOK_FILE):
        note(path, f"stop {os.getpid()}")


@task
def add(left: int, right: int) -> int:
    return left + right


@task
async def add_async(left: int, right: int) -> int:
    return left + right


class BrokenError(Exception):
    """What failing tasks raise."""


def _explode(text: str) -> None:
    raise BrokenError(text)


@task(retry=fixed(3))
def fail(text: str) -> None:
    _explode(text)


@task(retry=fixed(3))
async def fail_async(text: str) -> None:
    _explode(text)


@task(retry=exponential(base=4, jitter=False, give_up_on=BrokenError))
def give_up() -> None:
    _explode("no use")


@task(retry=exponential(base=4, jitter=False, give_up_on=BrokenError))
async def give_up_async() -> None:
    _explode("no use")


_RAISES: dict[str, BaseException] = {
    "retry_after": RetryAfter(7.5, "rate limited"),
    "snooze": Snooze(2.5),
    "discard": Discard("stale"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "cancelled": asyncio.CancelledError(),
    "generator_exit": GeneratorExit(),
}


@task
def throw(what: str) -> None:
    raise _RAISES[what]


@task
async def throw_async(what: str) -> None:
    raise _RAISES[what]


@task
def unserialisable() -> object:
    return {"a": [object()]}


@task
async def unserialisable_async() -> object:
    return {"a": [object()]}


@task
def large(size: int) -> bytes:
    return b"x" * size


@task
async def large_async(size: int) -> bytes:
    return b"x" * size


@task
def context() -> list[Any]:
    here = current_task()
    here.progress(1, 2, "half")
    return [here.task_id, here.user_id, here.attempt, here.cancelled, os.getpid()]


@task
async def context_async() -> list[Any]:
    await asyncio.sleep(0)
    return context.fn()


@task
def pid() -> int:
    return os.getpid()


@task
async def pid_async() -> int:
    return os.getpid()


@task
def wait_for(path: str) -> str:
    """Return when there is a file at `path`."""
    while not os.path.exists(path):
        time.sleep(_PAUSE)
    return "released"


@task
async def wait_for_async(path: str) -> str:
    while not _exists(path):  # noqa: ASYNC110 - who makes the file may be another process
        await asyncio.sleep(_PAUSE)
    return "released"


@task
def wait_for_cancel() -> str:
    while not current_task().cancelled:
        time.sleep(_PAUSE)
    return "saw it"


@task
async def wait_for_cancel_async() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "saw it" if current_task().cancelled else "did not"
    return "never"


@task
def stubborn(path: str) -> str:
    """Ignores whatever it is told until there is a file at `path`."""
    while not os.path.exists(path):
        try:
            while not os.path.exists(path):
                time.sleep(_PAUSE)
        except Exception:  # noqa: BLE001, S110 - this is its purpose
            pass
    return "late"


@task
async def stubborn_async(path: str) -> str:
    while not _exists(path):
        try:
            await asyncio.sleep(_PAUSE)
        except asyncio.CancelledError:
            pass
    return "late"


@task
async def block_loop_async(path: str) -> str:
    """Does what a coroutine must not do: nothing else on its loop runs meanwhile."""
    return wait_for.fn(path)


@task
def sleep_long() -> None:
    """Sits in one system call, where no exception reaches it."""
    time.sleep(3600)


@task
def hold_interpreter() -> None:
    """Sits in a system call with the interpreter's lock, so that no other thread of its process runs."""
    ctypes.PyDLL(None).sleep(3600)


@task
def start_program(path: str) -> None:
    """Starts a program that outlives its parent, and does not return."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    note(path, str(program.pid))
    program.wait()


@task
def exit_hard(code: int) -> None:
    os._exit(code)


@task
def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_hoard: list[bytes] = []


@task
def eat(megabytes: int) -> int:
    _hoard.append(b"x" * (megabytes * 1_000_000))
    return os.getpid()


class Notes(TaskHandler):
    """Runs payloads, and writes down what it hears, in the file that the payload or the first label names."""

    def process_task(self, task: Task[Any]) -> object:
        if task.payload.get("fail"):
            _explode("payload")
        return {"seen": task.payload, "pid": os.getpid()}

    def on_task_success(self, task: Task[Any], duration: float) -> None:
        self._note(task, f"success {duration >= 0}")

    def on_task_failure(self, task: Task[Any], error: BaseException, duration: float) -> None:
        self._note(task, f"failure {type(error).__name__} {duration >= 0}")

    def on_task_timeout(self, task: Task[Any], duration: float) -> None:
        self._note(task, f"timeout {duration > 0}")

    def _note(self, task: Task[Any], text: str) -> None:
        if path := task.labels.get("notes"):
            note(path, text)
        raise BrokenError("a hook that fails changes nothing")


class AsyncNotes(Notes):
    """The same on the event loop."""

    async def process_task(self, task: Task[Any]) -> object:
        return super().process_task(task)
