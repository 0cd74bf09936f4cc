"""How long a worker, or what drains a spool, waits between tries while the server is away."""

from __future__ import annotations

import random
from collections.abc import Callable

from fairque.core.exceptions import CircuitOpenError

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 2.0
JITTER = 0.25


class Backoff:
    """Pauses that grow from one failure to the next, each up to a quarter longer or shorter by chance, so that the
    workers of a fleet do not all come back at once.

    An open circuit breaker says when it is of any use to try: a pause is at least until then, and little longer than
    `LONGEST_SECONDS` after.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._failures = 0

    @property
    def away(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, error: Exception) -> float:
        """The seconds to wait after a try that failed with `error`."""
        pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        pause *= 1 + JITTER * (2 * self._chance() - 1)
        if isinstance(error, CircuitOpenError):
            # Until then all would be for nothing; just then all would come.
            pause = max(pause, error.retry_after_seconds + pause * JITTER)
        return pause

    def succeeded(self) -> None:
        """A try succeeded: the next pause is a short one."""
        self._failures = 0
