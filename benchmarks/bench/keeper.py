"""Runs beside the harness and outlives it: ends the processes and removes the files that a killed harness would leave.

It reads lines from the harness: `group N`, `done N`, `remove PATH`. At the end of its input, which is also what the
harness's death looks like, it kills every process group that is not done and removes the paths. Only the standard
library, and no site-packages: it starts in some 15 ms and sleeps ever after.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys


def family(pid: int) -> list[int]:
    """The process and all that descend from it, by /proc; also those that went into groups of their own."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue  # it has just ended
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for member in found:
        found += children.get(member, ())
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL to each, and to the group that each may lead: a parent first, so that it replaces no child."""
    for pid in pids:
        for send in (os.kill, os.killpg):
            try:
                send(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def main() -> None:
    """Read until the harness is gone, then tidy up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the harness, which then closes our input
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: set[int] = set()
    paths: list[str] = []
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "group":
            groups.add(int(rest))
        elif word == "done":
            groups.discard(int(rest))
        elif word == "remove":
            paths.append(rest)
    for group in groups:
        kill(family(group))
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
