"""Values to bytes and back: what is exact, what is rebuilt from annotations, what is refused and how."""

from __future__ import annotations

import enum
import math
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.codec import (
    bind_arguments,
    decode_error,
    decode_task_body,
    decode_value,
    encode_error,
    encode_task_body,
    encode_value,
    rebuild_arguments,
)
from fairque.core.exceptions import InvalidTaskError, SerializationError
from fairque.core.models import Task
from fairque.core.retry import exponential

AT = datetime(2030, 1, 1, tzinfo=UTC)


def there_and_back(value: Any, annotation: Any = None) -> Any:
    return decode_value(encode_value(value), annotation)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Order:
    id: UUID
    lines: tuple[Point, ...]
    due: date
    colour: Colour = Colour.RED
    tags: set[str] = field(default_factory=set)


class Sized(msgspec.Struct, tag="sized"):
    width: int
    when: datetime | None = None


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(validation_alias="fullName", serialization_alias="full_name")
    born: date
    home: Path | None = None
    friends: list[Person] = []


class Pair(NamedTuple):
    left: int
    right: str


class Movie(TypedDict):
    title: str
    year: int


# ---- exact without annotations

PARIS = ZoneInfo("Europe/Paris")

EXACT = [
    None, True, 0, -1, 2**64, -(2**63) - 1, 10**60, 1.5, math.inf, "", "ünï\0code", b"\x00\xff",
    [], {}, [1, "a", None], {"a": {"b": [1, 2]}}, {1: "a", None: 2, b"k": 3},
    datetime(2024, 2, 29, 12, 30, 15, 123456), datetime(2024, 1, 1, tzinfo=UTC),  # noqa: DTZ001
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))), date(2024, 2, 29),
    time(23, 59, 1), timedelta(days=-1, microseconds=1), timedelta(days=400_000),
    Decimal("1.10"), Decimal("1E+400"), UUID(int=5), {1, 2}, frozenset({"a"}),
    {date(2024, 1, 1): 1, UUID(int=1): Decimal(2)}, [[2**70], {"k": -(2**70)}, {2**65}],
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=repr)
def test_these_come_back_as_they_were(value: Any) -> None:
    back = there_and_back(value)

    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_zone_keeps_its_rules_and_its_fold(fold: int) -> None:
    # 02:30 happens twice when summer time ends.
    value = datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=fold)

    back = there_and_back(value)

    assert (back, back.tzinfo, back.fold) == (value, PARIS, fold)
    assert back + timedelta(days=200) == value + timedelta(days=200)


def test_nan_stays_nan() -> None:
    assert math.isnan(there_and_back(math.nan))
    assert there_and_back(Decimal("NaN")).is_nan()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.timedeltas()
    | st.decimals(allow_nan=False) | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.dates(), inner),
    max_leaves=10,
)  # fmt: skip


@given(plain)
def test_any_data_comes_back(value: Any) -> None:
    assert there_and_back(value) == value


# ---- plain data without annotations, rebuilt with them


def test_without_annotation_models_become_plain_data() -> None:
    order = Order(UUID(int=1), (Point(1, 2),), date(2024, 1, 1), tags={"a"})

    assert there_and_back(order) == {
        "id": UUID(int=1), "lines": [{"x": 1, "y": 2}], "due": date(2024, 1, 1),
        "colour": "red", "tags": {"a"},
    }  # fmt: skip
    assert there_and_back((1, (2,))) == [1, [2]]
    assert there_and_back(Level.LOW) == 1
    assert there_and_back(Sized(3)) == {"type": "sized", "width": 3, "when": None}
    assert there_and_back(namedtuple("N", "a b")(1, 2)) == [1, 2]
    assert there_and_back(OrderedDict(a=1)) == {"a": 1}
    assert there_and_back(bytearray(b"x")) == b"x"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Colour.BLUE, Colour),
        (Level.LOW, Level),
        ({Colour.RED: 1}, dict[Colour, int]),
        (Point(1, 2), Point),
        ([Point(1, 2)], list[Point]),
        (Order(UUID(int=7), (Point(1), Point(2)), date(2024, 1, 1), Colour.BLUE, {"a"}), Order),
        (Sized(3, AT), Sized),
        ([Sized(3)], list[Sized]),
        (Person(fullName="A", born=date(2000, 1, 1), home=Path("/a")), Person),
        ({"x": Person(fullName="A", born=date(2000, 1, 1))}, dict[str, Person]),
        (Person(fullName="A", born=AT.date(), friends=[Person(fullName="B", born=AT.date())]), Person | None),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        (Pair(1, "a"), Pair),
        (Movie(title="a", year=1), Movie),
        ("a", Literal["a", "b"]),
        (None, Point | None),
        ([True, 2], list[int]),
        ([1, 2.5], list[float]),
        (UUID(int=1), UUID),
        ({"t": timedelta(1)}, dict[str, timedelta]),
        (5, Annotated[int, "unhashable", []]),
        (5, NewType("Five", int)),
        ([1, "a"], list[Any]),
    ],
    ids=repr,
)
def test_annotations_bring_the_types_back(value: Any, annotation: Any) -> None:
    back = there_and_back(value, annotation)

    assert back == value
    assert type(back) is type(value)


