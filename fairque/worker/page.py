"""The page of memory that a worker process shares with its supervisor.

What stands here survives the process: which incarnation it was, and which of its tasks had begun, so that
only those are counted as crashed; and it is readable while a task holds the interpreter's lock, so that the
supervisor can judge whether the process is busy or stalled.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from fairque.core.record import INCARNATION_CHARS

# phase, recycle, incarnation, then monotonic seconds: last good call, last pulse; tasks settled
_HEAD = struct.Struct("=BBxx11sxddQ")
_SLOT = struct.Struct("=16sd")  # token, when the process counts as stalled (monotonic seconds)
_EMPTY = bytes(_SLOT.size)
_FIRST = 64


class Phase(IntEnum):
    """Where a worker process is."""

    STARTING = 0
    READY = 1
    LEAVING = 2


@dataclass(frozen=True, slots=True)
class Begun:
    """A task that has begun. `stalled_at`: monotonic seconds."""

    token: bytes
    stalled_at: float


class Page:
    """One process's page, seen from either side. Slots are for tasks that have begun."""

    def __init__(self, fd: int, slots: int) -> None:
        self._fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, _FIRST + slots * _SLOT.size)
        self._free = list(range(slots - 1, -1, -1))
        self._used: dict[bytes, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def create(cls, slots: int) -> Self:
        """A page of its own, in a file without a name that a child can inherit."""
        with tempfile.TemporaryFile(prefix="fairque-page-") as file:
            fd = os.dup(file.fileno())
        os.ftruncate(fd, _FIRST + slots * _SLOT.size)
        return cls(fd, slots)

    @property
    def fd(self) -> int:
        """The descriptor to hand to the child."""
        return self._fd

    def close(self) -> None:
        """Let go of the page."""
        self._map.close()
        os.close(self._fd)

    # -- the head

    def _read(self) -> tuple[int, int, bytes, float, float, int]:
        found: tuple[int, int, bytes, float, float, int] = _HEAD.unpack_from(self._map)
        return found

    @property
    def phase(self) -> Phase:
        """Where the process is."""
        return Phase(self._read()[0])

    @property
    def recycle(self) -> bool:
        """Whether it asks to be replaced."""
        return bool(self._read()[1])

    @property
    def incarnation(self) -> str:
        """Its incarnation, empty before it has one."""
        return self._read()[2].rstrip(b"\0").decode()

    @property
    def last_good(self) -> float:
        """When the server last answered it (monotonic seconds; 0: never)."""
        return self._read()[3]

    @property
    def pulse(self) -> float:
        """When one of its own threads last ran (monotonic seconds): old if a task holds the interpreter's lock."""
        return self._read()[4]

    @property
    def settled(self) -> int:
        """How many tasks it has brought to an end."""
        return self._read()[5]

    def beat(self, now: float, settled: int) -> None:
        """Say that threads run here."""
        self._map[24:40] = struct.pack("=dQ", now, settled)

    def set_phase(self, phase: Phase, *, recycle: bool = False) -> None:
        """Say where the process is."""
        self._map[0], self._map[1] = phase, int(recycle)

    def set_incarnation(self, incarnation: str) -> None:
        """Say which incarnation it is."""
        self._map[4 : 4 + INCARNATION_CHARS] = incarnation.encode()

    def set_last_good(self, now: float) -> None:
        """Say that the server has answered."""
        self._map[16:24] = struct.pack("=d", now)

    # -- tasks that have begun

    def begin(self, token: bytes, stalled_at: float) -> None:
        """A task begins."""
        with self._lock:
            if not self._free or token in self._used:
                return
            slot = self._used[token] = self._free.pop()
        _SLOT.pack_into(self._map, _FIRST + slot * _SLOT.size, token, stalled_at)

    def extend(self, token: bytes, stalled_at: float) -> None:
        """The process deals with a late task itself: judge it later."""
        with self._lock:
            slot = self._used.get(token)
        if slot is not None:
            at = _FIRST + slot * _SLOT.size
            self._map[at : at + _SLOT.size] = _SLOT.pack(token, stalled_at)

    def end(self, token: bytes) -> None:
        """A task has ended."""
        with self._lock:
            slot = self._used.pop(token, None)
        if slot is None:
            return
        at = _FIRST + slot * _SLOT.size
        self._map[at : at + _SLOT.size] = _EMPTY
        with self._lock:
            self._free.append(slot)

    def begun(self) -> tuple[Begun, ...]:
        """The tasks that have begun and not ended."""
        found: list[Begun] = []
        for slot in range(self.slots):
            token, stalled_at = _SLOT.unpack_from(self._map, _FIRST + slot * _SLOT.size)
            if stalled_at:
                found.append(Begun(token, stalled_at))
        return tuple(found)
