"""Functions that run once in each worker process: before its first task and after its last.

A database pool belongs here, and not at import time, because a module is also imported by whoever only pushes
tasks. An `async def` hook runs on the event loop that runs the `async def` tasks of the same process, so what
it opens is bound to the right loop.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_log = logging.getLogger(__name__)

Hook = Callable[[], object]
F = TypeVar("F", bound=Callable[[], Any])
RunAsync = Callable[[Awaitable[Any]], object]
"""Waits for an awaitable on the event loop of this worker process."""

_start_hooks: list[Hook] = []
_stop_hooks: list[Hook] = []


def on_worker_start(function: F) -> F:
    """Register `function` (no parameters; may be `async def`) to run in each worker process before its first
    task.

    Hooks run in the order in which they were registered. One that raises keeps its worker process from
    starting.
    """
    _start_hooks.append(function)
    return function


def on_worker_stop(function: F) -> F:
    """Register `function` (no parameters; may be `async def`) to run in each worker process after its last
    task.

    Hooks run in the reverse order of their registration, so that what was opened first is closed last. One
    that raises is logged, and the others still run. A process that is killed runs none.
    """
    _stop_hooks.append(function)
    return function


def run_start_hooks(run_async: RunAsync) -> None:
    """Run the start hooks; the first exception ends it and is raised as it is."""
    for hook in tuple(_start_hooks):
        _call(hook, run_async)


def run_stop_hooks(run_async: RunAsync) -> None:
    """Run the stop hooks; a failing one is logged."""
    for hook in reversed(_stop_hooks):
        try:
            _call(hook, run_async)
        except Exception:  # noqa: BLE001 - what the others opened must be closed too
            _log.exception("the worker's stop hook %r failed", hook)


def _call(hook: Hook, run_async: RunAsync) -> None:
    answer = hook()
    if inspect.isawaitable(answer):
        run_async(answer)
