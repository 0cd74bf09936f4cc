"""The output of a task as an argument: what it stands for, how it travels, and how it is filled in."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.codec import (
    decode_task_body,
    decode_value,
    encode_task_body,
    encode_value,
    rebuild_arguments,
)
from fairque.core.decorator import task
from fairque.core.exceptions import InvalidTaskError, SerializationError
from fairque.core.models import Task
from fairque.core.references import (
    MARK,
    NO_OUTPUT,
    EachRef,
    Gapped,
    OutputRef,
    each_item,
    fill_references,
    find_references,
    may_hold_references,
)
from fairque.core.states import TaskState


@dataclass
class Box:
    size: int
    label: str = ""


class Packed(msgspec.Struct):
    value: Any


class Loose(pydantic.BaseModel):
    value: Any


@task
def make(size: int) -> Box:
    return Box(size)


@task
def weigh(box: Box, factor: int = 1, *, unit: str = "kg") -> int:
    return box.size * factor


@task
def anything(*args: Any, **kwargs: Any) -> dict[str, list[int]]:
    return {}


def travel(built: Task[Any]) -> dict[str, Any]:
    return decode_task_body(encode_task_body(built))


def filled(built: Task[Any], outputs: dict[str, Any], item: Any = msgspec.UNSET) -> tuple[Any, Any]:
    fields = travel(built)
    return fill_references(fields["args"], outputs, item), fill_references(fields["kwargs"], outputs, item)


A, B = OutputRef("a"), OutputRef("b")


def test_an_output_is_an_argument_of_any_type() -> None:
    source = make(3)
    built = weigh(source.output, factor=anything().output["x"][0], unit=anything().output_or("g"))  # type: ignore[arg-type]

    assert built.args == (OutputRef(source.task_id),)
    assert repr(built.args[0]) == f"<output of {source.task_id}>"
    assert repr(built.kwargs["factor"]).endswith("['x'][0]>")


def test_a_worker_fills_in_the_values_and_rebuilds_their_types() -> None:
    source = make(3)
    built = weigh(source.output, factor=OutputRef("n", ("counts", 1)))  # type: ignore[arg-type]
    outputs = {source.task_id: decode_value(encode_value(Box(3))), "n": {"counts": [5, 7]}}

    args, kwargs = rebuild_arguments(weigh.fn, *filled(built, outputs))

    assert (args, kwargs) == ((Box(3),), {"factor": 7})
    assert weigh.fn(*args, **kwargs) == 21


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (A, 1),
        ([A, [B, A]], [1, [[2], 1]]),
        ({"x": A, "y": {"z": [B]}}, {"x": 1, "y": {"z": [[2]]}}),
        ((A, "text", 3.5), [1, "text", 3.5]),
        ({A: "key"}, {1: "key"}),
        ({B: A}, {(2,): 1}),
        ({(1, 2): A}, {(1, 2): 1}),
        ({A, 5}, {1, 5}),
        (frozenset({B}), frozenset({(2,)})),
        (Box(A), {"size": 1, "label": ""}),  # type: ignore[arg-type]
        (Packed([A]), {"value": [1]}),
        (Loose(value={"deep": A}), {"value": {"deep": 1}}),
        ({"big": 2**70, "ref": A}, {"big": 2**70, "ref": 1}),
        ([datetime(2030, 1, 1, tzinfo=UTC), Decimal("1.5"), A], [datetime(2030, 1, 1, tzinfo=UTC), Decimal("1.5"), 1]),
        (OutputRef("b", (0,)), 2),
        (OutputRef("b", (-1,)), 2),
        (OutputRef("gone", default=None), None),
        (OutputRef("gone", default=[Decimal(1), A]), [Decimal(1), 1]),
        (OutputRef("a", default=9), 1),
    ],
)  # fmt: skip
def test_references_anywhere_in_the_arguments(value: Any, expected: Any) -> None:
    built = anything(value, key=value)

    assert {ref.task_id for ref in find_references(built.args) if isinstance(ref, OutputRef)} <= {
        "a",
        "b",
        "gone",
    }
    assert may_hold_references(encode_task_body(built))
    # Also in the decoded form nothing else is found, and nothing is left when it is filled in.
    fields = travel(built)
    assert set(map(repr, find_references(fields["args"]))) == set(map(repr, find_references(built.args)))
    args, kwargs = filled(built, {"a": 1, "b": [2]})
    assert args == (expected,)
    assert kwargs == {"key": expected}


def test_a_payload_can_hold_references_too() -> None:
    fields = travel(Task.create(payload={"report": A}))

    assert fill_references(fields["payload"], {"a": [1, 2]}) == {"report": [1, 2]}


def test_each_item_of_an_output() -> None:
    (mapped,) = weigh.map(OutputRef("a", ("boxes",)), factor=2).members  # type: ignore[arg-type]
    assert isinstance(mapped, Task)
    ref = travel(mapped)["args"][0]

    assert ref == EachRef(OutputRef("a", ("boxes",)))
    assert repr(ref) == "<each item of output of a['boxes']>"
    items = each_item(ref, {"a": {"boxes": [{"size": 1}, {"size": 2}]}})
    assert [filled(mapped, {}, item)[0] for item in items] == [({"size": 1},), ({"size": 2},)]
    with pytest.raises(InvalidTaskError, match="one item at a time"):
        filled(mapped, {"a": [1]})
    with pytest.raises(
        InvalidTaskError, match=r"each item of a list.*<output of a\['boxes'\]> is of type str"
    ):
        each_item(ref, {"a": {"boxes": "text"}})


def test_gathered_outputs_with_gaps() -> None:
    gathered = {"m": Gapped([1, NO_OUTPUT, 3])}

    assert fill_references([OutputRef("m", default=0, of_each=True)], gathered) == [[1, 0, 3]]
    with pytest.raises(InvalidTaskError, match=r"item 1 has no output.*outputs_or"):
        fill_references(OutputRef("m"), gathered)
    with pytest.raises(InvalidTaskError, match="has none"):
        fill_references(OutputRef("gone", default=0, of_each=True), gathered)


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (OutputRef("gone"), r"<output of gone>, and that task has none.*output_or"),
        (OutputRef("b", (1,)), r"<output of b\[1\]>, and <output of b> is of type list, without 1"),
        (OutputRef("c", ("x", "y")), r"<output of c\['x'\]> is of type dict, without 'y'"),
        (OutputRef("a", ("x",)), r"<output of a> is of type int, without 'x'"),
        ({OutputRef("c"): 1}, r"is of type dict, which can be no key"),
    ],
)
def test_what_cannot_be_filled_in_is_named(ref: Any, words: str) -> None:
    with pytest.raises(InvalidTaskError, match=words):
        fill_references([ref], {"a": 1, "b": [2], "c": {"x": {}}})


@pytest.mark.parametrize(
    "use",
    [
        bool,
        len,
        iter,
        int,
        str,
        lambda ref: 1 in ref,
        lambda ref: f"{ref}",
        lambda ref: f"{ref:>5}",
        lambda ref: [*ref],
        lambda ref: ref[1:2],
        lambda ref: ref[True],
        lambda ref: ref + 1,
    ],
)
def test_an_output_is_not_taken_for_its_value(use: Any) -> None:
    for ref in (A, A["x"], EachRef(A)):
        with pytest.raises(TypeError):
            use(ref)


def test_an_attribute_of_an_output_is_refused_with_the_way_out() -> None:
    with pytest.raises(AttributeError, match=r"<output of .*> has no attribute 'size'.*inside the task"):
        _ = make(1).output.size


def test_references_are_values() -> None:
    full = OutputRef("a", ("x", 0), default=[1], of_each=True)

    assert pickle.loads(pickle.dumps(full)) == full  # noqa: S301 - our own bytes
    assert copy.deepcopy(EachRef(full)) == EachRef(full)
    assert len({full, OutputRef("a"), OutputRef("a")}) == 2
    assert travel(anything(full))["args"] == (full,)
    assert travel(anything(OutputRef("a", ("x",))))["args"] == (OutputRef("a", ("x",)),)


def test_calling_a_task_here_and_now_needs_the_values() -> None:
    with pytest.raises(InvalidTaskError, match="argument is the output of a, which is known once"):
        anything([A])()
    with pytest.raises(InvalidTaskError, match="output of a"):
        Task._restore(function=weigh.name, args=(A,), state=TaskState.STARTED)()


def test_only_arguments_are_filled_in() -> None:
    with pytest.raises(
        SerializationError, match="the result of f holds the output of a, which only an argument"
    ):
        encode_value({"x": [A]}, "the result of f")
    # Bytes that look like a reference are bytes.
    assert decode_value(encode_value([MARK, b"..." + MARK])) == [MARK, b"..." + MARK]


def test_a_task_is_not_its_output() -> None:
    with pytest.raises(SerializationError, match=r"args\[0\]\[0\] is a Task.*pass \.output"):
        encode_task_body(anything([make(1)]))
    with pytest.raises(SerializationError, match=r"args\[0\] is a Group.*pass \.outputs"):
        encode_task_body(anything(make(1) | make(2)))
    with pytest.raises(SerializationError, match=r"kwargs\['x'\] is a Pipeline.*pass \.output"):
        encode_task_body(anything(x=make(1) >> make(2)))
    with pytest.raises(SerializationError, match=r"args\[0\] default is of type object"):
        encode_task_body(anything(OutputRef("a", default=object())))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x90", b"\x91\x01", b"\x92\xa1a\xa1b", b"\x92\xa1a\x91\xc0", b"\x94\xa1a\x90\xc0\x05", b"\xc1"],
)
def test_malformed_references_are_refused(body: bytes) -> None:
    data = msgspec.msgpack.encode([msgspec.msgpack.Ext(11, MARK + body)])

    with pytest.raises(SerializationError, match="malformed"):
        decode_value(data)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
REFERENCES = st.builds(
    OutputRef,
    st.sampled_from("abc"),
    st.lists(st.text(max_size=3) | st.integers(-(2**63), 2**63 - 1), max_size=2).map(tuple),
    PLAIN | st.just(msgspec.UNSET),
)
WITH_REFERENCES = st.recursive(
    PLAIN | REFERENCES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def by_hand(value: Any, found: list[OutputRef]) -> Any:
    """`value` with "!" for each reference, which is added to `found`."""
    if isinstance(value, OutputRef):
        found.append(value)
        return "!"
    if isinstance(value, list):
        return [by_hand(item, found) for item in value]
    if isinstance(value, dict):
        return {key: by_hand(item, found) for key, item in value.items()}
    return value


@given(WITH_REFERENCES)
def test_any_arguments_there_and_back(value: Any) -> None:
    expected: list[OutputRef] = []
    by_hand(value, expected)
    built = anything(value)
    back = travel(built)["args"][0]

    assert back == value
    assert find_references(value) == expected
    assert find_references(back) == expected
    assert may_hold_references(encode_task_body(built)) or not expected


@given(WITH_REFERENCES)
def test_any_arguments_are_filled_in(value: Any) -> None:
    class Everything(dict[Any, Any]):
        """Has whatever it is asked for: itself, which stands for "!"."""

        def __getitem__(self, key: Any) -> Any:
            return self

    outputs = {name: Everything() for name in "abc"}

    def mark(found: Any) -> Any:
        if isinstance(found, Everything):
            return "!"
        if isinstance(found, list):
            return [mark(item) for item in found]
        if isinstance(found, dict):
            return {key: mark(item) for key, item in found.items()}
        return found

    assert mark(fill_references(value, outputs)) == by_hand(value, [])
