"""RedisCircuitBreaker: one for each server in a process, shared by whatever talks to it, in threads and event loops.

While it is closed and nothing fails, a call costs one look at `troubled`. All else, once something has failed, goes
through one lock into the state machine of core/breaker.py. Calls that block on the server for a living (a worker's
wake list) neither ask it nor tell it anything; they only rest while it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakSet, WeakValueDictionary

from fairque.core.breaker import PASS, Change, Circuit, CircuitState
from fairque.core.config import FairQueueConfig
from fairque.core.config_outages import BreakerConfig
from fairque.core.events import BreakerClosed, BreakerEvent, BreakerHalfOpened, BreakerOpened, EventBus
from fairque.core.exceptions import CircuitOpenError
from fairque.queue.outages import is_outage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """What a breaker has seen since the process began. Times are seconds.

    `failures` in a row led to the state; `failed` is all attempts that failed, `opened` how often it opened,
    `probes` how many calls tried an open one's server, `rejected` how many were not tried, and `away` how long it has
    been open, now included. `retry_after`: when a call may try again. `last_error` is the reason of the last failure.
    """

    server: str
    state: CircuitState
    failures: int
    failed: int
    opened: int
    probes: int
    rejected: int
    away: float
    retry_after: float
    last_error: str

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once (all, or all but the one that tries)."""
        return self.state is not CircuitState.CLOSED


