"""What tasks returned, as arguments of those that waited for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from fairque.core.codec import decode_value
from fairque.core.exceptions import FairQueueError, SerializationError
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.references import NO_OUTPUT, EachRef, Gapped, Reference, fill_references, find_references
from fairque.core.states import TaskState
from fairque.queue.operations.base import Engine, Flow

PAGE = 1000


def get_outputs(engine: Engine, task_ids: Iterable[str]) -> Flow[dict[str, Any]]:
    """What each of the tasks returned, decoded. Those are left out of which nothing is there, or can be read."""
    wanted = list(dict.fromkeys(task_ids))
    found: dict[str, Any] = {}
    start = 0
    while start < len(wanted):
        part = wanted[start : start + PAGE]
        reply = yield engine.call("get_results", *(encode(task_id, "task_id") for task_id in part))
        for task_id, state, result in zip(part, reply[::2], reply[1::2], strict=False):
            if result is None:
                continue
            with contextlib.suppress(SerializationError):
                if state == TaskState.FINISHED.code:
                    found[task_id] = decode_value(result)
                elif state == TaskState.FAILED.code:
                    # Only a mapped task of which some have failed leaves something: what there is of it.
                    found[task_id] = _gapped(*decode_value(result))
        start += len(reply) // 2
    return found


def _gapped(gaps: list[int], values: list[Any]) -> Gapped:
    for index in gaps:
        values[index] = NO_OUTPUT
    return Gapped(values)


def referred(references: Iterable[Reference]) -> Iterator[str]:
    """The ids of the tasks whose outputs are meant."""
    for reference in references:
        yield reference.of.task_id if isinstance(reference, EachRef) else reference.task_id


def fill_in(
    engine: Engine, tasks: Sequence[Task[Any]]
) -> Flow[tuple[dict[str, Task[Any]], dict[str, FairQueueError]]]:
    """The tasks, by id, with what their references stand for; and those of which one has no output, and why."""
    references = {task.task_id: find_references(task.args, task.kwargs, task.payload) for task in tasks}
    outputs = yield from get_outputs(
        engine, (task_id for found in references.values() for task_id in referred(found))
    )
    filled: dict[str, Task[Any]] = {}
    failed: dict[str, FairQueueError] = {}
    for task in tasks:
        try:
            filled[task.task_id] = with_outputs(task, outputs) if references[task.task_id] else task
        except FairQueueError as error:
            failed[task.task_id] = error
    return filled, failed


def with_outputs(task: Task[Any], outputs: dict[str, Any], item: Any = msgspec.UNSET) -> Task[Any]:
    """The task with what its references stand for.

    Raises:
        InvalidTaskError: one has no output.
    """
    return msgspec.structs.replace(
        task,
        args=fill_references(task.args, outputs, item),
        kwargs=fill_references(task.kwargs, outputs, item),
        payload=fill_references(task.payload, outputs, item),
    )
