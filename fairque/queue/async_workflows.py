"""Workflows: enqueue, look, wait, cancel and run again, for async code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, overload

from fairque.core.compose import Node
from fairque.core.exceptions import ResultTimeoutError
from fairque.core.keys import encode
from fairque.core.middleware import compose_async
from fairque.core.models import Task
from fairque.core.pipeline import Group, Pipeline
from fairque.queue.async_policies import AsyncPolicyQueue
from fairque.queue.base import result_type_of, tell_pushed
from fairque.queue.handles import AsyncTaskHandle
from fairque.queue.listener import LOOK_AGAIN, next_from_async
from fairque.queue.operations import enqueue, results, workflows
from fairque.queue.operations.push import Pushed
from fairque.queue.operations.results import TaskUpdate
from fairque.queue.operations.tasks import Page
from fairque.queue.operations.workflows import Workflow, WorkflowNode, WorkflowState

R = TypeVar("R")


class AsyncWorkflowQueue(AsyncPolicyQueue):
    """The part of AsyncTaskQueue that stores graphs of tasks and looks after them."""

    async def push(self, task: Task[R]) -> AsyncTaskHandle[R]:
        """Store a task (see AsyncTaskQueue)."""
        raise NotImplementedError

    @overload
    async def enqueue(self, work: Task[R]) -> AsyncTaskHandle[R]: ...
    @overload
    async def enqueue(self, work: Pipeline[R]) -> AsyncWorkflowHandle[R]: ...
    @overload
    async def enqueue(self, work: Group[R] | Sequence[Node[R]]) -> AsyncWorkflowHandle[list[R]]: ...
    async def enqueue(self, work: Any) -> Any:
        """Store a task, or a pipeline, a group or a list of tasks as one workflow: all of it, or nothing.

        Up to 1,000 tasks, 10,000 dependencies and 4 MiB go in one call. What is larger is invisible until all of it
        is there, and then comes in piece by piece, also without this client.

        Raises:
            CycleError: tasks wait for each other; nothing is written.
            InvalidTaskError: (or one below it) a task cannot be stored as it is; nothing is written.
            DuplicateTaskError: the id of a task, or of the workflow, is taken.
            QuotaExceededError: a tenant would have more tasks waiting than it may.
            QueueFullError: the server has no memory for it.
        """
        if isinstance(work, Task):
            return await self.push(work)
        new = enqueue.NewWorkflow.of(work)
        sent: list[Task[Any]] = []

        async def collect(task: Task[Any]) -> Pushed:
            sent.append(task)
            return Pushed(task.task_id, task)

        through = compose_async(self.engine.middleware, collect, "push")
        for task in new.tasks:
            await through(task)
        await self.run(enqueue.enqueue(self.engine, new, sent))
        for task in sent:
            tell_pushed(self.events, Pushed(task.task_id, task))
        return AsyncWorkflowHandle(self, new.graph.workflow_id, result_type_of(new.returns))

    async def get_workflow(self, workflow_id: str) -> AsyncWorkflowHandle[Any]:
        """A handle for a workflow that was enqueued elsewhere."""
        return AsyncWorkflowHandle(self, workflow_id)

    async def list_workflows(self, cursor: str | None = None, limit: int = 100) -> Page[Workflow]:
        """One page of workflows, those that run first; pass the page's `cursor` on for the next."""
        return await self.run(workflows.list_workflows(self.engine, cursor, limit))

    async def cancel_workflow(self, workflow_id: str) -> bool:
        """Cancel its tasks that wait, and ask those that run to stop. False: it had ended.

        Raises:
            TaskNotFoundError: there is no such workflow.
        """
        return await self.run(workflows.cancel(self.engine, workflow_id))

    async def retry_workflow(self, workflow_id: str, from_: str | Task[Any] | None = None) -> int:
        """Run again its tasks that failed or were canceled, or of those only `from_` and all behind it; returns how
        many. What has finished is not run again.

        Raises:
            TaskNotFoundError: there is no such workflow, or no such task in it.
        """
        return await self.run(workflows.retry(self.engine, workflow_id, from_))

    async def as_completed(
        self,
        handles: Iterable[AsyncTaskHandle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - the sync twin has it
    ) -> AsyncIterator[AsyncTaskHandle[R]]:
        """Each handle when its task has ended, those that had first; `timeout` in seconds is for all of them.

        Raises:
            ResultTimeoutError: some have not ended in time.
            TaskNotFoundError: one is gone.
        """
        waiting: dict[str, AsyncTaskHandle[R]] = {handle.task_id: handle for handle in handles}
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox: asyncio.Queue[TaskUpdate] = asyncio.Queue()
        leave: list[Callable[[], None]] = []
        try:
            leave.extend(self._listener.subscribe(encode(name, "task_id"), inbox)[1] for name in waiting)
            while waiting:
                for task_id in list(waiting):
                    task = await self.run(results.watch(self.engine, task_id, self.client_id))
                    if task.state is not None and task.state.is_terminal:
                        yield waiting.pop(task_id)
                again = time.monotonic() + results.RECHECK_SECONDS
                while waiting and (left := again - time.monotonic()) > 0:
                    if deadline is not None:
                        left = min(left, deadline - time.monotonic())
                        if left <= 0:
                            raise ResultTimeoutError(f"{len(waiting)} tasks have not ended after {timeout} s")
                    update = await next_from_async(inbox, left)
                    if update is LOOK_AGAIN:
                        break
                    if update is not None and update.is_last and update.task_id in waiting:
                        yield waiting.pop(update.task_id)
        finally:
            for end in leave:
                end()

    async def gather(self, handles: Iterable[AsyncTaskHandle[R]], timeout: float | None = None) -> list[R]:  # noqa: ASYNC109 - the sync twin has it
        """The results of all, in the order of the handles.

        Raises:
            TaskFailedError, TaskCanceledError: of the first, in that order, that ended so.
            ResultTimeoutError: some have not ended in time.
        """
        asked = list(handles)
        async for _ in self.as_completed(asked, timeout):
            pass
        return [await handle.result(0) for handle in asked]

    async def wait_for_workflow(self, workflow_id: str, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the sync twin has it
        """Wait until all its tasks have ended, for up to `timeout` seconds (None: for ever).

        Raises:
            ResultTimeoutError: they have not in time.
            TaskNotFoundError: it is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox, unsubscribe = self._listener.subscribe(workflows.subject(workflow_id))
        try:
            while not await self.run(workflows.watch(self.engine, workflow_id, self.client_id)):
                pause = results.RECHECK_SECONDS
                if deadline is not None:
                    pause = min(pause, deadline - time.monotonic())
                    if pause <= 0:
                        raise ResultTimeoutError(
                            f"workflow {workflow_id} has not ended after {timeout} s", task_id=workflow_id
                        )
                await next_from_async(inbox, pause)
        finally:
            unsubscribe()


class AsyncWorkflowHandle(Generic[R]):
    """A workflow in the queue, for async code."""

    def __init__(self, queue: AsyncWorkflowQueue, workflow_id: str, result_type: Any = None) -> None:
        self.workflow_id = workflow_id
        self._queue = queue
        self._result_type = result_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id}>"

    async def info(self) -> Workflow:
        """Its name, state and counts now.

        Raises:
            TaskNotFoundError: it is gone.
        """
        return await self._queue.run(workflows.get_workflow(self._queue.engine, self.workflow_id))

    async def state(self) -> WorkflowState:
        """running, finished, failed (one of its tasks has) or canceled.

        Raises:
            TaskNotFoundError: it is gone.
        """
        return (await self.info()).state

    async def tree(self) -> tuple[WorkflowNode, ...]:
        """Its tasks as they are now, each behind those that it waits for."""
        return await self._queue.run(workflows.get_nodes(self._queue.engine, self.workflow_id))

    async def cancel(self) -> bool:
        """Cancel what has not ended of it. False: all had."""
        return await self._queue.cancel_workflow(self.workflow_id)

    async def retry(self, from_: str | Task[Any] | None = None) -> int:
        """Run again what failed or was canceled of it, or of that only `from_` and all behind it; returns how many."""
        return await self._queue.retry_workflow(self.workflow_id, from_)

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - the sync twin has it
        """What its last part returned (of a group: the list), waiting up to `timeout` seconds for the end of all.

        Raises:
            TaskFailedError, TaskCanceledError: there is no such result, because a task failed or was canceled.
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        await self._queue.wait_for_workflow(self.workflow_id, timeout)
        flow = workflows.get_result(self._queue.engine, self.workflow_id, self._result_type)
        value: R = await self._queue.run(flow)
        return value
