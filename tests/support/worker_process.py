"""A worker, or a supervisor with its workers, in a process of its own: `python -m tests.support.worker_process ORDER`.

ORDER is JSON. The process does not outlive the test that started it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import signal
import sys
from pathlib import Path

from fairque.core.config import FairQueueConfig
from fairque.worker.supervisor import Supervisor
from fairque.worker.worker import Worker

ROOT = Path(__file__).parents[2]


def main(order: dict[str, object]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    logging.basicConfig(
        level=str(order["log_level"]), format="%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s"
    )
    config = FairQueueConfig.from_dict(order["config"])  # type: ignore[arg-type]
    modules: list[str] = order["modules"]  # type: ignore[assignment]
    processes = int(order["processes"])  # type: ignore[call-overload]
    if processes:
        return Supervisor(
            config,
            modules=modules,
            processes=processes,
            path=[str(ROOT)],
            log_level=logging.getLogger().level,
        ).run()
    Worker(config, modules=modules).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
