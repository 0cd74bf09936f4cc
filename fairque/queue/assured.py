"""A call together with what it waits for (`queue.durability`), on one connection and in one round trip.

The server takes the two commands one after the other, so the second looks at what the first has done; on another
connection it would look at nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from redis.exceptions import ResponseError

from fairque.core.exceptions import NotReplicatedError
from fairque.queue.operations.base import Call
from fairque.queue.operations.durability import CASUAL
from fairque.scripts import Library

WARN_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Assured:
    """Decides for one manager which calls wait, and what it means if they wait in vain.

    `lenient`: it is only logged, and as long as it lasts, nobody waits for it again: what workers do, whose outcomes
    can be recorded anew.
    """

    def __init__(self, library: Library) -> None:
        self._scripts = library.scripts
        self._outcomes = library.scripts["settle_and_claim"].argv.index("outcomes")
        self.lenient = False
        self._lacking = False
        self._warned_at = float("-inf")

    def command_for(self, call: Call) -> tuple[Any, ...] | None:
        """What goes behind the call; None: nothing."""
        assurance, script = call.assurance, call.script
        if assurance is None or script in CASUAL or self._scripts[script].reads_only:
            return None
        if script == "settle_and_claim" and not call.argv[self._outcomes]:
            return None  # a claim that is undone is a task that is queued again
        # Who opens a queue finds out whether the command can be used at all.
        return assurance.command(look=script == "open" or self._lacking)

    def check(self, call: Call, reply: Any, told: Any) -> Any:
        """The call's reply, if it is confirmed.

        Raises:
            NotReplicatedError: it is not.
            ConfigError, QueueUnavailableError: the server refuses to say.
        """
        assurance = call.assurance
        if assurance is None:
            return reply
        if isinstance(told, ResponseError):
            raise assurance.refused(str(told))
        if call.script == "open":
            return reply
        lacks = assurance.confirmed(told) < assurance.wanted
        self._lacking = lacks and self.lenient
        if not lacks:
            return reply
        error = assurance.failure(call.script, told, reply)
        if not self.lenient:
            raise error
        self._warn(error)
        return reply

    def _warn(self, error: NotReplicatedError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            _log.warning("%s. The worker goes on: what is undone runs again", error)


def read_both(connection: Any) -> tuple[Any, Any]:
    """The replies of a call and of what goes behind it; errors of the second stand for its reply.

    Raises:
        ResponseError: the call was refused.
    """
    refusal: ResponseError | None = None
    reply = None
    try:
        reply = connection.read_response()
    except ResponseError as error:
        refusal = error
    told = read_one(connection)
    if refusal is not None:
        raise refusal
    return reply, told


def read_one(connection: Any) -> Any:
    """A reply, or the error that came instead."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


async def read_both_async(connection: Any) -> tuple[Any, Any]:
    """As `read_both`, awaiting."""
    refusal: ResponseError | None = None
    reply = None
    try:
        reply = await connection.read_response()
    except ResponseError as error:
        refusal = error
    told = await read_one_async(connection)
    if refusal is not None:
        raise refusal
    return reply, told


async def read_one_async(connection: Any) -> Any:
    """As `read_one`, awaiting."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
