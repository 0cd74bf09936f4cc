"""queued | scheduled | deferred: a task that waits gets another place, another time, or other options."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from fairque.core.changes import Checked, check_changes
from fairque.core.codec import other_options
from fairque.core.exceptions import InvalidStateError, PayloadTooLargeError
from fairque.core.keys import decode
from fairque.core.models import Task
from fairque.core.record import body_in
from fairque.core.states import TaskState
from fairque.queue.operations.base import Argument, Engine, Flow
from fairque.queue.operations.records import micros
from fairque.queue.operations.tasks import encoded_id, not_found

TRIES = 20
"""How often options are read again that others change at the same time."""


def update_task(engine: Engine, task_id: str | Task[Any], changes: Mapping[str, Any]) -> Flow[TaskState]:
    """Change a task that waits, in one step; returns the state that it is in now.

    Raises:
        InvalidTaskError: a change is none, or out of range.
        PayloadTooLargeError: its labels make it too large.
        TaskNotFoundError: there is no such task.
        InvalidStateError: it has begun or ended, or it waits for an earlier run of its schedule.
        QueueFullError: the server has no memory for it.
    """
    checked = check_changes(changes)
    encoded = encoded_id(task_id)
    header = _header(engine, checked)
    state = TaskState.QUEUED
    for _ in range(TRIES):
        body: tuple[Argument, ...] = (0, "", "")
        if checked.body:
            body = yield from _body(engine, encoded, checked)
        taken, code = yield engine.call("update", encoded, *header, *body)
        state = TaskState.from_code(code)
        if taken:
            return state
    raise InvalidStateError(
        f"the options of task {decode(encoded)} were changed by others {TRIES} times meanwhile: nothing of this change "
        "was made; try again",
        task_id=decode(encoded),
        state=state,
    )


def _header(engine: Engine, checked: Checked) -> tuple[Argument, ...]:
    """Priority, due time, retries and expiry, as update.lua takes them."""
    new = checked.header
    due: Argument = ""
    if "execute_after" in new:
        due = max(0, micros(new["execute_after"]))
    elif "delay" in new:
        due = -round(new["delay"] * 1e6)
    retries: Argument = ""
    if "max_retries" in new:
        given = new["max_retries"]
        retries = engine.config.default_max_retries if given is None else given
    expires: Argument = ""
    if "expires_at" in new:
        expires = 0 if new["expires_at"] is None else max(1, micros(new["expires_at"]))
    return int(new["priority"]) if "priority" in new else "", due, retries, expires


def _body(engine: Engine, encoded: str, checked: Checked) -> Flow[tuple[Argument, ...]]:
    """Where the options begin in the body, the hash of those that are there, and those that shall be."""
    data, *_rest = yield engine.call("get_task", encoded)
    if not data:
        raise not_found(decode(encoded))
    body = body_in(data)
    at, options = other_options(body, checked.body)
    if at + len(options) > engine.config.max_payload_bytes:
        raise PayloadTooLargeError(
            f"task {decode(encoded)} would take {at + len(options):,} bytes encoded with these options; the limit is "
            f"{engine.config.max_payload_bytes:,} (queue.max_payload_bytes): use shorter labels",
            task_id=decode(encoded),
        )
    return at, hashlib.sha1(body[at:], usedforsecurity=False).hexdigest(), options
