"""Where one Redis message ends and the next begins (RESP 2 and 3, and inline commands)."""

from __future__ import annotations

_BULK = b"$!="
_AGGREGATE = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
_ATTRIBUTE = b"|"  # goes before the message that it describes and is no message of its own


def frame_end(data: bytes | bytearray, start: int = 0) -> int:
    """The index after the message that begins at `start`, or -1 if it is not complete yet."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return -1
    kind = bytes(data[start : start + 1])
    position = line_end + 2
    if kind in _BULK:
        length = int(data[start + 1 : line_end])
        if length < 0:  # RESP 2's null
            return position
        position += length + 2
        return position if position <= len(data) else -1
    if kind in _AGGREGATE:
        elements = int(data[start + 1 : line_end]) * _AGGREGATE[kind]
    elif kind == _ATTRIBUTE:
        elements = int(data[start + 1 : line_end]) * 2 + 1
    else:  # a line (status, error, number), or an inline command, which is one too
        return position
    for _ in range(elements):
        position = frame_end(data, position)
        if position < 0:
            return -1
    return position


class Splitter:
    """Cuts a stream of bytes into complete messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes completed, byte for byte."""
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while start < len(self._buffer):
            end = frame_end(self._buffer, start)
            if end < 0:
                break
            frames.append(bytes(self._buffer[start:end]))
            start = end
        del self._buffer[:start]
        return frames


def is_error(frame: bytes) -> bool:
    """Whether a reply says that its request was not carried out."""
    return frame[:1] in (b"-", b"!")


def is_push(frame: bytes) -> bool:
    """Whether the server sent this on its own (RESP 3), in answer to no request."""
    return frame[:1] == b">"


def command_name(frame: bytes) -> str:
    """The command of a request, in capitals."""
    if frame[:1] != b"*":
        return frame.split(None, 1)[0].decode("ascii", "replace").upper() if frame.strip() else ""
    parts = frame.split(b"\r\n", 3)
    return parts[2].decode("ascii", "replace").upper() if len(parts) > 3 else ""
