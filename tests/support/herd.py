"""Worker processes that are killed: `python -m tests.support.herd ORDER`.

Each is forked from this process, which has imported everything and has no threads, so that a dead one is
replaced within milliseconds. Nothing that a dead one held is given back by anybody: its lease has to run out.

ORDER is JSON: `config`; `modules`; `workers`, the id of the entry that each process works as; and `every`,
between which seconds one of them, chosen at random, is killed and replaced (null: only those that the
standard input names, one number a line, which are not replaced). Standard output says `ready`, and then of
each that is dead by now `killed PID INCARNATION TIME`, in seconds of the monotonic clock. It ends with its
standard input.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine
from fairque.worker.page import Page, Phase
from fairque.worker.policies import apply_policies
from fairque.worker.worker import Worker, import_modules
from tests.support.worker_process import ROOT

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Killed:
    """A worker process that is dead since a time, in seconds of the monotonic clock."""

    pid: int
    incarnation: str
    at: float


class Herd:
    """A herd in a process of its own, seen from whoever started it."""

    def __init__(
        self,
        config: dict[str, Any],
        modules: Sequence[str],
        workers: Sequence[str],
        every: tuple[float, float] | None = None,
    ) -> None:
        order = {"config": config, "modules": list(modules), "workers": list(workers), "every": every}
        self.killed: list[Killed] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.herd", json.dumps(order)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        line = self._read()
        assert line == "ready", f"the workers did not start: {line!r}"
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _listen(self) -> None:
        while line := self._read():
            _, pid, incarnation, at = line.split(" ")
            self.killed.append(Killed(int(pid), incarnation, float(at)))

    def kill(self, number: int) -> float:
        """Kill one, for good; returns when it was dead."""
        before = len(self.killed)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + 5
        while len(self.killed) == before:
            assert time.monotonic() < deadline, "it was not killed"
            time.sleep(0.001)
        return self.killed[-1].at

    def close(self) -> None:
        """End them all at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Shepherd:
    """The process itself."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.config = FairQueueConfig.from_dict(order["config"])
        self.entries: list[str] = order["workers"]
        self.every: list[float] | None = order["every"]
        import_modules(order["modules"])
        engine = Engine(self.config.queue, self.config.key_prefix)
        client = self.config.redis.create_redis_client()
        manager = LuaScriptManager(client)
        manager.run(admin.open_queue(engine))
        apply_policies(manager, engine, self.config)
        client.close()
        self.workers: list[tuple[int, Page]] = []

    def fork(self, entry: str) -> tuple[int, Page]:
        page = Page.create(self.config.worker(entry).max_concurrent_tasks)
        pid = os.fork()
        if pid == 0:
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)
                Worker(self.config, worker_id=entry, page=page).run()
            finally:
                os._exit(1)
        return pid, page

    def start(self) -> None:
        self.workers = [self.fork(entry) for entry in self.entries]
        deadline = time.monotonic() + START_SECONDS
        while any(page.phase is not Phase.READY for _, page in self.workers):
            assert time.monotonic() < deadline, "a worker is not ready"
            time.sleep(0.005)
        print("ready", flush=True)

    def kill(self, number: int) -> None:
        pid, page = self.workers[number]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(f"killed {pid} {page.incarnation or '-'} {time.monotonic()!r}", flush=True)
        page.close()

    def serve(self) -> None:
        while True:
            pause = random.uniform(*self.every) if self.every else None
            heard, _, _ = select.select([sys.stdin], [], [], pause)
            if heard:
                line = sys.stdin.readline()
                if not line:
                    return
                self.kill(int(line))
            else:
                number = random.randrange(len(self.workers))
                self.kill(number)
                self.workers[number] = self.fork(self.entries[number])


def main(order: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.ERROR)
    shepherd = _Shepherd(order)
    shepherd.start()
    shepherd.serve()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    main(json.loads(sys.argv[1]))
