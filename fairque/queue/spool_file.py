"""One file of a local spool: who has it locked is its only writer and its only reader.

It begins with a head of 64 bytes: a name of the format, then twice the place up to which it was drained, written in
turns, so that one of the two is always whole. Records follow (core/spool_records.py). The lock goes when its process
goes, however it goes; then another one may take the file over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fairque.core.spool_records import MAX_PAYLOAD_BYTES, OVERHEAD_BYTES, Scan, frames, scan

SUFFIX = ".spool"
_UNBORN = ".new"
_FORMAT = b"FQSPOOL1"
_HEAD_BYTES = 64
_PLACE = struct.Struct(">IQI")
_SLOTS = (16, 40)
_READ_BYTES = MAX_PAYLOAD_BYTES + 2 * OVERHEAD_BYTES
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Look:
    """What is left to do in a file, how large that is, and whether a living process has it."""

    path: Path
    held: bool
    payloads: list[bytes]
    bytes: int


class SpoolFile:
    """An open, locked file. Not for several threads at once."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._turn, self.drained_to = self._read_place()
        self.end = max(os.fstat(descriptor).st_size, _HEAD_BYTES)

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new file, whose name tells its place among the others, by time.

        Raises:
            OSError: there cannot be one.
        """
        stem = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        unborn = directory / (stem + _UNBORN)
        descriptor = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            # Before it has the name under which others look for files to take over.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, _FORMAT.ljust(_HEAD_BYTES, b"\0"), 0)
            os.fsync(descriptor)
            path = directory / (stem + SUFFIX)
            unborn.rename(path)
            sync_directory(directory)
        except BaseException:
            os.close(descriptor)
            unborn.unlink(missing_ok=True)
            raise
        return cls(path, descriptor)

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """The file at `path`, or None: its process lives, or another one was faster."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been drained and removed between the two calls.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    @property
    def is_drained(self) -> bool:
        """Whether nothing in it is left to do."""
        return self.drained_to >= self.end

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write records; when this returns, they are on the disk.

        Raises:
            OSError: they are not, and the file is as it was.
        """
        data = frames(payloads)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self.end + written)
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            raise
        self.end += len(data)

    def read(self, most: int, most_bytes: int) -> Scan:
        """What comes next, at most so many records and bytes; `advance` by its size when that is done."""
        data = os.pread(self._descriptor, min(_READ_BYTES, self.end - self.drained_to), self.drained_to)
        at_end = self.drained_to + len(data) >= self.end
        return scan(data, at_end=at_end, most=most, most_bytes=most_bytes)

    def advance(self, size: int) -> None:
        """The next `size` bytes are done, and will not be read again, also by others."""
        self.drained_to += size
        self._turn += 1
        body = struct.pack(">IQ", self._turn, self.drained_to)
        os.pwrite(self._descriptor, body + struct.pack(">I", zlib.crc32(body)), _SLOTS[self._turn % 2])
        os.fsync(self._descriptor)

    def _read_place(self) -> tuple[int, int]:
        head = os.pread(self._descriptor, _HEAD_BYTES, 0)
        best = (0, _HEAD_BYTES)
        for slot in _SLOTS:
            body = head[slot : slot + _PLACE.size]
            if len(body) == _PLACE.size:
                turn, place, checksum = _PLACE.unpack(body)
                if turn > best[0] and zlib.crc32(body[:-4]) == checksum:
                    best = (turn, place)
        return best

    @classmethod
    def look(cls, path: Path) -> Look | None:
        """What is in the file at `path`, whosever it is; None if it is gone."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            held = False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held = True
            file = cls(path, descriptor)
            payloads: list[bytes] = []
            while not file.is_drained:
                piece = file.read(1 << 30, 1 << 30)
                payloads += piece.payloads
                file.drained_to += max(1, piece.size)
            return Look(path, held, payloads, file.end)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of it; it is removed if nothing in it is left to do."""
        if self.is_drained:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def forget(self) -> None:
        """After a fork: the file, and its lock, are the parent's."""
        os.close(self._descriptor)


def sync_directory(directory: Path) -> None:
    """Make new and removed names in it lasting."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
