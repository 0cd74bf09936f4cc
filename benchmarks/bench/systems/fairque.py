"""FairQueue. The worker is `fairque worker`; server and settings come from its environment variables."""

from __future__ import annotations

from typing import Any, Self

from bench import systems
from bench.calls import Call
from fairque import AsyncTaskQueue, Task, TaskQueue, on_worker_start, task
from fairque.core.pipeline import Group

TASKS = {fn.__name__: task(name=f"bench:{fn.__name__}")(fn) for fn in systems.FUNCTIONS}


@task(name="bench:answer")
def answer(index: int, data: str) -> dict[str, Any]:
    """`noop` with a result."""
    systems.BOARD.begin(index)
    systems.BOARD.end(index)
    return {"index": index, "ok": True}


TASKS["answer"] = answer  # type: ignore[assignment]

part, collect = task(name="bench:part")(systems.part), task(name="bench:collect")(systems.collect)


def task_of(call: Call) -> Task[Any]:
    """The task that a call asks for."""
    function: Any = TASKS[call.task]
    if call.user is None:
        return function(call.number, call.data)
    return function(call.number, call.data).with_options(user_id=call.user)


class SyncProducer:
    """TaskQueue."""

    def __init__(self) -> None:
        self.queue = TaskQueue()

    def push(self, call: Call) -> None:
        self.queue.push(task_of(call))

    def push_many(self, calls: list[Call]) -> None:
        for outcome in self.queue.push_batch(map(task_of, calls)):
            outcome.unwrap()

    def fan_in(self, calls: list[Call], last: Call) -> None:
        parts = Group(tuple(part(call.number, call.data) for call in calls))
        self.queue.enqueue(parts.reduce(collect, last.number, last.data))


class AsyncProducer:
    """AsyncTaskQueue."""

    def __init__(self) -> None:
        self.queue = AsyncTaskQueue()

    async def __aenter__(self) -> Self:
        await self.queue.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.queue.__aexit__(*error)

    async def push(self, call: Call) -> None:
        await self.queue.push(task_of(call))

    async def push_many(self, calls: list[Call]) -> None:
        for outcome in await self.queue.push_batch(map(task_of, calls)):
            outcome.unwrap()


on_worker_start(systems.hold)  # later than the import of this module: connected, but without a lease
