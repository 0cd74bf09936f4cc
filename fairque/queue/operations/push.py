"""new -> queued | scheduled: one task, or many in chunks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeAlias

import msgspec

from fairque.core.codec import encode_task_body
from fairque.core.exceptions import (
    CycleError,
    DuplicateTaskError,
    FairQueueError,
    GraphTooLargeError,
    InvalidTaskError,
    NotReplicatedError,
    PayloadTooLargeError,
    QueueUnavailableError,
    QuotaExceededError,
    UnknownDependencyError,
    UnknownLimiterError,
)
from fairque.core.graph import dependencies_of, task_name
from fairque.core.keys import decode, encode
from fairque.core.models import Task
from fairque.core.options import TRIGGER_RULES
from fairque.core.record import MAX_DEDUP_BYTES, MAX_LIMITER_BYTES, pack_new
from fairque.core.references import EachRef, find_references, may_hold_references
from fairque.core.registry import check_portable
from fairque.queue.operations.base import Argument, Engine, Flow
from fairque.queue.operations.records import micros

CHUNK = 500
DEBOUNCED_CHUNK = 50
"""Those that may have to be found in a long list of CRITICAL tasks, each; they go in calls of their own."""
CHUNK_BYTES = 4 << 20
STORED, RETURNED, TAKEN, OVER_QUOTA, NO_LIMITER = 1, 2, 0, 3, 4
NO_DEPENDENCY, CYCLE, TOO_LARGE, KEPT_OUT, TAKEN_WORKFLOW = 5, 6, 7, 8, 9
THROTTLED, DEBOUNCED = 10, 11
MAX_DEPENDENCIES = 20_000
"""Of one task."""
_RULES = {rule: number for number, rule in enumerate(TRIGGER_RULES, start=1)}
_pack_node = msgspec.msgpack.Encoder().encode
PushResult: TypeAlias = Literal["stored", "returned", "throttled", "debounced"]
_RESULTS: dict[int, PushResult] = {
    STORED: "stored",
    RETURNED: "returned",
    THROTTLED: "throttled",
    DEBOUNCED: "debounced",
}


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one task of a push. `task_id`: the id under which it is found; `existing`: it was there
    before. `result`: stored; the existing task is returned; throttled (dropped, since the existing task was pushed
    within the window); or debounced (the existing task, which waits, does from now on what this one was to do).

    `error` is set, and nothing was stored, if the task was refused. If the reason is that no server answered, `packed`
    is what it would have been told, and may be told later: it holds the operation id. `spooled`: it is in the local
    spool instead.
    """

    task_id: str
    task: Task[Any]
    existing: bool = False
    error: FairQueueError | None = None
    packed: tuple[Argument, ...] | None = None
    spooled: bool = False
    result: PushResult = "stored"

    @property
    def ok(self) -> bool:
        """Whether the task, or the one that it duplicates, is in the queue."""
        return self.error is None


