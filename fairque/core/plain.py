"""Values as the wire has them: what msgpack can say by itself, and extensions for the few types it cannot.

A value is walked by exact type before it is encoded, so that a datetime or a Decimal comes back as itself
even where no annotation says so. Containers of plain scalars, which is nearly everything, are passed through
as they are. Nothing here ever imports, calls or executes what a message names.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from fairque.core.compose import Node
from fairque.core.exceptions import SerializationError
from fairque.core.references import MARK, EachRef, OutputRef, hashable

Ext = msgspec.msgpack.Ext
_encoder = msgspec.msgpack.Encoder()

_SCALARS = frozenset({NoneType, bool, int, float, str, bytes})

# Extension codes. They are on the wire and in stored data: never renumber one.
_DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _INT, _MAP, _SET, _FROZENSET = range(1, 11)
_OUTPUT, _EACH = 11, 12


class UnsupportedError(Exception):
    """A value that is no data; `path` collects where it is, innermost first."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.path: list[str] = []
        super().__init__(problem)


def pack(value: Any, what: str) -> bytes:
    """`value` as msgpack. `what` is how an error calls the whole of it, for example ``args``.

    Raises:
        SerializationError: something in it is no data; the error names the path to it, its type, and the way
        out.
    """
    try:
        return _pack(to_plain(value))
    except UnsupportedError as error:
        path = what + "".join(reversed(error.path))
        raise SerializationError(f"{path} {error.problem}") from None
    except RecursionError:
        raise SerializationError(f"{what} is nested too deeply, or contains itself") from None


