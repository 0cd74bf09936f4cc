"""The bytes of a local spool: records in frames that show whether they are whole.

A frame is a mark, the length of the payload, a checksum of both, and the payload. What is damaged is skipped up to the
next frame that is whole, and returned, so that nothing disappears in silence.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairque.core.exceptions import SerializationError

MARK = b"\xf5FQ\x01"
MAX_PAYLOAD_BYTES = 8 << 20
"""Twice what one push may carry."""
_HEAD = struct.Struct(">4sII")
OVERHEAD_BYTES = _HEAD.size


class SpooledTask(msgspec.Struct, array_like=True, frozen=True):
    """A task as it waits: what push.lua takes for it, opaque, and what people and observers want to know of it.

    `at`: seconds since the epoch when it was written here.
    """

    task_id: str
    user_id: str
    function: str
    priority: int
    limiter: str | None
    dedup_key: str | None
    at: float
    arguments: list[Any]


class SetAside(msgspec.Struct, array_like=True, frozen=True):
    """What cannot go to the server: a task that it refused, or bytes that are no record, and why."""

    at: float
    source: str
    reason: str
    data: bytes
    task: bool


_encoder = msgspec.msgpack.Encoder()
_tasks = msgspec.msgpack.Decoder(SpooledTask)
_asides = msgspec.msgpack.Decoder(SetAside)


def encode(record: SpooledTask | SetAside) -> bytes:
    """The payload of a record."""
    return _encoder.encode(record)


def decode_task(payload: bytes) -> SpooledTask:
    """The task of a payload.

    Raises:
        SerializationError: it is none.
    """
    try:
        return _tasks.decode(payload)
    except msgspec.MsgspecError as error:
        raise SerializationError(f"this is no spooled task: {error}") from None


def decode_aside(payload: bytes) -> SetAside:
    """As `decode_task`, of what was set aside."""
    try:
        return _asides.decode(payload)
    except msgspec.MsgspecError as error:
        raise SerializationError(f"this was not set aside by a spool: {error}") from None


def frame(payload: bytes) -> bytes:
    """The payload in its frame."""
    size = struct.pack(">I", len(payload))
    return _HEAD.pack(MARK, len(payload), zlib.crc32(payload, zlib.crc32(size))) + payload


def frames(payloads: Sequence[bytes]) -> bytes:
    """Payloads in their frames, one after the other."""
    return b"".join(map(frame, payloads))


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a piece of a file: payloads, damaged stretches, and how many bytes that was together."""

    payloads: list[bytes]
    damaged: list[bytes]
    size: int


def scan(data: bytes, *, at_end: bool, most: int = 1 << 30, most_bytes: int = 1 << 30) -> Scan:
    """The frames in `data`, at most so many payloads and, after the first, payload bytes.

    `at_end`: nothing follows `data`, so a frame that is cut short there will never be whole.
    """
    found: list[bytes] = []
    damaged: list[bytes] = []
    place = total = 0
    while place < len(data) and len(found) < most:
        size = _whole(data, place)
        if size is None and not at_end and _may_go_on(data, place):
            break
        if size is None:
            end = _next_whole(data, place + 1, at_end)
            damaged.append(data[place:end])
            place = end
            continue
        total += size
        if found and total > most_bytes:
            break
        begin = place + _HEAD.size
        found.append(data[begin : begin + size])
        place = begin + size
    return Scan(found, damaged, place)


def _whole(data: bytes, place: int) -> int | None:
    """The size of the payload of the frame that begins there, or None: there is none that is whole."""
    if place + _HEAD.size > len(data):
        return None
    mark, size, checksum = _HEAD.unpack_from(data, place)
    begin = place + _HEAD.size
    if mark != MARK or size > MAX_PAYLOAD_BYTES or begin + size > len(data):
        return None
    payload = memoryview(data)[begin : begin + size]
    return int(size) if zlib.crc32(payload, zlib.crc32(data[place + 4 : place + 8])) == checksum else None


def _may_go_on(data: bytes, place: int) -> bool:
    """Whether a frame that begins there may be whole with more data."""
    if place + _HEAD.size > len(data):
        return MARK.startswith(data[place : place + len(MARK)])
    mark, size, _ = _HEAD.unpack_from(data, place)
    return bool(mark == MARK and size <= MAX_PAYLOAD_BYTES and place + _HEAD.size + size > len(data))


def _next_whole(data: bytes, place: int, at_end: bool) -> int:
    """Where the next frame begins that is whole, or may be with more data; else the end of the data."""
    while (place := data.find(MARK, place)) >= 0:
        if _whole(data, place) is not None or (not at_end and _may_go_on(data, place)):
            return place
        place += 1
    # The mark itself may be cut in two by the end of this piece.
    return len(data) if at_end else max(0, len(data) - len(MARK) + 1)
