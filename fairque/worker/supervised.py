"""A worker process under a supervisor: `python -m fairque.worker.supervised`.

What to do comes as one line of JSON on standard input, which stays open: its end says that the supervisor is
gone, and the worker leaves, giving back what it cannot finish.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import ConfigError, FairQueueError
from fairque.scheduler.deploy import deploy_from
from fairque.worker.handler import TaskHandler
from fairque.worker.page import Page
from fairque.worker.worker import Worker

EXIT_RECYCLE = 75
"""The process wants to be replaced."""
EXIT_CONFIG = 78
"""It can never start as it is: no use in trying again."""


def load_handler(name: str) -> TaskHandler:
    """The handler named ``module:Class``.

    Raises:
        ConfigError: there is no such class, or it is no TaskHandler.
    """
    module, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
        handler = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"there is no handler {name!r} (module:Class): {error}") from None
    if not isinstance(handler, TaskHandler):
        raise ConfigError(f"{name!r} is no TaskHandler: derive it from fairque.TaskHandler")
    return handler


def _read_line(fd: int) -> bytes:
    """Up to the end of a line, unbuffered: a thread that is blocked in a buffered reader keeps Python from ending."""
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(fd, 1)):
        line += part
    return bytes(line)


def main() -> int:
    """Run one worker process; returns its exit code."""
    # The pipe is this process's own: a program that a task starts shall find nothing on its standard input.
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    order = json.loads(_read_line(pipe))
    logging.basicConfig(
        level=order["log_level"], format="%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s"
    )
    sys.path[:0] = [path for path in order["path"] if path not in sys.path]
    page = Page(order["page_fd"], order["slots"])
    try:
        handler = load_handler(order["handler"]) if order["handler"] else None
        worker = Worker(
            FairQueueConfig.from_dict(order["config"]),
            handler,
            worker_id=order["worker_id"],
            modules=order["modules"],
            page=page,
        )
    except FairQueueError as error:
        logging.getLogger(__name__).error("%s", error)
        return EXIT_CONFIG

    def leave_with_parent() -> None:
        while os.read(pipe, 4096):
            pass
        logging.getLogger(__name__).warning("the supervisor is gone: this worker leaves")
        worker.ask_to_stop(worker.entry.shutdown_timeout_seconds)

    threading.Thread(target=leave_with_parent, name="fairque-parent", daemon=True).start()
    try:
        if order["schedules"]:
            # The supervisor decides their ticks, but imports no user's modules.
            deploy_from(worker.config, order["modules"])
        worker.run()
    except ConfigError as error:
        logging.getLogger(__name__).error("%s", error)
        return EXIT_CONFIG
    except FairQueueError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return EXIT_RECYCLE if worker.recycling else 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        logging.getLogger(__name__).exception("the worker process could not start")
        code = 1
    logging.shutdown()
    # A thread that is stuck in a task must not keep the process.
    os._exit(code)
