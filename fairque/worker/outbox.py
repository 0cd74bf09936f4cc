"""What is to be told to the server of claims that have ended, in portions that one call may carry."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from fairque.queue.operations.claims import Settlement
from fairque.worker.executors.base import Outcome

MAX_SETTLEMENTS = 500
MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """A settlement, and the outcome it came from (None: given back without having been run)."""

    settlement: Settlement
    outcome: Outcome | None = None


class Outbox:
    """Settlements in their order. Not thread-safe: only the control loop uses it."""

    def __init__(self) -> None:
        self._waiting: deque[Ended] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, settlements: Iterable[Settlement]) -> None:
        """To be told, of claims that were not run to an outcome."""
        self._waiting.extend(map(Ended, settlements))

    def add_outcome(self, settlement: Settlement, outcome: Outcome) -> None:
        """To be told, of a task that was run."""
        self._waiting.append(Ended(settlement, outcome))

    def take(self) -> list[Ended]:
        """The first ones, as many as one call may carry."""
        portion: list[Ended] = []
        size = 0
        while self._waiting and len(portion) < MAX_SETTLEMENTS:
            size += len(self._waiting[0].settlement.first)
            if portion and size > MAX_BYTES:
                break
            portion.append(self._waiting.popleft())
        return portion

    def put_back(self, portion: list[Ended]) -> None:
        """They were not told after all."""
        self._waiting.extendleft(reversed(portion))

    def clear(self) -> None:
        """Nobody wants to know any longer."""
        self._waiting.clear()
