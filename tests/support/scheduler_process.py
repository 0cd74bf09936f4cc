"""A scheduler in a process of its own: `python -m tests.support.scheduler_process CONFIG`.

CONFIG is JSON. The process does not outlive the test that started it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import signal
import sys

from fairque.core.config import FairQueueConfig
from fairque.scheduler.scheduler import TaskScheduler


def main(config: dict[str, object]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s")
    TaskScheduler(FairQueueConfig.from_dict(config)).run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
