"""AsyncTaskQueue: the queue for async code. One line a method over operations that TaskQueue shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from redis.exceptions import RedisError

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus
from fairque.core.exceptions import (
    InvalidTaskError,
    QueueUnavailableError,
    ResultTimeoutError,
    WorkerDeadError,
)
from fairque.core.keys import encode
from fairque.core.middleware import Middleware, compose_async
from fairque.core.models import DLQEntry, QueueSizes, Task, TaskError, UserPolicy
from fairque.core.states import TaskState
from fairque.queue.base import BaseTaskQueue, result_type_of, tell_pushed
from fairque.queue.batch import PushOutcome
from fairque.queue.connection import create_async_blocking_client
from fairque.queue.consumer import check_settled, failing, finishing, releasing
from fairque.queue.handles import AsyncTaskHandle
from fairque.queue.health import QueueHealth, health_of
from fairque.queue.listener import AsyncListener, next_from_async
from fairque.queue.lua_manager import AsyncLuaScriptManager
from fairque.queue.operations import admin, claims, dead_letters, push, results, tasks
from fairque.queue.operations.base import Flow
from fairque.queue.operations.claims import Exchange, Settlement
from fairque.queue.operations.dead_letters import Ids
from fairque.queue.operations.push import Pushed
from fairque.queue.operations.results import Ending, TaskUpdate
from fairque.queue.operations.tasks import Page

R = TypeVar("R")
T = TypeVar("T")
MAX_POP_SECONDS = 5.0


class AsyncTaskQueue(BaseTaskQueue):
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
        self._lock = asyncio.Lock()
        self._calls = asyncio.Lock()
        self._manager: AsyncLuaScriptManager | None = None
        self._blocking: Any = None
        self._listener = AsyncListener(self._blocking_client, self.engine.keys.wake(self.client_id))
        self._push = compose_async(self.engine.middleware, self._store, "push")
        self.dlq = AsyncDeadLetters(self)

    # -- connections

    def _blocking_client(self, seconds: float) -> Any:
        return create_async_blocking_client(self.config.redis, seconds)

    async def _open(self) -> AsyncLuaScriptManager:
        async with self._lock:
            if self._manager is None:
                self._manager = AsyncLuaScriptManager(self.config.redis.create_async_redis_client())
            if not self._opened:
                await self._manager.run(admin.open_queue(self.engine))
                self._opened = True
            return self._manager

    async def run(self, flow: Flow[T]) -> T:
        """Drive an operation (see queue/operations) to its end."""
        manager = self._manager if self._opened else None
        return await (manager or await self._open()).run(flow)

    async def close(self) -> None:
        """Give back what pop() claimed but did not hand out, and close all connections."""
        async with self._lock:
            if self._consumer.session.joined and self._manager is not None:
                try:
                    await self._manager.run(claims.leave(self.engine, self._consumer.session.incarnation))
                except QueueUnavailableError:
                    pass  # its lease will bring them back
                self._consumer.renew_session()
            await self._listener.close()
            self._listener = AsyncListener(self._blocking_client, self.engine.keys.wake(self.client_id))
            for client in (self._blocking, self._manager.client if self._manager else None):
                if client is not None:
                    await client.aclose()
            self._manager = self._blocking = None
            self._opened = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    # -- push

    async def _store(self, task: Task[Any]) -> Pushed:
        return tell_pushed(self.events, await self.run(push.push(self.engine, task)))

    async def push(self, task: Task[R]) -> AsyncTaskHandle[R]:
        """Store a task; when this returns, it will be executed at least once.

        Raises:
            InvalidTaskError: (or one below it) it cannot be stored as it is; nothing is written.
            DuplicateTaskError: its id or dedup_key is taken.
            QueueFullError: the server has no memory for it.
        """
        pushed = await self._push(push.check_new(task))
        return AsyncTaskHandle(self, pushed.task_id, result_type_of(task.function), existing=pushed.existing)

    async def push_batch(self, batch: Iterable[Task[Any]]) -> list[PushOutcome[AsyncTaskHandle[Any]]]:
        """Store many tasks, in chunks; a generator is read as it goes. One outcome a task, in their order.

        A task that is refused does not keep the others out: its outcome has the error.
        """
        outcomes: list[PushOutcome[AsyncTaskHandle[Any]]] = []
        iterator = iter(batch)
        while chunk := push.take_chunk(iterator):
            for pushed in await self._push_chunk(chunk):
                handle = None
                if pushed.ok:
                    kind = result_type_of(pushed.task.function)
                    handle = AsyncTaskHandle[Any](self, pushed.task_id, kind, existing=pushed.existing)
                outcomes.append(PushOutcome(pushed.task, handle, pushed.error))
        return outcomes

    async def _push_chunk(self, chunk: list[Task[Any]]) -> list[Pushed]:
        if self._push != self._store:
            return [await push.attempt_async(self._push, task) for task in chunk]
        outcomes = await self.run(push.push_chunk(self.engine, chunk))
        return [tell_pushed(self.events, pushed) for pushed in outcomes]

    # -- claim and settle, for custom consumers

    @overload
    async def pop(
        self, count: None = None, *, wait: float = 0, users: Sequence[str] = (), worker_id: str | None = None
    ) -> Task[Any] | None: ...

    @overload
    async def pop(
        self, count: int, *, wait: float = 0, users: Sequence[str] = (), worker_id: str | None = None
    ) -> list[Task[Any]]: ...

    async def pop(
        self,
        count: int | None = None,
        *,
        wait: float = 0,
        users: Sequence[str] = (),
        worker_id: str | None = None,
    ) -> Task[Any] | list[Task[Any]] | None:
        """Claim the next task, fairly (None: there is none), or with `count` a list of up to so many.

        `wait`: seconds to wait for the first. `users`: only from these. The claim is held for one lease
        (`lease_seconds`) from this object's last call: call `renew` in between if the work takes longer.
        """
        wanted = 1 if count is None else count
        if wanted < 1:
            raise InvalidTaskError(f"count must be at least 1, not {count}")
        deadline = time.monotonic() + wait
        consumer = self._consumer
        while True:
            left = deadline - time.monotonic()
            parks = left > 0 and not users
            async with self._calls:
                if worker_id is not None:
                    consumer.session.fields = {"kind": "consumer", "worker_id": worker_id}
                found = consumer.hand_out(wanted, users)
                due = None
                if not found:
                    consumer.session.slots = max(consumer.session.slots, wanted)
                    due = (await self._claim(want=wanted, park=parks, users=users)).due_in
                    found = consumer.hand_out(wanted, users)
                # What came could not be read: it is a dead letter with the next call, and others may wait.
                again = not found and bool(consumer.invalid)
                consumer.blocked += not (found or again or left <= 0)
            if again:
                continue
            if found or left <= 0:
                return found if count is not None else found[0] if found else None
            pause = min(left, MAX_POP_SECONDS, self.config.queue.lease_seconds / 3, due or MAX_POP_SECONDS)
            try:
                await self._block(pause if parks else min(pause, 0.1))
            finally:
                consumer.blocked -= 1

    async def _block(self, seconds: float) -> None:
        if self._blocking is None:
            self._blocking = self._blocking_client(MAX_POP_SECONDS)
        key = self.engine.keys.wake(self._consumer.session.incarnation)
        try:
            await self._blocking.execute_command("BLPOP", key, max(0.001, seconds))
        except (RedisError, OSError):
            await asyncio.sleep(min(seconds, 0.05))  # the next call will say so if the server is away

    async def _claim(
        self,
        *,
        want: int = 0,
        settlements: Sequence[Settlement] = (),
        park: bool = False,
        users: Sequence[str] = (),
    ) -> Exchange:
        """One exchange of this object's session (the caller holds the lock); an answer that was lost comes first."""
        consumer, engine = self._consumer, self.engine
        for again in (True, False):
            try:
                if not consumer.session.joined:
                    await self.run(claims.join(engine, consumer.session))
                consumer.take(await self.run(claims.fetch_lost(consumer.session)))
                want = max(0, want - consumer.count(users))
                exchange = await self.run(
                    claims.settle_and_claim(
                        engine,
                        consumer.session,
                        want=want,
                        settlements=[*settlements, *consumer.pending()],
                        park=park,
                        others_block=consumer.blocked > 0,
                        users=users,
                    )
                )
            except WorkerDeadError:
                if not again:
                    raise
                consumer.renew_session()
            else:
                consumer.take(exchange)
                return exchange
        raise AssertionError("unreachable")

    async def _settle(self, task: Task[Any], settlement: Settlement) -> claims.Settled:
        async with self._calls:
            return check_settled(task, (await self._claim(settlements=[settlement])).codes[0])

    async def finish(self, task: Task[Any], result: Any = None, *, seconds: float = 0.0) -> None:
        """A claimed task has succeeded, after `seconds` of run time.

        Raises:
            StaleClaimError: the claim was lost; nothing is recorded.
            SerializationError, PayloadTooLargeError: the result cannot be stored.
        """
        await self._settle(task, finishing(self.engine, task, result, seconds))

    async def fail(self, task: Task[Any], error: BaseException, *, seconds: float = 0.0) -> claims.Settled:
        """A claimed task has failed: it is tried again, or becomes a dead letter, as its policy says.

        Raises:
            StaleClaimError: the claim was lost; nothing is recorded.
        """
        return await self._settle(task, failing(self.engine, task, error, seconds))

    async def release(self, task: Task[Any]) -> None:
        """Give a claimed task back unstarted: it is its user's next again, and nothing is used up.

        Raises:
            StaleClaimError: the claim was lost.
        """
        await self._settle(task, releasing(task))

    async def renew(self, claimed: Task[Any] | Sequence[Task[Any]]) -> list[Task[Any]]:
        """Renew the lease; returns those of the tasks that somebody asked to cancel.

        Raises:
            StaleClaimError: a claim was lost: stop working on it.
        """
        items = [claimed] if isinstance(claimed, Task) else list(claimed)
        return await self.run(claims.renew_claims(self.engine, self._consumer.session, items))

    # -- tasks

    async def get_task(self, task_id: str) -> Task[Any] | None:
        """The task as the server has it, or None."""
        return await self.run(tasks.get_task(self.engine, task_id))

    async def get_errors(self, task_id: str) -> tuple[TaskError, ...]:
        """The error of every failed attempt, oldest first."""
        return await self.run(tasks.get_errors(self.engine, task_id))

    async def get_handle(self, task_id: str) -> AsyncTaskHandle[Any]:
        """A handle for a task that was pushed elsewhere."""
        return AsyncTaskHandle(self, task_id)

    async def cancel(self, task_id: str | Task[Any]) -> bool:
        """Cancel a task that waits, or ask one that runs to stop. False: it had ended.

        Raises:
            TaskNotFoundError: there is no such task.
        """
        return await self.run(tasks.cancel(self.engine, task_id))

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
        """The task's state, then news as they come, with its state once more each `RECHECK_SECONDS`.

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
                    if update is not None:
                        heard = time.monotonic()
                        yield update
        finally:
            unsubscribe()

    # -- the queue as a whole

    async def set_user_policy(self, user_id: str, policy: UserPolicy | None) -> None:
        """What a tenant may use from now on, also its backlog; None: the default again."""
        await self.run(admin.set_user_policy(self.engine, user_id, policy))

    async def get_user_policy(self, user_id: str) -> UserPolicy | None:
        """The tenant's own policy, or None."""
        return await self.run(admin.get_user_policy(self.engine, user_id))

    async def pause_user(self, user_id: str) -> None:
        """Keep a tenant's tasks waiting; running ones are not touched."""
        await self.run(admin.pause_user(self.engine, user_id, True))

    async def resume_user(self, user_id: str) -> None:
        """Let a paused tenant go on."""
        await self.run(admin.pause_user(self.engine, user_id, False))

    async def pause(self) -> None:
        """Stop all claiming; running tasks are not touched, and pushes are taken."""
        await self.run(admin.pause(self.engine, True))

    async def resume(self) -> None:
        """Let a paused queue go on."""
        await self.run(admin.pause(self.engine, False))

    async def get_queue_sizes(self, user_id: str) -> QueueSizes:
        """How many of a tenant's tasks wait and run."""
        return await self.run(admin.get_queue_sizes(self.engine, user_id))

    async def get_user_stats(self, user_id: str) -> admin.UserStats:
        """A tenant in numbers."""
        return await self.run(admin.get_user_stats(self.engine, user_id))

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
            return health_of(None, error, time.perf_counter() - begun)
        return health_of(stats, None, time.perf_counter() - begun)

    async def cleanup_expired_tasks(self) -> dict[str, int]:
        """Cancel what expired, and forget what was kept long enough, in bounded chunks; returns how many of each."""
        return await self.run(admin.sweep(self.engine))


class AsyncDeadLetters:
    """`queue.dlq`."""

    def __init__(self, queue: AsyncTaskQueue) -> None:
        self._queue = queue

    async def list(
        self, user: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[DLQEntry]:
        """One page of dead letters, oldest first, with every attempt's error."""
        return await self._queue.run(dead_letters.list_dead(self._queue.engine, user, cursor, limit))

    async def requeue(self, ids: Ids | None = None, *, user: str | None = None) -> int:
        """Queue dead letters again, as a new run: those named, else all of `user`, else all; returns how
        many.

        Raises:
            TaskNotFoundError, InvalidStateError: one that was named is not there, or has not ended so.
        """
        return await self._queue.run(dead_letters.requeue_dead(self._queue.engine, ids, user))

    async def purge(self, ids: Ids | None = None, *, user: str | None = None) -> int:
        """Remove dead letters for ever: those named, else all of `user`, else all; returns how many."""
        return await self._queue.run(dead_letters.purge_dead(self._queue.engine, ids, user))
