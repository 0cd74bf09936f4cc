"""Task functions for the suites of workers and of faults. What ran is written into a ledger: a file outside of the
queue, a line at a time, which survives whatever is done to a worker."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.retry import exponential, fixed
from fairque.worker.handler import TaskHandler
from tests.support.executor_tasks import BrokenError, note

BACKOFF = 0.2


class Ledger:
    """What tasks wrote into the file at `path`: lines of a word, the task's key, and the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[tuple[str, str, int]]:
        found: list[tuple[str, str, int]] = []
        for line in self.path.read_text().splitlines():
            word, key, pid = line.split(" ")
            found.append((word, key, int(pid)))
        return found

    def count(self, word: str) -> Counter[str]:
        """How often each key stands with that word."""
        return Counter(key for said, key, _pid in self.lines() if said == word)

    def pids(self, word: str = "begin") -> Counter[int]:
        """How often each process said that word."""
        return Counter(pid for said, _key, pid in self.lines() if said == word)


def say(ledger: str, word: str, key: str) -> None:
    note(ledger, f"{word} {key} {os.getpid()}")


@task
def work(ledger: str, key: str, seconds: float = 0.0) -> str:
    """Writes down that it began and ended."""
    say(ledger, "begin", key)
    if seconds:
        time.sleep(seconds)
    say(ledger, "end", key)
    return key


@task
async def work_async(ledger: str, key: str, seconds: float = 0.0) -> str:
    say(ledger, "begin", key)
    await asyncio.sleep(seconds)
    say(ledger, "end", key)
    return key


@task
def where(ledger: str, key: str, seconds: float) -> int:
    """The process that it runs in."""
    say(ledger, "begin", key)
    time.sleep(seconds)
    say(ledger, "end", key)
    return os.getpid()


counted: Counter[int] = Counter()


@task
def count(number: int) -> None:
    """Counts its runs in this process."""
    counted[number] += 1


@task
def quick(number: int) -> int:
    return number


@task
def noop(number: int, text: str) -> None:
    """Nothing."""


@task
def payload(text: str) -> None:
    """Nothing."""


@task
def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
def begun_at() -> float:
    """When it began, on the clock that all processes of the machine share."""
    return time.monotonic()


@task(retry=exponential(base=BACKOFF, factor=2, jitter=False), max_retries=2)
def flaky(ledger: str, key: str, failures: int) -> str:
    """Fails that often, with the attempt in the message."""
    say(ledger, "begin", key)
    attempt = current_task().attempt
    if attempt <= failures:
        raise BrokenError(f"attempt {attempt}")
    return f"attempt {attempt}"


@task(retry=fixed(0), max_retries=2)
def hopeless(ledger: str, key: str) -> None:
    say(ledger, "begin", key)
    raise BrokenError(f"attempt {current_task().attempt}")


@task
def steps(ledger: str, key: str) -> str:
    """Tells its progress until it is cancelled."""
    say(ledger, "begin", key)
    here = current_task()
    done = 0
    while not here.cancelled:
        done += 1
        here.progress(done, 1_000_000, f"step {done}")
        time.sleep(0.02)
    say(ledger, "cancelled", key)
    return "late"


@task
async def steps_async(ledger: str, key: str) -> str:
    say(ledger, "begin", key)
    here = current_task()
    try:
        while True:
            here.progress(1, 2, "half")
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        say(ledger, "cancelled", key)
        raise


@task
def nap(ledger: str, key: str, seconds: float) -> None:
    """Sits in one system call, where no exception reaches it."""
    say(ledger, "begin", key)
    time.sleep(seconds)
    say(ledger, "end", key)


@task
def loop(ledger: str, key: str, seconds: float) -> None:
    """Runs Python code, so that an exception can reach it."""
    say(ledger, "begin", key)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)
    say(ledger, "end", key)


@task
async def nap_async(ledger: str, key: str, seconds: float) -> None:
    say(ledger, "begin", key)
    await asyncio.sleep(seconds)
    say(ledger, "end", key)


@task
def hold(ledger: str, key: str, seconds: int) -> str:
    """Holds the interpreter's lock: no other thread of its process runs."""
    say(ledger, "begin", key)
    ctypes.PyDLL(None).sleep(seconds)
    say(ledger, "end", key)
    return key


@task(max_retries=0)
def die(ledger: str, key: str) -> None:
    """Takes its process with it."""
    say(ledger, "begin", key)
    os.kill(os.getpid(), signal.SIGKILL)


_hoard: list[bytes] = []


@task
def hoard(ledger: str, key: str, megabytes: int) -> None:
    say(ledger, "begin", key)
    _hoard.append(b"x" * (megabytes * 1_000_000))
    say(ledger, "end", key)


class Handler(TaskHandler):
    """Runs payloads, and writes down what it hears."""

    def process_task(self, task: Task[Any]) -> object:
        say(task.payload["ledger"], "begin", task.task_id)
        if seconds := task.payload.get("seconds"):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.005)
        if task.payload.get("fail"):
            raise BrokenError("payload")
        return {"by": task.user_id}

    def on_task_success(self, task: Task[Any], duration: float) -> None:
        self._hear(task, "success")

    def on_task_failure(self, task: Task[Any], error: BaseException, duration: float) -> None:
        self._hear(task, f"failure-{type(error).__name__}")

    def on_task_timeout(self, task: Task[Any], duration: float) -> None:
        self._hear(task, "timeout")

    def _hear(self, task: Task[Any], word: str) -> None:
        if task.payload:
            say(task.payload["ledger"], word, task.task_id)


@task
def read_stdin() -> str:
    """What a program that a task starts finds on its standard input."""
    return subprocess.run(["/bin/cat"], capture_output=True, text=True, timeout=5, check=True).stdout
