"""How a worker and its child processes talk: frames of msgpack over a socket pair, never pickles.

A frame is its length (4 bytes, big endian) and one msgpack array: the name of the message, then its fields.

Worker to child::

    init     what the child builds its runner from, see process_child.py
    run      header body: a task
    cancel   the task that runs shall end
    xcom     number value error: the answer to one of its questions; the error is the name of its class and its text
    exit     leave after what runs

Child to worker::

    ready                            it can take a task
    failed   traceback               it cannot start
    begin                            the task's function is called now
    timeout                          the task is past its timeout
    progress done total text
    xcom     number namespace key value ttl: a value is pushed, or without one pulled
    outcome  kind result error duration retry_delay reason final
    idle     memory                  hooks are over, it can take the next; megabytes
"""

from __future__ import annotations

import socket
import struct
from operator import attrgetter
from typing import Any

import msgspec

from fairque.core.codec import decode_task_body, encode_task_body
from fairque.core.models import Claim, Priority, Task
from fairque.core.states import TaskState

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Message = list[Any]


def frame(*message: object) -> bytes:
    """The bytes of one message."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            messages.append(_decode(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return messages


def receive(connection: socket.socket, reader: FrameReader) -> list[Message]:
    """Block until at least one message is there; none at the end of the stream."""
    while data := connection.recv(65536):
        if messages := reader.feed(data):
            return messages
    return []


# What a task knows beside the body in which its arguments and options travel.
_PLAIN = (
    "task_id", "user_id", "function", "max_retries", "expires_at", "cost", "attempt", "retries", "crashes",
    "run", "created_at", "enqueued_at", "entered_at", "reason", "cancel_requested", "lone",
)  # fmt: skip
_plain = attrgetter(*_PLAIN)


def pack_task(task: Task[Any]) -> tuple[object, bytes]:
    """The fields of a `run` message."""
    claim = task.claim and (task.claim.token, task.claim.incarnation)
    return (_plain(task), int(task.priority), task.state, claim), encode_task_body(task)


def unpack_task(header: Any, body: bytes) -> Task[Any]:
    """The task of a `run` message."""
    plain, priority, state, claim = header
    return Task._restore(
        **dict(zip(_PLAIN, plain, strict=True)),
        priority=Priority(priority),
        state=state and TaskState(state),
        claim=claim and Claim(*claim),
        **decode_task_body(body),
    )
