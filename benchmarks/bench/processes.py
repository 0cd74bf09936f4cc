"""Processes that the harness starts: each in a group of its own, all ended by their ids, whatever happens."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from bench.keeper import family, kill

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
END_SECONDS = 3.0


class BenchmarkError(Exception):
    """A system did not do what a workload needs; the report says so, and the next one is measured."""


class Group:
    """One process with all that it starts."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        self.id = process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def tail(self, characters: int = 1500) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def anonymous_kib(self) -> int:
        """Memory of its own (RssAnon, KiB) of the process and its descendants: without what they map of files."""
        total = 0
        for pid in family(self.id):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue  # it has just ended
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            total += int(fields.get("RssAnon", "0").split()[0])
        return total


class Processes:
    """Starts groups and ends them. A keeper beside it ends them too if this process is killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._groups: dict[int, Group] = {}
        self._count = 0
        keeper = Path(__file__).with_name("keeper.py")
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )
        self.remove_at_end(directory)

    def remove_at_end(self, directory: Path) -> None:
        """Have the keeper remove a directory when all is over."""
        self._tell(f"remove {directory}")

    def _tell(self, line: str) -> None:
        stream = self._keeper.stdin
        assert stream is not None
        stream.write(line + "\n")
        stream.flush()

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        talks: bool = False,
        name: str = "process",
    ) -> Group:
        """Start a command in a group of its own; with `talks`, its standard input and output are pipes."""
        self._count += 1
        log = self.directory / f"{self._count}-{name}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else stream,
                stderr=stream,
                env=dict(environment),
                cwd=BENCHMARKS,
                start_new_session=True,
                text=True,
            )
        group = Group(process, log)
        self._groups[group.id] = group
        self._tell(f"group {group.id}")
        return group

    def end(self, groups: Sequence[Group]) -> None:
        """End these groups at once (nothing of a measured run is needed any more); return when they are out."""
        families = {group.id: family(group.id) for group in groups}
        for members in families.values():
            kill(members)
        for group in groups:
            group.process.wait(END_SECONDS)
            deadline = time.monotonic() + END_SECONDS
            while any(map(_runs, families[group.id])) and time.monotonic() < deadline:
                time.sleep(0.002)
            for stream in (group.process.stdin, group.process.stdout):
                _close(stream)
            self._groups.pop(group.id, None)
            self._tell(f"done {group.id}")

    def end_all(self) -> None:
        """End everything that still runs."""
        self.end(list(self._groups.values()))

    def close(self) -> None:
        """End everything, and the keeper, which then removes the directories."""
        self.end_all()
        _close(self._keeper.stdin)
        self._keeper.wait(END_SECONDS)


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that everything started is ended."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
