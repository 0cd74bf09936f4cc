"""docket: its worker in a script, since the command cannot turn off the keeping of ended tasks. Async only."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Self

from docket import Docket, Worker

from bench import systems
from bench.calls import Call

FUNCTIONS = {fn.__name__: fn for fn in systems.ASYNC_FUNCTIONS}


def docket() -> Docket:
    """The docket of the run, with its functions."""
    made = Docket(name="bench", url=systems.URL, execution_ttl=timedelta(0))
    for function in FUNCTIONS.values():
        made.register(function)
    return made


class AsyncProducer:
    """`add`, and `add_many` in one pipeline."""

    def __init__(self) -> None:
        self.docket = docket()

    async def __aenter__(self) -> Self:
        await self.docket.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.docket.__aexit__(*error)

    async def push(self, call: Call) -> None:
        await self.docket.add(FUNCTIONS[call.task])(call.number, call.data)

    async def push_many(self, calls: list[Call]) -> None:
        await self.docket.add_many(self.docket.call(FUNCTIONS[c.task])(c.number, c.data) for c in calls)


async def serve() -> None:
    """Be a worker."""
    async with (
        docket() as served,
        Worker(
            served, concurrency=systems.CONCURRENCY, minimum_check_interval=timedelta(milliseconds=1)
        ) as worker,
    ):
        await worker.run_forever()


if __name__ == "__main__":
    systems.hold()
    asyncio.run(serve())
