"""Everything that FairQueue refuses or reports, as one tree under `FairQueueError`.

Each message says what was wrong with which task, and the way out. Where a standard exception means the same
thing, ours is one of its kind too, so that `except TimeoutError` works as everybody expects. What else an
exception knows is given by keyword, which keeps every one of them picklable.
"""

from __future__ import annotations


class FairQueueError(Exception):
    """The root. `task_id` and `user_id` name the task and the tenant it is about, where there is one."""

    task_id: str | None
    user_id: str | None

    def __init__(self, message: str = "", *, task_id: str | None = None, user_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.user_id = user_id


class ConfigError(FairQueueError, ValueError):
    """A setting, a declaration or a policy that cannot work as it is."""


class InvalidTaskError(FairQueueError, ValueError):
    """A task that cannot be accepted: an option out of range, or arguments that do not fit its function."""


class InvalidFilterError(FairQueueError, ValueError):
    """A condition of a `TaskFilter` that cannot be one, or a filter without any."""


class SerializationError(InvalidTaskError, TypeError):
    """A value that cannot become bytes, or bytes that are not such a value."""


class PayloadTooLargeError(InvalidTaskError):
    """The encoded task or result is over the configured limit."""


class CycleError(InvalidTaskError):
    """Tasks that wait for each other: none of them could ever run. `cycle` has their ids, in order."""

    cycle: tuple[str, ...]

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        cycle: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.cycle = cycle


class GraphTooLargeError(InvalidTaskError):
    """Too many dependencies to look at, or to store."""


class UnknownDependencyError(InvalidTaskError, LookupError):
    """A task waits for one, `dependency`, that the server does not know."""

    dependency: str

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        dependency: str = "",
    ) -> None:
        if not message:
            message = (
                f"task {task_id} waits for task {dependency}, which is not there: it was never pushed, was deleted, or "
                "its result_ttl has passed. Push it first, in a workflow put it before this one (`>>`), or say with "
                "await_missing_seconds how long it may take to come"
            )
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.dependency = dependency


class UnknownFunctionError(FairQueueError, LookupError):
    """No function is registered under that name here."""


class NotInTaskError(FairQueueError, RuntimeError):
    """`current_task()` was called where no task runs."""


class DuplicateTaskError(FairQueueError):
    """A task with this id, or a live one with this deduplication key, exists: `task_id` names it."""


class TaskNotFoundError(FairQueueError, LookupError):
    """There is no task with this id: it never existed, or its time to live is over."""


class InvalidStateError(FairQueueError):
    """The task is in a state (`state`) that does not allow this."""

    state: str | None

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        state: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.state = state


class StaleClaimError(FairQueueError):
    """The claim is no longer the task's current one: it was given to someone else, or settled."""


class StaleCallError(FairQueueError):
    """The call's number is lower than the last one that the server saw from this worker."""


class WorkerDeadError(FairQueueError):
    """This worker was declared dead and its tasks were given back: drop everything, start as a new one."""


class QueueFullError(FairQueueError):
    """The server has no memory for more tasks. It still drains."""


class QuotaExceededError(FairQueueError):
    """The policy of the user, or of its `group`, allows no more waiting tasks: `queued` of `limit` are there.

    `room_in_seconds` is when there is likely to be room again, at the pace of late; None: nobody knows.
    """

    group: str | None
    queued: int
    limit: int
    room_in_seconds: float | None

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        group: str | None = None,
        queued: int = 0,
        limit: int = 0,
        room_in_seconds: float | None = None,
    ) -> None:
        if not message:
            when = "push again later"
            if room_in_seconds is not None:
                when = f"there is likely room in {max(room_in_seconds, 0.001):.3g} s"
            who = f"user {user_id}" if group is None else f"group {group} of user {user_id}"
            message = (
                f"{who} has {queued} tasks waiting, and max_queued allows {limit}: {when}, or raise the limit"
            )
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.group = group
        self.queued, self.limit, self.room_in_seconds = queued, limit, room_in_seconds


class UnknownGroupError(ConfigError, LookupError):
    """A policy names a `group` that the queue does not have."""

    group: str

    def __init__(self, message: str = "", *, user_id: str | None = None, group: str = "") -> None:
        if not message:
            message = (
                f"there is no group {group!r}: make it first with set_group_policy({group!r}, GroupPolicy()), "
                "with `fairque groups set`, or under `groups` in the configuration"
            )
        super().__init__(message, user_id=user_id)
        self.group = group


