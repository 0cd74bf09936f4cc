"""Between values and bytes: arguments, results, errors, and the part of a task that scripts never read.

The wire is msgpack, never a pickle: decoding builds data and runs nothing. Types that annotations name are
rebuilt afterwards, by the process that has the function (see `rebuild`).
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec

from fairque.core.arguments import bind_arguments, rebuild_arguments
from fairque.core.exceptions import SerializationError
from fairque.core.models import Task, TaskError
from fairque.core.plain import from_ext, pack
from fairque.core.rebuild import rebuild_value
from fairque.core.references import find_references, may_hold_references
from fairque.core.retry import type_name
from fairque.core.retry_rules import read_retry

__all__ = [
    "Body",
    "bind_arguments",
    "body_options",
    "decode_error",
    "decode_task_body",
    "decode_value",
    "encode_error",
    "encode_task_body",
    "encode_value",
    "other_options",
    "read_task_body",
    "rebuild_arguments",
]

MAX_TRACEBACK_BYTES = 16_384
MAX_MESSAGE_BYTES = 4_096

# The options that are kept in the body, by the number that stands for each in it. The numbers are in stored
# data: never change one. What scripts read (user, function, priority, retries, expiry, cost) is in the
# record's header instead.
_OPTIONS = {
    1: "timeout",
    2: "retry",
    3: "result_ttl",
    4: "correlation_id",
    5: "labels",
    6: "limiter",
    7: "dedup_key",
    8: "dedup_window",
    9: "on_duplicate",
    10: "depends_on",
    11: "trigger_rule",
    12: "dedup_max_wait",
}
# Those that are not, as msgpack gives them, what a Task holds.
_OPTION_TYPES: dict[str, Any] = {"depends_on": tuple[str, ...]}
_read_options = attrgetter(*_OPTIONS.values())
_PLAIN: Task[Any] = Task()
_NO_OPTIONS = _read_options(_PLAIN)


class Body(msgspec.Struct, array_like=True):
    """The part of a task that scripts never read. `options` are by number, see `body_options`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    payload: Any = None
    options: dict[int, Any] = {}  # msgspec makes a new dict for each body


class _Parts(msgspec.Struct, array_like=True):
    args: msgspec.Raw
    kwargs: msgspec.Raw
    payload: msgspec.Raw
    options: msgspec.Raw


class _Error(msgspec.Struct, array_like=True):
    attempt: int
    type: str
    message: str
    traceback: str
    at: float | None = None


_values = msgspec.msgpack.Decoder(ext_hook=from_ext)
_bodies = msgspec.msgpack.Decoder(Body, ext_hook=from_ext)
_parts = msgspec.msgpack.Decoder(_Parts)
_raw_options = msgspec.msgpack.Decoder(dict[int, msgspec.Raw])
_errors = msgspec.msgpack.Decoder(_Error)
_encoder = msgspec.msgpack.Encoder()


def encode_value(value: Any, what: str = "the value") -> bytes:
    """`value` as bytes. `what` is how an error calls it.

    Raises:
        SerializationError: something in it is no data; the error names the path to it, its type, and the way
        out.
    """
    data = pack(value, what)
    # Only arguments are ever filled in: a reference anywhere else would stay one.
    if may_hold_references(data) and (references := find_references(value)):
        raise SerializationError(
            f"{what} holds the {repr(references[0])[1:-1]}, which only an argument of a task can stand for"
        )
    return data


def decode_value(data: bytes, type_: Any = None) -> Any:
    """The value in `data`, rebuilt as `type_` if one is given. Without, models are dicts.

    Raises:
        SerializationError: the bytes are malformed, or the value does not fit `type_`.
    """
    value = _decode(_values, data)
    return value if type_ is None else rebuild_value(value, type_)


def encode_task_body(task: Task[Any]) -> bytes:
    """The arguments or payload of `task` and its options, as far as scripts do not read them.

    Raises:
        SerializationError: an argument is no data; the error names the path to it, its type, and the way out.
    """
    kwargs = task.kwargs
    payload = task.payload
    options = _read_options(task)
    try:
        return b"".join((
            b"\x94",  # a msgpack array of four
            pack(task.args, "args"),
            b"\x80" if not kwargs else pack(kwargs, "kwargs"),
            b"\xc0" if payload is None else pack(payload, "payload"),
            b"\x80" if options == _NO_OPTIONS else _encode_options(options),
        ))  # fmt: skip
    except SerializationError as error:
        error.task_id, error.user_id = task.task_id, task.user_id
        raise


