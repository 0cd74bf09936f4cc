"""RQ: one task at a time in a process, without forking (`SimpleWorker`) or with (`Worker`, mode "fork").

Started as a script, as RQ's documentation advises for workers that import their functions beforehand.
"""

from __future__ import annotations

import sys

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from bench import systems
from bench.calls import Call

NAMES = systems.QUEUES or ("default",)
FOREVER = {"result_ttl": 0, "job_timeout": 60}


class SyncProducer:
    """`enqueue`, and `enqueue_many` in one pipeline."""

    def __init__(self) -> None:
        self.connection = Redis.from_url(systems.URL)
        self.queues = {name: Queue(name, connection=self.connection) for name in ("default", *NAMES)}

    def push(self, call: Call) -> None:
        queue = self.queues[call.user or "default"]
        queue.enqueue(_path(call), args=(call.number, call.data), **FOREVER)

    def push_many(self, calls: list[Call]) -> None:
        by_queue: dict[str, list[Call]] = {}
        for call in calls:
            by_queue.setdefault(call.user or "default", []).append(call)
        for name, some in by_queue.items():
            self.queues[name].enqueue_many(
                [
                    Queue.prepare_data(_path(call), (call.number, call.data), result_ttl=0, timeout=60)
                    for call in some
                ]
            )


def _path(call: Call) -> str:
    return f"bench.systems.{call.task}"


def serve() -> None:
    """Be a worker."""
    connection = Redis.from_url(systems.URL)
    queues = [Queue(name, connection=connection) for name in NAMES]
    kind = Worker if sys.argv[1:] == ["fork"] else SimpleWorker
    worker = kind(queues, connection=connection)
    worker.log_job_description = False
    systems.hold()
    worker.work(logging_level="WARNING", dequeue_strategy="round_robin" if systems.QUEUES else "default")


if __name__ == "__main__":
    serve()
