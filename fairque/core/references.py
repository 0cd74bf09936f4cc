"""Arguments that are the output of another task: the marks that stand for them, and how they are filled in.

To a type checker `task.output` is the task's result, so ``transform(extract().output)`` is checked like any
other call. In truth it is a mark that carries the id of the task. It travels inside the arguments, and a
worker puts the value in its place before the function is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from types import NoneType
from typing import Any, Final, NoReturn, TypeAlias, cast
from uuid import UUID

import msgspec

from fairque.core.exceptions import InvalidTaskError, SerializationError

MARK: Final = b"\xfe\xedfq"
"""What every encoded reference begins with. It is no UTF-8, so bytes without it hold no reference, and those
with it nearly always do: see `may_hold_references`."""

NO_OUTPUT: Final = object()
"""In `Gapped`: the task of this item has no output."""


class Gapped(list[Any]):
    """The gathered outputs of a mapped task where some are missing: `NO_OUTPUT` is in their places."""


class _Unknown:
    """Refuses what would otherwise silently take the mark for the value: the value is not known yet."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it never returns
        self._refuse("compare it inside the task")

    def __len__(self) -> NoReturn:  # noqa: PLE0303
        self._refuse("take its length inside the task")

    def __iter__(self) -> NoReturn:
        self._refuse("to run a task for each of its items, use map(); a single item is output[0]")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("search it inside the task")

    def __str__(self) -> NoReturn:  # noqa: PLE0307
        self._refuse("make text of it inside the task (repr() shows the reference)")

    def __format__(self, spec: str) -> NoReturn:
        self._refuse("make text of it inside the task (!r shows the reference)")

    def __getattr__(self, name: str) -> NoReturn:
        # Copying and pickling look for dunder names, and must be told that there are none.
        raise AttributeError(
            f"{self!r} has no attribute {name!r}, since its value is not known before the task has run: pass "
            "it whole, and read the attribute inside the task"
        )

    def _refuse(self, way_out: str) -> NoReturn:
        raise TypeError(
            f"{self!r} is not known before the task has run: pass it as an argument, and {way_out}"
        )


# These are structs, not dataclasses: pydantic would take a dataclass apart where it finds one in a model.
class OutputRef(_Unknown, msgspec.Struct, frozen=True):
    """The output of the task `task_id`, or the item of it that the keys in `path` lead to.

    `default` stands in if there is no output, because the task failed or was canceled; with `of_each`, which
    is for outputs that were gathered, for each item that is missing.
    """

    task_id: str
    path: tuple[str | int, ...] = ()
    default: Any = msgspec.UNSET
    of_each: bool = False

    def __getitem__(self, key: str | int) -> OutputRef:
        """The item `key` of the output.

        Raises:
            TypeError: the key is neither a str nor an int.
        """
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise TypeError(f"an item of {self!r} is named by a str or an int, not {key!r}")
        return msgspec.structs.replace(self, path=(*self.path, key))

    def __hash__(self) -> int:
        return hash(self.task_id)  # the default need not be hashable

    def __repr__(self) -> str:
        return f"<output of {self.task_id}{''.join(f'[{key!r}]' for key in self.path)}>"


class EachRef(_Unknown, msgspec.Struct, frozen=True):
    """One item of the output that `of` stands for: the first argument of a mapped task.

    Such a task is a pattern. When the output is there, a task is made of the pattern for each of its items,
    and the pattern's own output is the list of theirs, in order.
    """

    of: OutputRef

    def __repr__(self) -> str:
        return f"<each item of {repr(self.of)[1:]}"


Reference: TypeAlias = OutputRef | EachRef
REFERENCES: Final[frozenset[type]] = frozenset({OutputRef, EachRef})

# Nothing is inside these, so they are not looked into.
_LEAVES: frozenset[type] = frozenset(
    {NoneType, bool, int, float, str, bytes, bytearray, memoryview}
    | {datetime, date, time, timedelta, Decimal, UUID}
)


def find_references(*values: Any) -> list[Reference]:
    """Every reference in `values`, in order of appearance: in containers, as keys, and in models too.

    Raises:
        SerializationError: the values are nested too deeply, or contain themselves.
    """
    found: list[Reference] = []
    try:
        _find(values, found)
    except RecursionError:
        raise SerializationError("the arguments are nested too deeply, or contain themselves") from None
    return found


def _find(value: Any, found: list[Reference]) -> None:
    for part in _parts(value):
        kind = type(part)
        if kind in _LEAVES:
            continue
        if kind is OutputRef:
            found.append(part)
            _find((part.default,), found)
        elif kind is EachRef:
            found.append(part)
        else:
            _find(part, found)