def _encode_options(options: tuple[Any, ...]) -> bytes:
    return _encoder.encode(
        {
            number: value
            for number, value, default in zip(_OPTIONS, options, _NO_OPTIONS, strict=True)
            if value != default
        }
    )


def other_options(body: bytes, changes: Mapping[str, Any]) -> tuple[int, bytes]:
    """Where the options begin in a body, and what stands from there on once these are changed (to a default: left out).

    Raises:
        SerializationError: the bytes are malformed.
    """
    packed = _decode(_parts, body).options
    options: dict[int, Any] = _decode(_raw_options, packed)
    numbers = {name: number for number, name in _OPTIONS.items()}
    for name, value in changes.items():
        if value == getattr(_PLAIN, name):
            options.pop(numbers[name], None)
        else:
            options[numbers[name]] = value
    return len(body) - len(bytes(packed)), _encoder.encode(options)


def decode_task_body(data: bytes) -> dict[str, Any]:
    """The fields of a Task that a body holds: args, kwargs, payload, and options that were given.

    Raises:
        SerializationError: the bytes are malformed.
    """
    body = read_task_body(data)
    return {"args": body.args, "kwargs": body.kwargs, "payload": body.payload, **body_options(body)}


def read_task_body(data: bytes) -> Body:
    """What `encode_task_body` packed.

    Raises:
        SerializationError: the bytes are malformed.
    """
    body: Body = _decode(_bodies, data)
    return body


def body_options(body: Body) -> dict[str, Any]:
    """The options that the task was given, by the names of Task's fields.

    Raises:
        SerializationError: one of them is malformed.
    """
    options: dict[str, Any] = {}
    for number, value in body.options.items():
        name = _OPTIONS.get(number)
        # An option that a newer version wrote is not ours to know.
        if name is not None:
            kind = _OPTION_TYPES.get(name)
            options[name] = value if kind is None and name != "retry" else _option(name, value, kind)
    return options


def _option(name: str, value: Any, kind: Any) -> Any:
    try:
        return read_retry(value) if name == "retry" else msgspec.convert(value, kind)
    except ValueError as error:
        raise SerializationError(f"the task's option {name} is malformed: {error}") from None


def encode_error(error: BaseException, attempt: int, at: datetime | None = None) -> bytes:
    """What attempt `attempt` died of, at the aware time `at`.

    A traceback over 16 kB loses its middle, a message over 4 kB its end.
    """
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that the task failed
        message = "(the exception's text cannot be made)"
    lines = "".join(traceback.format_exception(error))
    return _encoder.encode(
        _Error(
            attempt,
            type_name(type(error)),
            _cut(message, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES),
            # The end says most: where it was raised, and what.
            _cut(lines, MAX_TRACEBACK_BYTES, MAX_TRACEBACK_BYTES // 4),
            None if at is None else at.timestamp(),
        )
    )


def decode_error(data: bytes, at: datetime | None = None) -> TaskError:
    """The error that `encode_error` made. `at` is used if it was encoded without a time; without either,
    1970.

    Raises:
        SerializationError: the bytes are malformed.
    """
    error: _Error = _decode(_errors, data)
    when = datetime.fromtimestamp(error.at or 0.0, UTC) if at is None or error.at is not None else at
    return TaskError(
        attempt=error.attempt, type=error.type, message=error.message, traceback=error.traceback, at=when
    )


def _cut(text: str, limit: int, head: int) -> str:
    """`text` in at most `limit` bytes, of which the first `head` are its beginning and the rest its end."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= limit:
        return data.decode()
    mark = f"\n... {len(data) - limit} bytes left out ...\n".encode()
    if head == limit:
        cut = data[: limit - len(mark)] + mark
    else:
        cut = data[:head] + mark + data[head + len(mark) - limit :]
    return cut.decode(errors="ignore")


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise SerializationError("these bytes are a pickle; pickles are never loaded") from None
        raise SerializationError(f"malformed bytes: {error}") from None
