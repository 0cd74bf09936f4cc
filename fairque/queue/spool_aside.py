"""What a local spool could not tell the server: tasks that it refused, and bytes that are no record. One file for all
processes, kept until somebody decides (`fairque spool ls`, `retry` and `purge`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from fairque.core.exceptions import SerializationError
from fairque.core.spool_records import SetAside, decode_aside, encode, frames, scan
from fairque.queue.spool_file import sync_directory

NAME = "set-aside"
_LOCK = "set-aside.lock"
_OWNER_ONLY = 0o600


class AsideFile:
    """The file in this directory, which may not be there yet."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Not by the file itself, which is replaced."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path.with_name(_LOCK), flags, _OWNER_ONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, items: Sequence[SetAside]) -> None:
        """Keep them; when this returns, they are on the disk.

        Raises:
            OSError: they cannot be written.
        """
        with self._locked():
            _write(self.path, os.O_APPEND, items)

    def items(self) -> list[SetAside]:
        """All that is there."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        found: list[SetAside] = []
        for payload in scan(data, at_end=True).payloads:
            with contextlib.suppress(SerializationError):
                found.append(decode_aside(payload))
        return found

    def count(self) -> int:
        """How many there are."""
        return len(self.items())

    def settle(self, decide: Callable[[SetAside], bool]) -> int:
        """Remove those for which `decide` says so; how many. Nobody else can add any meanwhile."""
        if not self.path.exists():
            return 0
        with self._locked():
            there = self.items()
            left: list[SetAside] = []
            try:
                while there:
                    if not decide(there[0]):
                        left.append(there[0])
                    del there[0]
            finally:
                removed = len(self.items()) - len(left) - len(there)
                fresh = self.path.with_suffix(".new")
                _write(fresh, os.O_TRUNC, [*left, *there])
                fresh.replace(self.path)
                sync_directory(self.path.parent)
            return removed


def _write(path: Path, flags: int, items: Sequence[SetAside]) -> None:
    data = frames([encode(item) for item in items])
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, _OWNER_ONLY)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
