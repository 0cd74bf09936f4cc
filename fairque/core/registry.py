"""Registered functions by name: the only way from a message to code.

A message names a function, and the process that gets it looks the name up here; nothing is ever imported or
unpickled because a message says so.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fairque.core.exceptions import ConfigError, UnknownFunctionError
from fairque.core.options import MAX_NAME_BYTES

if TYPE_CHECKING:
    from fairque.core.decorator import TaskFunction

_MAIN = "__main__"
# A process that multiprocessing spawns runs the main module once more, under the second name.
_MAINS = (_MAIN, "__mp_main__")


class Registry:
    """Task functions by registered name."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[..., Any]] = {}

    def add(self, function: TaskFunction[..., Any]) -> None:
        """Register `function` under its name. The same function, defined again by a reload, replaces itself.

        Raises:
            ConfigError: another function has that name.
        """
        other = self._functions.get(function.name)
        if other is not None and not _is_same(other.fn, function.fn):
            raise ConfigError(
                f"two functions are registered as {function.name!r}: {_place(other.fn)} and "
                f"{_place(function.fn)}; give one of them another name="
            )
        self._functions[function.name] = function

    def resolve(self, name: str) -> TaskFunction[..., Any]:
        """The function with that name.

        Raises:
            UnknownFunctionError: there is none here; the error names the nearest one.
        """
        function = self._functions.get(name)
        if function is None:
            raise UnknownFunctionError(self._unknown(name))
        return function

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._functions))

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[TaskFunction[..., Any]]:
        return iter(tuple(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)

    def _unknown(self, name: str) -> str:
        from difflib import get_close_matches

        problem = f"no function is registered here as {name!r}"
        if near := get_close_matches(name, self._functions, n=1):
            return f"{problem}: did you mean {near[0]!r}?"
        module = name.partition(":")[0]
        return f"{problem}: import the module that defines it ({module}), and decorate it with @task"


_default = Registry()


def default_registry() -> Registry:
    """The registry that `@task` uses unless it is given another."""
    return _default


def registered_name(fn: Callable[..., Any], name: Any = None) -> str:
    """The name under which `fn` is registered: `name`, or ``module:qualname``.

    A function of the program that was started is known by its importable module name, since a worker imports
    it as that. Where there is no such name (a notebook, an interactive session), the module stays
    ``__main__``, which `check_portable` refuses when a task of it is pushed: it can still be called, and run
    here and now.

    Raises:
        ConfigError: it is a lambda or defined inside a function, and has no `name`; or the name is not
        usable.
    """
    if name is not None:
        if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
            raise ConfigError(f"a task's name takes 1 to {MAX_NAME_BYTES} bytes, not {name!r}")
        return name
    qualname = getattr(fn, "__qualname__", "")
    if not qualname or "<" in qualname:
        what = "defined inside a function" if "<locals>" in qualname else "a function without a name"
        raise ConfigError(
            f"{_place(fn)} is {what}, so no worker could find it by its module: "
            "move it to the top of a module, or give it a name: @task(name=...)"
        )
    module = _importable_main(fn.__module__) if fn.__module__ in _MAINS else fn.__module__
    full = f"{module}:{qualname}"
    if len(full.encode()) > MAX_NAME_BYTES:
        raise ConfigError(
            f"the name {full!r} takes over {MAX_NAME_BYTES} bytes: give a shorter one with name="
        )
    return full


def check_portable(name: str) -> None:
    """Refuse a function name that only means something inside this process.

    Raises:
        UnknownFunctionError: the function belongs to ``__main__``, and that has no importable name.
    """
    if name.startswith(f"{_MAIN}:"):
        function = name.partition(":")[2]
        raise UnknownFunctionError(
            f"{function}() is defined in a __main__ that no worker can import (a notebook, an interactive "
            "session, a script outside the module path): move it to a module, or give it a name that both "
            "sides use: @task(name=...)"
        )


def _importable_main(name: str) -> str:
    """The name by which others import the program that was started, or ``__main__`` if there is none."""
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name)
    path: str | None = getattr(main, "__file__", None)
    if not path:
        return _MAIN
    import importlib.util
    import os.path

    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        found = importlib.util.find_spec(stem) if stem.isidentifier() else None
    except (ImportError, ValueError):
        return _MAIN
    if found is None or found.origin is None or not _is_same_file(found.origin, path):
        return _MAIN
    return stem


def _is_same_file(one: str, other: str) -> bool:
    import os.path

    return os.path.realpath(one) == os.path.realpath(other)


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether both come from one definition: after a reload, or as a module that is also ``__main__``."""
    if one is other:
        return True
    first, second = inspect.unwrap(one), inspect.unwrap(other)
    if first.__qualname__ != second.__qualname__:
        return False
    codes = getattr(first, "__code__", None), getattr(second, "__code__", None)
    if codes[0] is None or codes[1] is None:
        return False
    if _is_same_file(codes[0].co_filename, codes[1].co_filename):
        return bool(codes[0].co_firstlineno == codes[1].co_firstlineno)
    # A notebook cell that was run again is another file each time.
    return bool(first.__module__ == second.__module__ and first.__module__ in _MAINS)


def _place(fn: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    name = f"{getattr(fn, '__module__', '?')}:{getattr(fn, '__qualname__', repr(fn))}"
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
