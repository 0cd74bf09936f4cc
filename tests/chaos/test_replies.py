"""Replies that are lost after the server has done its work, and callers that leave before theirs comes.

A ledger of ids says at the end that every task was pushed once, claimed once and finished once, and that
nothing is held by nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import redis

from fairque.core.config import QueueConfig
from fairque.core.exceptions import QueueUnavailableError
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue import spare
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine
from fairque.queue.queue import TaskQueue
from fairque.scripts import SCRIPTS, load
from tests.support.invariants import assert_consistent
from tests.support.proxy import FaultProxy
from tests.support.queues import config_for, empty, wait_until
from tests.support.servers import ServerProcess

TASKS = 1000
CANCELLATIONS = 1000


@pytest.fixture
def proxy(flushed: redis.Redis, server: ServerProcess) -> Iterator[FaultProxy]:
    """Between the queues of a test and their server, which knows the library."""
    flushed.function_load(load().text.decode(), replace=True)
    with FaultProxy(server.url) as proxy:
        yield proxy
    assert_consistent(flushed)
    with TaskQueue(config_for(server.url)) as queue:
        empty(queue)


def function_name(script: str) -> bytes:
    """How it stands in a request, where no other begins with it."""
    return f"{SCRIPTS[script].function}\r\n".encode()


class Loses:
    """Of each call of a script, the replies to the first `times` ways it was sent; said again, it is known."""

    def __init__(self, script: str, times: int = 1) -> None:
        self._function = function_name(script)
        self._times = times
        self._seen: Counter[bytes] = Counter()

    def __call__(self, request: bytes) -> bool:
        if self._function not in request:
            return False
        digest = hashlib.sha1(request, usedforsecurity=False).digest()
        self._seen[digest] += 1
        return self._seen[digest] <= self._times


def check(flushed: redis.Redis, sent: list[str], claimed: list[str]) -> None:
    """Every task exactly once, and all of them finished."""
    assert sorted(claimed) == sorted(sent), "lost or handed out twice"
    counters = LuaScriptManager(flushed).run(admin.get_stats(Engine(QueueConfig()))).counters
    assert counters == {"pushed": len(sent), "claimed": len(sent), "finished": len(sent)}
    assert {name.decode() for name in flushed.zrange("fq:state:finished", 0, -1)} == set(sent)
    for state in (TaskState.QUEUED, TaskState.STARTED, TaskState.SCHEDULED, TaskState.FAILED):
        assert flushed.zcard(f"fq:state:{state}") == 0
    assert not flushed.keys("fq:worker:*:tasks")


def test_every_reply_to_push_pop_and_finish_is_lost_once(proxy: FaultProxy, flushed: redis.Redis) -> None:
    with TaskQueue(config_for(proxy.url)) as queue:
        queue.get_stats()
        proxy.drop_replies(TASKS, matching=Loses("push"))
        sent = [queue.push(Task.create(payload=number)).task_id for number in range(TASKS)]
        assert proxy.replies_dropped == TASKS
        assert flushed.zcard("fq:state:queued") == TASKS

        queue.pop(users=["nobody"])  # joins
        proxy.drop_replies(TASKS, matching=Loses("settle_and_claim"))
        tasks = [queue.pop() for _ in range(TASKS)]
        assert proxy.replies_dropped == 2 * TASKS
        assert [task.payload for task in tasks if task] == list(range(TASKS))
        assert queue.get_queue_sizes("default").running == TASKS

        proxy.drop_replies(TASKS, matching=Loses("settle_and_claim"))
        for task in tasks:
            assert task is not None
            queue.finish(task, task.payload)
        assert proxy.replies_dropped == 3 * TASKS
        check(flushed, sent, [task.task_id for task in tasks if task])
        for number in range(0, TASKS, 100):
            assert queue.get_handle(sent[number]).result(5) == number


async def test_every_reply_to_async_push_pop_and_finish_is_lost_once(
    proxy: FaultProxy, flushed: redis.Redis
) -> None:
    async with AsyncTaskQueue(config_for(proxy.url)) as queue:
        await queue.get_stats()
        proxy.drop_replies(TASKS, matching=Loses("push"))
        sent: list[str] = []
        for start in range(0, TASKS, 20):
            batch = [queue.push(Task.create(payload=number)) for number in range(start, start + 20)]
            sent += [handle.task_id for handle in await asyncio.gather(*batch)]
        assert proxy.replies_dropped == TASKS
        assert flushed.zcard("fq:state:queued") == TASKS

        await queue.pop(users=["nobody"])
        proxy.drop_replies(TASKS, matching=Loses("settle_and_claim"))
        tasks: list[Task[Any]] = []
        for _ in range(0, TASKS, 20):
            tasks += [task for task in await asyncio.gather(*(queue.pop() for _ in range(20))) if task]
        assert proxy.replies_dropped == 2 * TASKS

        proxy.drop_replies(TASKS, matching=Loses("settle_and_claim"))
        for start in range(0, TASKS, 20):
            await asyncio.gather(*(queue.finish(task, task.payload) for task in tasks[start : start + 20]))
        assert proxy.replies_dropped == 3 * TASKS
        check(flushed, sent, [task.task_id for task in tasks])


def test_a_call_that_gave_up_is_asked_for_before_the_next(proxy: FaultProxy, flushed: redis.Redis) -> None:
    """All repetitions lost: the caller is told that no answer came, and the next call first gets that answer."""
    with TaskQueue(config_for(proxy.url)) as queue:
        first, second = [queue.push(Task.create(payload=number)) for number in range(2)]
        queue.pop(users=["nobody"])
        proxy.drop_replies(6, matching=Loses("settle_and_claim", 6))
        with pytest.raises(QueueUnavailableError):
            queue.pop()
        assert flushed.zcard("fq:state:started") == 1  # it was claimed, and is in nobody's hands
        one = queue.pop()
        assert one is not None
        assert one.task_id == first.task_id
        proxy.drop_replies(6, matching=Loses("settle_and_claim", 6))
        with pytest.raises(QueueUnavailableError):
            queue.finish(one, "done")
        assert first.result(5) == "done"
        queue.finish(one, "done")  # said again, it is known
        two = queue.pop()
        assert two is not None
        assert two.task_id == second.task_id
        queue.finish(two)
        check(flushed, [first.task_id, second.task_id], [one.task_id, two.task_id])


def test_a_call_that_comes_late_is_refused(proxy: FaultProxy, flushed: redis.Redis) -> None:
    """A claim that was held up on the way, while its caller had long gone on, claims nothing."""
    with TaskQueue(config_for(proxy.url)) as queue:
        sent = [queue.push(Task.create(payload=number)).task_id for number in range(3)]
        queue.pop(users=["nobody"])
        proxy.hold(1, matching=function_name("settle_and_claim"))
        claimed: list[str] = []

        def pop() -> None:
            task = queue.pop()
            assert task is not None
            claimed.append(task.task_id)
            queue.finish(task)

        import threading

        caller = threading.Thread(target=pop)
        caller.start()
        proxy.wait_held(1)
        proxy.reset()  # the caller says it again, on a new connection
        caller.join(10)
        pop()
        proxy.release()  # and now the first one arrives
        wait_until(lambda: not proxy.held)
        pop()
        assert queue.pop() is None
        check(flushed, sent, claimed)


# -- callers that do not wait


def in_use(queue: AsyncTaskQueue) -> int:
    """Connections that somebody holds, beside those that are kept for the next call."""
    clients = [queue._manager.client if queue._manager else None, queue._blocking]
    pools = [client.connection_pool for client in clients if client is not None]
    kept = sum(pool in spare._spares and spare._spares[pool]._connection is not None for pool in pools)
    return sum(len(pool._in_use_connections) for pool in pools) - kept


class Impatient:
    """Makes calls and cancels many of them after a random time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cancelled = 0
        self.answered = 0

    async def call(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
        """Whether it was answered, and with what."""
        task = asyncio.create_task(coroutine)
        if self.random.random() < 0.7:
            await asyncio.wait([task], timeout=self.random.random() * 0.012)
            task.cancel()
        try:
            value = await task
        except asyncio.CancelledError:
            self.cancelled += 1
            return False, None
        self.answered += 1
        return True, value


async def test_no_reply_reaches_a_caller_that_it_was_not_meant_for(
    proxy: FaultProxy, flushed: redis.Redis, server: ServerProcess
) -> None:
    proxy.delay(0.001)
    proxy.slice(200)
    users = Impatient(7)
    sent = [f"task-{number}" for number in range(200)]
    async with AsyncTaskQueue(config_for(proxy.url)) as queue, AsyncTaskQueue(config_for(server.url)) as near:
        await near.push_batch(
            Task.create(payload=name, task_id=name, user_id=f"user-{name}") for name in sent
        )

        async def look() -> None:
            while users.cancelled < CANCELLATIONS:
                name = users.random.choice(sent)
                answered, task = await users.call(queue.get_task(name))
                if answered:
                    assert (task.task_id, task.payload) == (name, name)
                answered, stats = await users.call(queue.get_user_stats(f"user-{name}"))
                if answered:
                    assert (stats.user_id, stats.normal) == (f"user-{name}", 1)
                await users.call(queue.pop(wait=0.004, users=["nobody"]))

        await asyncio.gather(*(look() for _ in range(12)))
        assert users.cancelled >= CANCELLATIONS
        assert users.answered > 200
        assert in_use(queue) == 0
        for name in sent:
            task = await queue.get_task(name)
            assert task is not None
            assert task.task_id == name
        print(f"{users.cancelled} cancelled, {users.answered} answered")
        proxy.heal()


async def test_what_a_cancelled_call_did_is_not_lost(
    proxy: FaultProxy, flushed: redis.Redis, server: ServerProcess
) -> None:
    """Pushes, pops and finishes are cancelled at random: what was claimed for a caller that left is the next one's."""
    proxy.delay(0.001)
    users = Impatient(11)
    claimed: list[str] = []
    async with AsyncTaskQueue(config_for(proxy.url)) as queue:
        await queue.pop(users=["nobody"])

        async def push() -> None:
            while users.cancelled < CANCELLATIONS:
                await users.call(queue.push(Task.create(payload=0)))

        async def work() -> None:
            while users.cancelled < CANCELLATIONS:
                answered, task = await users.call(queue.pop(wait=0.02))
                if not answered or task is None:
                    continue
                claimed.append(task.task_id)
                while not (await users.call(queue.finish(task, task.task_id)))[0]:
                    pass  # a finish that may have happened can be said again

        await asyncio.gather(*(push() for _ in range(4)), *(work() for _ in range(8)))
        assert users.cancelled >= CANCELLATIONS
        proxy.heal()
        while task := await queue.pop():
            claimed.append(task.task_id)
            await queue.finish(task, task.task_id)
        assert in_use(queue) == 0
        [worker] = (await queue.get_stats()).workers
        assert worker.running == 0
        stored = [name.decode() for name in flushed.zrange("fq:state:finished", 0, -1)]
        print(f"{users.cancelled} cancelled, {users.answered} answered, {len(stored)} tasks")
        assert len(stored) > 50
        check(flushed, stored, claimed)
        for task_id in stored[:20]:
            assert await queue.get_handle(task_id) is not None
