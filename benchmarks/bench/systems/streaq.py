"""streaQ: the `streaq run` command; sync functions in threads, coroutine functions on the loop."""

from __future__ import annotations

from typing import Any, Self

from streaq import Worker

from bench import systems
from bench.calls import Call

worker = Worker(
    redis_url=systems.URL,
    queue_name="bench",
    concurrency=systems.CONCURRENCY,
    sync_concurrency=systems.CONCURRENCY,
)
TASKS = {fn.__name__: worker.task(ttl=0, silent=True, name=fn.__name__)(fn) for fn in systems.FUNCTIONS}


class AsyncProducer:
    """`enqueue`, and `enqueue_many` in one pipeline."""

    async def __aenter__(self) -> Self:
        await worker.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await worker.__aexit__(*error)

    async def push(self, call: Call) -> None:
        await TASKS[call.task].enqueue(call.number, call.data)

    async def push_many(self, calls: list[Call]) -> None:
        await worker.enqueue_many([TASKS[call.task].enqueue(call.number, call.data) for call in calls])


systems.hold()
