"""FairQueue: a multi-tenant fair task queue on Redis and Valkey.

The public names, and nothing else. Each is loaded when it is first used: a module of task functions needs only the
decorator, and a process that runs tasks starts in a fraction of the time that all of it takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig, WorkerConfig
    from fairque.core.context import current_task
    from fairque.core.decorator import task
    from fairque.core.filters import TaskFilter
    from fairque.core.models import DLQEntry, Priority, Task
    from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
    from fairque.core.retry import Discard, RetryAfter, Snooze, exponential, fixed, linear, never
    from fairque.core.retry_rules import on
    from fairque.core.schedules.models import ScheduledTask
    from fairque.core.states import TaskState
    from fairque.core.xcom import xcom_task
    from fairque.queue.async_queue import AsyncTaskQueue
    from fairque.queue.handles import AsyncTaskHandle, TaskHandle
    from fairque.queue.queue import TaskQueue
    from fairque.scheduler.scheduler import TaskScheduler
    from fairque.worker.handler import TaskHandler
    from fairque.worker.hooks import on_worker_start, on_worker_stop
    from fairque.worker.worker import Worker

__all__ = [
    "AsyncTaskHandle",
    "AsyncTaskQueue",
    "DLQEntry",
    "Discard",
    "FairQueueConfig",
    "GroupPolicy",
    "LimiterPolicy",
    "Priority",
    "QueueConfig",
    "RedisConfig",
    "RetryAfter",
    "ScheduledTask",
    "Snooze",
    "Task",
    "TaskFilter",
    "TaskHandle",
    "TaskHandler",
    "TaskQueue",
    "TaskScheduler",
    "TaskState",
    "UserPolicy",
    "Worker",
    "WorkerConfig",
    "current_task",
    "exponential",
    "fixed",
    "linear",
    "never",
    "on",
    "on_worker_start",
    "on_worker_stop",
    "task",
    "xcom_task",
]

_HOMES = {
    "AsyncTaskHandle": "fairque.queue.handles",
    "AsyncTaskQueue": "fairque.queue.async_queue",
    "DLQEntry": "fairque.core.models",
    "Discard": "fairque.core.retry",
    "FairQueueConfig": "fairque.core.config",
    "GroupPolicy": "fairque.core.policies",
    "LimiterPolicy": "fairque.core.policies",
    "Priority": "fairque.core.models",
    "QueueConfig": "fairque.core.config",
    "RedisConfig": "fairque.core.config",
    "RetryAfter": "fairque.core.retry",
    "ScheduledTask": "fairque.core.schedules.models",
    "Snooze": "fairque.core.retry",
    "Task": "fairque.core.models",
    "TaskFilter": "fairque.core.filters",
    "TaskHandle": "fairque.queue.handles",
    "TaskHandler": "fairque.worker.handler",
    "TaskQueue": "fairque.queue.queue",
    "TaskScheduler": "fairque.scheduler.scheduler",
    "TaskState": "fairque.core.states",
    "UserPolicy": "fairque.core.policies",
    "Worker": "fairque.worker.worker",
    "WorkerConfig": "fairque.core.config",
    "current_task": "fairque.core.context",
    "exponential": "fairque.core.retry",
    "fixed": "fairque.core.retry",
    "linear": "fairque.core.retry",
    "never": "fairque.core.retry",
    "on": "fairque.core.retry_rules",
    "on_worker_start": "fairque.worker.hooks",
    "on_worker_stop": "fairque.worker.hooks",
    "task": "fairque.core.decorator",
    "xcom_task": "fairque.core.xcom",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
