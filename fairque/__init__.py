"""FairQueue: a multi-tenant fair task queue on Redis and Valkey.

The public names, and nothing else.
"""

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig, WorkerConfig
from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.models import DLQEntry, Priority, Task, UserPolicy
from fairque.core.retry import Discard, RetryAfter, Snooze, exponential, fixed, linear
from fairque.core.states import TaskState
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.handles import AsyncTaskHandle, TaskHandle
from fairque.queue.queue import TaskQueue
from fairque.worker.handler import TaskHandler
from fairque.worker.hooks import on_worker_start, on_worker_stop
from fairque.worker.worker import Worker

__all__ = [
    "AsyncTaskHandle",
    "AsyncTaskQueue",
    "DLQEntry",
    "Discard",
    "FairQueueConfig",
    "Priority",
    "QueueConfig",
    "RedisConfig",
    "RetryAfter",
    "Snooze",
    "Task",
    "TaskHandle",
    "TaskHandler",
    "TaskQueue",
    "TaskState",
    "UserPolicy",
    "Worker",
    "WorkerConfig",
    "current_task",
    "exponential",
    "fixed",
    "linear",
    "on_worker_start",
    "on_worker_stop",
    "task",
]
