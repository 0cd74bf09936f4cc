"""A call and its function's signature: checked where the call is built, rebuilt where it runs."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from fairque.core.exceptions import InvalidTaskError, SerializationError
from fairque.core.rebuild import Converter, converter, scalar_types, type_text, value_text
from fairque.core.references import REFERENCES

_log = logging.getLogger(__name__)

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD_ONLY_INDEX = sys.maxsize
_STARS: dict[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}


class Signature:
    """What a function takes, laid out so that checking a good call costs well under a microsecond."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name: str = getattr(fn, "__qualname__", repr(fn))
        self.signature = inspect.signature(fn)
        parameters = list(self.signature.parameters.values())
        positional = [item for item in parameters if item.kind in _POSITIONAL]
        named = [item for item in parameters if item.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY)]
        kinds = {item.kind for item in parameters}
        self._positional = tuple(item.name for item in positional)
        self._takes_more = Parameter.VAR_POSITIONAL in kinds
        self._takes_names = Parameter.VAR_KEYWORD in kinds
        self._most = sys.maxsize if self._takes_more else len(positional)
        self._least = sum(item.default is Parameter.empty for item in positional)
        self._required = frozenset(item.name for item in named if item.default is Parameter.empty)
        # How many arguments are enough where none is given by name: never, if one must be.
        self._enough = self._least if len(self._required) == self._least else sys.maxsize
        # Where each parameter that may be given by name stands.
        self._index = {
            item.name: index
            for index, item in enumerate(positional)
            if item.kind is not Parameter.POSITIONAL_ONLY
        }
        for item in parameters:
            if item.kind is Parameter.KEYWORD_ONLY:
                self._index[item.name] = _KEYWORD_ONLY_INDEX

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call that the function could not take.

        Only the shape of the call and parameters of plain scalar types are looked at; models and containers
        are checked where they are rebuilt. The output of another task is not known yet, so it fits anywhere.

        Raises:
            InvalidTaskError: an argument is missing, unknown, given twice, or of the wrong type; the error
            names it.
        """
        count = len(args)
        scalars = self._scalars
        if count > self._most:
            self._refuse(args, kwargs)
        if kwargs:
            found = min(count, self._least)
            for name, value in kwargs.items():
                index = self._index.get(name, -1)
                if index < count:  # unknown, or given by position too
                    if index >= 0 or not self._takes_names:
                        self._refuse(args, kwargs)
                    hint = "**"
                else:
                    hint = name
                    if name in self._required:
                        found += 1
                allowed = scalars.get(hint)
                if allowed is not None and not isinstance(value, allowed) and type(value) not in REFERENCES:
                    self._refuse_value(name, hint, value)
            if found < len(self._required):
                self._refuse(args, kwargs)
        elif count < self._enough:
            self._refuse(args, kwargs)
        if scalars:
            for name, value in zip(self._positional, args, strict=False):
                allowed = scalars.get(name)
                if allowed is not None and not isinstance(value, allowed) and type(value) not in REFERENCES:
                    self._refuse_value(name, name, value)
            if count > len(self._positional) and (allowed := scalars.get("*")) is not None:
                for value in args[len(self._positional) :]:
                    if not isinstance(value, allowed) and type(value) not in REFERENCES:
                        self._refuse_value("*", "*", value)

    def rebuild(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the function's annotations want them.

        Raises:
            InvalidTaskError: the call does not fit the signature, for example because it was pushed by older
            code. SerializationError: a value cannot become what its annotation says.
        """
        self.check(args, kwargs)
        converters = self._converters
        if not converters:
            return args, dict(kwargs)
        names = self._positional
        if len(args) > len(names):
            names += ("*",) * (len(args) - len(names))
        rebuilt = tuple(
            value if (convert := converters.get(name)) is None else self._convert(name, convert, value)
            for name, value in zip(names, args, strict=False)
        )
        named: dict[str, Any] = {}
        for name, value in kwargs.items():
            convert = converters.get(name if name in self._index else "**")
            named[name] = value if convert is None else self._convert(name, convert, value)
        return rebuilt, named

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        """Annotations by parameter; ``*`` and ``**`` for what those collect.

        Read at the first call and not before, so that forward references work.
        """
        hints: dict[str, Any] = {}
        for item in self.signature.parameters.values():
            if item.annotation is Parameter.empty:
                continue
            hint = _resolve(self.fn, self.name, item.name, item.annotation)
            if item.default is None:
                hint = _or_none(hint)
            hints[_STARS.get(item.kind, item.name)] = hint
        return hints

    @functools.cached_property
    def _scalars(self) -> dict[str, tuple[type, ...]]:
        found = {name: scalar_types(hint) for name, hint in self._hints.items()}
        return {name: allowed for name, allowed in found.items() if allowed is not None}

    @functools.cached_property
    def _converters(self) -> dict[str, Converter]:
        found = {name: converter(hint) for name, hint in self._hints.items() if name not in self._scalars}
        return {name: convert for name, convert in found.items() if convert is not None}

    def _convert(self, name: str, convert: Converter, value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, TypeError, RecursionError) as error:
            hint = self._hints[name if name in self._hints else "**"]
            raise SerializationError(
                f"{self.name}() argument {name!r} does not fit its annotation {type_text(hint)}: {error}"
            ) from None

    def _refuse(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> typing.NoReturn:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = str(error)
        else:
            problem = "the arguments do not fit"
        raise InvalidTaskError(f"{self.name}(): {problem}; it takes {self.signature}")

    def _refuse_value(self, name: str, hint: str, value: Any) -> typing.NoReturn:
        raise InvalidTaskError(
            f"{self.name}() argument {name!r} must be {type_text(self._hints[hint])}, not {value_text(value)}"
        )


def _resolve(fn: Callable[..., Any], function: str, parameter: str, annotation: Any) -> Any:
    """The type that an annotation, which may be text, stands for; Any if it cannot be found."""
    inner = inspect.unwrap(fn)
    holder = types.SimpleNamespace(__annotations__={parameter: annotation})
    try:
        hints = typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)
    except Exception as error:  # noqa: BLE001 - evaluating an annotation can raise anything
        _log.warning(
            "%s(): the annotation %r of %s cannot be resolved (%s); its values stay plain data",
            function, annotation, parameter, error,
        )  # fmt: skip
        return Any
    return hints[parameter]


def _or_none(hint: Any) -> Any:
    """A parameter whose default is None takes None, whatever its annotation says."""
    try:
        return hint | None
    except TypeError:  # something that is no type
        return hint


@functools.lru_cache(maxsize=4096)
def signature_of(fn: Callable[..., Any]) -> Signature:
    """The signature of `fn`, computed once."""
    return Signature(fn)


def bind_arguments(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call that `fn` could not take.

    Raises:
        InvalidTaskError: an argument is missing, unknown, given twice, or of the wrong scalar type.
    """
    signature_of(fn).check(args, kwargs)


def rebuild_arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as the annotations of `fn` want them: plain data becomes dataclasses, Enums, models,
    tuples.

    Raises:
        InvalidTaskError: the call does not fit the signature.
        SerializationError: a value cannot become what its annotation says; the error names the parameter.
    """
    return signature_of(fn).rebuild(args, kwargs)
