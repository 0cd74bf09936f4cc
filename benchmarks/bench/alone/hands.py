"""FairQueue's operations, called by hand: the only place here that knows more than its public names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from fairque import AsyncTaskQueue, FairQueueConfig, Task, TaskQueue, task
from fairque.queue.consumer import finishing
from fairque.queue.operations import claims

DATA = "x" * 100
PUSH_CHUNK = 10_000


@task(name="bench:hands")
def nothing(index: int, data: str) -> None:
    """What the tasks would run, if anybody ran them."""


def build(index: int, user: str | None = None, data: str = DATA) -> Task[Any]:
    """A task with a number and 100 bytes."""
    made = nothing(index, data)
    return made if user is None else made.with_options(user_id=user)


def config_of(url: str, **queue: Any) -> FairQueueConfig:
    """A configuration for this server; results are not kept, as in the other workloads."""
    return FairQueueConfig.from_dict({"redis": {"url": url}, "queue": {"result_ttl_seconds": 0, **queue}})


class Hands:
    """A queue, and one session of a worker whose calls are made one by one. `held` are its claimed tasks."""

    def __init__(self, config: FairQueueConfig, slots: int = 50) -> None:
        self.config = config
        self.queue = TaskQueue(config)
        self._session = claims.Session(slots=slots)
        self.held: Sequence[Task[Any]] = ()
        self._next = 0

    def __enter__(self) -> Self:
        self.queue.run(claims.join(self.queue.engine, self._session))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.queue.close()

    def push(self, user: str | None = None) -> None:
        """One task, in one call."""
        self._next += 1
        self.queue.push(build(self._next, user))

    def push_many(self, count: int, users: Sequence[str] = ()) -> None:
        """Many tasks; their users take turns."""
        for start in range(0, count, PUSH_CHUNK):
            part = self._tasks(start, min(count, start + PUSH_CHUNK), users)
            assert all(outcome.error is None for outcome in self.queue.push_batch(part)), "a push was refused"

    def _tasks(self, start: int, end: int, users: Sequence[str]) -> Iterator[Task[Any]]:
        for number in range(start, end):
            yield build(number, users[number % len(users)] if users else None)

    def exchange(self, want: int) -> int:
        """Settle all that is held and claim up to `want`, in one call; returns how many came."""
        self.held = self._call(want, self.held)
        return len(self.held)

    def claim(self, want: int) -> None:
        """Claim `want` tasks beside what is held.

        Raises:
            AssertionError: there were fewer.
        """
        claimed = self._call(want, ())
        assert len(claimed) == want, f"the queue ran dry: {len(claimed)} of {want}"
        self.held = (*self.held, *claimed)

    def settle(self, count: int) -> None:
        """Settle `count` of what is held."""
        self._call(0, self.held[:count])
        self.held = self.held[count:]

    def _call(self, want: int, settled: Sequence[Task[Any]]) -> Sequence[Task[Any]]:
        settlements = [finishing(self.queue.engine, task, None, 0.001) for task in settled]
        flow = claims.settle_and_claim(self.queue.engine, self._session, want=want, settlements=settlements)
        return self.queue.run(flow).claimed

    def heartbeat(self) -> None:
        """Renew the lease, as a worker does every third of it."""
        self.queue.run(claims.renew(self.queue.engine, self._session))

    def drain(self, batch: int = 200) -> int:
        """Claim and settle until nothing is left; returns how many tasks that were."""
        total = 0
        while got := self.exchange(batch):
            total += got
        return total


class AsyncHands:
    """The async queue, for pushes."""

    def __init__(self, config: FairQueueConfig) -> None:
        self.queue = AsyncTaskQueue(config)
        self._next = 0

    async def push(self) -> None:
        """One task, in one call."""
        self._next += 1
        await self.queue.push(build(self._next))

    async def close(self) -> None:
        await self.queue.close()
