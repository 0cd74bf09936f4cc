"""The frames of a spool file: whatever is damaged, the rest is found, and nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.exceptions import SerializationError
from fairque.core.spool_records import (
    MARK,
    OVERHEAD_BYTES,
    SetAside,
    SpooledTask,
    decode_aside,
    decode_task,
    encode,
    frame,
    frames,
    scan,
)
from fairque.queue.spool_file import SpoolFile

PAYLOADS = st.lists(st.binary(max_size=60) | st.binary(max_size=20).map(lambda tail: MARK + tail), max_size=8)


def test_records_come_back_as_they_were() -> None:
    task = SpooledTask("id", "user", "f", 3, None, "key", 1.5, ["id", b"\x00\xff", -5, "reject", 2.5])
    assert decode_task(encode(task)) == task
    aside = SetAside(1.0, "file", "why", b"data", True)
    assert decode_aside(encode(aside)) == aside
    for decode in (decode_task, decode_aside):
        with pytest.raises(SerializationError):
            decode(b"\x93abc")


@given(PAYLOADS)
def test_what_was_written_is_read(payloads: list[bytes]) -> None:
    data = frames(payloads)
    found = scan(data, at_end=True)
    assert found.payloads == payloads
    assert found.damaged == []
    assert found.size == len(data)


@given(PAYLOADS, st.data())
def test_a_torn_tail_costs_only_the_last_record(payloads: list[bytes], data: st.DataObject) -> None:
    whole, last = frames(payloads), frame(b"the last one")
    cut = data.draw(st.integers(1, len(last) - 1))
    found = scan(whole + last[:cut], at_end=True)
    assert found.payloads == payloads
    assert found.damaged == [last[:cut]]
    if cut >= OVERHEAD_BYTES:  # more of it may come
        assert scan(whole + last[:cut], at_end=False).size == len(whole)


@given(PAYLOADS, PAYLOADS, st.data())
def test_damage_is_returned_and_the_rest_is_read(
    before: list[bytes], after: list[bytes], data: st.DataObject
) -> None:
    victim = bytearray(frame(b"a record that will be damaged"))
    place = data.draw(st.integers(0, len(victim) - 1))
    victim[place] ^= data.draw(st.integers(1, 255))
    found = scan(frames(before) + bytes(victim) + frames(after), at_end=True)
    assert found.payloads == [*before, *after]
    assert b"".join(found.damaged) == bytes(victim)


@given(PAYLOADS, st.binary(max_size=200), st.binary(max_size=5))
def test_nothing_is_dropped(payloads: list[bytes], rubbish: bytes, end: bytes) -> None:
    data = rubbish + frames(payloads) + end
    found = scan(data, at_end=True)
    kept = sum(map(len, found.damaged)) + sum(len(payload) + OVERHEAD_BYTES for payload in found.payloads)
    assert kept == len(data) == found.size


@given(PAYLOADS, st.integers(1, 4), st.integers(1, 100))
def test_pieces_are_as_small_as_wanted(payloads: list[bytes], most: int, most_bytes: int) -> None:
    data, found = frames(payloads), []
    while data:
        piece = scan(data, at_end=True, most=most, most_bytes=most_bytes)
        assert 1 <= len(piece.payloads) <= most
        assert len(piece.payloads) == 1 or sum(map(len, piece.payloads)) <= most_bytes
        found += piece.payloads
        data = data[piece.size :]
    assert found == payloads


# -- files


def test_a_file_belongs_to_one(tmp_path: Path) -> None:
    file = SpoolFile.create(tmp_path)
    assert SpoolFile.take(file.path) is None
    file.append([b"one"])
    file.close()
    taken = SpoolFile.take(file.path)
    assert taken is not None
    assert taken.read(10, 1000).payloads == [b"one"]
    assert SpoolFile.take(file.path) is None
    taken.advance(taken.read(10, 1000).size)
    taken.close()
    assert list(tmp_path.iterdir()) == []
    assert SpoolFile.take(file.path) is None


def test_a_file_is_drained_from_where_it_was_left(tmp_path: Path) -> None:
    file = SpoolFile.create(tmp_path)
    file.append([b"%d" % number for number in range(5)])
    for _ in range(3):
        file.advance(file.read(1, 1000).size)
    file.close()
    again = SpoolFile.take(file.path)
    assert again is not None
    assert again.read(10, 1000).payloads == [b"3", b"4"]
    again.append([b"5"])
    assert again.read(10, 1000).payloads == [b"3", b"4", b"5"]
    again.close()


@pytest.mark.parametrize("slot", [16, 40])
def test_a_place_that_was_half_written_costs_one_step(tmp_path: Path, slot: int) -> None:
    file = SpoolFile.create(tmp_path)
    file.append([b"%d" % number for number in range(4)])
    for _ in range(2):
        file.advance(file.read(1, 1000).size)
    file.close()
    with file.path.open("r+b") as raw:
        raw.seek(slot + 6)
        raw.write(b"\xff\xff")
    again = SpoolFile.take(file.path)
    assert again is not None
    # Each record is told at most once more, which is harmless; none is left out.
    assert again.read(10, 1000).payloads in ([b"1", b"2", b"3"], [b"2", b"3"])
    again.close()


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SpoolFile.create(tmp_path)
    file.append([b"one"])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fairque.queue.spool_file.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            file.append([b"two"])
    file.append([b"three"])
    assert file.read(10, 1000).payloads == [b"one", b"three"]
    assert file.path.stat().st_size == file.end
    file.close()


def test_a_file_that_is_longer_than_one_read(tmp_path: Path) -> None:
    file = SpoolFile.create(tmp_path)
    payloads = [bytes([number]) * (3 << 20) for number in range(5)]
    for payload in payloads:
        file.append([payload])
    with file.path.open("r+b") as raw:
        raw.seek(64 + (3 << 20) + 500)  # within the second
        raw.write(b"damage")
    found: list[bytes] = []
    damaged = 0
    while not file.is_drained:
        piece = file.read(100, 4 << 20)
        assert piece.size > 0
        found += piece.payloads
        damaged += sum(map(len, piece.damaged))
        file.advance(piece.size)
    assert found == [payloads[0], *payloads[2:]]
    assert damaged == (3 << 20) + OVERHEAD_BYTES
    file.close()