class GroupInUseError(FairQueueError):
    """The `group` cannot be removed: its members have `tasks` that wait or run."""

    group: str
    tasks: int

    def __init__(self, message: str = "", *, group: str = "", tasks: int = 0) -> None:
        if not message:
            count = "a task that waits or runs" if tasks == 1 else f"{tasks} tasks that wait or run"
            message = (
                f"group {group!r} cannot be removed: its users have {count}. Give them another group, or wait until "
                "they have none"
            )
        super().__init__(message)
        self.group, self.tasks = group, tasks


class UserBusyError(FairQueueError):
    """A user that still has tasks: `queued`, `delayed` (they wait for a time or for other tasks) and `running` ones."""

    queued: int
    delayed: int
    running: int

    def __init__(
        self,
        message: str = "",
        *,
        user_id: str | None = None,
        queued: int = 0,
        delayed: int = 0,
        running: int = 0,
    ) -> None:
        super().__init__(message, user_id=user_id)
        self.queued, self.delayed, self.running = queued, delayed, running


class UnknownLimiterError(InvalidTaskError, LookupError):
    """A task names a `limiter` that the queue does not have."""

    limiter: str

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        limiter: str = "",
    ) -> None:
        if not message:
            message = (
                f"there is no limiter {limiter!r}: make it first with set_limiter({limiter!r}, LimiterPolicy(...)), "
                "with `fairque limiters set`, or under `limiters` in the configuration"
            )
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.limiter = limiter


class ScheduleNotFoundError(FairQueueError, LookupError):
    """There is no `schedule` of this name."""

    schedule: str

    def __init__(self, message: str = "", *, schedule: str = "") -> None:
        super().__init__(
            message or f"there is no schedule {schedule!r}: `fairque cron ls` lists those that there are"
        )
        self.schedule = schedule


class NotLeaderError(FairQueueError):
    """This scheduler does not decide ticks, or no longer: another one may have been elected meanwhile."""


class SchemaMismatchError(FairQueueError):
    """The server's data has a layout that this version does not read."""


class QueueUnavailableError(FairQueueError, ConnectionError):
    """There is no server at the configured address, or the connection to it was lost."""


class NotReplicatedError(QueueUnavailableError):
    """What was asked for is done on the primary, but was not confirmed as `queue.durability` wants it.

    It may last, or be undone by a failover. The same push may be repeated with the same queue object, which tells it
    from a duplicate. `confirmed` of `wanted` replicas have it; `script` is what was called, and `reply` its answer.
    """

    confirmed: int
    wanted: int
    script: str
    reply: object

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        confirmed: int = 0,
        wanted: int = 1,
        script: str = "",
        reply: object = None,
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.confirmed, self.wanted, self.script, self.reply = confirmed, wanted, script, reply


class CircuitOpenError(QueueUnavailableError):
    """The server was away a moment ago, so this call was not even tried; nothing was sent.

    `retry_after_seconds` is when a call may try the server again.
    """

    retry_after_seconds: float

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.retry_after_seconds = retry_after_seconds


class SpoolFullError(QueueUnavailableError):
    """The server is away, and the local spool takes no more: `used` of `limit` bytes are taken, or its disk is full."""

    used: int
    limit: int

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        used: int = 0,
        limit: int = 0,
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.used, self.limit = used, limit


class ServerNotFoundError(QueueUnavailableError):
    """No server is configured, and no program is installed that could be started as one."""


class XComNotFoundError(FairQueueError, LookupError):
    """There is no XCom value `key` in `namespace` of the user."""

    namespace: str
    key: str

    def __init__(
        self, message: str = "", *, user_id: str | None = None, namespace: str = "", key: str = ""
    ) -> None:
        if not message:
            message = (
                f"user {user_id} has no XCom {key!r} in namespace {namespace!r}: it was not pushed yet, or has "
                "expired; give a default, or wait= seconds for it"
            )
        super().__init__(message, user_id=user_id)
        self.namespace, self.key = namespace, key


class TaskFailedError(FairQueueError):
    """The task whose result was asked for has failed.

    `error_type` is the qualified name of what it raised, `message` that exception's text, and `traceback` the
    remote traceback, which is also shown with this exception's own.
    """

    error_type: str
    message: str
    traceback: str

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        error_type: str = "",
        error_message: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.error_type = error_type
        self.message = error_message
        self.traceback = traceback
        if traceback:
            self.add_note(f"Remote traceback:\n{traceback}")


class TaskCanceledError(FairQueueError):
    """The task whose result was asked for was canceled, for `reason`."""

    reason: str

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        user_id: str | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message, task_id=task_id, user_id=user_id)
        self.reason = reason


class ResultTimeoutError(FairQueueError, TimeoutError):
    """The result was not there within the given time. The task goes on."""


class TaskTimeoutError(FairQueueError, TimeoutError):
    """The task ran longer than its timeout."""
