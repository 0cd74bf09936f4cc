"""What nothing that goes through redis-py to the server and runs a script there can be faster than.

An empty script is what one call costs. The minimal fair queue is the least that a queue with a list for each tenant and
a turn among them can do: no fencing, leases, clock, policies, states or statistics.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis import asyncio as aioredis

EMPTY = "return 1"

# KEYS: prefix. ARGV: user, id, data, ... for each task.
PUSH = """
local prefix = KEYS[1]
for i = 1, #ARGV, 3 do
  redis.call('SET', prefix .. ':task:' .. ARGV[i + 1], ARGV[i + 2])
  if redis.call('RPUSH', prefix .. ':queue:' .. ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', prefix .. ':ready', redis.call('GET', prefix .. ':turn') or 0, ARGV[i])
  end
end
"""

# KEYS: prefix. ARGV: how many, now. Takes the user whose turn it is, and moves that turn on by one.
CLAIM = """
local prefix, reply = KEYS[1], {}
for n = 1, tonumber(ARGV[1]) do
  local next = redis.call('ZPOPMIN', prefix .. ':ready')
  if #next == 0 then break end
  local user, turn = next[1], tonumber(next[2])
  local list = prefix .. ':queue:' .. user
  local id = redis.call('LPOP', list)
  redis.call('ZADD', prefix .. ':running', ARGV[2], id)
  reply[#reply + 1] = id
  reply[#reply + 1] = redis.call('GET', prefix .. ':task:' .. id)
  if redis.call('EXISTS', list) == 1 then redis.call('ZADD', prefix .. ':ready', turn + 1, user) end
  redis.call('SET', prefix .. ':turn', turn)
end
return reply
"""

# KEYS: prefix. ARGV: ids.
FINISH = """
local prefix = KEYS[1]
for i = 1, #ARGV do
  redis.call('DEL', prefix .. ':task:' .. ARGV[i])
  redis.call('ZREM', prefix .. ':running', ARGV[i])
end
"""

PREFIX = "floor"
DATA = b"x" * 110
USERS = 20


class Bare:
    """An empty script, called through redis-py as its documentation shows."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.sha = self.client.script_load(EMPTY)

    def call(self) -> None:
        self.client.evalsha(self.sha, 1, PREFIX)

    def pipeline(self, count: int) -> None:
        """That many calls in one round trip."""
        with self.client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                pipe.evalsha(self.sha, 1, PREFIX)
            pipe.execute()

    def close(self) -> None:
        self.client.close()


class AsyncBare:
    """The same through the async client."""

    def __init__(self, url: str) -> None:
        self.client: Any = aioredis.Redis.from_url(url)
        self.sha = ""

    async def call(self) -> None:
        if not self.sha:
            self.sha = await self.client.script_load(EMPTY)
        await self.client.evalsha(self.sha, 1, PREFIX)

    async def close(self) -> None:
        await self.client.aclose()


class Minimal:
    """The minimal fair queue."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self._push, self._claim, self._finish = map(self.client.script_load, (PUSH, CLAIM, FINISH))
        self._next = 0
        self._held: list[list[bytes]] = []

    def push(self, count: int) -> None:
        """That many tasks of 20 users in one call."""
        arguments: list[Any] = []
        for _ in range(count):
            self._next += 1
            arguments += (f"user{self._next % USERS}", self._next, DATA)
        self.client.evalsha(self._push, 1, PREFIX, *arguments)

    def claim(self, count: int) -> None:
        """Claim that many in one call."""
        reply = self.client.evalsha(self._claim, 1, PREFIX, count, time.time())
        assert len(reply) == 2 * count, "the queue ran dry"
        self._held.append(reply[::2])

    def finish(self) -> None:
        """Finish in one call what one call has claimed."""
        self.client.evalsha(self._finish, 1, PREFIX, *self._held.pop())

    def close(self) -> None:
        self.client.close()


def hand_over(count: int, threads: int = 10) -> float:
    """Seconds for each of `count` no-op calls that waiting threads take from a queue, with an answer to this thread."""
    todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work() -> None:
        while (function := todo.get()) is not None:
            function()
            done.put(None)

    pool = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    began = time.perf_counter()
    for _ in range(count):
        todo.put(lambda: None)
    for _ in range(count):
        done.get()
    took = time.perf_counter() - began
    for _ in pool:
        todo.put(None)
    for thread in pool:
        thread.join()
    return took / count


def ping_pong(count: int) -> float:
    """Seconds of one hand-over to a sleeping thread and back."""
    there: queue.SimpleQueue[bool] = queue.SimpleQueue()
    back: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def answer() -> None:
        while there.get():
            back.put(True)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    began = time.perf_counter()
    for _ in range(count):
        there.put(True)
        back.get()
    took = time.perf_counter() - began
    there.put(False)
    thread.join()
    return took / count
