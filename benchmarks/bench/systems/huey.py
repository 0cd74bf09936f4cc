"""huey: `huey_consumer` with threads. It has no async functions and no bulk enqueue."""

from __future__ import annotations

from huey import RedisHuey

from bench import systems
from bench.calls import Call

huey = RedisHuey("bench", url=systems.URL, results=False, blocking=True)
TASKS = {fn.__name__: huey.task()(fn) for fn in systems.SYNC_FUNCTIONS}


class SyncProducer:
    """Calling a task function enqueues it."""

    def push(self, call: Call) -> None:
        TASKS[call.task](call.number, call.data)

    def push_many(self, calls: list[Call]) -> None:
        for call in calls:
            self.push(call)


systems.hold()
