"""`queue.schedules`, for async code: one line a method over operations that Schedules shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fairque.core.schedules.models import ScheduledTask
from fairque.queue.base import result_type_of, tell_pushed
from fairque.queue.handles import AsyncTaskHandle
from fairque.queue.operations import schedule_views, schedules
from fairque.queue.operations.schedule_views import Firing, Leader, ScheduleInfo
from fairque.queue.operations.schedules import Change, Reconciled
from fairque.queue.operations.tasks import Page

if TYPE_CHECKING:
    from fairque.queue.async_queue import AsyncTaskQueue


class AsyncSchedules:
    """`queue.schedules`. Ticks are decided by a TaskScheduler, wherever one runs."""

    def __init__(self, queue: AsyncTaskQueue) -> None:
        self._queue = queue

    async def add(self, schedule: ScheduledTask) -> Change:
        """Keep a schedule, in place of the one with its name, and say whether that changed anything.

        It is nobody's declaration: a deploy leaves it alone, unless it declares the same name.
        """
        return await self._queue.run(schedules.add(self._queue.engine, schedule))

    async def get(self, name: str) -> ScheduleInfo | None:
        """The schedule, and how far it is; None: there is none."""
        return await self._queue.run(schedule_views.get(self._queue.engine, name))

    async def list(self, cursor: str | None = None) -> Page[ScheduleInfo]:
        """One page of schedules, in no order; pass the page's `cursor` on for the next. One that is added meanwhile
        may come twice, or not at all.
        """
        return await self._queue.run(schedule_views.list_page(self._queue.engine, cursor))

    async def remove(self, name: str) -> bool:
        """A schedule is no more; its runs that were pushed stay. False: there was none."""
        return bool(await self._queue.run(schedules.remove(self._queue.engine, [name])))

    async def pause(self, name: str) -> bool:
        """Let its ticks pass without a run. False: it was paused already.

        Raises:
            ScheduleNotFoundError: there is no such schedule.
        """
        return await self._queue.run(schedules.pause(self._queue.engine, name, True))

    async def resume(self, name: str) -> bool:
        """Go on with the next tick; those that passed meanwhile are not made up for. False: it was not paused.

        Raises:
            ScheduleNotFoundError: there is no such schedule.
        """
        return await self._queue.run(schedules.pause(self._queue.engine, name, False))

    async def trigger(self, name: str) -> AsyncTaskHandle[Any]:
        """Push a run now, outside its ticks, also while it is paused.

        Raises:
            ScheduleNotFoundError: there is no such schedule.
            QuotaExceededError, UnknownLimiterError, QueueFullError: it is refused, as any push.
        """
        pushed = tell_pushed(
            self._queue.events, await self._queue.run(schedules.trigger(self._queue.engine, name))
        )
        return AsyncTaskHandle(self._queue, pushed.task_id, result_type_of(pushed.task.function))

    async def history(self, name: str) -> tuple[Firing, ...]:
        """What became of its last ticks, newest first: at most 50 entries.

        Raises:
            ScheduleNotFoundError: there is no such schedule.
        """
        return await self._queue.run(schedule_views.history(self._queue.engine, name))

    async def next_runs(self, name: str, n: int = 5) -> Sequence[datetime]:
        """The next `n` times at which a run is due, in its time zone, as if it were not paused.

        Raises:
            ScheduleNotFoundError: there is no such schedule.
        """
        return await self._queue.run(schedule_views.next_runs(self._queue.engine, name, n))

    async def reconcile(self, declared: Iterable[ScheduledTask], source: str = "code") -> Reconciled:
        """Have what `source` declares, and no more of what it declared before. What was added by hand, or by another
        source, stays; so does the pause of a schedule.

        Raises:
            ConfigError: two have one name.
        """
        return await self._queue.run(schedules.reconcile(self._queue.engine, declared, source))

    async def leader(self) -> Leader | None:
        """The scheduler that decides ticks now; None: none runs."""
        return await self._queue.run(schedule_views.leader(self._queue.engine))
