"""AsyncTaskQueue: the queue for async code. One line a method over operations that TaskQueue shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar, Unpack

from fairque.core.attempts import TaskAttempt
from fairque.core.changes import TaskChanges
from fairque.core.config import FairQueueConfig
from fairque.core.config_outages import OnUnavailable
from fairque.core.events import EventBus
from fairque.core.exceptions import (
    QueueUnavailableError,
    ResultTimeoutError,
)
from fairque.core.keys import encode
from fairque.core.middleware import Middleware, compose_async
from fairque.core.models import QueueSizes, Task, TaskError
from fairque.core.states import TaskState
from fairque.queue.async_bulk import AsyncBulkQueue
from fairque.queue.async_dead_letters import AsyncDeadLetters
from fairque.queue.async_schedules import AsyncSchedules
from fairque.queue.async_xcom import AsyncXCom
from fairque.queue.base import result_type_of, tell_pushed
from fairque.queue.batch import PushOutcome
from fairque.queue.handles import AsyncTaskHandle
from fairque.queue.health import QueueHealth, health_of
from fairque.queue.listener import LOOK_AGAIN, next_from_async
from fairque.queue.operations import admin, dead_letters, push, results, tasks, users
from fairque.queue.operations.explain import Explanation, explain
from fairque.queue.operations.push import Pushed
from fairque.queue.operations.reconcile import Report, reconcile
from fairque.queue.operations.results import Ending, TaskUpdate
from fairque.queue.operations.tasks import Page
from fairque.queue.operations.update import update_task
from fairque.queue.spooling import keep, refuse, spools

R = TypeVar("R")
T = TypeVar("T")
MAX_POP_SECONDS = 5.0


class AsyncTaskQueue(AsyncBulkQueue):
    """A queue, for async code, within one event loop. It connects at its first call.

    Every method may raise QueueUnavailableError: no server answered within its repetitions.
    """

    def __init__(
        self,
        config: FairQueueConfig | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        events: EventBus | None = None,
    ) -> None:
        super().__init__(config, middleware=middleware, events=events)
        self._push = compose_async(self.engine.middleware, self._store, "push")
        self._push_or_spool = compose_async(self.engine.middleware, self._store_or_spool, "push")
        self.dlq = AsyncDeadLetters(self)
        self.schedules = AsyncSchedules(self)
        self.xcom = AsyncXCom(self)

    # -- push

    async def _store(self, task: Task[Any]) -> Pushed:
        return tell_pushed(self.events, await self.run(push.push(self.engine, task)))

    async def _store_or_spool(self, task: Task[Any]) -> Pushed:
        [pushed] = await self._offer([task])
        if pushed.error:
            raise pushed.error
        return pushed

    async def _offer(self, tasks: list[Task[Any]]) -> list[Pushed]:
        """Store tasks, in the local spool if there is no server."""
        self.spool.join(self)
        flow = push.push_chunk(self.engine, tasks)
        try:
            manager = (self._manager if self._opened else None) or await self._open()
        except QueueUnavailableError as error:
            outcomes = refuse(flow, error)
        else:
            outcomes = await manager.run(flow)
        if any(pushed.packed is not None for pushed in outcomes):
            outcomes = await asyncio.to_thread(keep, self.spool, outcomes)
        return [tell_pushed(self.events, pushed) for pushed in outcomes]

    async def push(self, task: Task[R], *, on_unavailable: OnUnavailable | None = None) -> AsyncTaskHandle[R]:
        """Store a task; when this returns, it will be executed at least once.

        `on_unavailable`: what to do if no server answers: `"raise"`, or `"spool"`, which writes the task to a file of
        this machine until one does (the handle's `spooled` is true so long). Left out, `spool.on_unavailable` of the
        configuration says so.

        Raises:
            InvalidTaskError: (or one below it) it cannot be stored as it is; nothing is written.
            DuplicateTaskError: its id or dedup_key is taken.
            QueueFullError: the server has no memory for it.
            SpoolFullError: no server answers, and the local spool has no room for it.

        A push with a `dedup_key` may be dropped, or join a task that waits: the handle's `outcome` says so.
        """
        store = self._push_or_spool if spools(self.config, on_unavailable) else self._push
        pushed = await store(push.check_new(task))
        return AsyncTaskHandle(
            self,
            pushed.task_id,
            result_type_of(task.function),
            existing=pushed.existing,
            outcome=pushed.result,
        )

    async def push_batch(
        self, batch: Iterable[Task[Any]], *, on_unavailable: OnUnavailable | None = None
    ) -> list[PushOutcome[AsyncTaskHandle[Any]]]:
        """Store many tasks, in chunks; a generator is read as it goes. One outcome a task, in their order.

        A task that is refused does not keep the others out: its outcome has the error. `on_unavailable`: as of `push`.
        """
        spool = spools(self.config, on_unavailable)
        outcomes: list[PushOutcome[AsyncTaskHandle[Any]]] = []
        iterator = iter(batch)
        while chunk := push.take_chunk(iterator):
            for pushed in await self._push_chunk(chunk, spool):
                handle = None
                if pushed.ok:
                    kind = result_type_of(pushed.task.function)
                    handle = AsyncTaskHandle[Any](
                        self, pushed.task_id, kind, existing=pushed.existing, outcome=pushed.result
                    )
                outcomes.append(PushOutcome(pushed.task, handle, pushed.error))
        return outcomes

    async def _push_chunk(self, chunk: list[Task[Any]], spool: bool) -> list[Pushed]:
        if self._push != self._store:
            store = self._push_or_spool if spool else self._push
            return [await push.attempt_async(store, task) for task in chunk]
        if spool:
            return await self._offer(chunk)
        outcomes = await self.run(push.push_chunk(self.engine, chunk))
        return [tell_pushed(self.events, pushed) for pushed in outcomes]

    # -- tasks

    async def get_task(self, task_id: str) -> Task[Any] | None:
        """The task as the server has it, or None."""
        return await self.run(tasks.get_task(self.engine, task_id))

    async def get_errors(self, task_id: str) -> tuple[TaskError, ...]:
        """The error of every failed attempt of the present run, oldest first: the last 50 are kept."""
        return await self.run(tasks.get_errors(self.engine, task_id))

    async def get_attempts(self, task_id: str) -> tuple[TaskAttempt, ...]:
        """Each failed attempt, oldest first, also of the runs before a requeue: the last 50 are kept."""
        return await self.run(tasks.get_attempts(self.engine, task_id))

    async def get_handle(self, task_id: str) -> AsyncTaskHandle[Any]:
        """A handle for a task that was pushed elsewhere."""
        return AsyncTaskHandle(self, task_id)

    async def cancel(self, task_id: str | Task[Any]) -> bool:
        """Cancel a task that waits, or ask one that runs to stop. False: it had ended.

        Raises:
            TaskNotFoundError: there is no such task.
        """
        return await self.run(tasks.cancel(self.engine, task_id))

    async def update_task(self, task_id: str | Task[Any], **changes: Unpack[TaskChanges]) -> TaskState:
        """Change a task that waits: its place (`priority`), its time (`delay` or `execute_after`), `expires_at`,
        `timeout`, `max_retries`, `retry`, `result_ttl`, `correlation_id`, `labels`. All in one step; returns the state
        that it is in now.

        Raises:
            InvalidTaskError: there is nothing to change, an option cannot be changed, or a value is out of range.
            TaskNotFoundError: there is no such task.
            InvalidStateError: it has begun or ended; or it waits for an earlier run of its schedule.
        """
        return await self.run(update_task(self.engine, task_id, changes))

    async def delete_task(self, task_id: str | Task[Any]) -> bool:
        """Remove a task with all that belongs to it. False: there was none.

        Raises:
            InvalidStateError: it is running.
        """
        return bool(await self.run(tasks.delete_tasks(self.engine, [task_id])))

    async def list_tasks(
        self,
        state: TaskState | str = TaskState.QUEUED,
        user: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Task[Any]]:
        """One page of the tasks in a state, oldest first; pass the page's `cursor` on for the next."""
        return await self.run(tasks.list_tasks(self.engine, state, user, cursor, limit))

    async def move_to_dlq(self, task: str | Task[Any], reason: str = "") -> None:
        """Make a task that has not ended a dead letter.

        Raises:
            TaskNotFoundError, InvalidStateError: there is no such task, or it has ended.
        """
        await self.run(dead_letters.move_to_dlq(self.engine, task, reason, datetime.now(UTC)))

    async def wait_for(self, task_id: str, timeout: float | None = None) -> Ending:  # noqa: ASYNC109 - the sync twin has it
        """What the task left, waiting for its end for up to `timeout` seconds (None: for ever).

        Raises:
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        if ending := await self.run(results.get_ending(self.engine, task_id)):
            return ending
        deadline = None if timeout is None else time.monotonic() + timeout
        async with aclosing(self._news(task_id, deadline)) as news:
            async for update in news:
                if update.is_last and (ending := await self.run(results.get_ending(self.engine, task_id))):
                    return ending
        raise ResultTimeoutError(f"task {task_id} has not ended after {timeout} s", task_id=task_id)

    async def updates(self, task_id: str, timeout: float | None = None) -> AsyncIterator[TaskUpdate]:  # noqa: ASYNC109 - as above
        """The task's state now, then each change and each progress, until it has ended.

        Raises:
            ResultTimeoutError: nothing came for `timeout` seconds.
            TaskNotFoundError: it is gone.
        """
        last: TaskUpdate | None = None
        async with aclosing(self._news(task_id, None, timeout)) as news:
            async for update in news:
                if update.state is not None:
                    if last is not None and (last.state, last.attempt) == (update.state, update.attempt):
                        continue
                    last = update
                yield update
                if update.is_last:
                    return
        raise ResultTimeoutError(f"no news of task {task_id} for {timeout} s", task_id=task_id)

    async def _news(
        self, task_id: str, deadline: float | None, quiet: float | None = None
    ) -> AsyncGenerator[TaskUpdate, None]:
        """The task's state, then news as they come, with its state once more each `RECHECK_SECONDS`
        and after a lost connection.

        Ends at the deadline, or after `quiet` seconds without any.
        """
        inbox, unsubscribe = self._listener.subscribe(encode(task_id, "task_id"))
        try:
            heard = time.monotonic()
            while True:
                yield results.update_of(await self.run(results.watch(self.engine, task_id, self.client_id)))
                again = time.monotonic() + results.RECHECK_SECONDS
                while (now := time.monotonic()) < again:
                    ends = [
                        end
                        for end in (deadline, heard + quiet if quiet is not None else None)
                        if end is not None
                    ]
                    if ends and now >= min(ends):
                        return
                    update = await next_from_async(inbox, max(0.0, min([again, *ends]) - now))
                    if update is LOOK_AGAIN:
                        break
                    if update is not None:
                        heard = time.monotonic()
                        yield update
        finally:
            unsubscribe()

    # -- the queue as a whole

    async def pause(self) -> None:
        """Stop all claiming; running tasks are not touched, and pushes are taken."""
        await self.run(admin.pause(self.engine, True))

    async def resume(self) -> None:
        """Let a paused queue go on."""
        await self.run(admin.pause(self.engine, False))

    async def get_queue_sizes(self, user_id: str) -> QueueSizes:
        """How many of a tenant's tasks wait and run."""
        return await self.run(users.get_queue_sizes(self.engine, user_id))

    async def get_user_stats(self, user_id: str) -> users.UserStats:
        """A tenant in numbers."""
        return await self.run(users.get_user_stats(self.engine, user_id))

    async def list_users(
        self, by: users.Order = "backlog", cursor: str | None = None, limit: int = 100
    ) -> Page[users.UserStats]:
        """One page of tenants, those with the largest backlog, service or recent wait first; pass the page's
        `cursor` on for the next.
        """
        return await self.run(users.list_users(self.engine, by, cursor, limit))

    async def explain(self, task_id: str | Task[Any]) -> Explanation:
        """Why a task waits, in a sentence and in numbers, and when it is likely to start."""
        return await self.run(explain(self.engine, task_id))

    async def reconcile(self, *, tasks: bool = True, dry_run: bool = False) -> Report:
        """Prove that all counts agree with what is held and queued; mend and report what does not.

        `tasks`: also go through all tasks that are stored. `dry_run`: only report it; the server lets nothing be
        written. Workers do a little of this with each of their sweeps.
        """
        return await self.run(reconcile(self.engine, tasks=tasks, dry_run=dry_run))

    async def get_stats(self) -> admin.QueueStats:
        """The queue in numbers."""
        return await self.run(admin.get_stats(self.engine))

    async def get_health(self) -> QueueHealth:
        """Whether the queue can be used, and by whom it is served. Never raises: no server is a finding."""
        return await self._health()

    async def _health(self) -> QueueHealth:
        begun = time.perf_counter()
        try:
            stats = await self.get_stats()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return health_of(None, error, time.perf_counter() - begun, self.breaker.stats, self.spool.waiting)
        return health_of(stats, None, time.perf_counter() - begun, self.breaker.stats, self.spool.waiting)
