"""The runner alone: what it calls, in which order, and how it judges what came of it."""

from __future__ import annotations

import asyncio
import logging
import shlex
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from fairque.core.codec import decode_error, decode_task_body, decode_value, encode_task_body, encode_value
from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.exceptions import ConfigError, NotInTaskError, SerializationError
from fairque.core.middleware import Middleware, Next, NextAsync, T
from fairque.core.models import Task
from fairque.core.registry import Registry
from fairque.core.retry import RetryAfter, exponential, fixed
from fairque.core.states import TaskState
from fairque.worker.executors import Outcome, OutcomeKind
from fairque.worker.executors.base import TaskProcessLostError, XComRequest
from fairque.worker.executors.ledger import Execution, Ledger
from fairque.worker.handler import TaskHandler
from fairque.worker.middleware import TaskLogFilter
from fairque.worker.runner import Runner, refusal
from fairque.worker.spec import RunnerSpec, modules_of

registry = Registry()
steps: list[str] = []


@dataclass
class Point:
    x: int
    y: int


@task(registry=registry)
def total(points: list[Point], scale: int = 1) -> Point:
    steps.append("call")
    return Point(sum(p.x for p in points) * scale, sum(p.y for p in points) * scale)


@task(registry=registry)
async def total_async(points: list[Point]) -> int:
    steps.append("call")
    await asyncio.sleep(0)
    return sum(p.x for p in points)


@task(registry=registry)
def boom() -> None:
    steps.append("call")
    raise KeyError("boom")


async def _answer() -> str:
    await asyncio.sleep(0)
    return current_task().task_id


@task(registry=registry)
def hidden_coroutine() -> Any:
    return _answer()


class Hears:
    """A listener that writes into the same list as the functions."""

    def on_begin(self, task: Task[Any]) -> None:
        steps.append("begin")

    def on_outcome(self, outcome: Outcome) -> None: ...
    def on_timeout(self, task: Task[Any]) -> None: ...
    def on_progress(self, task: Task[Any], done: float, total: float | None, text: str) -> None: ...
    def on_xcom(self, task: Task[Any], request: XComRequest) -> bytes | None: ...


class Traced(Middleware):
    """Notes when it is entered and left."""

    def __init__(self, name: str) -> None:
        self.name = name

    def execute(self, task: Task[Any], call_next: Next[T]) -> T:
        steps.append(f"{self.name} in")
        try:
            return call_next(task)
        finally:
            steps.append(f"{self.name} out")

    async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
        steps.append(f"{self.name} in")
        try:
            return await call_next(task)
        finally:
            steps.append(f"{self.name} out")


@pytest.fixture(autouse=True)
def _clean() -> None:
    steps.clear()


def runner(**options: Any) -> Runner:
    return Runner(registry=registry, random=lambda: 0.5, **options)


def wired(sent: Task[Any], **fields: Any) -> Task[Any]:
    """The task as it comes from the server: its arguments were bytes."""
    body = decode_task_body(encode_task_body(sent))
    return msgspec.structs.replace(sent, state=TaskState.STARTED, attempt=1, **{**body, **fields})


def run(task: Task[Any], by: Runner) -> Outcome:
    ledger = Ledger()
    ledger.listener = Hears()
    execution = ledger.open(task)
    assert execution is not None
    ledger.take(execution)
    if by.is_async(task):
        return asyncio.run(by.run_async(execution))
    return by.run(execution)


@pytest.mark.parametrize("function", [total, total_async])
def test_the_steps(function: Any) -> None:
    by = runner(middlewares=[Traced("outer"), Traced("inner")])
    outcome = run(wired(function([Point(1, 2), Point(3, 4)])), by)
    assert outcome.kind is OutcomeKind.DONE
    assert steps == ["outer in", "inner in", "begin", "call", "inner out", "outer out"]


def test_arguments_are_rebuilt_from_annotations() -> None:
    outcome = run(wired(total([Point(1, 2), Point(3, 4)], scale=2)), runner())
    assert outcome.result is not None
    assert decode_value(outcome.result, Point) == Point(8, 12)


def test_arguments_that_do_not_fit_are_final_and_begin_nothing() -> None:
    for bad in ([{"x": 1}], [{"x": 1, "y": "two"}], 7):
        outcome = run(wired(Task(function=total.name, args=(bad,))), runner())
        assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, True, None)
        assert outcome.error is not None
        assert "points" in decode_error(outcome.error).message
    assert steps == []


