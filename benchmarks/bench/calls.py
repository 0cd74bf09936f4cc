"""What producers are asked to push. Shared by the harness, the producers of every peer, and FairQueue's own."""

from __future__ import annotations

import os
from typing import NamedTuple

TASK_SECONDS = float(os.environ.get("BENCH_TASK_SECONDS", "0.001"))
"""How long a `work` task sleeps."""


class Call(NamedTuple):
    """One task to push: `task` is a name of the system's module (`noop`, `work`, and their `async_` twins), `data` its
    payload, `user` a tenant or None for none."""

    task: str
    number: int
    data: str
    user: str | None
