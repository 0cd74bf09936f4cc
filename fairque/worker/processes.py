"""Processes as the system sees them: ended, stopped, and how."""

from __future__ import annotations

import contextlib
import os
import signal


def kill_group(pid: int) -> None:
    """End the process group that this process leads, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (Linux; elsewhere unknown, and taken for running)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def describe_exit(code: int) -> str:
    """An exit code, or the signal that ended the process, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
