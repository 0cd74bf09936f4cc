"""How much memory this process has in use."""

from __future__ import annotations

import os
import resource
import sys


def process_memory_mb() -> float:
    """Resident memory of this process in megabytes (where the system does not tell it: the most there ever
    was)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