def test_a_body_that_cannot_be_decoded_is_refused() -> None:
    bad = Task[Any](function=total.name)
    with pytest.raises(SerializationError) as caught:
        decode_task_body(b"\x80\x04\x95pickled")
    outcome = refusal(bad, caught.value)
    assert (outcome.kind, outcome.final, outcome.duration) == (OutcomeKind.FAILED, True, 0)
    assert outcome.error is not None
    assert "pickle" in decode_error(outcome.error).message


def test_what_is_not_registered_is_not_entered() -> None:
    by = runner(middlewares=[Traced("outer")])
    outcome = run(Task(function=total.name + "l"), by)
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert f"did you mean {total.name!r}" in outcome.reason
    assert run(Task.create(payload=1), by).kind is OutcomeKind.UNKNOWN
    assert steps == []


def test_middleware_can_change_the_task() -> None:
    class Decrypt(Middleware):
        def execute(self, task: Task[Any], call_next: Next[T]) -> T:
            return call_next(msgspec.structs.replace(task, args=([Point(5, 5)],)))

        async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
            return await call_next(msgspec.structs.replace(task, args=([Point(5, 5)],)))

    by = runner(middlewares=[Decrypt()])
    secret: Task[Any] = Task(function=total_async.name, args=("secret",))
    assert run(secret, by).result == encode_value(5)


def test_middleware_can_refuse_or_fail() -> None:
    class Refuse(Middleware):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def execute(self, task: Task[Any], call_next: Next[T]) -> T:
            raise self.error

        async def execute_async(self, task: Task[Any], call_next: NextAsync[T]) -> T:
            raise self.error

    outcome = run(wired(total([])), runner(middlewares=[Refuse(SerializationError("wrong key"))]))
    assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, True, None)
    outcome = run(wired(total([])), runner(middlewares=[Refuse(OSError("try again"))]))
    assert (outcome.kind, outcome.final, outcome.retry_delay) == (OutcomeKind.FAILED, False, 0.75)
    outcome = run(wired(total([])), runner(middlewares=[Refuse(RetryAfter(3))]))
    assert (outcome.kind, outcome.retry_delay) == (OutcomeKind.RETRY_AFTER, 3)
    assert steps == []


def test_a_middleware_that_would_miss_half_of_the_tasks_is_refused() -> None:
    class Half(Middleware):
        def execute(self, task: Task[Any], call_next: Next[T]) -> T:
            return call_next(task)

    with pytest.raises(ConfigError, match="Half"):
        runner(middlewares=[Half()])


@pytest.mark.parametrize(
    ("retry", "retries", "delay"),
    [
        (None, 0, 0.75),  # the default: 1 s, with jitter between half and all of it
        (None, 3, 6),
        (fixed(5), 2, 5),
        (exponential(base=2, factor=3, jitter=False), 1, 6),
        (fixed(5, give_up_on=LookupError), 0, None),
        (fixed(5, retry_on=OSError), 0, None),
        (fixed(5, retry_on="KeyError"), 0, 5),
    ],
)
def test_the_policy_decides_about_a_retry(retry: Any, retries: int, delay: float | None) -> None:
    outcome = run(wired(boom.with_options(retry=retry)(), retries=retries), runner())
    assert (outcome.kind, outcome.retry_delay, outcome.final) == (OutcomeKind.FAILED, delay, False)


def test_the_default_policy_is_the_worker_s() -> None:
    assert run(wired(boom()), runner(retry=fixed(9))).retry_delay == 9


def test_the_traceback_begins_in_the_task() -> None:
    outcome = run(wired(boom()), runner(middlewares=[Traced("outer")]))
    assert outcome.error is not None
    error = decode_error(outcome.error)
    frames = [line for line in error.traceback.splitlines() if line.startswith("  File ")]
    assert len(frames) == 1
    assert frames[0].endswith("in boom")
    assert error.type == "KeyError"


def test_a_plain_function_may_answer_with_a_coroutine() -> None:
    sent = wired(hidden_coroutine())
    assert run(sent, runner()).result == encode_value(sent.task_id)


def test_the_context_ends_with_the_task() -> None:
    run(wired(hidden_coroutine()), runner())
    with pytest.raises(NotInTaskError):
        current_task()


def test_cancelled_before_it_began() -> None:
    ledger = Ledger()
    execution = ledger.open(wired(total([])))
    assert execution is not None
    ledger.cancel(execution.task.task_id)
    assert runner().run(execution).kind is OutcomeKind.CANCELED
    assert steps == []