def _parts(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind is tuple or kind is list:
        return cast(Iterable[Any], value)
    if kind is dict:
        return chain(value, value.values()) if value else ()
    if isinstance(value, list | tuple | set | frozenset):
        return cast(Iterable[Any], value)
    if isinstance(value, Mapping):
        return chain(value, value.values())
    if issubclass(kind, Enum):
        return ()
    if issubclass(kind, msgspec.Struct):
        return _attributes(value, kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return _attributes(value, [item.name for item in dataclasses.fields(kind) if item.init])
    if hasattr(kind, "__attrs_attrs__"):
        return _attributes(value, [item.name for item in kind.__attrs_attrs__])
    if hasattr(kind, "__pydantic_validator__"):
        # Most fields refuse a reference when the model is made; one of type Any takes it.
        return list(getattr(value, "__dict__", {}).values())
    return ()


def _attributes(value: Any, names: Iterable[str]) -> Iterator[Any]:
    return (getattr(value, name, None) for name in names)


def may_hold_references(data: bytes) -> bool:
    """Whether encoded arguments can hold a reference. False is certain; True is worth a `find_references`."""
    return MARK in data


def fill_references(value: Any, outputs: Mapping[str, Any], item: Any = msgspec.UNSET) -> Any:
    """`value`, as it was decoded, with what its references stand for.

    `outputs` has the decoded output of each task that has one, `item` is what an `EachRef` stands for.

    Raises:
        InvalidTaskError: a reference has neither an output nor a default, or names an item that the output
            lacks.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is list or kind is tuple:
        return kind(fill_references(part, outputs, item) for part in value)
    if kind is dict:
        return {
            _as_key(key, outputs, item): fill_references(part, outputs, item) for key, part in value.items()
        }
    if kind is set or kind is frozenset:
        return kind(_as_key(part, outputs, item) for part in value)
    if kind is OutputRef:
        return _output(value, outputs)
    if kind is EachRef:
        if item is msgspec.UNSET:
            raise InvalidTaskError(f"{value!r} is filled in for one item at a time, and there is none")
        return item
    return value


def _as_key(value: Any, outputs: Mapping[str, Any], item: Any) -> Any:
    if type(value) not in REFERENCES:
        return value
    filled = hashable(fill_references(value, outputs, item))
    try:
        hash(filled)
    except TypeError:
        raise InvalidTaskError(f"{value!r} is of type {type(filled).__name__}, which can be no key") from None
    return filled


def hashable(value: Any) -> Any:
    """A decoded value as a key or a member of a set: tuples came as lists."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def _output(ref: OutputRef, outputs: Mapping[str, Any]) -> Any:
    value = outputs.get(ref.task_id, NO_OUTPUT)
    if value is NO_OUTPUT:
        if ref.default is msgspec.UNSET or ref.of_each:
            raise InvalidTaskError(
                f"an argument is {ref!r}, and that task has none, because it failed, was canceled, or its result "
                "has expired: use output_or(default) to run all the same",
                task_id=ref.task_id,
            )
        return fill_references(ref.default, outputs)
    if type(value) is Gapped:
        value = cast(Any, _without_gaps(ref, value, outputs))
    for depth, key in enumerate(ref.path):
        try:
            value = value[key]  # whatever it is: what has no such item says so
        except (LookupError, TypeError):
            where = OutputRef(ref.task_id, ref.path[:depth])
            raise InvalidTaskError(
                f"an argument is {ref!r}, and {where!r} is of type {type(value).__name__}, without {key!r}",
                task_id=ref.task_id,
            ) from None
    return value


def _without_gaps(ref: OutputRef, gathered: Gapped, outputs: Mapping[str, Any]) -> list[Any]:
    if ref.default is msgspec.UNSET:
        gap = next(index for index, part in enumerate(gathered) if part is NO_OUTPUT)
        raise InvalidTaskError(
            f"an argument is {ref!r}, and the task of its item {gap} has no output: use outputs_or(default) to run "
            "all the same",
            task_id=ref.task_id,
        )
    return [fill_references(ref.default, outputs) if part is NO_OUTPUT else part for part in gathered]


def each_item(ref: EachRef, outputs: Mapping[str, Any]) -> list[Any]:
    """The items that a mapped task runs for.

    Raises:
        InvalidTaskError: there is no output, or it is no list.
    """
    value = _output(ref.of, outputs)
    if not isinstance(value, list | tuple | set | frozenset | dict):
        raise InvalidTaskError(
            f"map() runs for each item of a list, and {ref.of!r} is of type {type(value).__name__}",
            task_id=ref.of.task_id,
        )
    return list(value)
