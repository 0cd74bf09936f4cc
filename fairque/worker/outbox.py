"""What is to be told to the server of claims that have ended, in portions that one call may carry."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from fairque.queue.operations.claims import Settlement
from fairque.worker.executors.base import Outcome

MAX_SETTLEMENTS = 500
MAX_BYTES = 4 << 20


class Ended(msgspec.Struct, frozen=True):
    """A settlement, and the outcome it came from (None: given back without having been run)."""

    settlement: Settlement
    outcome: Outcome | None = None


class Outbox:
    """Settlements in their order. Not thread-safe: only whoever turns the control loop uses it."""

    def __init__(self) -> None:
        self._waiting: deque[Ended] = deque()
        self._size = 0  # bytes

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, settlements: Iterable[Settlement]) -> None:
        """To be told, of claims that were not run to an outcome."""
        for settlement in settlements:
            self.add_outcome(settlement, None)

    def add_outcome(self, settlement: Settlement, outcome: Outcome | None) -> None:
        """To be told, of a task that was run."""
        self._waiting.append(Ended(settlement, outcome))
        self._size += len(settlement.first)

    def take(self) -> list[Ended]:
        """The first ones, as many as one call may carry."""
        if len(self._waiting) <= MAX_SETTLEMENTS and self._size <= MAX_BYTES:
            portion = list(self._waiting)
            self.clear()
            return portion
        portion = []
        size = 0
        while self._waiting and len(portion) < MAX_SETTLEMENTS:
            more = len(self._waiting[0].settlement.first)
            if portion and size + more > MAX_BYTES:
                break
            size += more
            portion.append(self._waiting.popleft())
        self._size -= size
        return portion

    def put_back(self, portion: list[Ended]) -> None:
        """They were not told after all."""
        self._waiting.extendleft(reversed(portion))
        self._size += sum(len(ended.settlement.first) for ended in portion)

    def clear(self) -> None:
        """Nobody wants to know any longer."""
        self._waiting.clear()
        self._size = 0