class RedisCircuitBreaker:
    """The breaker of one server. Any thread may call it; `breaker_for` gives the one that a process shares."""

    def __init__(
        self, config: BreakerConfig, server: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.server = server
        self.troubled = False
        """False: it is closed and nothing fails, so a call need not ask. Read without the lock."""
        self._clock = clock
        self._buses: WeakSet[EventBus] = WeakSet()
        self._begin()

    def _begin(self) -> None:
        config = self.config
        self._lock = threading.Lock()
        self._circuit = Circuit(
            config.failure_threshold, config.failure_seconds, config.recovery_timeout_seconds
        )
        self._waiters: set[Callable[[], object]] = set()
        self._untold: deque[BreakerEvent] = deque()
        self._telling = threading.Lock()
        self._failed = self._opened = self._rejected = 0
        self._away = self._open_since = 0.0
        self._last_error = ""
        self.troubled = False

    # -- what it knows

    @property
    def state(self) -> CircuitState:
        """Its state now."""
        return self._circuit.state

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once (all, or all but the one that tries)."""
        return self._circuit.state is not CircuitState.CLOSED

    @property
    def stats(self) -> BreakerStats:
        """Its state and its counters."""
        with self._lock:
            now, circuit = self._clock(), self._circuit
            away = self._away + (now - self._open_since if self.is_open else 0.0)
            return BreakerStats(
                self.server,
                circuit.state,
                circuit.failures,
                self._failed,
                self._opened,
                circuit.probes,
                self._rejected,
                away,
                circuit.retry_after(now),
                self._last_error,
            )

    def observe(self, bus: EventBus) -> None:
        """Tell the observers of `bus`, as long as that lives, of its changes of state."""
        self._buses.add(bus)

    # -- before a call

    def now(self) -> float:
        """Its clock's seconds, which `until` is compared with."""
        return self._clock()

    def deadline(self) -> float:
        """Until when (`wait_seconds`) a call that begins now may wait."""
        return self._clock() + self.config.wait_seconds

    def enter(self, until: float) -> int:
        """The permit of a call, waited for until then; to be given to `answered` or `note` afterwards.

        Raises:
            CircuitOpenError: nothing may go out yet.
        """
        permit, _ = self._ask(until)
        if permit is not None:
            return permit
        called = threading.Event()
        with self._called(called.set):
            while True:
                called.clear()
                permit, pause = self._ask(until)
                if permit is not None:
                    return permit
                called.wait(pause)

    async def enter_async(self, until: float) -> int:
        """As `enter`, awaiting."""
        permit, _ = self._ask(until)
        if permit is not None:
            return permit
        loop, called = asyncio.get_running_loop(), asyncio.Event()

        def call() -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(called.set)

        with self._called(call):
            while True:
                called.clear()
                permit, pause = self._ask(until)
                if permit is not None:
                    return permit
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await called.wait()

    @contextlib.contextmanager
    def _called(self, waiter: Callable[[], object]) -> Generator[None]:
        """`waiter` is called at each change of state."""
        with self._lock:
            self._waiters.add(waiter)
        try:
            yield
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _ask(self, until: float) -> tuple[int | None, float]:
        """A permit, or for how many seconds to wait for one."""
        with self._lock:
            now, circuit = self._clock(), self._circuit
            permit, change = circuit.enter(now)
            if permit is None and now >= until:
                self._rejected += 1
                raise self._refusal(circuit.retry_after(now))
            pause = until - now
            if circuit.state is CircuitState.OPEN:
                pause = min(pause, circuit.retry_at - now)
            self._note_change(change, now)
        self._tell()
        return permit, max(0.0, pause)

    def _refusal(self, retry_after: float) -> CircuitOpenError:
        again = f"in {retry_after:.3g} s" if self.state is CircuitState.OPEN else "just now"
        return CircuitOpenError(
            f"{self.server} does not answer, so this call was not tried ({self._circuit.failures} failed in a row, the "
            f"last with: {self._last_error}). One call tries again {again}; set breaker.wait_seconds to wait for that, "
            "or push with on_unavailable='spool'",
            retry_after_seconds=retry_after,
        )

    # -- after it

    def answered(self, permit: int) -> None:
        """The server has answered. To be called only while `troubled`: otherwise there is nothing to change."""
        with self._lock:
            self._note_change(self._circuit.answered(permit), self._clock())
        self._tell()

    def note(self, error: BaseException, permit: int) -> None:
        """A call ended with an error, whatever it was."""
        outage = is_outage(error)
        if not self.config.enabled or (not outage and not self.troubled):
            return
        with self._lock:
            now = self._clock()
            if outage:
                self._failed += 1
                self._last_error = str(error) or type(error).__name__
                change = self._circuit.failed(permit, now)
            elif outage is None:
                change = self._circuit.dropped(permit, now)
            else:
                change = self._circuit.answered(permit)
            self._note_change(change, now)
        self._tell()

    # -- changes

    def _note_change(self, change: Change | None, now: float) -> None:
        """Under the lock."""
        self.troubled = self._circuit.troubled
        if change is None:
            return
        wall = datetime.now(UTC)
        match change.after:
            case CircuitState.OPEN:
                retry_after = self._circuit.retry_after(now)
                if change.before is CircuitState.CLOSED:
                    self._opened += 1
                    self._open_since = now
                    _log.warning(
                        "%s is away (%s): calls fail at once, and one tries again every %g s",
                        self.server, self._last_error, self.config.recovery_timeout_seconds,
                    )  # fmt: skip
                self._untold.append(
                    BreakerOpened(
                        at=wall,
                        server=self.server,
                        failures=self._circuit.failures,
                        reason=self._last_error,
                        retry_after=retry_after,
                    )
                )
            case CircuitState.HALF_OPEN:
                self._untold.append(BreakerHalfOpened(at=wall, server=self.server))
            case CircuitState.CLOSED:
                away = now - self._open_since
                self._away += away
                _log.info("%s answers again, after %.3g s", self.server, away)
                self._untold.append(BreakerClosed(at=wall, server=self.server, away=away))
        for waiter in tuple(self._waiters):
            waiter()

    def _tell(self) -> None:
        """Tell observers what has not been told, in the order in which it happened, and outside of the lock: they may
        call the queue."""
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    event = self._untold.popleft()
                    for bus in tuple(self._buses):
                        bus.emit(event)
            finally:
                self._telling.release()


class Patience:
    """For how long one call goes on trying.

    A call that went out while the circuit was closed makes `pauses` more attempts, which is how it rides out a server
    that restarts; should the circuit open meanwhile, it waits for its turn within the same time. One that began
    later waits for `wait_seconds`, and if it was the probe that failed, has failed.
    """

    def __init__(self, breaker: RedisCircuitBreaker, pauses: Sequence[float]) -> None:
        self._breaker = breaker
        self._left = iter(pauses)
        self._seconds = sum(pauses)
        self._resends = bool(pauses)
        self._failed = False
        self.until = breaker.deadline()

    def pause(self, permit: int) -> float | None:
        """After a failed attempt: the seconds before the next one, or None if there is to be none."""
        if not self._failed:
            self._failed = True
            if permit == PASS:
                self.until = max(self.until, self._breaker.now() + self._seconds)
        pause = next(self._left, None)
        if pause is None and self._resends and self._breaker.is_open:
            return 0.0  # what it waits for now is its turn
        return pause


# -- one for each server


class _Shared:
    """The breakers of this process, by server and options, as long as anybody has them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.breakers: WeakValueDictionary[tuple[str, BreakerConfig], RedisCircuitBreaker] = (
            WeakValueDictionary()
        )


_shared = _Shared()


def breaker_for(config: FairQueueConfig, bus: EventBus | None = None) -> RedisCircuitBreaker:
    """The breaker that this process has for the server of `config`, under the options of its `breaker` section.

    Observers of `bus` are told of its changes of state.
    """
    server = str(config.redis.address)
    with _shared.lock:
        breaker = _shared.breakers.get((server, config.breaker))
        if breaker is None:
            breaker = _shared.breakers[server, config.breaker] = RedisCircuitBreaker(config.breaker, server)
    if bus is not None:
        breaker.observe(bus)
    return breaker


NO_BREAKER = RedisCircuitBreaker(BreakerConfig(enabled=False), "no server")
"""For a connection that has none."""


def _after_fork() -> None:
    """A child's threads are not its parent's: whoever held a lock is not here to release it."""
    _shared.lock = threading.Lock()
    for breaker in tuple(_shared.breakers.values()):
        breaker._begin()


os.register_at_fork(after_in_child=_after_fork)
