"""The circuit breaker's states, pure: it is told the time, holds no lock and makes no call.

    closed ---- failures in a row, for long enough ----> open
    open ------ its period is over: one call goes out --> half_open
    half_open - that call was answered -----------------> closed
    half_open - that call failed -----------------------> open, for another period

A failure is an attempt that reached no server, or one that cannot serve. One success ends the row. It takes both a
number of failures and a time: a hundred connections that are reset at once are one moment's trouble, and a server
that is back before a call gives up by itself was never away.

While it is closed everything passes (permit 0); while it is open nothing does, and while it is half open exactly the
probe does, whose permit is a number of its own. What calls from before say later is not listened to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PASS = 0
"""The permit of a call that goes out while the circuit is closed."""
PROBE_LIMIT_SECONDS = 60.0
"""A probe that has said nothing for so long is not waited for any more: waiting for a connection, connecting and
waiting for the reply take at most half of it."""


class CircuitState(StrEnum):
    """Whether calls go out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Change:
    """The circuit went from one state to another."""

    before: CircuitState
    after: CircuitState


class Circuit:
    """One circuit. All times are seconds of one clock that never goes back."""

    def __init__(
        self, failure_threshold: int, failure_seconds: float, recovery_timeout_seconds: float
    ) -> None:
        self.failure_threshold = failure_threshold
        self.failure_seconds = failure_seconds
        self.recovery_timeout_seconds = recovery_timeout_seconds
        self.state = CircuitState.CLOSED
        self.failures = 0
        """In a row, since the last success."""
        self.troubled = False
        """False: it is closed and nothing failed since the last success, so there is nothing to ask or to tell."""
        self.retry_at = 0.0
        """When the next probe may go out, while it is open."""
        self._failing_since = 0.0
        self._probe = PASS
        self._probes = 0
        self._probe_began = 0.0

    @property
    def probes(self) -> int:
        """How many probes went out so far."""
        return self._probes

    def enter(self, now: float) -> tuple[int | None, Change | None]:
        """The permit of a call that wants to go out, or None: it may not."""
        if self.state is CircuitState.CLOSED:
            return PASS, None
        if self.state is CircuitState.OPEN:
            if now < self.retry_at:
                return None, None
            return self._send_probe(now), self._move(CircuitState.HALF_OPEN)
        if now - self._probe_began >= PROBE_LIMIT_SECONDS:
            return self._send_probe(now), None
        return None, None

    def answered(self, permit: int) -> Change | None:
        """The server has answered a call, whatever it said."""
        if self.state is CircuitState.CLOSED or self._is_probe(permit):
            self.failures = 0
            self.troubled = False
            return self._move(CircuitState.CLOSED)
        return None

    def failed(self, permit: int, now: float) -> Change | None:
        """A call reached no server, or one that cannot serve."""
        if self.state is CircuitState.CLOSED:
            if self.failures == 0:
                self._failing_since = now
            self.failures += 1
            self.troubled = True
            long_enough = now - self._failing_since >= self.failure_seconds
            return self._open(now) if long_enough and self.failures >= self.failure_threshold else None
        if self._is_probe(permit):
            self.failures += 1
            return self._open(now)
        return None

    def dropped(self, permit: int, now: float) -> Change | None:
        """A call ended without telling anything of the server. If it was the probe, another may go out at once."""
        if not self._is_probe(permit):
            return None
        self.retry_at = now
        return self._move(CircuitState.OPEN)

    def retry_after(self, now: float) -> float:
        """Seconds until the next probe may go out. While one is out: a whole period, which begins if it fails."""
        if self.state is CircuitState.CLOSED:
            return 0.0
        if self.state is CircuitState.HALF_OPEN:
            return self.recovery_timeout_seconds
        return max(0.0, self.retry_at - now)

    def _send_probe(self, now: float) -> int:
        self._probes += 1
        self._probe, self._probe_began = self._probes, now
        return self._probe

    def _is_probe(self, permit: int) -> bool:
        return self.state is CircuitState.HALF_OPEN and permit == self._probe

    def _open(self, now: float) -> Change | None:
        self.retry_at = now + self.recovery_timeout_seconds
        return self._move(CircuitState.OPEN)

    def _move(self, to: CircuitState) -> Change | None:
        before, self.state = self.state, to
        return Change(before, to) if before is not to else None
