"""The scripts on a real server, called one by one at times that the test sets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import redis

from fairque.core.codec import encode_error, encode_value
from fairque.core.config import QueueConfig
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, claims, push
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.claims import Exchange, Session, Settlement, token_of
from fairque.queue.operations.records import to_task
from tests.support.facades import Clock

LEASE = 15.0
ERROR = encode_error(ValueError("no"), 1)
RESULT = encode_value({"done": True})
NO_RETRY = -1

SETTLE_KINDS = ("finish", "fail", "give up", "release", "snooze", "discard", "unknown", "crash", "invalid")
"""The kinds of settlement, and `give up`: a failure that no retry is wanted for."""


def settlement(task: Task[Any], kind: str) -> Settlement:
    """How a claim of `task` ends."""
    token = token_of(task)
    match kind:
        case "finish":
            return Settlement(task.task_id, token, "finish", 0.1, RESULT, 60_000)
        case "fail":
            return Settlement(task.task_id, token, "fail", 0.1, ERROR, 5_000_000)
        case "give up":
            return Settlement(task.task_id, token, "fail", 0.1, ERROR, NO_RETRY)
        case "snooze":
            return Settlement(task.task_id, token, "snooze", 0.1, b"", 5_000_000)
        case "discard":
            return Settlement(task.task_id, token, "discard", 0.1, ERROR, 60_000)
        case "release":
            return Settlement(task.task_id, token, "release")
        case _:
            return Settlement(task.task_id, token, kind, 0.1, ERROR)


class Bench:
    """One queue with an injected clock; calls are scripts or operations."""

    def __init__(self, client: redis.Redis, **config: Any) -> None:
        self.client: Any = client
        self.clock = Clock()
        self.engine = Engine(QueueConfig(**config), now=self.clock)
        self.manager = LuaScriptManager(client, clock="argument")
        self.keys = self.engine.keys
        self.run(admin.open_queue(self.engine))
        self.worker = self.join()

    def run(self, flow: Flow[Any]) -> Any:
        return self.manager.run(flow)

    def call(self, script: str, *argv: Any) -> Any:
        """One script call as it is, behind prefix and settings."""
        return self.manager.execute(self.engine.call(script, *argv))

    def join(self, entry: str = "") -> Session:
        session = Session(slots=4, entry=entry)
        self.run(claims.join(self.engine, session))
        return session

    def push(self, task_id: str = "t", **options: Any) -> Task[Any]:
        task = Task.create(task_id=task_id, payload=task_id, **options)
        self.run(push.push(self.engine, task))
        return task

    def exchange(self, *settlements: Settlement, session: Session | None = None, **options: Any) -> Exchange:
        exchange: Exchange = self.run(
            claims.settle_and_claim(self.engine, session or self.worker, settlements=settlements, **options)
        )
        return exchange

    def claim(self, session: Session | None = None) -> Task[Any]:
        [task] = self.exchange(want=1, session=session).claimed
        return task

    def get(self, task_id: str = "t") -> Task[Any] | None:
        data = self.client.get(self.keys.task(task_id))
        return to_task(task_id, data) if data else None

    def state(self, task_id: str = "t") -> TaskState | None:
        task = self.get(task_id)
        return task.state if task else None

    def put(self, state: TaskState | None, task_id: str = "t", **options: Any) -> Task[Any] | None:
        """A task in that state (None: none at all), with the claim that it last had, if it had one."""
        makers: dict[TaskState | None, Callable[[], Task[Any] | None]] = {
            None: lambda: None,
            TaskState.QUEUED: lambda: self.push(task_id, **options),
            TaskState.SCHEDULED: lambda: self.push(task_id, delay=3600, **options),
            TaskState.DEFERRED: lambda: self._defer(task_id, options),
            TaskState.STARTED: lambda: self._start(task_id, options),
            TaskState.FINISHED: lambda: self._settle(task_id, options, "finish"),
            TaskState.FAILED: lambda: self._settle(task_id, options, "give up"),
            TaskState.CANCELED: lambda: self._settle(task_id, options, "discard"),
        }
        task = makers[state]()
        assert self.state(task_id) is state
        return task

    def _start(self, task_id: str, options: dict[str, Any]) -> Task[Any]:
        self.push(task_id, **options)
        return self.claim()

    def _settle(self, task_id: str, options: dict[str, Any], kind: str) -> Task[Any]:
        task = self._start(task_id, options)
        self.exchange(settlement(task, kind))
        return task

    def _defer(self, task_id: str, options: dict[str, Any]) -> Task[Any]:
        """No script defers yet, so this writes what one would."""
        task = self.push(task_id, delay=3600, **options)
        entered = float(self.clock())
        self.client.setrange(self.keys.task(task_id), 1, bytes([TaskState.DEFERRED.code]))
        self.client.setrange(self.keys.task(task_id), _ENTERED, struct.pack(">d", entered))
        self.client.zrem(self.keys.state(TaskState.SCHEDULED), task_id)
        self.client.zadd(self.keys.state(TaskState.DEFERRED), {task_id: entered})
        return task


_ENTERED = 40
"""Where the record's header has the time at which the task entered its state."""