def test_text_from_json_becomes_what_the_annotation_says() -> None:
    # The command line gives JSON, which has no dates.
    assert there_and_back("2024-01-01", date) == date(2024, 1, 1)
    assert there_and_back("1.10", Decimal) == Decimal("1.10")
    assert there_and_back(str(UUID(int=1)), UUID | None) == UUID(int=1)


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("x", int, ("int", "'x'", "str")),
        ({"x": "one"}, Point, ("Point", "int", "x")),
        ({"y": 1}, Point, ("Point", "x")),
        ("green", Colour, ("Colour", "green")),
        ([1, "a"], list[int], ("list[int]", "[1]")),
        ({"born": "never"}, Person, ("Person", "born")),
        (5, date, ("date",)),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: Any, annotation: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(SerializationError) as caught:
        there_and_back(value, annotation)
    for word in words:
        assert word in str(caught.value)


# ---- refused


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr


class Opaque:
    pass


async def coroutine_function() -> None: ...


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), ("v is", "object")),
        ([1, {"x": [Opaque()]}], ("v[1]['x'][0]", "Opaque")),
        (Point(1, Opaque()), ("v.y", "Opaque")),  # type: ignore[arg-type]
        (Sized(Opaque()), ("v.width", "Opaque")),  # type: ignore[arg-type]
        (lambda: 1, ("function", "@task")),
        (Opaque, ("type",)),
        ((number for number in [1]), ("generator", "list")),
        (range(3), ("range", "list")),
        (Path("/tmp"), ("Path", "str(path)")),
        (1j, ("complex",)),
        (Secretive(password="x"), ("password", "secret")),  # type: ignore[arg-type]
        ({"k": ["\ud800"]}, ("v['k'][0]", "surrogate", "bytes")),
        ([2**70, "\ud800"], ("v[1]", "surrogate")),
        ({"\ud800": 1}, ("key", "surrogate")),
        ({Colour.RED: 1, "red": 2}, ("same", "Enum")),
        ({Opaque: 1}, ("type",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_is_refused_with_its_path_and_a_way_out(value: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(SerializationError) as caught:
        encode_value(value, "v")
    for word in words:
        assert word in str(caught.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(SerializationError, match="contains itself"):
        encode_value(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x91", b"\x92\x01", b"\xa2\xff\xff", b"\x01\x01", b"\x81\x81\x01\x02\x03",
        b"\x91" * 100_000,
        b"\xd4\x7f\x00", b"\xd4\x01x", b"\xd4\x05x", b"\xd4\x06x", b"\xd4\x08\xc1", b"\xc7\x02\x09\x91\x80",
    ],
)  # fmt: skip
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError, match="malformed"):
        decode_value(data)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_and_not_loaded(protocol: int) -> None:
    data = pickle.dumps(Bomb(), protocol)

    for decode in (decode_value, decode_task_body, decode_error):
        with pytest.raises(SerializationError, match="pickle"):
            decode(data)


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for decode in (decode_value, decode_task_body, decode_error):
        try:
            decode(data)
        except SerializationError:
            pass


# ---- the body of a task


def test_the_body_of_a_small_call_is_small() -> None:
    body = encode_task_body(Task(function="m:f", args=(42, "x" * 100)))

    assert len(body) == 108
    assert decode_task_body(body) == {"args": (42, "x" * 100), "kwargs": {}, "payload": None}


def test_the_body_keeps_the_options_that_scripts_do_not_read() -> None:
    options: dict[str, Any] = {
        "timeout": 30.0, "retry": exponential(retry_on=OSError), "result_ttl": 60.0, "correlation_id": "c",
        "labels": {"team": "a"}, "limiter": "api", "dedup_key": "k", "dedup_window": 5.0,
        "on_duplicate": "return",
        "depends_on": ("a", "b"), "trigger_rule": "all_done",
    }  # fmt: skip
    task = Task.create(
        payload=[AT], user_id="alice", priority=5, max_retries=7, cost=3, expires_at=AT, delay=9, **options
    )

    assert decode_task_body(encode_task_body(task)) == {"args": (), "kwargs": {}, "payload": [AT], **options}


def test_arguments_keep_their_names() -> None:
    task = Task(function="m:f", args=(1,), kwargs={"when": AT, "colour": Colour.RED})

    fields = decode_task_body(encode_task_body(task))

    assert (fields["args"], fields["kwargs"]) == ((1,), {"when": AT, "colour": "red"})


def test_an_argument_that_is_no_data_names_the_task_and_the_place() -> None:
    task = Task(function="m:f", user_id="alice", args=(1, {"x": object()}))

    with pytest.raises(SerializationError, match=r"args\[1\]\['x'\]") as caught:
        encode_task_body(task)
    assert (caught.value.task_id, caught.value.user_id) == (task.task_id, "alice")
    with pytest.raises(SerializationError, match=r"kwargs\['key'\]"):
        encode_task_body(Task(function="m:f", kwargs={"key": object()}))
    with pytest.raises(SerializationError, match="payload is"):
        encode_task_body(Task.create(payload=object()))


def test_an_option_of_a_newer_version_is_passed_over() -> None:
    body = msgspec.msgpack.encode([[1], {}, None, {99: "new", 1: 2.0}, "more"])

    assert decode_task_body(body) == {"args": (1,), "kwargs": {}, "payload": None, "timeout": 2.0}


@pytest.mark.parametrize(
    "body", [[1], [[], []], [[], {}, None, {2: ["daily", 1]}], [[], {}, None, {10: 5}], {}]
)
def test_a_malformed_body_is_refused(body: Any) -> None:
    with pytest.raises(SerializationError, match="malformed"):
        decode_task_body(msgspec.msgpack.encode(body))


# ---- calls against signatures


def resize(
    path: str, width: int = 100, /, mode: str = "fit", *, scale: float | None = None, sharp: bool
) -> None:
    """A signature with every kind of plain parameter."""


def collect(first: int, *rest: int, **named: str) -> None:
    """A signature that takes more."""


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (resize, ("a",), {"sharp": True}),
        (resize, ("a", 1, "fill"), {"sharp": False, "scale": 2}),
        (resize, ("a", True), {"mode": Text("fit"), "sharp": True, "scale": None}),
        (collect, (1,), {}),
        (collect, (1, 2, 3), {"x": "y"}),
        (collect, (), {"first": 1}),
        (lambda anything=None: None, (object(),), {}),
        (lambda: None, (), {}),
    ],
)
def test_a_good_call_is_accepted(
    fn: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    bind_arguments(fn, args, kwargs)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "words"),
    [
        (resize, (), {"sharp": True}, ("resize()", "'path'")),
        (resize, ("a", 1), {}, ("'sharp'",)),
        (resize, ("a", 1, "fit", 2), {"sharp": True}, ("too many",)),
        (resize, ("a", 1, "fit"), {"mode": "x", "sharp": True}, ("multiple", "'mode'")),
        (resize, ("a",), {"sharp": True, "colour": 1}, ("'colour'",)),
        (resize, ("a",), {"width": 1, "sharp": True}, ("'width'",)),
        (resize, (1,), {"sharp": True}, ("'path'", "str", "1 (int)")),
        (resize, ("a", "wide"), {"sharp": True}, ("'width'", "int", "'wide' (str)")),
        (resize, ("a", 1.0), {"sharp": True}, ("'width'", "1.0 (float)")),
        (resize, ("a",), {"sharp": 1}, ("'sharp'", "bool")),
        (resize, ("a",), {"sharp": True, "scale": "2"}, ("'scale'", "float | None")),
        (collect, (), {}, ("'first'",)),
        (collect, (1, "2"), {}, ("'*'", "int")),
        (collect, (1,), {"x": 2}, ("'x'", "str")),
    ],
)
def test_a_bad_call_is_refused_by_function_and_parameter(
    fn: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        bind_arguments(fn, args, kwargs)
    for word in words:
        assert word in str(caught.value)


def ship(
    order: Order,
    to: Person,
    points: list[Point],
    *more: Point,
    pair: tuple[int, int] = (0, 0),
    **named: Colour,
) -> None:
    """A signature of models."""


def test_arguments_are_rebuilt_from_annotations() -> None:
    order = Order(uuid4(), (Point(1),), date(2024, 1, 1), tags={"a"})
    person = Person(fullName="A", born=date(2000, 1, 1))
    task = Task(
        function="m:ship",
        args=(order, person, [Point(1), Point(2)], Point(3)),
        kwargs={"pair": (1, 2), "extra": Colour.BLUE},
    )
    fields = decode_task_body(encode_task_body(task))

    args, kwargs = rebuild_arguments(ship, fields["args"], fields["kwargs"])

    assert args == task.args
    assert kwargs == task.kwargs
    # What is rebuilt already passes through: a task that runs where it was built.
    assert rebuild_arguments(ship, args, kwargs) == (args, kwargs)


def test_a_value_that_does_not_fit_names_the_function_and_the_parameter() -> None:
    def plot(at: Point, colours: list[Colour]) -> None: ...

    with pytest.raises(SerializationError, match=r"plot\(\) argument 'at' does not fit .*Point.*str"):
        rebuild_arguments(plot, ("here", []), {})
    with pytest.raises(SerializationError, match=r"plot\(\) argument 'colours' .*green"):
        rebuild_arguments(plot, ({"x": 1},), {"colours": ["green"]})


def test_a_call_that_older_code_pushed_is_refused_by_name() -> None:
    with pytest.raises(InvalidTaskError, match="'colour'"):
        rebuild_arguments(resize, ("a",), {"sharp": True, "colour": "red"})


def test_lazy_and_unknown_annotations_leave_the_value_alone(caplog: pytest.LogCaptureFixture) -> None:
    def each(items: Iterable[int], later: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    args, _ = rebuild_arguments(each, ([1, 2], {"x": 1}), {})

    assert args == ([1, 2], {"x": 1})
    assert "'Missing' of later cannot be resolved" in caplog.text


# ---- errors


def raise_and_catch(message: str) -> Exception:
    try:
        raise KeyError(message)
    except KeyError as error:
        return error


def test_an_error_comes_back_with_its_traceback() -> None:
    error = decode_error(encode_error(raise_and_catch("k"), attempt=3, at=AT))

    assert (error.attempt, error.type, error.message, error.at) == (3, "KeyError", "'k'", AT)
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert error.traceback.endswith("KeyError: 'k'\n")


def test_an_error_without_a_time_takes_the_one_it_is_given() -> None:
    data = encode_error(ValueError("x"), 1)

    assert decode_error(data, AT).at == AT
    assert decode_error(data).at == datetime(1970, 1, 1, tzinfo=UTC)
    assert decode_error(encode_error(ValueError("x"), 1, AT), AT + timedelta(1)).at == AT


@pytest.mark.parametrize("character", ["x", "é", "\ud800", "😀"])
def test_a_huge_error_keeps_its_beginning_and_end(character: str) -> None:
    error = decode_error(encode_error(raise_and_catch(character * 100_000), 1))

    assert len(error.message.encode()) <= 4_096
    assert len(error.traceback.encode()) <= 16_384
    assert error.traceback.startswith("Traceback")
    assert error.traceback.endswith("'\n")
    assert "left out" in error.traceback
    assert "left out" in error.message


def test_an_error_whose_text_cannot_be_made_is_still_an_error() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = decode_error(encode_error(BrokenError(), 1))

    assert error.type.endswith("BrokenError")
    assert "cannot be made" in error.message
