"""What happened, told to whoever observes it, after the fact.

Events are one of the two shapes of a plugin (the other is middleware). An observer cannot change what it is
told, and one that fails is logged and never fails a task.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from fairque.core.exceptions import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Anything that happened, at the aware time `at`. Subscribe to it to get every event."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent(Event):
    """Something happened to a task. `function` is its registered name, empty for a payload task."""

    task_id: str
    user_id: str
    function: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPushed(TaskEvent):
    """The server has taken it."""

    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClaimed(TaskEvent):
    """A worker got it. `waited` is the seconds since it could have been claimed."""

    attempt: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(TaskEvent):
    """Its function was called."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished(TaskEvent):
    """It succeeded, after `duration` seconds."""

    attempt: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(TaskEvent):
    """It failed for good. `error_type` is the exception's qualified name; `duration` is seconds."""

    attempt: int
    duration: float
    error_type: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(TaskEvent):
    """It has become a dead letter, wherever that was decided: told once, by one of the processes that observe it.

    `at` is when; `count` is how many dead letters its user had then.
    """

    attempt: int
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersPassed(Event):
    """A user's dead letters have become as many as `queue.dead_letter_alert`; told once, as `DeadLettered` is."""

    user_id: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetried(TaskEvent):
    """An attempt failed and another follows in `delay` seconds."""

    attempt: int
    delay: float
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSnoozed(TaskEvent):
    """It asked to run again in `delay` seconds; no retry is used up."""

    attempt: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCanceled(TaskEvent):
    """It will not run, or not again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReleased(TaskEvent):
    """It was given back without using up an attempt, for example because its worker stops."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimedOut(TaskEvent):
    """It ran past its timeout, of `timeout` seconds. What becomes of it is told by the event that follows."""

    attempt: int
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLost(TaskEvent):
    """Its worker's process died, or lost its lease, and it is queued again.

    `began` says whether it had begun: only then does it cost the task anything.
    """

    incarnation: str
    began: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent(Event):
    """Something happened to a worker process."""

    worker_id: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(WorkerEvent):
    """It is ready to claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped(WorkerEvent):
    """It is out; `released` is the number of tasks it gave back."""

    released: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDead(WorkerEvent):
    """It was declared dead; `recovered` of its tasks were queued again."""

    recovered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEvent(Event):
    """Something happened to a scheduler process, whose name (random, new at each start) is `scheduler_id`."""

    scheduler_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerElected(SchedulerEvent):
    """It decides ticks from now on, under the fencing token `token`."""

    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerDeposed(SchedulerEvent):
    """It decides ticks no more: it stops, or was away for longer than its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEvent(SchedulerEvent):
    """The leading scheduler has decided something about the schedule called `schedule`."""

    schedule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFired(ScheduleEvent):
    """The task for a tick was pushed, `lateness` seconds after it was due. `missed`: it makes up for missed ticks;
    `waits`: for the run before it to end."""

    task_id: str
    tick: datetime
    lateness: float
    missed: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSkipped(ScheduleEvent):
    """`count` ticks from `first` to `last` were left out, for `reason`."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRefused(ScheduleEvent):
    """The task for a tick could not be pushed, for `reason`; it is tried again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent(Event):
    """The circuit breaker of this process for the server `server` (an address without credentials) has changed its
    state."""

    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(BreakerEvent):
    """Calls fail at once from now on, for `retry_after` seconds; then one tries again. `failures` in a row led to it,
    the last for `reason`."""

    failures: int
    reason: str
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHalfOpened(BreakerEvent):
    """One call tries the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(BreakerEvent):
    """The server answers again; the breaker was open for `away` seconds."""

    away: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpooled(TaskEvent):
    """The server is away, and the task is in the local spool. TaskPushed follows when the server has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSetAside(TaskEvent):
    """The server refused a task of the local spool, for `reason`; it is kept there until somebody decides."""

    reason: str


E = TypeVar("E", bound=Event)
Observer = Callable[[Any], object]


class EventBus:
    """Tells observers what happened. Subscribing and emitting may happen in any thread."""

    def __init__(self) -> None:
        # Lists are appended to, removed from and copied by one bytecode each, so no lock is needed.
        self._observers: dict[type[Event], list[Observer]] = {}
        self.idle = True
        """Whether nobody has ever subscribed to anything: then no event needs to be thought of."""

    def subscribe(self, kind: type[E], observer: Callable[[E], object]) -> Callable[[], None]:
        """Call `observer` with each event of `kind`, or of a kind below it. Returns what ends that.

        The observer runs in the thread that emits, so it must be quick.

        Raises:
            ConfigError: `kind` is no event type, or the observer is an ``async def``.
        """
        given: object = kind
        if not (isinstance(given, type) and issubclass(given, Event)):
            raise ConfigError(f"one subscribes to a type of event, not to {kind!r}")
        if inspect.iscoroutinefunction(observer):
            raise ConfigError(
                f"an observer is a plain function, and {observer!r} is async: "
                "let it hand the event to your event loop (call_soon_threadsafe)"
            )
        observers = self._observers.setdefault(kind, [])
        observers.append(observer)
        self.idle = False

        def unsubscribe() -> None:
            if observer in observers:
                observers.remove(observer)

        return unsubscribe

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody observes this kind: without, the event need not even be made."""
        return bool(self._observers) and any(self._observers.get(base) for base in kind.__mro__)

    def emit(self, event: Event) -> None:
        """Tell all who observe this kind of event or one above it. Never raises an observer's exception."""
        if not self._observers:
            return
        for kind in type(event).__mro__:
            for observer in tuple(self._observers.get(kind, ())):
                try:
                    observer(event)
                except Exception:  # noqa: BLE001 - whatever it raises is the observer's own trouble
                    _log.exception("an observer of %s failed: %r", type(event).__name__, observer)
