"""A producer, in the environment of the system that it pushes to: `python -m bench.driver SYSTEM sync|async`.

It takes orders as lines of JSON and answers each with one: `push` (many tasks, one call each, in bulk, or as a fan-in) and `probe`
(one task at a time, each after the one before has begun). The first line that it writes says who it is.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TextIO

from bench.board import Board
from bench.calls import Call

PROBE_SECONDS = 10.0
POLL_SECONDS = 0.0002


def calls_of(order: dict[str, Any]) -> Iterator[Call]:
    """The tasks of an order; its users take turns."""
    users: list[str] | list[None] = order.get("users") or [None]
    data = "x" * order.get("size", 100)
    for offset in range(order["count"]):
        yield Call(order["task"], order["first"] + offset, data, users[offset % len(users)])


def chunks(calls: Iterator[Call], size: int) -> Iterator[list[Call]]:
    while chunk := list(islice(calls, size)):
        yield chunk


class Answer:
    """Measures what an order took."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def done(self, count: int) -> dict[str, Any]:
        return {
            "count": count,
            "seconds": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
        }


def push(producer: Any, board: Board, order: dict[str, Any]) -> dict[str, Any]:
    """Push by a sync producer."""
    calls, stamp = calls_of(order), order.get("stamp", False)
    answer = Answer()
    if order["style"] == "bulk":
        for chunk in chunks(calls, order["chunk"]):
            producer.push_many(chunk)
    elif order["style"] == "fan-in":
        *parts, last = calls
        board.push(order["first"])
        producer.fan_in(parts, last._replace(task="collect"))
    else:
        for call in calls:
            if stamp:
                board.push(call.number)
            producer.push(call)
    return answer.done(order["count"])


def probe(producer: Any, board: Board, order: dict[str, Any]) -> dict[str, Any]:
    """Push one after the other by a sync producer, each when the one before has begun and a pause is over."""
    answer, seen = Answer(), 0
    for call in calls_of(order):
        board.push(call.number)
        producer.push(call)
        deadline = time.monotonic() + PROBE_SECONDS
        while not board.has_begun(call.number):
            if time.monotonic() > deadline:
                return answer.done(seen)
            time.sleep(POLL_SECONDS)
        seen += 1
        time.sleep(order["pause"])
    return answer.done(seen)


async def push_async(producer: Any, board: Board, order: dict[str, Any]) -> dict[str, Any]:
    """`push` by an async producer."""
    calls, stamp = calls_of(order), order.get("stamp", False)
    answer = Answer()
    if order["style"] == "bulk":
        for chunk in chunks(calls, order["chunk"]):
            await producer.push_many(chunk)
    else:
        for call in calls:
            if stamp:
                board.push(call.number)
            await producer.push(call)
    return answer.done(order["count"])


async def probe_async(producer: Any, board: Board, order: dict[str, Any]) -> dict[str, Any]:
    """`probe` by an async producer."""
    answer, seen = Answer(), 0
    for call in calls_of(order):
        board.push(call.number)
        await producer.push(call)
        deadline = time.monotonic() + PROBE_SECONDS
        while not board.has_begun(call.number):
            if time.monotonic() > deadline:
                return answer.done(seen)
            await asyncio.sleep(POLL_SECONDS)
        seen += 1
        await asyncio.sleep(order["pause"])
    return answer.done(seen)


class Talk:
    """The two pipes. Standard output is kept free of what libraries print."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, answer: dict[str, Any]) -> None:
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()

    def order(self) -> dict[str, Any] | None:
        """The next order, or None if there is none to come."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def answer(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            self.say(work())
        except Exception as error:  # noqa: BLE001 - whatever it is, the harness reports it
            self.say({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """Serve orders until there are no more."""
    name, kind = sys.argv[1:]
    talk = Talk()
    board = Board.from_environment()
    module = importlib.import_module(f"bench.systems.{name}")
    if kind == "sync":
        producer = module.SyncProducer()
        talk.say({"hello": name})
        while (order := talk.order()) is not None:
            work = probe if order["do"] == "probe" else push
            talk.answer(partial(work, producer, board, order))
    else:
        asyncio.run(serve_async(talk, board, module, name))


async def serve_async(talk: Talk, board: Board, module: Any, name: str) -> None:
    """Serve orders on an event loop; between them nothing else runs on it."""
    async with module.AsyncProducer() as producer:
        talk.say({"hello": name})
        while (order := talk.order()) is not None:
            try:
                work = probe_async if order["do"] == "probe" else push_async
                talk.say(await work(producer, board, order))
            except Exception as error:  # noqa: BLE001 - whatever it is, the harness reports it
                talk.say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
