"""new -> queued | scheduled, for tasks that waited in a local spool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairque.core.models import Task
from fairque.core.spool_records import SpooledTask
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.push import Pushed, outcome_of


def replay(engine: Engine, spooled: Sequence[SpooledTask]) -> Flow[list[Pushed]]:
    """Store them, in one call. What was stored already, under the same operation id, is so told again."""
    reply = yield engine.call("push", *(argument for item in spooled for argument in item.arguments))
    return [
        outcome_of(shown(item), code, found)
        for item, code, found in zip(spooled, reply[::2], reply[1::2], strict=True)
    ]


def shown(item: SpooledTask) -> Task[Any]:
    """As much of the task as its outcome names."""
    return Task.create(
        payload=None,
        task_id=item.task_id,
        user_id=item.user_id,
        limiter=item.limiter,
        dedup_key=item.dedup_key,
    )
