"""What was sent, and what the server has said to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sent:
    """One task that somebody tried to push.

    `acknowledged`: the server has said that it is there; else the answer was lost, and it may be there or not.
    `canceled`: True if a cancel was acknowledged before it had ended; False if nobody asked for one; None if the answer
    was lost, or says that it had ended: a cancel that was repeated finds what it did itself.
    """

    task_id: str
    user_id: str
    failures: int = 0
    acknowledged: bool = False
    canceled: bool | None = False
    seen: str | None = None
    """A result that somebody has read while the run went on: it must be the same at the end."""


@dataclass(slots=True)
class Book:
    """All that was sent, by id. Producers write into it from several threads."""

    sent: dict[str, Sent] = field(default_factory=dict)
    unanswered: int = 0
    """Pushes without an answer, those counted that were said again until one came."""
    errors: list[str] = field(default_factory=list)
    """What callers were told that they should never be."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, one: Sent) -> Sent:
        """Before it is pushed."""
        with self._lock:
            self.sent[one.task_id] = one
        return one

    def lost_answer(self) -> None:
        with self._lock:
            self.unanswered += 1

    def wrong(self, error: BaseException) -> None:
        """A call failed for another reason than a server that is away."""
        with self._lock:
            self.errors.append(f"{type(error).__name__}: {error}")

    def all(self) -> list[Sent]:
        with self._lock:
            return list(self.sent.values())
