"""`queue.dlq`, for async code: one line a method over operations that DeadLetters shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from fairque.core.filters import TaskFilter
from fairque.core.models import DLQEntry, Task
from fairque.queue.operations import dead_letters
from fairque.queue.operations.bulk import BulkOutcome
from fairque.queue.operations.dead_letters import UNSET, DeadCount, Ids, Unset
from fairque.queue.operations.tasks import Page

if TYPE_CHECKING:
    from fairque.queue.async_queue import AsyncTaskQueue


class AsyncDeadLetters:
    """`queue.dlq`: tasks that have failed for good."""

    def __init__(self, queue: AsyncTaskQueue) -> None:
        self._queue = queue

    async def list(
        self,
        user: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        *,
        where: TaskFilter | None = None,
    ) -> Page[DLQEntry]:
        """One page of dead letters, oldest first, with every attempt's error; pass the page's `cursor` on for the next.

        With a filter that few fit, a page may be short, or empty, and have a cursor all the same.

        Raises:
            InvalidFilterError: the filter names other states, or another user.
        """
        return await self._queue.run(dead_letters.list_dead(self._queue.engine, user, cursor, limit, where))

    async def count(self, where: TaskFilter | None = None, *, user: str | None = None) -> int:
        """How many dead letters there are that fit: the preview of a requeue or a purge."""
        return await self._queue.run(dead_letters.count_dead(self._queue.engine, where, user))

    async def users(self, cursor: str | None = None, limit: int = 100) -> Page[DeadCount]:
        """One page of the users that have dead letters, those with most first."""
        return await self._queue.run(dead_letters.list_users(self._queue.engine, cursor, limit))

    @overload
    async def requeue(
        self, chosen: TaskFilter, *, user: str | None = None, dry_run: bool = False, limit: int | None = None
    ) -> BulkOutcome: ...

    @overload
    async def requeue(self, chosen: Ids | None = None, *, user: str | None = None) -> int: ...

    @overload
    async def requeue(
        self,
        chosen: str | Task[Any],
        *,
        args: Sequence[Any] | Unset = UNSET,
        kwargs: Mapping[str, Any] | Unset = UNSET,
        payload: Any = UNSET,
    ) -> int: ...

    async def requeue(
        self,
        chosen: Ids | TaskFilter | None = None,
        *,
        user: str | None = None,
        dry_run: bool = False,
        limit: int | None = None,
        args: Sequence[Any] | Unset = UNSET,
        kwargs: Mapping[str, Any] | Unset = UNSET,
        payload: Any = UNSET,
    ) -> int | BulkOutcome:
        """Queue dead letters again, as a new run: those named, those that fit a filter, else all of `user`, else all.

        Returns how many, with a filter what became of them; `dry_run` then only counts. One that is named may get other
        `args`, `kwargs` or another `payload`, which are checked as a push is; what is not given stays.

        Raises:
            TaskNotFoundError, InvalidStateError: one that was named is not there, or has not ended so.
            InvalidTaskError: (or one below it) the task cannot run, or be stored, with these arguments.
            InvalidFilterError: the filter names other states or another user, or arguments do not go together.
        """
        return await self._queue.run(
            dead_letters.requeue_any(
                self._queue.engine,
                chosen,
                user,
                dry_run,
                limit,
                {"args": args, "kwargs": kwargs, "payload": payload},
            )
        )

    @overload
    async def purge(
        self, chosen: TaskFilter, *, user: str | None = None, dry_run: bool = False, limit: int | None = None
    ) -> BulkOutcome: ...

    @overload
    async def purge(self, chosen: Ids | None = None, *, user: str | None = None) -> int: ...

    async def purge(
        self,
        chosen: Ids | TaskFilter | None = None,
        *,
        user: str | None = None,
        dry_run: bool = False,
        limit: int | None = None,
    ) -> int | BulkOutcome:
        """Remove dead letters for ever: those named, those that fit a filter, else all of `user`, else all.

        Returns how many there were, with a filter what became of them; `dry_run` then only counts.

        Raises:
            InvalidStateError: one that was named is no dead letter; nothing is removed.
            InvalidFilterError: the filter names other states, or another user.
        """
        return await self._queue.run(dead_letters.purge_any(self._queue.engine, chosen, user, dry_run, limit))

    async def tell(self) -> int:
        """Tell the observers of this queue object of what has died since somebody asked (`DeadLettered`,
        `DeadLettersPassed`), 500 tasks at most; returns how many events there were.

        Each is told once in all. Workers with observers of these ask by themselves, so this is for programs without.
        """
        events = await self._queue.run(dead_letters.take_news(self._queue.engine))
        for event in events:
            self._queue.events.emit(event)
        return len(events)