def test_a_listener_that_fails_is_not_the_task_s_failure(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(Hears):
        def on_begin(self, task: Task[Any]) -> None:
            raise RuntimeError("deaf")

    ledger = Ledger()
    ledger.listener = Deaf()
    execution = ledger.open(wired(total([])))
    assert execution is not None
    with caplog.at_level(logging.CRITICAL + 1, "fairque"):
        assert runner().run(execution).kind is OutcomeKind.DONE


def test_the_timeout_is_the_task_s_or_the_worker_s() -> None:
    by = runner(task_timeout=30)
    assert by.timeout(total([])) == 30
    assert by.timeout(total.with_options(timeout=2)([])) == 2
    assert runner().timeout(total([])) is None


def test_log_records_name_their_task() -> None:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep, log = Keep(), logging.getLogger("test.runner")
    keep.addFilter(TaskLogFilter())
    log.addHandler(keep)
    log.propagate = False

    @task(registry=registry, name="logs")
    def logs() -> None:
        log.warning("inside")

    sent = wired(logs.with_options(user_id="alice")())
    run(sent, runner())
    log.warning("outside")
    log.removeHandler(keep)
    inside, outside = (
        (vars(record)["task_id"], vars(record)["user_id"], vars(record)["function"], vars(record)["attempt"])
        for record in records
    )
    assert inside == (sent.task_id, "alice", "logs", 1)
    assert outside == ("", "", "", 0)


def test_hooks_hear_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    class Handler(TaskHandler):
        async def on_task_success(self, task: Task[Any], duration: float) -> None:
            heard.append(("success", duration))

        def on_task_failure(self, task: Task[Any], error: BaseException, duration: float) -> None:
            heard.append(("failure", type(error)))
            raise RuntimeError("changes nothing")

    by = runner(handler=Handler())

    def hear(sent: Task[Any]) -> Outcome:
        execution = Execution.unrun(wired(sent))
        outcome = by.run(execution)
        with caplog.at_level(logging.CRITICAL + 1, "fairque"):
            by.after(execution, outcome)
        assert execution.error is None  # nothing keeps the traceback's frames alive
        return outcome

    done = hear(total([]))
    hear(boom())
    assert heard == [("success", done.duration), ("failure", KeyError)]
    assert not by.has_hooks(ended(OutcomeKind.TIMED_OUT))
    assert not by.has_hooks(ended(OutcomeKind.SNOOZED))
    assert not runner().has_hooks(done)


def ended(kind: OutcomeKind) -> Outcome:
    return Outcome(task=Task(), kind=kind)


def test_a_lost_process_is_not_retried_by_the_policy() -> None:
    execution = Execution.unrun(wired(boom()))
    outcome = runner().failure(execution, TaskProcessLostError("killed"))
    assert (outcome.kind, outcome.retry_delay, outcome.final) == (OutcomeKind.LOST, None, False)


def test_a_handler_must_have_process_task() -> None:
    outcome = run(Task.create(payload=1), runner(handler=TaskHandler()))
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error is not None
    assert "process_task" in decode_error(outcome.error).message


class OwnHandler(TaskHandler):
    """Can be made anywhere."""


class NamedMiddleware(Traced):
    def __init__(self) -> None:
        super().__init__("named")


def test_a_spec_survives_the_way_to_a_child() -> None:
    by = runner(handler=OwnHandler(), middlewares=[NamedMiddleware()], task_timeout=4, retry=fixed(2))
    spec = RunnerSpec.of(by)
    assert spec.modules == (__name__,)
    assert spec.handler == f"{__name__}:OwnHandler"
    assert spec.middlewares == (f"{__name__}:NamedMiddleware",)
    assert (spec.task_timeout, spec.retry) == (4, fixed(2))
    packed = msgspec.msgpack.encode(spec.message())
    assert msgspec.convert(msgspec.msgpack.decode(packed)["runner"], RunnerSpec) == spec


def test_a_spec_of_what_no_child_could_make_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the middleware Traced .* needs name"):
        RunnerSpec.of(runner(middlewares=[Traced("x")]))


def test_modules_of_a_registry() -> None:
    own = Registry()
    task(registry=own, name="here")(lambda: 1)
    task(registry=own, name="there")(shlex.quote)
    task(registry=own, name="here too")(lambda: 2)
    assert modules_of(own) == (__name__, "shlex")
