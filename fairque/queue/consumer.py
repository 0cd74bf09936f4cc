"""What pop, renew and settle share in both facades: sessions, and outcomes as settlements."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fairque.core.codec import encode_error, encode_value
from fairque.core.exceptions import NotReplicatedError, PayloadTooLargeError, StaleClaimError
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.retry import DEFAULT_RETRY, Discard, RetryAfter, Snooze
from fairque.core.retry_rules import next_delay
from fairque.queue.operations.assignment import encode_entry
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Exchange, Session, Settled, Settlement, token_of

NO_RETRY = -1


class Consumer:
    """The session of a queue object that claims by hand, and what it got but has not handed out.

    `blocked` is how many callers of pop (threads, or tasks of an event loop) wait on the wake list.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = Session(slots=1, fields={"kind": "consumer"})
        self.waiting: deque[Task[Any]] = deque()
        self.blocked = 0
        self.invalid: list[Settlement] = []

    def serve_as(self, worker_id: str) -> None:
        """Claim as a worker of this entry does: its own users first, then those whom it may steal from."""
        entry = encode_entry(worker_id)
        if entry != self.session.entry:
            self.session.entry = entry
            self.session.fields = {"kind": "consumer", "worker_id": worker_id}
            self.session.joined = False  # so that the server is told, with the next call

    def renew_session(self) -> None:
        """After the incarnation was declared dead: its claims are gone, a new one begins."""
        self.session = Session(slots=self.session.slots, entry=self.session.entry, fields=self.session.fields)
        self.waiting.clear()
        self.invalid.clear()

    def take(self, exchange: Exchange | None) -> None:
        """Keep what an exchange brought; what cannot be read becomes a dead letter with the next call."""
        if exchange is None:
            return
        self.waiting.extend(exchange.claimed)
        for task_id, token, error in exchange.malformed:
            self.invalid.append(
                Settlement(task_id, token, "invalid", first=encode_error(error, 0, datetime.now(UTC)))
            )

    def hand_out(self, count: int, users: Sequence[str] = ()) -> list[Task[Any]]:
        """Up to `count` of what was claimed, only of `users` if there are any."""
        if not self.waiting:
            return []
        found = [task for task in self.waiting if not users or task.user_id in users][:count]
        for task in found:
            self.waiting.remove(task)
        return found

    def give_back(self) -> list[Settlement]:
        """What was claimed and nobody took, as settlements to go with the next call."""
        waiting, self.waiting = self.waiting, deque()
        return [releasing(task) for task in waiting]

    def count(self, users: Sequence[str] = ()) -> int:
        """How many wait here to be handed out, only of `users` if there are any."""
        return sum(not users or task.user_id in users for task in self.waiting) if self.waiting else 0

    def pending(self) -> list[Settlement]:
        """Settlements of unreadable claims, to go with the next call."""
        pending, self.invalid = self.invalid, []
        return pending


def result_ttl(engine: Engine, task: Task[Any]) -> int:
    """How long the task is kept once it has finished, in ms."""
    seconds = engine.config.result_ttl_seconds if task.result_ttl is None else task.result_ttl
    return round(seconds * 1000)


def check_result(engine: Engine, task: Task[Any], result: bytes) -> bytes:
    """The encoded result.

    Raises:
        PayloadTooLargeError: it is over the limit.
    """
    limit = engine.config.max_result_bytes
    if len(result) > limit:
        raise PayloadTooLargeError(
            f"the result of task {task.task_id} takes {len(result):,} bytes encoded; the limit is {limit:,} "
            "(queue.max_result_bytes): store the data elsewhere and return a reference to it",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    return result


def finishing(engine: Engine, task: Task[Any], result: Any, seconds: float) -> Settlement:
    """The settlement of a success."""
    data = check_result(engine, task, encode_value(result, "result"))
    return Settlement(encode(task.task_id), token_of(task), "finish", seconds, data, result_ttl(engine, task))


def failing(engine: Engine, task: Task[Any], error: BaseException, seconds: float) -> Settlement:
    """The settlement of an exception: what it, or the task's retry policy, asks for."""
    encoded, token, now = encode(task.task_id), token_of(task), datetime.now(UTC)
    match error:
        case Snooze():
            return Settlement(encoded, token, "snooze", seconds, b"", round(error.seconds * 1e6))
        case Discard():
            data = encode_error(error, task.attempt, now)
            return Settlement(encoded, token, "discard", seconds, data, result_ttl(engine, task))
        case RetryAfter():
            delay = round(error.seconds * 1e6)
        case _:
            seconds_until = next_delay(task.retry, DEFAULT_RETRY, error, task.retries + 1, random.random())
            delay = NO_RETRY if seconds_until is None else round(seconds_until * 1e6)
    return Settlement(encoded, token, "fail", seconds, encode_error(error, task.attempt, now), delay)


def releasing(task: Task[Any]) -> Settlement:
    """The settlement that gives a task back unstarted."""
    return Settlement(encode(task.task_id), token_of(task), "release")


def unsure_outcome(task: Task[Any], error: NotReplicatedError) -> NotReplicatedError:
    """The error of a settlement that was not confirmed."""
    return NotReplicatedError(
        f"the outcome of task {task.task_id} is recorded, but not yet as queue.durability wants it: {error}, and the "
        "task run again. There is nothing to repeat",
        task_id=task.task_id,
        user_id=task.user_id,
        confirmed=error.confirmed,
        wanted=error.wanted,
        script=error.script,
        reply=error.reply,
    )


def check_settled(task: Task[Any], code: Settled) -> Settled:
    """The code.

    Raises:
        StaleClaimError: the claim was not the task's current one.
    """
    if code is Settled.STALE:
        raise StaleClaimError(
            f"the claim of task {task.task_id} is no longer its current one: its lease ran out and it was given to "
            "somebody else, or it was deleted. This outcome is not recorded",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    return code
