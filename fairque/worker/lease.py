"""What an incarnation holds, and what it remembers of what it held.

The server and the worker compare a digest of the tokens at every heartbeat. What the server holds more is
delivered again, or settled again from memory if it had ended here; what the worker holds more is not its own
any longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairque.core.models import Task
from fairque.queue.operations.claims import Settlement, token_of

MEMORY_BYTES = 32 << 20
"""How many bytes of results and errors are remembered at most. What is forgotten early may run twice, and only if
the server lost what it had acknowledged."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a comparison with the server showed: to be started, settled again, dropped."""

    missed: tuple[Task[Any], ...]
    unsettled: tuple[Settlement, ...]
    lost: tuple[Task[Any], ...]


class Holdings:
    """Claims by token. Not thread-safe: only the control loop uses it. `memory_seconds`: two leases."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._held: dict[bytes, Task[Any]] = {}
        self._settled: OrderedDict[bytes, tuple[float, Settlement]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, token: object) -> bool:
        return token in self._held

    def take(self, task: Task[Any]) -> bool:
        """Hold a claim; False if it is held, or was settled, already (a reply that came twice)."""
        token = token_of(task)
        if token in self._held or token in self._settled:
            return False
        self._held[token] = task
        return True

    def settle(self, settlement: Settlement, now: float) -> None:
        """A claim has ended with this settlement, which is remembered for a while."""
        self._held.pop(settlement.token, None)
        if before := self._settled.pop(settlement.token, None):
            self._bytes -= len(before[1].first)
        self._settled[settlement.token] = now, settlement
        self._bytes += len(settlement.first)
        while len(self._settled) > 1:
            at, oldest = next(iter(self._settled.values()))
            if at > now - self._memory_seconds and self._bytes <= MEMORY_BYTES:
                break
            self._settled.popitem(last=False)
            self._bytes -= len(oldest.first)

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
        unsettled = tuple(self._settled[token][1] for token in theirs if token in self._settled)
        lost = tuple(task for token, task in self._held.items() if token not in theirs)
        for task in lost:
            del self._held[token_of(task)]
        return Difference(missed, unsettled, lost)

    def clear(self) -> tuple[Task[Any], ...]:
        """Forget everything: the incarnation is dead."""
        tasks = self.tasks()
        self._held.clear()
        self._settled.clear()
        self._bytes = 0
        return tasks