def to_plain(value: Any) -> Any:
    """`value` in types that msgpack has, extensions included; the same object where it is plain already."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    convert = _CONVERT.get(kind)
    return convert(value) if convert is not None else _by_family(kind, value)


def _pack(plain: Any) -> bytes:
    try:
        return _encoder.encode(plain)
    except (OverflowError, UnicodeEncodeError):
        # An int over 64 bits, or text that is no Unicode: too rare to look for in every value beforehand.
        return _encoder.encode(_without_oddities(plain))


def _without_oddities(plain: Any) -> Any:
    if isinstance(plain, int) and not -(2**63) <= plain < 2**64:
        return Ext(_INT, plain.to_bytes(plain.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(plain, str):
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise UnsupportedError(
                f"is text with a lone surrogate ({plain[:40]!r}): encode it to bytes, or repair it"
            ) from None
    elif isinstance(plain, list | tuple):
        return [_at(f"[{index}]", _without_oddities, item) for index, item in enumerate(plain)]
    elif isinstance(plain, dict):
        pairs = [
            (_at(f" key {key!r}", _without_oddities, key), _at(f"[{key!r}]", _without_oddities, item))
            for key, item in plain.items()
        ]
        return _from_pairs(pairs)
    return plain


def _at(step: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except UnsupportedError as error:
        error.path.append(step)
        raise


def _sequence(value: list[Any] | tuple[Any, ...]) -> Any:
    if _SCALARS.issuperset(map(type, value)):
        return value
    items: list[Any] = []
    try:
        for item in value:
            items.append(to_plain(item))  # noqa: PERF401 - its length is the index at which an error occurred
    except UnsupportedError as error:
        error.path.append(f"[{len(items)}]")
        raise
    return items


def _mapping(value: Mapping[Any, Any]) -> Any:
    if _SCALARS.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values())):
        return value
    pairs: list[tuple[Any, Any]] = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append((to_plain(key), to_plain(item)))
    except UnsupportedError as error:
        error.path.append(f"[{key!r}]")
        raise
    return _from_pairs(pairs)


def _from_pairs(pairs: list[tuple[Any, Any]]) -> Any:
    # An extension cannot be the key of a msgpack map here, so such a map travels as a list of pairs.
    if all(type(key) in _SCALARS for key, _ in pairs):
        plain = dict(pairs)
        if len(plain) != len(pairs):
            raise UnsupportedError("has keys that become the same on the wire, such as an Enum and its value")
        return plain
    return Ext(_MAP, _pack(pairs))


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _at(f".{name}", to_plain, value) for name, value in pairs}


def _dataclass(value: Any) -> Any:
    return _fields(
        [(item.name, getattr(value, item.name)) for item in dataclasses.fields(value) if item.init]
    )


def _attrs(value: Any) -> Any:
    return _fields([(item.name, getattr(value, item.name)) for item in type(value).__attrs_attrs__])


def _struct(value: msgspec.Struct) -> Any:
    config = value.__struct_config__
    pairs = [
        (name, getattr(value, attribute))
        for name, attribute in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    ]
    if config.tag is not None:
        pairs.insert(0, (config.tag_field or "type", config.tag))
    if config.array_like:
        return [_at(f".{name}", to_plain, item) for name, item in pairs]
    return _fields([(name, item) for name, item in pairs if item is not msgspec.UNSET])


def _pydantic(value: Any) -> Any:
    # By field name: an alias for validation and one for serialization may differ, and rebuilding accepts
    # names.
    return _pydantic_plain(value.model_dump(by_alias=False, round_trip=True))


def _pydantic_plain(value: Any) -> Any:
    """As `to_plain`, but what only pydantic knows (paths, URLs, addresses) becomes what its JSON has.

    The model's annotations bring those back. A secret's JSON is a row of asterisks, so a secret is refused.
    """
    if isinstance(value, dict):
        return _from_pairs(
            [(_pydantic_plain(key), _at(f"[{key!r}]", _pydantic_plain, item)) for key, item in value.items()]
        )
    if isinstance(value, list | tuple):
        return [_at(f"[{index}]", _pydantic_plain, item) for index, item in enumerate(value)]
    try:
        return to_plain(value)
    except UnsupportedError:
        if hasattr(value, "get_secret_value"):
            raise
        from pydantic_core import to_jsonable_python

        try:
            return to_jsonable_python(value)
        except ValueError:
            pass
        raise


def _datetime(value: datetime) -> Any:
    text = value.isoformat()
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        # The zone's rules, not only today's offset, as in RFC 9557.
        text += f"[{value.tzinfo.key}]"
    return Ext(_DATETIME, text.encode())


def _timedelta(value: timedelta) -> Any:
    return Ext(_TIMEDELTA, str(value // timedelta(microseconds=1)).encode())


def _set(code: int) -> Callable[[Any], Any]:
    return lambda value: Ext(code, _pack(_sequence(tuple(value))))


class _Reference(msgspec.Struct, array_like=True):
    task_id: str
    path: tuple[str | int, ...] = ()
    default: Any = msgspec.UNSET
    of_each: bool = False


def _reference(ref: OutputRef) -> bytes:
    fields: list[Any] = [ref.task_id]
    if ref.path or ref.default is not msgspec.UNSET:
        fields.append(ref.path)
    if ref.default is not msgspec.UNSET:
        fields += [_at(" default", to_plain, ref.default), ref.of_each]
    return MARK + _pack(fields)


def _text(code: int, text: Callable[[Any], str]) -> Callable[[Any], Any]:
    return lambda value: Ext(code, text(value).encode())


_CONVERT: dict[type, Callable[[Any], Any]] = {
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
    datetime: _datetime,
    date: _text(_DATE, date.isoformat),
    time: _text(_TIME, time.isoformat),
    timedelta: _timedelta,
    Decimal: _text(_DECIMAL, str),
    UUID: lambda value: Ext(_UUID, value.bytes),
    bytearray: bytes,
    memoryview: bytes,
    set: _set(_SET),
    frozenset: _set(_FROZENSET),
    OutputRef: lambda ref: Ext(_OUTPUT, _reference(ref)),
    EachRef: lambda ref: Ext(_EACH, _reference(ref.of)),
}

# For subclasses, most special first: an Enum may also be an int, a datetime is also a date.
_FAMILIES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: to_plain(value.value)),
    (str, str.__str__),
    (int, int),
    (float, float),
    (bytes, bytes),
    *((kind, convert) for kind, convert in _CONVERT.items() if kind is not memoryview),
)


def _by_family(kind: type, value: Any) -> Any:
    for family, convert in _FAMILIES:
        if issubclass(kind, family):
            return convert(value)
    if issubclass(kind, Node):
        raise UnsupportedError(f"is a {kind.__name__}, not its result: {_output_of(value)}")
    if issubclass(kind, msgspec.Struct):
        return _struct(value)
    if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump"):
        return _pydantic(value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(value)
    if hasattr(kind, "__attrs_attrs__"):
        return _attrs(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise UnsupportedError(f"is of type {name}, which is no data: {_way_out(kind, value)}")


def _output_of(value: Any) -> str:
    return "pass .outputs" if hasattr(type(value), "outputs") else "pass .output"


def _way_out(kind: type, value: Any) -> str:
    if kind.__module__.split(".")[0] == "numpy":
        return "pass .tolist() or .item()"
    if hasattr(kind, "get_secret_value"):
        return "pass a reference to the secret, and read it in the task"
    if hasattr(kind, "__await__"):
        return "await it first, and pass the result"
    if hasattr(kind, "__fspath__"):
        return "pass str(path)"
    if callable(value):
        return "pass data that says what to do, or make it a @task"
    if hasattr(kind, "read") or hasattr(kind, "write"):
        return "pass the file's path, or its content as bytes"
    if hasattr(kind, "__iter__"):
        return "pass a list or a dict"
    return (
        "pass JSON-like data, bytes, datetime, date, timedelta, Decimal, UUID, set, Enum, "
        "or a dataclass, pydantic or msgspec model"
    )


def from_ext(code: int, data: memoryview) -> Any:
    """The value in an extension; the hook of every decoder.

    Raises:
        ValueError: the code is unknown, or the data is no such value.
    """
    restore = _RESTORE.get(code)
    if restore is None:
        raise ValueError(f"unknown extension {code}: it was written by a newer version")
    return restore(bytes(data))


def _to_datetime(data: bytes) -> datetime:
    text = data.decode()
    if not text.endswith("]"):
        return datetime.fromisoformat(text)
    text, _, key = text[:-1].partition("[")
    moment = datetime.fromisoformat(text)
    try:
        zone = ZoneInfo(key)
    except (LookupError, ValueError, OSError):
        return moment  # this machine does not know the zone: the same moment, with its offset
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == moment.utcoffset():
            return local
    return moment.astimezone(zone)  # this machine has other rules for the zone: the moment counts


def _to_output(data: bytes) -> OutputRef:
    fields = _references.decode(data.removeprefix(MARK))
    return OutputRef(fields.task_id, fields.path, fields.default, fields.of_each)


_RESTORE: dict[int, Callable[[bytes], Any]] = {
    _DATETIME: _to_datetime,
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: lambda data: time.fromisoformat(data.decode()),
    _TIMEDELTA: lambda data: timedelta(microseconds=int(data)),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: UUID(bytes=data),
    _INT: functools.partial(int.from_bytes, byteorder="big", signed=True),
    _MAP: lambda data: {hashable(key): item for key, item in _decoder.decode(data)},
    _SET: lambda data: set(map(hashable, _decoder.decode(data))),
    _FROZENSET: lambda data: frozenset(map(hashable, _decoder.decode(data))),
    _OUTPUT: _to_output,
    _EACH: lambda data: EachRef(_to_output(data)),
}
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=from_ext)
_references = msgspec.msgpack.Decoder(_Reference, ext_hook=from_ext)
