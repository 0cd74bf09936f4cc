"""What an incarnation holds, and what it remembers of what it held.

The server and the worker compare a digest of the tokens at every heartbeat. What the server holds more is
delivered again, or settled again from memory if it had ended here; what the worker holds more is not its own
any longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairque.core.models import Task
from fairque.queue.operations.claims import Settlement, token_of

MEMORY_BYTES = 32 << 20
"""How many bytes of settlements are remembered at most. What is forgotten early may run twice, and only if the server
lost what it had acknowledged."""
ENTRY_BYTES = 400
"""What remembering one takes beside its result or error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a comparison with the server showed: to be started, settled again, dropped."""

    missed: tuple[Task[Any], ...]
    unsettled: tuple[Settlement, ...]
    lost: tuple[Task[Any], ...]


@dataclass(slots=True, eq=False)
class _Batch:
    """What was settled by one call, at `at`, in so many bytes."""

    at: float
    size: int
    settlements: dict[bytes, Settlement]


class Holdings:
    """Claims by token. Not thread-safe: only whoever turns the control loop uses it. `memory_seconds`: two leases."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._held: dict[bytes, Task[Any]] = {}
        self._settled: dict[bytes, _Batch] = {}
        self._batches: deque[_Batch] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, token: object) -> bool:
        return token in self._held

    def take(self, tasks: Iterable[Task[Any]]) -> list[Task[Any]]:
        """Hold claims; those that are new: not held, nor settled, already (a reply that came twice)."""
        held, settled = self._held, self._settled
        new: list[Task[Any]] = []
        for task in tasks:
            token = token_of(task)
            if token not in held and token not in settled:
                held[token] = task
                new.append(task)
        return new

    def settle(self, settlements: Iterable[Settlement], now: float) -> None:
        """Claims have ended so, which is remembered for a while."""
        batch = _Batch(now, 0, {})
        held, settled, told = self._held, self._settled, batch.settlements
        for settlement in settlements:
            token = settlement.token
            held.pop(token, None)
            settled[token] = batch
            told[token] = settlement
            batch.size += len(settlement.first) + ENTRY_BYTES
        if told:
            self._batches.append(batch)
            self._bytes += batch.size
        self._forget(now - self._memory_seconds)

    def _forget(self, before: float) -> None:
        """Forget what was settled before, and the oldest of what is too much; but not the last."""
        while len(self._batches) > 1 and (self._batches[0].at <= before or self._bytes > MEMORY_BYTES):
            oldest = self._batches.popleft()
            self._bytes -= oldest.size
            for token in oldest.settlements:
                if self._settled[token] is oldest:  # else it was settled again since
                    del self._settled[token]

    def tokens(self) -> tuple[bytes, ...]:
        """The tokens that are held."""
        return tuple(self._held)

    def tasks(self) -> tuple[Task[Any], ...]:
        """The tasks that are held."""
        return tuple(self._held.values())

    def compare(self, on_server: Sequence[Task[Any]]) -> Difference:
        """Take what the server holds for the truth; claims that are not there are dropped."""
        theirs = {token_of(task): task for task in on_server}
        missed = tuple(
            task for token, task in theirs.items() if token not in self._held and token not in self._settled
        )
        unsettled = tuple(
            self._settled[token].settlements[token] for token in theirs if token in self._settled
        )
        lost = tuple(task for token, task in self._held.items() if token not in theirs)
        for task in lost:
            del self._held[token_of(task)]
        return Difference(missed, unsettled, lost)

    def clear(self) -> tuple[Task[Any], ...]:
        """Forget everything: the incarnation is dead."""
        tasks = self.tasks()
        self._held.clear()
        self._settled.clear()
        self._batches.clear()
        self._bytes = 0
        return tasks
