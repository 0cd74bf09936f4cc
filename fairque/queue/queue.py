"""TaskQueue: the queue for sync code. One line a method over operations that AsyncTaskQueue shares."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
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
from fairque.core.middleware import Middleware, compose
from fairque.core.models import QueueSizes, Task, TaskError
from fairque.core.states import TaskState
from fairque.queue.base import result_type_of, tell_pushed
from fairque.queue.batch import PushOutcome
from fairque.queue.bulk import BulkQueue
from fairque.queue.dead_letters import DeadLetters
from fairque.queue.handles import TaskHandle
from fairque.queue.health import QueueHealth, health_of
from fairque.queue.listener import LOOK_AGAIN, next_from
from fairque.queue.operations import admin, dead_letters, push, results, tasks, users
from fairque.queue.operations.explain import Explanation, explain
from fairque.queue.operations.push import Pushed
from fairque.queue.operations.reconcile import Report, reconcile
from fairque.queue.operations.results import Ending, TaskUpdate
from fairque.queue.operations.tasks import Page
from fairque.queue.operations.update import update_task
from fairque.queue.schedules import Schedules
from fairque.queue.spooling import keep, refuse, spools
from fairque.queue.xcom import XCom

R = TypeVar("R")
T = TypeVar("T")
MAX_POP_SECONDS = 5.0


class TaskQueue(BulkQueue):
    """A queue, for sync code; threads may share it. It connects at its first call.

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
        self._push = compose(self.engine.middleware, self._store, "push")
        self._push_or_spool = compose(self.engine.middleware, self._store_or_spool, "push")
        self.dlq = DeadLetters(self)
        self.schedules = Schedules(self)
        self.xcom = XCom(self)

    # -- push

    def _store(self, task: Task[Any]) -> Pushed:
        return tell_pushed(self.events, self.run(push.push(self.engine, task)))

    def _store_or_spool(self, task: Task[Any]) -> Pushed:
        [pushed] = self._offer([task])
        if pushed.error:
            raise pushed.error
        return pushed

    def _offer(self, tasks: list[Task[Any]]) -> list[Pushed]:
        """Store tasks, in the local spool if there is no server."""
        self.spool.join(self)
        flow = push.push_chunk(self.engine, tasks)
        try:
            manager = (self._manager if self._opened else None) or self._open()
        except QueueUnavailableError as error:
            outcomes = refuse(flow, error)
        else:
            outcomes = manager.run(flow)
        if any(pushed.packed is not None for pushed in outcomes):
            outcomes = keep(self.spool, outcomes)
        return [tell_pushed(self.events, pushed) for pushed in outcomes]

    def push(self, task: Task[R], *, on_unavailable: OnUnavailable | None = None) -> TaskHandle[R]:
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
        pushed = store(push.check_new(task))
        return TaskHandle(
            self,
            pushed.task_id,
            result_type_of(task.function),
            existing=pushed.existing,
            outcome=pushed.result,
        )

    def push_batch(
        self, batch: Iterable[Task[Any]], *, on_unavailable: OnUnavailable | None = None
    ) -> list[PushOutcome[TaskHandle[Any]]]:
        """Store many tasks, in chunks; a generator is read as it goes. One outcome a task, in their order.

        A task that is refused does not keep the others out: its outcome has the error. `on_unavailable`: as of `push`.
        """
        spool = spools(self.config, on_unavailable)
        outcomes: list[PushOutcome[TaskHandle[Any]]] = []
        iterator = iter(batch)
        while chunk := push.take_chunk(iterator):
            for pushed in self._push_chunk(chunk, spool):
                handle = None
                if pushed.ok:
                    kind = result_type_of(pushed.task.function)
                    handle = TaskHandle[Any](
                        self, pushed.task_id, kind, existing=pushed.existing, outcome=pushed.result
                    )
                outcomes.append(PushOutcome(pushed.task, handle, pushed.error))
        return outcomes

    def _push_chunk(self, chunk: list[Task[Any]], spool: bool) -> list[Pushed]:
        if self._push != self._store:
            store = self._push_or_spool if spool else self._push
            return [push.attempt(store, task) for task in chunk]
        if spool:
            return self._offer(chunk)
        outcomes = self.run(push.push_chunk(self.engine, chunk))
        return [tell_pushed(self.events, pushed) for pushed in outcomes]

    # -- tasks

    def get_task(self, task_id: str) -> Task[Any] | None:
        """The task as the server has it, or None."""
        return self.run(tasks.get_task(self.engine, task_id))

    def get_errors(self, task_id: str) -> tuple[TaskError, ...]:
        """The error of every failed attempt of the present run, oldest first: the last 50 are kept."""
        return self.run(tasks.get_errors(self.engine, task_id))

    def get_attempts(self, task_id: str) -> tuple[TaskAttempt, ...]:
        """Each failed attempt, oldest first, also of the runs before a requeue: the last 50 are kept."""
        return self.run(tasks.get_attempts(self.engine, task_id))

    def get_handle(self, task_id: str) -> TaskHandle[Any]:
        """A handle for a task that was pushed elsewhere."""
        return TaskHandle(self, task_id)

    def cancel(self, task_id: str | Task[Any]) -> bool:
        """Cancel a task that waits, or ask one that runs to stop. False: it had ended.

        Raises:
            TaskNotFoundError: there is no such task.
        """
        return self.run(tasks.cancel(self.engine, task_id))

    def update_task(self, task_id: str | Task[Any], **changes: Unpack[TaskChanges]) -> TaskState:
        """Change a task that waits: its place (`priority`), its time (`delay` or `execute_after`), `expires_at`,
        `timeout`, `max_retries`, `retry`, `result_ttl`, `correlation_id`, `labels`. All in one step; returns the state
        that it is in now.

        Raises:
            InvalidTaskError: there is nothing to change, an option cannot be changed, or a value is out of range.
            TaskNotFoundError: there is no such task.
            InvalidStateError: it has begun or ended; or it waits for an earlier run of its schedule.
        """
        return self.run(update_task(self.engine, task_id, changes))

    def delete_task(self, task_id: str | Task[Any]) -> bool:
        """Remove a task with all that belongs to it. False: there was none.

        Raises:
            InvalidStateError: it is running.
        """
        return bool(self.run(tasks.delete_tasks(self.engine, [task_id])))

    def list_tasks(
        self,
        state: TaskState | str = TaskState.QUEUED,
        user: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Task[Any]]:
        """One page of the tasks in a state, oldest first; pass the page's `cursor` on for the next."""
        return self.run(tasks.list_tasks(self.engine, state, user, cursor, limit))

    def move_to_dlq(self, task: str | Task[Any], reason: str = "") -> None:
        """Make a task that has not ended a dead letter.

        Raises:
            TaskNotFoundError, InvalidStateError: there is no such task, or it has ended.
        """
        self.run(dead_letters.move_to_dlq(self.engine, task, reason, datetime.now(UTC)))

    def wait_for(self, task_id: str, timeout: float | None = None) -> Ending:
        """What the task left, waiting for its end for up to `timeout` seconds (None: for ever).

        Raises:
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        if ending := self.run(results.get_ending(self.engine, task_id)):
            return ending
        deadline = None if timeout is None else time.monotonic() + timeout
        for update in self._news(task_id, deadline):
            if update.is_last and (ending := self.run(results.get_ending(self.engine, task_id))):
                return ending
        raise ResultTimeoutError(f"task {task_id} has not ended after {timeout} s", task_id=task_id)

    def updates(self, task_id: str, timeout: float | None = None) -> Iterator[TaskUpdate]:
        """The task's state now, then each change and each progress, until it has ended.

        Raises:
            ResultTimeoutError: nothing came for `timeout` seconds.
            TaskNotFoundError: it is gone.
        """
        last: TaskUpdate | None = None
        for update in self._news(task_id, None, timeout):
            if update.state is not None:
                if last is not None and (last.state, last.attempt) == (update.state, update.attempt):
                    continue
                last = update
            yield update
            if update.is_last:
                return
        raise ResultTimeoutError(f"no news of task {task_id} for {timeout} s", task_id=task_id)

    def _news(self, task_id: str, deadline: float | None, quiet: float | None = None) -> Iterator[TaskUpdate]:
        """The task's state, then news as they come, with its state once more each `RECHECK_SECONDS`
        and after a lost connection.

        Ends at the deadline, or after `quiet` seconds without any.
        """
        inbox, unsubscribe = self._listener.subscribe(encode(task_id, "task_id"))
        try:
            heard = time.monotonic()
            while True:
                yield results.update_of(self.run(results.watch(self.engine, task_id, self.client_id)))
                again = time.monotonic() + results.RECHECK_SECONDS
                while (now := time.monotonic()) < again:
                    ends = [
                        end
                        for end in (deadline, heard + quiet if quiet is not None else None)
                        if end is not None
                    ]
                    if ends and now >= min(ends):
                        return
                    update = next_from(inbox, max(0.0, min([again, *ends]) - now))
                    if update is LOOK_AGAIN:
                        break
                    if update is not None:
                        heard = time.monotonic()
                        yield update
        finally:
            unsubscribe()

    # -- the queue as a whole

    def pause(self) -> None:
        """Stop all claiming; running tasks are not touched, and pushes are taken."""
        self.run(admin.pause(self.engine, True))

    def resume(self) -> None:
        """Let a paused queue go on."""
        self.run(admin.pause(self.engine, False))

    def get_queue_sizes(self, user_id: str) -> QueueSizes:
        """How many of a tenant's tasks wait and run."""
        return self.run(users.get_queue_sizes(self.engine, user_id))

    def get_user_stats(self, user_id: str) -> users.UserStats:
        """A tenant in numbers."""
        return self.run(users.get_user_stats(self.engine, user_id))

    def list_users(
        self, by: users.Order = "backlog", cursor: str | None = None, limit: int = 100
    ) -> Page[users.UserStats]:
        """One page of tenants, those with the largest backlog, service or recent wait first; pass the page's
        `cursor` on for the next.
        """
        return self.run(users.list_users(self.engine, by, cursor, limit))

    def explain(self, task_id: str | Task[Any]) -> Explanation:
        """Why a task waits, in a sentence and in numbers, and when it is likely to start."""
        return self.run(explain(self.engine, task_id))

    def reconcile(self, *, tasks: bool = True, dry_run: bool = False) -> Report:
        """Prove that all counts agree with what is held and queued; mend and report what does not.

        `tasks`: also go through all tasks that are stored. `dry_run`: only report it; the server lets nothing be
        written. Workers do a little of this with each of their sweeps.
        """
        return self.run(reconcile(self.engine, tasks=tasks, dry_run=dry_run))

    def get_stats(self) -> admin.QueueStats:
        """The queue in numbers."""
        return self.run(admin.get_stats(self.engine))

    def get_health(self) -> QueueHealth:
        """Whether the queue can be used, and by whom it is served. Never raises: no server is a finding."""
        return self._health()

    def _health(self) -> QueueHealth:
        begun = time.perf_counter()
        try:
            stats = self.get_stats()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return health_of(None, error, time.perf_counter() - begun, self.breaker.stats, self.spool.waiting)
        return health_of(stats, None, time.perf_counter() - begun, self.breaker.stats, self.spool.waiting)
