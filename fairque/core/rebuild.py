"""Plain data back into what annotations name: dataclasses, Enums, tuples, msgspec and pydantic models.

msgspec converts what it knows, pydantic the rest. An annotation that neither understands leaves the value as
it is.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeAlias

import msgspec

from fairque.core.exceptions import SerializationError

Converter: TypeAlias = Callable[[Any], Any]

_SCALARS: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),
    str: (str,),
    bool: (bool,),
    bytes: (bytes, bytearray, memoryview),
    type(None): (type(None),),
    None: (type(None),),
}
_AS_IT_IS = (Any, object, Parameter.empty)
# Their values would be consumed by checking them, or cannot be data at all.
_NOT_DATA = frozenset(
    {"Iterable", "Iterator", "Generator", "AsyncIterable", "AsyncIterator", "AsyncGenerator"}
    | {"Callable", "Awaitable", "Coroutine"}
)


def rebuild_value(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` says.

    Raises:
        SerializationError: it does not fit.
    """
    allowed = scalar_types(annotation)
    if allowed is not None:
        if isinstance(value, allowed):
            return value
        raise SerializationError(f"expected {type_text(annotation)}, got {value_text(value)}")
    convert = converter(annotation)
    if convert is None:
        return value
    try:
        return convert(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise SerializationError(f"expected {type_text(annotation)}: {error}") from None


def scalar_types(annotation: Any) -> tuple[type, ...] | None:
    """What `isinstance` takes, if the annotation is of plain scalars (``int``, ``str | None``), else None."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [scalar_types(member) for member in typing.get_args(annotation)]
        if any(member is None for member in members):
            return None
        return tuple(kind for member in members if member for kind in member)
    try:
        return _SCALARS.get(annotation)
    except TypeError:  # unhashable
        return None


def converter(annotation: Any) -> Converter | None:
    """What turns plain data into `annotation`; None if there is nothing to do. Cached where it can be.

    The converter raises ValueError or TypeError if a value does not fit.
    """
    try:
        return _cached_converter(annotation)
    except TypeError:  # unhashable, for example metadata in Annotated
        return _make_converter(annotation)


def _make_converter(annotation: Any) -> Converter | None:
    annotation = _bare(annotation)
    if annotation in _AS_IT_IS or isinstance(annotation, typing.TypeVar | typing.ParamSpec | str):
        return None
    named = typing.get_origin(annotation) or annotation
    if getattr(named, "__name__", "") in _NOT_DATA:
        return None
    convert = None if _has_pydantic(annotation) else _by_msgspec(annotation)
    convert = convert or _by_pydantic(annotation)
    if convert is None or not isinstance(annotation, type) or typing.get_origin(annotation) is not None:
        return convert
    known: Converter = convert

    def convert_unless_done(value: Any) -> Any:
        # Extensions came back as themselves, and a task that runs where it was built has the objects still.
        return value if isinstance(value, annotation) else known(value)

    return convert_unless_done if _is_instance_checkable(annotation) else convert


_cached_converter = functools.lru_cache(maxsize=2048)(_make_converter)


def _by_msgspec(annotation: Any) -> Converter | None:
    try:
        msgspec.msgpack.Decoder(annotation, dec_hook=_foreign)
    except TypeError:
        return None

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation, dec_hook=_foreign)
        except msgspec.ValidationError:
            # A bool is an int to Python and to type checkers, but not to msgspec.
            changed, numbers = _bools_as_ints(value)
            if not changed:
                raise
            try:
                return msgspec.convert(numbers, annotation, dec_hook=_foreign)
            except msgspec.ValidationError:
                pass
            raise

    return convert


def _foreign(kind: Any, value: Any) -> Any:
    """msgspec's hook for a type that it does not know."""
    checkable = typing.get_origin(kind) or kind
    if isinstance(checkable, type) and _is_instance_checkable(checkable) and isinstance(value, checkable):
        return value
    convert = _pydantic_of(kind)
    if convert is None:
        raise ValueError(f"a {type(value).__name__} cannot become a {type_text(kind)}")
    return convert(value)


def _by_pydantic(annotation: Any) -> Converter | None:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation

    try:
        try:
            adapter = TypeAdapter[Any](annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:  # a model brings its own config
            adapter = TypeAdapter[Any](annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, NameError):
        return None
    return lambda value: adapter.validate_python(value, by_alias=True, by_name=True)


_pydantic_of = functools.lru_cache(maxsize=2048)(_by_pydantic)


def _has_pydantic(annotation: Any) -> bool:
    return hasattr(annotation, "__pydantic_validator__") or any(
        map(_has_pydantic, typing.get_args(annotation))
    )


def _bools_as_ints(value: Any) -> tuple[bool, Any]:
    """Whether there was a bool in `value`, and `value` with ints for bools."""
    if isinstance(value, bool):
        return True, int(value)
    if isinstance(value, list | tuple):
        parts = [_bools_as_ints(item) for item in value]
        return any(changed for changed, _ in parts), [item for _, item in parts]
    if isinstance(value, dict):
        items = {key: _bools_as_ints(item) for key, item in value.items()}
        return any(changed for changed, _ in items.values()), {key: item for key, (_, item) in items.items()}
    return False, value


def _bare(annotation: Any) -> Any:
    """The type behind a NewType or a ``type`` alias."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType" and hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def _is_instance_checkable(kind: type) -> bool:
    try:
        isinstance(None, kind)
    except TypeError:  # TypedDict, protocols without runtime_checkable
        return False
    return True


def type_text(annotation: Any) -> str:
    """The annotation as an error shows it."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def value_text(value: Any) -> str:
    """A value as an error shows it: short, and with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
