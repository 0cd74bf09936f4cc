"""How much memory this process has in use."""

from __future__ import annotations

import os
import resource
import sys

MIB = 1024 * 1024


def process_memory_mb() -> float:
    """Resident memory of this process in MiB (where the system does not tell it: the most there ever
    was)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / MIB if sys.platform == "darwin" else peak / 1024
