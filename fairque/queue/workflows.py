"""Workflows: enqueue, look, wait, cancel and run again, for sync code."""

from __future__ import annotations

import queue as queues
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from fairque.core.compose import Node
from fairque.core.exceptions import ResultTimeoutError
from fairque.core.keys import encode
from fairque.core.middleware import compose
from fairque.core.models import Task
from fairque.core.pipeline import Group, Pipeline
from fairque.queue.base import result_type_of, tell_pushed
from fairque.queue.handles import TaskHandle
from fairque.queue.listener import LOOK_AGAIN, next_from
from fairque.queue.operations import enqueue, results, workflows
from fairque.queue.operations.push import Pushed
from fairque.queue.operations.results import TaskUpdate
from fairque.queue.operations.tasks import Page
from fairque.queue.operations.workflows import Workflow, WorkflowNode, WorkflowState
from fairque.queue.policies import PolicyQueue

R = TypeVar("R")


class WorkflowQueue(PolicyQueue):
    """The part of TaskQueue that stores graphs of tasks and looks after them."""

    def push(self, task: Task[R]) -> TaskHandle[R]:
        """Store a task (see TaskQueue)."""
        raise NotImplementedError

    @overload
    def enqueue(self, work: Task[R]) -> TaskHandle[R]: ...
    @overload
    def enqueue(self, work: Pipeline[R]) -> WorkflowHandle[R]: ...
    @overload
    def enqueue(self, work: Group[R] | Sequence[Node[R]]) -> WorkflowHandle[list[R]]: ...
    def enqueue(self, work: Any) -> Any:
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
            return self.push(work)
        new = enqueue.NewWorkflow.of(work)
        sent: list[Task[Any]] = []

        def collect(task: Task[Any]) -> Pushed:
            sent.append(task)
            return Pushed(task.task_id, task)

        through = compose(self.engine.middleware, collect, "push")
        for task in new.tasks:
            through(task)
        self.run(enqueue.enqueue(self.engine, new, sent))
        for task in sent:
            tell_pushed(self.events, Pushed(task.task_id, task))
        return WorkflowHandle(self, new.graph.workflow_id, result_type_of(new.returns))

    def get_workflow(self, workflow_id: str) -> WorkflowHandle[Any]:
        """A handle for a workflow that was enqueued elsewhere."""
        return WorkflowHandle(self, workflow_id)

    def list_workflows(self, cursor: str | None = None, limit: int = 100) -> Page[Workflow]:
        """One page of workflows, those that run first; pass the page's `cursor` on for the next."""
        return self.run(workflows.list_workflows(self.engine, cursor, limit))

    def cancel_workflow(self, workflow_id: str) -> bool:
        """Cancel its tasks that wait, and ask those that run to stop. False: it had ended.

        Raises:
            TaskNotFoundError: there is no such workflow.
        """
        return self.run(workflows.cancel(self.engine, workflow_id))

    def retry_workflow(self, workflow_id: str, from_: str | Task[Any] | None = None) -> int:
        """Run again its tasks that failed or were canceled, or of those only `from_` and all behind it; returns how
        many. What has finished is not run again.

        Raises:
            TaskNotFoundError: there is no such workflow, or no such task in it.
        """
        return self.run(workflows.retry(self.engine, workflow_id, from_))

    def as_completed(
        self, handles: Iterable[TaskHandle[R]], timeout: float | None = None
    ) -> Iterator[TaskHandle[R]]:
        """Each handle when its task has ended, those that had first; `timeout` in seconds is for all of them.

        Raises:
            ResultTimeoutError: some have not ended in time.
            TaskNotFoundError: one is gone.
        """
        waiting: dict[str, TaskHandle[R]] = {handle.task_id: handle for handle in handles}
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox: queues.SimpleQueue[TaskUpdate] = queues.SimpleQueue()
        leave: list[Callable[[], None]] = []
        try:
            leave.extend(self._listener.subscribe(encode(name, "task_id"), inbox)[1] for name in waiting)
            while waiting:
                for task_id in list(waiting):
                    task = self.run(results.watch(self.engine, task_id, self.client_id))
                    if task.state is not None and task.state.is_terminal:
                        yield waiting.pop(task_id)
                again = time.monotonic() + results.RECHECK_SECONDS
                while waiting and (left := again - time.monotonic()) > 0:
                    if deadline is not None:
                        left = min(left, deadline - time.monotonic())
                        if left <= 0:
                            raise ResultTimeoutError(f"{len(waiting)} tasks have not ended after {timeout} s")
                    update = next_from(inbox, left)
                    if update is LOOK_AGAIN:
                        break
                    if update is not None and update.is_last and update.task_id in waiting:
                        yield waiting.pop(update.task_id)
        finally:
            for end in leave:
                end()

    def gather(self, handles: Iterable[TaskHandle[R]], timeout: float | None = None) -> list[R]:
        """The results of all, in the order of the handles.

        Raises:
            TaskFailedError, TaskCanceledError: of the first, in that order, that ended so.
            ResultTimeoutError: some have not ended in time.
        """
        asked = list(handles)
        for _ in self.as_completed(asked, timeout):
            pass
        return [handle.result(0) for handle in asked]

    def wait_for_workflow(self, workflow_id: str, timeout: float | None = None) -> None:
        """Wait until all its tasks have ended, for up to `timeout` seconds (None: for ever).

        Raises:
            ResultTimeoutError: they have not in time.
            TaskNotFoundError: it is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox, unsubscribe = self._listener.subscribe(workflows.subject(workflow_id))
        try:
            while not self.run(workflows.watch(self.engine, workflow_id, self.client_id)):
                pause = results.RECHECK_SECONDS
                if deadline is not None:
                    pause = min(pause, deadline - time.monotonic())
                    if pause <= 0:
                        raise ResultTimeoutError(
                            f"workflow {workflow_id} has not ended after {timeout} s", task_id=workflow_id
                        )
                next_from(inbox, pause)
        finally:
            unsubscribe()


class WorkflowHandle(Generic[R]):
    """A workflow in the queue, for sync code."""

    def __init__(self, queue: WorkflowQueue, workflow_id: str, result_type: Any = None) -> None:
        self.workflow_id = workflow_id
        self._queue = queue
        self._result_type = result_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id}>"

    def info(self) -> Workflow:
        """Its name, state and counts now.

        Raises:
            TaskNotFoundError: it is gone.
        """
        return self._queue.run(workflows.get_workflow(self._queue.engine, self.workflow_id))

    def state(self) -> WorkflowState:
        """running, finished, failed (one of its tasks has) or canceled.

        Raises:
            TaskNotFoundError: it is gone.
        """
        return self.info().state

    def tree(self) -> tuple[WorkflowNode, ...]:
        """Its tasks as they are now, each behind those that it waits for."""
        return self._queue.run(workflows.get_nodes(self._queue.engine, self.workflow_id))

    def cancel(self) -> bool:
        """Cancel what has not ended of it. False: all had."""
        return self._queue.cancel_workflow(self.workflow_id)

    def retry(self, from_: str | Task[Any] | None = None) -> int:
        """Run again what failed or was canceled of it, or of that only `from_` and all behind it; returns how many."""
        return self._queue.retry_workflow(self.workflow_id, from_)

    def result(self, timeout: float | None = None) -> R:
        """What its last part returned (of a group: the list), waiting up to `timeout` seconds for the end of all.

        Raises:
            TaskFailedError, TaskCanceledError: there is no such result, because a task failed or was canceled.
            ResultTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone.
        """
        self._queue.wait_for_workflow(self.workflow_id, timeout)
        flow = workflows.get_result(self._queue.engine, self.workflow_id, self._result_type)
        value: R = self._queue.run(flow)
        return value
