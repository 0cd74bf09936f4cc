"""A pop that is cancelled while it waits keeps no task, and no wake-up, from others."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
import redis

from fairque import AsyncTaskQueue, Task
from fairque.core.exceptions import FairQueueError
from tests.support.proxy import FaultProxy
from tests.support.queues import config_for, tidy, wait_until
from tests.support.servers import ServerProcess

__all__ = ["tidy"]
pytestmark = pytest.mark.usefixtures("tidy")

SOON = 2.0
"""Far less than MAX_POP_SECONDS, after which a pop that nobody wakes looks by itself."""


async def parked(client: redis.Redis, count: int) -> None:
    await asyncio.to_thread(wait_until, lambda: client.zcard("fq:waiters") == count, 20)


async def cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("it was to be cancelled")


def test_who_waited_before_is_woken(server: ServerProcess, flushed: redis.Redis) -> None:
    async def run() -> None:
        first, last = AsyncTaskQueue(config_for(server.url)), AsyncTaskQueue(config_for(server.url))
        waiting = asyncio.create_task(first.pop(wait=30))
        await parked(flushed, 1)
        leaving = asyncio.create_task(last.pop(wait=30))
        await parked(flushed, 2)
        await cancelled(leaving)
        await parked(flushed, 1)
        began = time.monotonic()
        await first.push(Task.create(payload=1))
        task = await waiting
        assert task is not None
        assert time.monotonic() - began < SOON
        await first.finish(task)
        await first.close()
        await last.close()

    asyncio.run(run())


def test_a_wake_up_that_comes_with_the_cancellation_goes_on(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    rng = random.Random(5)

    async def run() -> None:
        pusher, first = AsyncTaskQueue(config_for(server.url)), AsyncTaskQueue(config_for(server.url))
        last = AsyncTaskQueue(config_for(server.url))
        for number in range(60):
            waiting = asyncio.create_task(first.pop(wait=30))
            await parked(flushed, 1)
            leaving = asyncio.create_task(last.pop(wait=30))
            await parked(flushed, 2)
            began = time.monotonic()
            push = asyncio.create_task(pusher.push(Task.create(payload=number)))
            await asyncio.sleep(rng.uniform(0, 0.003))
            leaving.cancel()
            [left] = await asyncio.gather(leaving, return_exceptions=True)
            await push
            if isinstance(left, Task):  # it was faster than its cancellation
                await last.finish(left)
                await cancelled(waiting)
            else:
                task = await waiting
                assert task is not None
                assert time.monotonic() - began < SOON, number
                await first.finish(task)
        for queue in (pusher, first, last):
            await queue.close()

    asyncio.run(run())


def test_a_task_whose_pop_was_cancelled_on_the_way_goes_to_another(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    """The server has claimed it; its answer is held up, and nobody waits for it any more."""

    async def run() -> None:
        with FaultProxy(server.url) as proxy:
            slow, other = AsyncTaskQueue(config_for(proxy.url)), AsyncTaskQueue(config_for(server.url))
            await slow.push(Task.create(payload=0))
            first = await slow.pop()
            assert first is not None
            await slow.finish(first)
            await other.push(Task.create(payload=1, task_id="claimed"))
            proxy.delay(0.2)
            leaving = asyncio.create_task(slow.pop(wait=30))
            await asyncio.to_thread(wait_until, lambda: flushed.zcard("fq:state:started") == 1, 20)
            proxy.delay(0)
            await cancelled(leaving)
            task = await other.pop(wait=10)
            assert task is not None
            assert (task.task_id, task.attempt) == ("claimed", 1), "it was given back unstarted"
            await other.finish(task)
            await slow.close()
            await other.close()

    asyncio.run(run())


def test_a_thousand_cancellations_leave_the_pool_as_it_was(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    """Calls of all kinds through a slow line, many of them cancelled: each reply is its own caller's."""
    rng = random.Random(7)

    async def run() -> tuple[int, int]:
        with FaultProxy(server.url) as proxy:
            config = config_for(proxy.url)
            queue = AsyncTaskQueue(
                config.model_copy(update={"redis": config.redis.model_copy(update={"max_connections": 5})})
            )
            await queue.push(Task.create(payload=-1, task_id="t-0"))
            proxy.delay(0.002)
            for number in range(1, 40):
                await queue.push(Task.create(payload=number, task_id=f"t-{number}"))
            right = gone = 0

            async def ask(number: int) -> None:
                nonlocal right
                found = await queue.get_task(f"t-{number}")
                assert found is not None
                assert found.task_id == f"t-{number}"
                right += 1

            for _ in range(50):
                calls = [asyncio.create_task(ask(rng.randrange(40))) for _ in range(30)]
                victims = rng.sample(calls, 20)
                for victim in victims:
                    await asyncio.sleep(rng.uniform(0, 0.0015))
                    victim.cancel()
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    if isinstance(outcome, asyncio.CancelledError):
                        gone += 1
                    else:
                        assert outcome is None, outcome
            await ask(1)
            pool = queue._manager.client.connection_pool  # type: ignore[union-attr]
            # All that is out is the spare connection, which waits for the next call.
            assert len(pool._in_use_connections) <= 1
            assert len(pool._in_use_connections) + len(pool._available_connections) <= 5
            await queue.close()
            assert len(pool._in_use_connections) <= 1
            return right, gone

    right, gone = asyncio.run(run())
    assert right + gone == 1501
    assert gone > 300


def test_a_cancelled_pop_does_not_hang_when_the_server_is_away(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    async def run() -> None:
        with FaultProxy(server.url) as proxy:
            queue = AsyncTaskQueue(config_for(proxy.url))
            waiting = asyncio.create_task(queue.pop(wait=30))
            await parked(flushed, 1)
            proxy.black_hole()
            began = time.monotonic()
            await cancelled(waiting)
            assert time.monotonic() - began < SOON
            proxy.heal()
            try:
                await queue.close()
            except FairQueueError:
                pass

    asyncio.run(run())