def check_new(task: Any) -> Task[Any]:
    """The task, or a clear refusal of what is none.

    Raises:
        InvalidTaskError: it is not a Task, or it came from the server.
    """
    if not isinstance(task, Task):
        hint = ": call it with its arguments to build one" if callable(task) else ""
        raise InvalidTaskError(f"push takes a Task, not {task!r}{hint}")
    if task.state is not None:
        raise InvalidTaskError(
            f"task {task.task_id} came from the server: push a copy, task.with_options(), or requeue it",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    return task


def pack(engine: Engine, task: Task[Any]) -> tuple[Argument, ...]:
    """The five arguments that push.lua takes for a task.

    Raises:
        InvalidTaskError: (or one below it) it is no Task, came from the server, cannot be encoded, or is over
            the limit.
    """
    check_new(task)
    if task.function:
        check_portable(task.function)
    # What it waits for is kept where scripts read it, and not twice.
    body = encode_task_body(msgspec.structs.replace(task, depends_on=()) if task.depends_on else task)
    check_size(engine, task, body)
    due = 0
    if task.execute_after is not None:
        due = max(1, micros(task.execute_after))
    elif task.delay:
        due = -round(task.delay * 1e6)
    elif task.dedup_max_wait is not None:
        due = round(task.dedup_max_wait * 1e6)
    window, dedup = -1, ""
    if task.dedup_key is not None:
        dedup = encode(task.dedup_key, "dedup_key")
        if len(dedup.encode()) > MAX_DEDUP_BYTES:
            raise InvalidTaskError(
                f"dedup_key {task.dedup_key[:40]!r}... takes over {MAX_DEDUP_BYTES} bytes as a key part: use a "
                "shorter one, for example a digest of it",
                task_id=task.task_id,
                user_id=task.user_id,
            )
        window = 0 if task.dedup_window is None else max(1, round(task.dedup_window * 1e3))
    data = pack_new(
        encode(task.user_id),
        task.function,
        body,
        priority=task.priority,
        max_retries=engine.config.default_max_retries if task.max_retries is None else task.max_retries,
        cost=round(task.cost * 1000),
        expires=0 if task.expires_at is None else max(1, micros(task.expires_at)),
        op=engine.doubts.op_for(task.task_id),
        dedup=dedup,
        limiter="" if task.limiter is None else _limiter(task),
    )
    return encode(task.task_id, "task_id"), data, due, task.on_duplicate, window


def waits_for(task: Task[Any], data: Argument) -> tuple[str, ...]:
    """The ids that a task, of which `data` is the record, waits for.

    Raises:
        GraphTooLargeError: there are more than 20,000.
        CycleError: it is one of them.
    """
    if not task.depends_on and not may_hold_references(data):  # type: ignore[arg-type]
        return ()
    others = dependencies_of(task)
    if task.task_id in others:
        raise CycleError(
            f"task {task.task_id} waits for itself, so it could never run",
            task_id=task.task_id,
            user_id=task.user_id,
            cycle=(task.task_id,),
        )
    if len(others) > MAX_DEPENDENCIES:
        raise GraphTooLargeError(
            f"task {task.task_id} waits for {len(others):,} others; {MAX_DEPENDENCIES:,} are allowed: put tasks in "
            "between that each wait for some",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    if others:
        _check_may_wait(task)
    return others


def _check_may_wait(task: Task[Any]) -> None:
    """A debounced task is due at a time of its own, so it cannot wait for others, nor be the node of a workflow."""
    if task.on_duplicate == "debounce":
        raise InvalidTaskError(
            f"task {task.task_id} has on_duplicate='debounce', which says when it is due: it is no part of a workflow, "
            "and has no output as argument",
            task_id=task.task_id,
            user_id=task.user_id,
        )


def pack_node(
    task: Task[Any], packed: tuple[Argument, ...], near: Sequence[str], far: Sequence[str]
) -> bytes:
    """What push_graph.lua takes for a task that waits for others.

    `packed` is what push.lua takes for it; those `near` come in with the same call.
    """
    _check_may_wait(task)
    task_id, data, due, on_duplicate, window = packed
    awaits = round((task.await_missing_seconds or 0) * 1e6)
    ttl = -1 if task.result_ttl is None else round(task.result_ttl * 1e3)
    others = [encode(other, "depends_on (a task id)") for other in (*near, *far)]
    rule = _RULES[task.trigger_rule]
    fields = (task_id, due, on_duplicate, window, rule, awaits, ttl, len(near), others)
    return _pack_node(fields) + data  # type: ignore[operator]


def at_fixed_time(packed: tuple[Argument, ...], now: int) -> tuple[Argument, ...]:
    """What `pack` made, for a later push: a delay counts from `now` (µs since the epoch), not from then."""
    task_id, data, due, *rest = packed
    if isinstance(due, int) and due < 0:
        due = now - due
    return task_id, data, due, *rest


def check_size(engine: Engine, task: Task[Any], body: bytes) -> None:
    """Refuse a task whose encoded form is over the limit.

    Raises:
        PayloadTooLargeError: it is.
    """
    if len(body) > engine.config.max_payload_bytes:
        raise PayloadTooLargeError(
            f"task {task.task_id} of user {task.user_id!r} takes {len(body):,} bytes encoded; the limit is "
            f"{engine.config.max_payload_bytes:,} (queue.max_payload_bytes): store the data elsewhere and pass a "
            "reference to it",
            task_id=task.task_id,
            user_id=task.user_id,
        )


def _limiter(task: Task[Any]) -> str:
    limiter = encode(task.limiter or "", "limiter")
    if len(limiter.encode()) > MAX_LIMITER_BYTES:
        raise InvalidTaskError(
            f"limiter {limiter[:40]!r}... takes over {MAX_LIMITER_BYTES} bytes as a key part: use a shorter name",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    return limiter


def _quota(task: Task[Any], told: str) -> QuotaExceededError:
    """Whose quota it is, what waits, the limit, and when there is likely to be room, as store.lua tells it."""
    whose, waiting, limit, room = told.rsplit(" ", 3)
    return QuotaExceededError(
        task_id=task.task_id,
        user_id=task.user_id,
        group=decode(whose[1:]) if whose.startswith(":") else None,
        queued=int(float(waiting)),
        limit=int(float(limit)),
        room_in_seconds=None if room == "-" else float(room),
    )


def _unknown(task: Task[Any], other: str) -> UnknownDependencyError:
    """A task that is waited for was not found: if its output is wanted, somebody forgot to enqueue it too."""
    message = ""
    for ref in find_references(task.args, task.kwargs, task.payload):
        each = isinstance(ref, EachRef)
        if (ref.of.task_id if isinstance(ref, EachRef) else ref.task_id) == other:
            uses = "runs for each item of the output" if each else "is given the output"
            name = task_name(task)
            message = (
                f"{name} ({task.task_id}) {uses} of task {other}, which is neither enqueued with it nor on the server: "
                f"put that task before it, as in `first >> {name}(first.output)`, or push it first"
            )
    return UnknownDependencyError(message, task_id=task.task_id, user_id=task.user_id, dependency=other)


def _cycle(task: Task[Any], told: str) -> CycleError:
    order = tuple(map(decode, told.split(":")))
    return CycleError(
        f"tasks would wait for each other, so none of them could run: {' -> '.join((*order, order[0]))}",
        task_id=task.task_id,
        user_id=task.user_id,
        cycle=order,
    )


def outcome_of(task: Task[Any], code: int, found: bytes) -> Pushed:
    """What a code and its detail, as push.lua tells them, mean for a task."""
    task_id = decode(found.decode())
    if code == OVER_QUOTA:
        return Pushed(task.task_id, task, error=_quota(task, found.decode()))
    if code == NO_LIMITER:
        error = UnknownLimiterError(task_id=task.task_id, user_id=task.user_id, limiter=task.limiter or "")
        return Pushed(task.task_id, task, error=error)
    if code == NO_DEPENDENCY:
        return Pushed(task.task_id, task, error=_unknown(task, task_id))
    if code == CYCLE:
        return Pushed(task.task_id, task, error=_cycle(task, found.decode()))
    if code == TOO_LARGE:
        large = GraphTooLargeError(
            f"others wait for task {task.task_id} already, and whether it waits for one of them cannot be told within "
            "1,000 steps: push what is waited for first, or enqueue all as one pipeline",
            task_id=task.task_id,
            user_id=task.user_id,
        )
        return Pushed(task.task_id, task, error=large)
    if code == TAKEN:
        if task_id == task.task_id:
            text = f"there is a task {task_id} already: choose another task_id, or on_duplicate='return'"
        else:
            text = (
                f"the dedup_key {task.dedup_key!r} of user {task.user_id!r} is held by task {task_id}: wait for it, or "
                "use on_duplicate='return', 'throttle' or 'debounce'"
            )
        return Pushed(task_id, task, error=DuplicateTaskError(text, task_id=task_id, user_id=task.user_id))
    return Pushed(task_id, task, existing=code != STORED, result=_RESULTS[code])


def push(engine: Engine, task: Task[Any]) -> Flow[Pushed]:
    """Store one task.

    Raises:
        InvalidTaskError: it cannot be stored as it is.
        DuplicateTaskError: its id or dedup_key is taken.
        QuotaExceededError: its user, or the user's group, has as many tasks waiting as it may.
        UnknownLimiterError: it names a limiter that was not set.
        UnknownDependencyError: it waits for a task that the server does not know.
        CycleError: it waits for a task that waits for it.
        QueueFullError: the server has no memory for it.
        NotReplicatedError: it is stored, but not as `queue.durability` wants it; the same push may be repeated.
    """
    packed = pack(engine, task)
    others = waits_for(task, packed[1])
    with engine.doubts.about((task.task_id,)):
        try:
            if others:
                node = pack_node(task, packed, (), others)
                code, task_id = yield engine.call("push_graph", "", "", "", "", node)
            else:
                code, task_id = yield engine.call("push", *packed)
        except NotReplicatedError as error:
            raise unsure(task, error) from None
    pushed = outcome_of(task, code, task_id)
    if pushed.error:
        raise pushed.error
    return pushed


def push_chunk(engine: Engine, tasks: list[Task[Any]]) -> Flow[list[Pushed]]:
    """Store tasks, in as few calls as the limits allow. Each has its own outcome; nothing is dropped in
    silence.

    A task stands behind those of the same push that it waits for.

    A failure of the server, or of the connection, half-way is the outcome of the tasks that it concerns.
    """
    outcomes: list[Pushed | None] = [None] * len(tasks)
    ready: list[tuple[int, tuple[Argument, ...], tuple[str, ...]]] = []
    for index, task in enumerate(tasks):
        try:
            packed = pack(engine, task)
            ready.append((index, packed, waits_for(task, packed[1])))
        except FairQueueError as error:
            outcomes[index] = _refused(task, error)
    start = 0
    while start < len(ready):
        end, size = start, 0
        alone = ready[start][1][3] == "debounce"
        while end < len(ready) and end - start < (DEBOUNCED_CHUNK if alone else CHUNK):
            if (ready[end][1][3] == "debounce") != alone:
                break
            size += len(ready[end][1][1])  # type: ignore[arg-type]
            if size > CHUNK_BYTES and end > start:
                break
            end += 1
        part = ready[start:end]
        start = end
        try:
            with engine.doubts.about([tasks[index].task_id for index, _, _ in part]):
                if any(others for _, _, others in part):
                    nodes = [pack_node(tasks[index], item, (), others) for index, item, others in part]
                    reply = yield engine.call("push_graph", "", "", "", "", *nodes)
                else:
                    reply = yield engine.call("push", *(argument for _, item, _ in part for argument in item))
        except NotReplicatedError as error:
            for (index, _, _), code, task_id in _triples(part, error.reply):
                pushed = outcome_of(tasks[index], code, task_id)
                outcomes[index] = replace(pushed, error=pushed.error or unsure(tasks[index], error))
            continue
        except FairQueueError as error:
            away = isinstance(error, QueueUnavailableError)
            for index, item, others in part:
                # One that waits for others needs the server to look for them: it is told now, or not at all.
                outcomes[index] = _refused(tasks[index], error, item if away and not others else None)
            continue
        for (index, _, _), code, task_id in _triples(part, reply):
            outcomes[index] = outcome_of(tasks[index], code, task_id)
    return [outcome for outcome in outcomes if outcome is not None]


def _triples(part: list[Any], reply: Any) -> Iterator[tuple[Any, int, bytes]]:
    """Each item of a chunk with its code and what that says."""
    return zip(part, reply[::2], reply[1::2], strict=True)


def unsure(task: Task[Any], error: NotReplicatedError) -> NotReplicatedError:
    """The error of one task whose push was not confirmed."""
    return NotReplicatedError(
        f"task {task.task_id} of user {task.user_id!r} is stored, but not yet as queue.durability wants it: {error}. "
        "Push the same task again with the same queue object: it is told from a duplicate",
        task_id=task.task_id,
        user_id=task.user_id,
        confirmed=error.confirmed,
        wanted=error.wanted,
        script=error.script,
        reply=error.reply,
    )


def _refused(task: Any, error: FairQueueError, packed: tuple[Argument, ...] | None = None) -> Pushed:
    return Pushed(task.task_id if isinstance(task, Task) else "", task, error=error, packed=packed)


def attempt(store: Callable[[Task[Any]], Pushed], task: Task[Any]) -> Pushed:
    """One push whose refusal is an outcome."""
    try:
        return store(check_new(task))
    except FairQueueError as error:
        return _refused(task, error)


async def attempt_async(store: Callable[[Task[Any]], Awaitable[Pushed]], task: Task[Any]) -> Pushed:
    """As `attempt`, awaiting."""
    try:
        return await store(check_new(task))
    except FairQueueError as error:
        return _refused(task, error)


def take_chunk(tasks: Iterator[Task[Any]]) -> list[Task[Any]]:
    """The next tasks of an iterator, at most as many as one chunk holds."""
    return list(islice(tasks, CHUNK))
