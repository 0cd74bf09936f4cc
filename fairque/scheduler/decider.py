"""From what is due to what is pushed: plans one schedule, has the plan taken, and tells observers."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from fairque.core.events import EventBus, ScheduleFired, ScheduleRefused, ScheduleSkipped
from fairque.core.exceptions import FairQueueError, NotLeaderError, QueueFullError, QueueUnavailableError
from fairque.core.middleware import compose
from fairque.core.models import Task
from fairque.core.schedules.planner import Run, plan
from fairque.queue.base import tell_pushed
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import firing
from fairque.queue.operations.base import Engine
from fairque.queue.operations.firing import Decided, Due, Office
from fairque.queue.operations.push import Pushed

_log = logging.getLogger(__name__)

UNREADABLE_SECONDS = 60.0
"""How often to look at a schedule that this version cannot read: another may lead then."""


class Decider:
    """Decides ticks under whatever office it is given."""

    def __init__(
        self, engine: Engine, manager: LuaScriptManager, events: EventBus, scheduler_id: str
    ) -> None:
        self._engine, self._manager, self._events = engine, manager, events
        self._scheduler_id = scheduler_id
        self._onion = compose(engine.middleware, lambda task: Pushed(task.task_id, task), "push")

    def decide(self, office: Office, due: Due, now: datetime) -> None:
        """Decide the ticks of one schedule that are due at the server's time `now`.

        Raises:
            NotLeaderError: the office is lost.
            QueueUnavailableError, QueueFullError: the server cannot take it now.
        """
        try:
            self._decide(office, due, now)
        except (NotLeaderError, QueueUnavailableError, QueueFullError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one schedule, the others go on
            _log.error("schedule %s cannot be decided: %s", due.name, error)
            self._postpone(office, due, now, f"{type(error).__name__}: {error}")
            self._refused(due.name, str(error))

    def _decide(self, office: Office, due: Due, now: datetime) -> None:
        schedule = due.schedule
        if schedule.paused:
            # Nobody looks at those, but for one whose time to look was lost.
            self._manager.run(firing.postpone(self._engine, office, due, None))
            return
        planned = plan(schedule, cursor=due.cursor, now=now, active=due.active)
        fired = self._manager.run(firing.fire(self._engine, office, due, planned, now, self._prepare))
        if fired.decided is None:
            _log.debug("schedule %s has changed since it was looked at", due.name)
            return
        for decided in fired.decided:
            self._tell(due.name, decided, now)
        if fired.refusal is not None:
            _log.warning("a run of schedule %s is refused, and tried again: %s", due.name, fired.refusal)
            self._refused(due.name, str(fired.refusal))

    def _postpone(self, office: Office, due: Due, now: datetime, problem: str) -> None:
        later = now + timedelta(seconds=UNREADABLE_SECONDS)
        try:
            self._manager.run(firing.postpone(self._engine, office, due, later, problem))
        except (NotLeaderError, QueueUnavailableError, QueueFullError):
            raise
        except FairQueueError as error:
            _log.error("schedule %s cannot be put off: %s", due.name, error)

    def _prepare(self, task: Task[Any]) -> Task[Any]:
        """The task as it comes out of the push middleware; its id, which stands for the tick, stays.

        Raises:
            FairQueueError: the middleware refuses it.
        """
        try:
            prepared = self._onion(task).task
        except FairQueueError:
            raise
        except Exception as error:
            raise FairQueueError(f"push middleware failed: {type(error).__name__}: {error}") from error
        if prepared.task_id != task.task_id:
            raise FairQueueError(
                f"push middleware changed the id {task.task_id} of a run to {prepared.task_id}"
            )
        return prepared

    def _tell(self, name: str, decided: Decided, now: datetime) -> None:
        decision, at = decided.decision, datetime.now(UTC)
        if not isinstance(decision, Run):
            self._events.emit(
                ScheduleSkipped(
                    at=at, scheduler_id=self._scheduler_id, schedule=name, first=decision.first, last=decision.last,
                    count=decision.count, reason=decision.reason.value,
                )
            )  # fmt: skip
            return
        if decided.existed or decided.task is None:
            _log.warning("schedule %s: there is a task %s already", name, decision.task_id)
            return
        tell_pushed(self._events, Pushed(decision.task_id, decided.task))
        self._events.emit(
            ScheduleFired(
                at=at, scheduler_id=self._scheduler_id, schedule=name, task_id=decision.task_id, tick=decision.tick,
                lateness=(now - decision.due).total_seconds(), missed=decision.missed, waits=decided.waits,
            )
        )  # fmt: skip

    def _refused(self, name: str, reason: str) -> None:
        self._events.emit(
            ScheduleRefused(
                at=datetime.now(UTC), scheduler_id=self._scheduler_id, schedule=name, reason=reason
            )
        )
