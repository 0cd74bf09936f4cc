"""What a child process builds its runner from: names and numbers, so that nothing has to be pickled."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from fairque.core.exceptions import ConfigError
from fairque.core.registry import Registry, registered_name
from fairque.core.retry import RetryPolicy

if TYPE_CHECKING:
    from fairque.worker.runner import Runner


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to build a `Runner` in another process. Classes are named ``module:qualname`` and called without
    arguments.

    `modules` are imported first; they define the functions.
    """

    modules: tuple[str, ...] = ()
    handler: str | None = None
    middlewares: tuple[str, ...] = ()
    task_timeout: float | None = None
    max_result_bytes: int
    retry: RetryPolicy

    @classmethod
    def of(cls, runner: Runner, modules: tuple[str, ...] | None = None) -> RunnerSpec:
        """A spec that builds such a runner. Without `modules`, those of all functions that are registered
        now.

        Raises:
            ConfigError: the handler or a middleware is of a class that another process could not import, or
            call
                without arguments.
        """
        return cls(
            modules=modules_of(runner.registry) if modules is None else modules,
            handler=None if runner.handler is None else _name(type(runner.handler), "handler"),
            middlewares=tuple(_name(type(middleware), "middleware") for middleware in runner.middlewares),
            task_timeout=runner.task_timeout,
            max_result_bytes=runner.max_result_bytes,
            retry=runner.retry,
        )

    def message(self) -> dict[str, object]:
        """What a child is told, with what it shall have in common with this process."""
        return {
            "runner": msgspec.to_builtins(self),
            "sys_path": sys.path,
            "pythonpath": os.environ.get("PYTHONPATH"),
            "log_level": logging.getLogger().level,
        }


def modules_of(registry: Registry) -> tuple[str, ...]:
    """The modules that define the functions in `registry`, as another process would import them."""
    modules = (_module(function.fn) for function in registry)
    return tuple(dict.fromkeys(module for module in modules if module is not None))


def _module(thing: Any) -> str | None:
    module = str(thing.__module__)
    if module != "__main__":
        return module
    try:
        module = registered_name(thing).partition(":")[0]
    except ConfigError:
        return None
    return None if module == "__main__" else module


def _name(kind: type, what: str) -> str:
    module = _module(kind)
    if module is None or "<" in kind.__qualname__:
        raise ConfigError(
            f"the {what} {kind.__qualname__} must be a class at the top of an importable module, because "
            "each worker process makes its own"
        )
    needed = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigError(
            f"the {what} {kind.__qualname__} is made without arguments in each worker process, but needs "
            f"{', '.join(needed)}: give them defaults, or derive a class that sets them"
        )
    return f"{module}:{kind.__qualname__}"
