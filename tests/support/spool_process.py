"""A producer in a process of its own, which spools: `python -m tests.support.spool_process ORDER`.

ORDER is JSON: the configuration, the user, and the first and the last number to push. It prints each id after its push
has returned, then waits to be killed; it does not outlive the test that started it.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.models import Task
from fairque.queue.queue import TaskQueue


def main(order: dict[str, Any]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    queue = TaskQueue(FairQueueConfig.from_dict(order["config"]))
    for number in range(order["first"], order["last"]):
        task = Task.create(payload=number, user_id=order["user"], task_id=f"{order['user']}-{number:04d}")
        handle = queue.push(task, on_unavailable="spool")
        print(handle.task_id, handle.spooled, flush=True)
    print("done", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
