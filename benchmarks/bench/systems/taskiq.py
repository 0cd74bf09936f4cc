"""taskiq with taskiq-redis: the `taskiq worker` command. Its fastest broker, on a list, acknowledges nothing."""

from __future__ import annotations

from typing import Any, Self

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker

from bench import systems
from bench.calls import Call

broker = ListQueueBroker(systems.URL).with_serializer(ORJSONSerializer())
TASKS = {fn.__name__: broker.task(task_name=fn.__name__)(fn) for fn in systems.FUNCTIONS}


class AsyncProducer:
    """`kiq`; there is no bulk enqueue, so many are awaited together."""

    async def __aenter__(self) -> Self:
        await broker.startup()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await broker.shutdown()

    async def push(self, call: Call) -> None:
        await TASKS[call.task].kiq(call.number, call.data)

    async def push_many(self, calls: list[Call]) -> None:
        await systems.together(self.push, calls)


systems.hold()
