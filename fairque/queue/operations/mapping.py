"""Mapped tasks: a task for each item of another one's output, made when that output is there.

The pattern is claimed like any other task. Whoever claims it makes no call of a function, but has the server make the
tasks of the next items, for which the pattern then waits; when the last have ended it is claimed once more, and what
they returned is its own result, in the order of the items. So a list of any length is never stored as tasks at once.
"""

from __future__ import annotations

from typing import Any

from fairque.core.codec import encode_error, encode_value
from fairque.core.exceptions import PayloadTooLargeError, TaskFailedError
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.plain import pack as pack_value
from fairque.core.references import EachRef, each_item, find_references
from fairque.queue.operations import push
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.outputs import get_outputs, referred, with_outputs

CHUNK = 500
"""How many items have tasks at once."""
CHUNK_BYTES = 4 << 20


def advance(engine: Engine, task: Task[Any]) -> Flow[None]:
    """Make the tasks of the next items, or gather what all have returned. Then the pattern is not claimed any more.

    Raises:
        InvalidTaskError: its list is none, or one of the tasks cannot be stored.
        PayloadTooLargeError: what they returned is together over `max_result_bytes`.
    """
    pattern: EachRef = task.args[0]
    encoded, token = encode(task.task_id), task.claim.token if task.claim else b""
    outputs = yield from get_outputs(engine, referred(find_references(task.args, task.kwargs, task.payload)))
    items = each_item(pattern, outputs)
    there: int = yield engine.call("expand", encoded, token)
    if there < 0:
        return
    if there < len(items):
        nodes: list[bytes] = []
        size = 0
        for index in range(there, min(there + CHUNK, len(items))):
            made = with_outputs(_child(task, index), outputs, items[index])
            nodes.append(push.pack_node(made, push.pack(engine, made), (), ()))
            size += len(nodes[-1])
            if size > CHUNK_BYTES:
                break
        yield engine.call("expand", encoded, token, *nodes)
        return
    yield from _gather(engine, task, len(items), encoded, token)


def _child(task: Task[Any], index: int) -> Task[Any]:
    return task.with_options(
        task_id=f"{task.task_id}.{index}",
        depends_on=(),
        trigger_rule="all_success",
        delay=None,
        execute_after=None,
    )


def _gather(engine: Engine, task: Task[Any], count: int, encoded: str, token: bytes) -> Flow[None]:
    ids = [f"{task.task_id}.{index}" for index in range(count)]
    returned = yield from get_outputs(engine, ids)
    gaps = [index for index, child in enumerate(ids) if child not in returned]
    values = [returned.get(child) for child in ids]
    seconds = engine.config.result_ttl_seconds if task.result_ttl is None else task.result_ttl
    ttl = round(seconds * 1000)
    if gaps:
        result = pack_value([gaps, values], "the results")
        why = TaskFailedError(
            f"{len(gaps)} of {count} items have no result, the first of them is item {gaps[0]} (task {ids[gaps[0]]})"
        )
        error = encode_error(why, task.attempt)
    else:
        result, error = encode_value(values, "the results"), b""
    limit = engine.config.max_result_bytes
    if len(result) > limit:
        raise PayloadTooLargeError(
            f"the results of the {count:,} items of task {task.task_id} take {len(result):,} bytes encoded; the limit "
            f"is {limit:,} (queue.max_result_bytes): store the data elsewhere and return where",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    yield engine.call("gather", encoded, token, int(not gaps), result, error, ttl)
