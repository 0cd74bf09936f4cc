"""From a task to an outcome: resolve, go through the middleware, call, judge.

The runner is the same in every executor. It raises nothing: whatever a task does, short of ending the
process, is an outcome. It knows neither the queue nor how many retries are left.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import NoneType, TracebackType
from typing import Any, cast

from fairque.core.arguments import signature_of
from fairque.core.codec import encode_error, encode_value
from fairque.core.context import enter, leave
from fairque.core.exceptions import ConfigError, InvalidTaskError, PayloadTooLargeError, TaskTimeoutError
from fairque.core.middleware import Middleware, check_middleware, compose, compose_async
from fairque.core.models import Task
from fairque.core.registry import Registry, default_registry
from fairque.core.retry import DEFAULT_RETRY, Discard, RetryAfter, RetryPolicy, Snooze
from fairque.worker.executors.base import Outcome, OutcomeKind, TaskKilledError, TaskProcessLostError
from fairque.worker.executors.ledger import Execution
from fairque.worker.handler import TaskHandler
from fairque.worker.middleware import Call, Retry, Timeout, current_call
from fairque.worker.spec import RunnerSpec

_log = logging.getLogger(__name__)

MAX_RESULT_BYTES = 1024 * 1024
# What most tasks return: known at a glance to be neither awaitable nor too large to look at twice.
_DATA = frozenset({NoneType, bool, int, float, str, bytes, list, tuple, dict})
_NOTHING = encode_value(None)
_DONE = OutcomeKind.DONE

_HOOKS = {
    OutcomeKind.DONE: "on_task_success",
    OutcomeKind.FAILED: "on_task_failure",
    OutcomeKind.LOST: "on_task_failure",
    OutcomeKind.TIMED_OUT: "on_task_timeout",
}


class Runner:
    """Runs tasks of registered functions, and of payloads by `handler`.

    `task_timeout` (seconds) and `retry` are for tasks that bring none of their own. A result over
    `max_result_bytes`, encoded, fails its task.

    Raises:
        ConfigError: a middleware is none, or overrides only one form of `execute`.
    """

    def __init__(
        self,
        handler: TaskHandler | None = None,
        *,
        registry: Registry | None = None,
        middlewares: Sequence[Middleware] = (),
        task_timeout: float | None = None,
        max_result_bytes: int = MAX_RESULT_BYTES,
        retry: RetryPolicy = DEFAULT_RETRY,
        random: Callable[[], float] = random.random,
    ) -> None:
        check_middleware(middlewares)
        self.handler = handler
        self.registry = default_registry() if registry is None else registry
        self.middlewares = tuple(middlewares)
        self.task_timeout = task_timeout
        self.max_result_bytes = max_result_bytes
        self.retry = retry
        self._retry = Retry(retry, random)
        self._timeout = Timeout(task_timeout)
        layers = (self._retry, *middlewares, self._timeout)
        self._execute = compose(layers, self._call)
        self._execute_async = compose_async(layers, self._call_async)
        self._handler_is_async = handler is not None and inspect.iscoroutinefunction(handler.process_task)
        self._hooks = {kind for kind, name in _HOOKS.items() if _overrides(handler, name)}

    # what executors ask before they run a task

    def is_async(self, task: Task[Any]) -> bool:
        """Whether the task is an `async def`'s."""
        if not task.function:
            return self._handler_is_async
        function = self.registry._functions.get(task.function)
        return function is not None and function.is_async

    def timeout(self, task: Task[Any]) -> float | None:
        """Seconds that the task may run."""
        return self._timeout.seconds(task)

    def child_init(self, modules: tuple[str, ...] | None = None) -> dict[str, object]:
        """What a child process builds such a runner from (see `RunnerSpec.of`).

        Raises:
            ConfigError: the handler or a middleware cannot be made in another process.
        """
        return RunnerSpec.of(self, modules).message()

    # running it

    def run(self, execution: Execution) -> Outcome:
        """Run the task here and now."""
        call = self._resolve(execution)
        if isinstance(call, Outcome):
            return call
        token = enter(call)
        try:
            return self._done(execution, self._execute(execution.task))
        except BaseException as error:  # noqa: BLE001 - also SystemExit is the task's failure, not the worker's end
            return self._failed(execution, error, call.retry_delay)
        finally:
            leave(token)

    async def run_async(self, execution: Execution) -> Outcome:
        """Run the task of an `async def` on this loop."""
        call = self._resolve(execution)
        if isinstance(call, Outcome):
            return call
        token = enter(call)
        try:
            return self._done(execution, await self._execute_async(execution.task))
        except BaseException as error:  # noqa: BLE001 - as in run
            return self._failed(execution, error, call.retry_delay)
        finally:
            leave(token)

    def _resolve(self, execution: Execution) -> Call | Outcome:
        """Find what runs the task."""
        task = execution.task
        if execution.cancelled:
            return Outcome(task=task, kind=OutcomeKind.CANCELED, reason="cancelled before it began")
        if not task.function:
            if self.handler is None:
                return Outcome(task=task, kind=OutcomeKind.UNKNOWN, reason="this worker has no TaskHandler")
            return Call(execution, None)
        try:
            return Call(execution, self.registry.resolve(task.function).fn)
        except LookupError as error:
            return Outcome(task=task, kind=OutcomeKind.UNKNOWN, reason=str(error))

    def _begin(self, task: Task[Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The innermost of the onion: what to call, with its arguments rebuilt; its time begins."""
        call = current_call()
        # The task may be another than the one that was claimed: a middleware can have decrypted it.
        function = call.function
        if function is None:
            call.execution.begin()
            return cast(TaskHandler, self.handler).process_task, (task,), {}
        args, kwargs = signature_of(function).rebuild(task.args, task.kwargs)
        call.execution.begin()
        return function, args, kwargs

    def _call(self, task: Task[Any]) -> Any:
        function, args, kwargs = self._begin(task)
        answer = function(*args, **kwargs)
        if type(answer) in _DATA or not inspect.isawaitable(answer):
            return answer
        return asyncio.run(_await(answer))  # a plain function that returns a coroutine: a wrapped async def

    async def _call_async(self, task: Task[Any]) -> Any:
        function, args, kwargs = self._begin(task)
        return await function(*args, **kwargs)

    # judging how it ended

    def _done(self, execution: Execution, answer: Any) -> Outcome:
        task = execution.task
        if answer is None:
            return Outcome(task=task, kind=_DONE, result=_NOTHING, duration=execution.took)
        name = task.function or type(self.handler).__qualname__
        try:
            result = encode_value(answer, f"the result of {name}")
            if len(result) > self.max_result_bytes:
                raise PayloadTooLargeError(
                    f"the result of {name} takes {len(result)} bytes; the limit is {self.max_result_bytes} "
                    "(max_result_bytes). Store it elsewhere and return where",
                    task_id=task.task_id,
                    user_id=task.user_id,
                )
        except Exception as error:  # noqa: BLE001 - encoding reads attributes, which can run any code
            # It would do its work again only to end here again.
            return self._failed(execution, error, None, final=True)
        return Outcome(task=task, kind=_DONE, result=result, duration=execution.took)

    def failure(self, execution: Execution, error: BaseException) -> Outcome:
        """The outcome of a task whose process is gone, for `error`."""
        return self._failed(execution, error, self._retry.delay(execution.task, error))

    def _failed(
        self, execution: Execution, error: BaseException, delay: float | None, *, final: bool = False
    ) -> Outcome:
        task = execution.task
        kind, reason = OutcomeKind.FAILED, ""
        match error:
            case Discard():
                return Outcome(
                    task=task, kind=OutcomeKind.DISCARDED, reason=error.reason, duration=execution.took
                )
            case Snooze():
                kind, delay, reason = OutcomeKind.SNOOZED, error.seconds, error.reason
            case RetryAfter():
                kind, delay = OutcomeKind.RETRY_AFTER, error.seconds
            case TaskProcessLostError():
                kind = OutcomeKind.LOST
            case TaskTimeoutError() if execution.timed_out:
                kind = OutcomeKind.TIMED_OUT
            case TaskKilledError():
                kind = OutcomeKind.CANCELED
            case asyncio.CancelledError() if execution.cancelled:
                kind = OutcomeKind.CANCELED
            case InvalidTaskError() | ConfigError() if execution.began is None:
                final = True  # malformed, for another signature, or not to be isolated: and so the next time
            case _:
                pass
        if kind is OutcomeKind.CANCELED:
            reason = "cancelled while it ran"
        if kind in self._hooks:
            execution.error = error
        encoded = None
        if kind not in (OutcomeKind.SNOOZED, OutcomeKind.CANCELED):
            encoded = encode_error(
                error.with_traceback(_own_frames(error.__traceback__)), task.attempt, datetime.now(UTC)
            )
        return Outcome(
            task=task, kind=kind, error=encoded, duration=execution.took, reason=reason, final=final,
            retry_delay=None if final or kind in (OutcomeKind.CANCELED, OutcomeKind.LOST) else delay,
        )  # fmt: skip

    # hooks of the handler

    def has_hooks(self, outcome: Outcome) -> bool:
        """Whether the handler wants to hear of such an outcome."""
        return bool(self._hooks) and outcome.kind in self._hooks

    def after(self, execution: Execution, outcome: Outcome) -> None:
        """Tell the handler."""
        if outcome.kind in self._hooks:
            try:
                answer = self._hook(execution, outcome)()
                if inspect.isawaitable(answer):
                    asyncio.run(_await(answer))
            except BaseException:  # noqa: BLE001 - a hook changes nothing
                _complain(outcome)

    async def after_async(self, execution: Execution, outcome: Outcome) -> None:
        """Tell the handler, without blocking the loop."""
        if outcome.kind in self._hooks:
            try:
                hook = self._hook(execution, outcome)
                if inspect.iscoroutinefunction(getattr(self.handler, _HOOKS[outcome.kind])):
                    await hook()
                else:
                    await asyncio.to_thread(hook)
            except Exception:  # noqa: BLE001 - as in after
                _complain(outcome)

    def _hook(self, execution: Execution, outcome: Outcome) -> Callable[[], Any]:
        hook = getattr(self.handler, _HOOKS[outcome.kind])
        error, execution.error = execution.error, None
        if outcome.kind in (OutcomeKind.FAILED, OutcomeKind.LOST):
            return lambda: hook(outcome.task, error, outcome.duration)
        return lambda: hook(outcome.task, outcome.duration)


def refusal(task: Task[Any], error: BaseException) -> Outcome:
    """The outcome of a task that must not run at all, because what was stored of it is malformed."""
    return Outcome(
        task=task,
        kind=OutcomeKind.FAILED,
        error=encode_error(error, task.attempt, datetime.now(UTC)),
        final=True,
    )


def _overrides(handler: TaskHandler | None, name: str) -> bool:
    return handler is not None and getattr(type(handler), name) is not getattr(TaskHandler, name)


def _own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the task's own code on; if it did not get that far, from the middleware on."""
    own, frames = traceback, traceback
    while frames is not None:
        if frames.tb_frame.f_globals.get("__name__") == __name__ and frames.tb_next is not None:
            own = frames.tb_next
        frames = frames.tb_next
    return own


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _complain(outcome: Outcome) -> None:
    _log.exception("%s of the handler failed after task %s", _HOOKS[outcome.kind], outcome.task.task_id)
