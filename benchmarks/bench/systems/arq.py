"""arq: the `arq` command. Functions are coroutine functions only; there is no bulk enqueue."""

from __future__ import annotations

from typing import Any, Self

from arq import create_pool, func
from arq.connections import ArqRedis, RedisSettings

from bench import systems
from bench.calls import Call

SETTINGS = RedisSettings.from_dsn(systems.URL)


async def noop(ctx: dict[str, Any], index: int, data: str) -> None:
    await systems.async_noop(index, data)


async def work(ctx: dict[str, Any], index: int, data: str) -> None:
    await systems.async_work(index, data)


class WorkerSettings:
    """What the `arq` command reads."""

    functions = (func(noop, name="async_noop", keep_result=0), func(work, name="async_work", keep_result=0))
    redis_settings = SETTINGS
    max_jobs = systems.CONCURRENCY
    poll_delay = 0.001
    keep_result = 0
    log_results = False


class AsyncProducer:
    """`enqueue_job`; many are awaited together."""

    pool: ArqRedis

    async def __aenter__(self) -> Self:
        self.pool = await create_pool(SETTINGS)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.pool.aclose()

    async def push(self, call: Call) -> None:
        await self.pool.enqueue_job(call.task, call.number, call.data)

    async def push_many(self, calls: list[Call]) -> None:
        await systems.together(self.push, calls)


systems.hold()
