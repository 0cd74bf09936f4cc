"""SAQ: the `saq` command. Sync functions would run in a pool of threads whose size cannot be set, so only async."""

from __future__ import annotations

from typing import Any, Self

from redis import asyncio as aioredis
from saq.queue.redis import RedisQueue

from bench import systems
from bench.calls import Call

queue = RedisQueue(aioredis.Redis.from_url(systems.URL))


async def async_noop(ctx: dict[str, Any], *, index: int, data: str) -> None:
    await systems.async_noop(index, data)


async def async_work(ctx: dict[str, Any], *, index: int, data: str) -> None:
    await systems.async_work(index, data)


settings = {"queue": queue, "functions": [async_noop, async_work], "concurrency": systems.CONCURRENCY}


class AsyncProducer:
    """`enqueue`; many are awaited together."""

    async def __aenter__(self) -> Self:
        await queue.connect()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await queue.disconnect()

    async def push(self, call: Call) -> None:
        await queue.enqueue(call.task, index=call.number, data=call.data, ttl=-1)

    async def push_many(self, calls: list[Call]) -> None:
        await systems.together(self.push, calls)


systems.hold()
