"""Workers that are killed one after the other at random moments: `python -m tests.support.nest ORDER`.

Each is forked from this process, which has imported everything and has no threads, because starting an interpreter
takes longer than a whole life here. Before a dead worker's tasks are given back, it is written down what it held.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import signal
import sys
import time
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims
from fairque.queue.operations.base import Engine
from fairque.worker.page import Page, Phase
from fairque.worker.worker import Worker, import_modules
from tests.support.executor_tasks import note

DONE = "done"


def live(config: FairQueueConfig, page: Page) -> None:
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        Worker(config, page=page).run()
    finally:
        os._exit(1)


def main(order: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.ERROR)
    config = FairQueueConfig.from_dict(order["config"])
    engine = Engine(config.queue, config.key_prefix)
    import_modules(order["modules"])
    client: Any = config.redis.create_redis_client()
    manager = LuaScriptManager(client)
    moments = random.Random(order["seed"])
    until = time.monotonic() + order["seconds"]
    lives = 0
    while lives < order["lives"] or time.monotonic() < until:
        lives += 1
        page = Page.create(config.worker().max_concurrent_tasks)
        pid = os.fork()
        if pid == 0:
            live(config, page)
        while page.phase is not Phase.READY:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, order["longest"]))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        held = client.hkeys(engine.keys.held(page.incarnation))
        note(order["held"], " ".join(task_id.decode() for task_id in held))
        manager.run(claims.leave(engine, page.incarnation, ()))
        page.close()
    note(order["held"], DONE)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    main(json.loads(sys.argv[1]))
