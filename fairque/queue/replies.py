"""What the server's refusals, or its silence, mean to callers."""

from __future__ import annotations

import re
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from fairque.core.exceptions import (
    ConfigError,
    FairQueueError,
    GroupInUseError,
    InvalidStateError,
    NotLeaderError,
    QueueFullError,
    QueueUnavailableError,
    ScheduleNotFoundError,
    StaleCallError,
    TaskNotFoundError,
    UnknownGroupError,
    WorkerDeadError,
)
from fairque.core.keys import decode
from fairque.queue import denied
from fairque.queue.operations.base import Call
from fairque.queue.outages import cannot_serve
from fairque.queue.tls_hints import hint

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_UNKNOWN_COMMAND = re.compile(r"unknown command\W+(FCALL|FUNCTION)\b", re.IGNORECASE)
_NEEDED = "FairQueue needs Redis 7.0 or newer, or Valkey 7.2 or newer"


def map_error(error: RedisError, script: str) -> FairQueueError:
    """What an error reply means to callers. The codes are those in the scripts' headers."""
    text = str(error)
    code, _, detail = text.partition(" ")
    # The server adds where in the library it was. Ids are encoded, but may hold spaces.
    detail = decode(detail.rpartition(" script:")[0] or detail)
    match code:
        case "FQ_DEAD":
            return WorkerDeadError(
                f"worker incarnation {detail} is not alive: its lease ran out, or it never joined. Its tasks are "
                "queued again; start as a new incarnation"
            )
        case "FQ_CALL":
            number, _, last = detail.partition(" ")
            return StaleCallError(f"call number {number} is lower than the last one seen ({last})")
        case "FQ_NOT_FOUND":
            return TaskNotFoundError(
                f"there is no task {detail}: it never existed, was deleted, or its result_ttl has passed",
                task_id=detail,
            )
        case "FQ_STATE":
            task_id, state, wanted = detail.rsplit(" ", 2)
            return InvalidStateError(
                f"task {task_id} is {state} and cannot be {wanted}", task_id=task_id, state=state
            )
        case "FQ_GROUP":
            return UnknownGroupError(group=detail)
        case "FQ_GROUP_USED":
            group, _, tasks = detail.rpartition(" ")
            return GroupInUseError(group=group, tasks=int(tasks))
        case "FQ_SCHEDULE":
            return ScheduleNotFoundError(schedule=detail)
        case "FQ_EVICTION":
            return ConfigError(
                f"the server's maxmemory-policy is {detail}: when it is full, it would throw tasks away. Set "
                "maxmemory-policy noeviction (CONFIG SET, and in the server's file), or take a server of its own for "
                "the queue"
            )
        case "FQ_LEADER":
            who, _, leader = detail.partition(" ")
            now = "nobody does now" if leader == "-" else f"{leader} does"
            return NotLeaderError(f"scheduler {who} does not lead, or no longer: {now}")
        case _ if isinstance(error, OutOfMemoryError) or code == "OOM" or "maxmemory" in text:
            return QueueFullError(
                "the server has reached its maxmemory and takes no new tasks; it still drains. Raise maxmemory, or "
                "delete what is not needed"
            )
        case _ if isinstance(error, NoPermissionError) and "function|load" in text:
            return QueueUnavailableError(
                f"the server lacks this version's function library, and this user may not load it: {text}. Give it "
                "the right (ACL SETUSER <user> +function|load), or let a client of this version connect once as "
                "a user that has it"
            )
        case _ if refusal := denied.meaning(text):
            return refusal
        case _ if isinstance(error, _REFUSED) or code in ("NOAUTH", "NOPERM", "WRONGPASS"):
            return QueueUnavailableError(
                f"the server refuses this client: {text}; see redis.username and redis.password"
            )
        case _ if _UNKNOWN_COMMAND.match(text):
            return QueueUnavailableError(f"the server has no functions: {text.strip()}. {_NEEDED}")
        case _ if isinstance(error, ResponseError) and cannot_serve(error):
            return QueueUnavailableError(f"the server cannot serve now: {text}")
        case _:
            return FairQueueError(f"script {script} failed: {text}")


def unavailable(error: Exception, call: Call, pool: Any) -> FairQueueError:
    """What it means that a call got no answer, or that of a server which is no primary."""
    if isinstance(error, ReadOnlyError):
        return map_error(error, call.script)
    told = str(error) or type(error).__name__
    told += hint(told, pool)
    return QueueUnavailableError(f"no answer from the server to {call.script}: {told}")
