"""The processes that it is done to: workers alone and under a supervisor, schedulers. Who ends is started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ledger import work
from tests.support.ledger.plan import TARGETS
from tests.support.worker_process import ROOT
from tests.support.workers import child_pids

GRACE_SECONDS = 1.0
"""How long workers that are told to leave may finish what they have."""
AFTERMATH_SECONDS = 1.0
"""After a stop, a process may begin what it held, before it hears that this is its own no longer."""
LEAVING_SECONDS = 10.0
"""A process that was told to leave, or whose supervisor is gone, must be out by then."""
BEGAN = (" is ready", " started as pid ", " runs\n")
"""What is in the log of a process that has begun to serve."""


@dataclass(slots=True)
class Harm:
    """What was done to processes from `begun` to `ended` (monotonic seconds): what they ran then may run again."""

    what: str
    pids: frozenset[int]
    begun: float
    ended: float = float("inf")


@dataclass(slots=True)
class Place:
    """One process of a kind, and its successors."""

    kind: str
    index: int
    order: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    start_at: float = 0.0
    restart_after: float | None = None
    """Seconds after its end; None: nobody has told it to end."""
    leaving: Harm | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}{self.index}"


@dataclass(slots=True)
class Crew:
    """All of them. `harms` and `faults` are what was done to them, and what they did wrong."""

    directory: Path
    places: list[Place]
    harms: list[Harm] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    orphans: dict[int, float] = field(default_factory=dict)
    """Children whose supervisor is gone, and since when."""

    def place(self, kind: str, index: int) -> Place:
        return next(place for place in self.places if (place.kind, place.index) == (kind, index))

    def child(self, index: int) -> int | None:
        """A worker process of the supervisor, if it has one now."""
        supervisor = self.place("supervisor", 0).process
        children = sorted(child_pids(supervisor.pid)) if supervisor is not None else []
        return children[index % len(children)] if children else None

    # -- life

    def start(self, place: Place) -> None:
        place.lives += 1
        module = "scheduler_process" if place.kind == "scheduler" else "worker_process"
        log = self.directory / f"{place.name}.{place.lives}.log"
        with log.open("wb") as file:
            place.process = subprocess.Popen(
                [sys.executable, "-m", f"tests.support.{module}", json.dumps(place.order)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        place.restart_after, place.leaving = None, None

    def look_after(self) -> None:
        """Start again who has ended, and write down who has ended by himself, or does not end."""
        now = time.monotonic()
        for place in self.places:
            process = place.process
            if process is None:
                if now >= place.start_at:
                    self.start(place)
            elif (code := process.poll()) is not None:
                if place.leaving is not None:
                    place.leaving.ended = now + AFTERMATH_SECONDS
                told = place.restart_after is not None and (place.leaving is None or code == 0)
                if not told and not self._never_began(place, code):
                    self.faults.append(f"{place.name}.{place.lives} ended by itself, or badly, with {code}")
                place.process, place.start_at = None, now + (place.restart_after or 0.0)
            elif place.leaving is not None and now > place.leaving.begun + 3 * LEAVING_SECONDS:
                self.faults.append(f"{place.name}.{place.lives} does not leave")
                place.leaving = None
                self.kill(place.kind, place.index, 0.0)
        for pid, since in tuple(self.orphans.items()):
            if not _lives(pid):
                del self.orphans[pid]
            elif now > since + LEAVING_SECONDS + GRACE_SECONDS:
                self.faults.append(f"process {pid} outlived its supervisor")
                _end(pid)
                del self.orphans[pid]

    def _never_began(self, place: Place, code: int) -> bool:
        """Whether it found no server at its start, and said so, or was told to end before it could hear that."""
        said = (self.directory / f"{place.name}.{place.lives}.log").read_text()
        early = "QueueUnavailableError" in said or (place.leaving is not None and code == -signal.SIGTERM)
        return early and not any(word in said for word in BEGAN)

    # -- harm

    def kill(self, kind: str, index: int, restart_after: float) -> bool:
        """SIGKILL; whether there was anybody."""
        if kind == "child":
            pid = self.child(index)
            if pid is not None:
                self._harm("kill", [pid], lambda: _end(pid), 0.0)
            return pid is not None
        place = self.place(kind, index)
        process = place.process
        if process is None or process.poll() is not None:
            return False
        family = descendants(process.pid)
        place.restart_after = restart_after
        if place.leaving is not None:
            place.leaving.ended, place.leaving = time.monotonic() + AFTERMATH_SECONDS, None
        # The processes of a supervisor hear of its end, and leave.
        more = GRACE_SECONDS + AFTERMATH_SECONDS if kind == "supervisor" else 0.0
        self._harm("kill", [process.pid, *family], process.kill, more)
        process.wait()
        if kind == "supervisor":
            self.orphans |= dict.fromkeys(family, time.monotonic())
        return True

    def term(self, kind: str, index: int, restart_after: float) -> bool:
        """SIGTERM."""
        place = self.place(kind, index)
        process = place.process
        if process is None or process.poll() is not None or place.leaving is not None:
            return False
        place.restart_after = restart_after
        place.leaving = Harm("term", frozenset((process.pid, *descendants(process.pid))), time.monotonic())
        if kind != "scheduler":
            self.harms.append(place.leaving)
        process.send_signal(signal.SIGTERM)
        return True

    def freeze(self, kind: str, index: int) -> tuple[int, ...]:
        """SIGSTOP; who was stopped."""
        if kind == "child":
            pid = self.child(index)
        else:
            process = self.place(kind, index).process
            pid = process.pid if process is not None and process.poll() is None else None
        if pid is None:
            return ()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return (pid,)

    def _harm(self, what: str, pids: list[int], act: Any, more: float) -> None:
        harm = Harm(what, frozenset(pids), time.monotonic())
        self.harms.append(harm)
        act()
        harm.ended = time.monotonic() + more

    def close(self) -> None:
        """End them all, with what they started."""
        everybody: list[int] = [*self.orphans]
        for place in self.places:
            if place.process is not None:
                everybody += descendants(place.process.pid)
                place.process.kill()
                place.process.wait()
        for pid in everybody:
            if _is_ours(pid):
                _end(pid)


def thaw(pids: tuple[int, ...]) -> None:
    """SIGCONT."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found: list[int] = []
    for child in child_pids(pid):
        found += [child, *descendants(child)]
    return found


def _lives(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def _is_ours(pid: int) -> bool:
    """Whether the process is still the one that was meant: a number may have been given to another."""
    try:
        return b"fairque" in Path(f"/proc/{pid}/cmdline").read_bytes() or b"multiprocessing" in (
            Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def orders(near: dict[str, Any], far: dict[str, Any]) -> list[Place]:
    """Who works: `near` and `far` are configurations, without and with the network that loses things."""

    def worker(config: dict[str, Any], name: str, processes: int, **entry: Any) -> dict[str, Any]:
        entry = {"id": name, "shutdown_timeout_seconds": GRACE_SECONDS} | entry
        return {
            "config": config | {"workers": [entry]},
            "modules": [work.__name__],
            "processes": processes,
            "log_level": "INFO",
        }

    return [
        Place("worker", 0, worker(far, "threads", 0, max_concurrent_tasks=4)),
        Place("worker", 1, worker(near, "processes", 0, max_concurrent_tasks=2, executor="process")),
        Place("supervisor", 0, worker(far, "supervised", TARGETS["child"], max_concurrent_tasks=4)),
        *(Place("scheduler", n, far if n == 0 else near) for n in range(TARGETS["scheduler"])),
    ]
