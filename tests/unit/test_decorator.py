"""`@task`: calling builds, options are defaults, and mistakes are named where they are made."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from fairque.core.codec import decode_task_body, encode_task_body
from fairque.core.decorator import TaskFunction, task
from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.models import Priority, Task
from fairque.core.retry import exponential
from fairque.core.states import TaskState

SOON = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Box:
    size: int


@task
def resize(path: str, width: int = 100) -> dict[str, Any]:
    """Make an image smaller."""
    return {"path": path, "width": width}


@task(
    priority=Priority.HIGH, max_retries=3, timeout=30, retry=exponential(base=1, cap=60), labels={"team": "a"}
)
def careful(box: Box) -> int:
    return box.size


@task(user_id="system")
async def fetch(url: str) -> bytes:
    return url.encode()


def test_calling_builds_a_task_and_runs_nothing() -> None:
    built = resize("a.png", width=200)

    assert isinstance(built, Task)
    assert built.function == f"{__name__}:resize"
    assert (built.args, built.kwargs) == (("a.png",), {"width": 200})
    assert (built.user_id, built.priority, built.state) == ("default", Priority.NORMAL, None)
    assert resize("a.png").task_id != resize("a.png").task_id


def test_the_decorators_options_are_the_tasks_defaults() -> None:
    built = careful(Box(1))

    assert (built.priority, built.max_retries, built.timeout) == (Priority.HIGH, 3, 30.0)
    assert built.retry == exponential(base=1, cap=60)
    assert careful.options["timeout"] == 30.0


def test_fn_is_the_plain_function() -> None:
    assert resize.fn("a.png", 200) == {"path": "a.png", "width": 200}
    assert resize.__doc__ == "Make an image smaller."
    assert str(inspect.signature(resize)) == "(path: 'str', width: 'int' = 100) -> 'dict[str, Any]'"


async def test_calling_a_task_runs_it_here_and_now() -> None:
    assert resize("a.png")() == {"path": "a.png", "width": 100}
    assert careful(Box(3))() == 3
    assert fetch.is_async
    assert await fetch("x")() == b"x"
    assert await fetch.fn("x") == b"x"


def test_a_task_from_the_server_runs_with_rebuilt_arguments() -> None:
    fields = decode_task_body(encode_task_body(careful(Box(3))))
    claimed = Task._restore(function=careful.name, state=TaskState.STARTED, **fields)

    assert claimed.args == ({"size": 3},)
    assert claimed() == 3


def test_with_options_gives_a_function_with_other_defaults() -> None:
    mine = resize.with_options(user_id="alice", delay=5)

    built = mine("a.png", width=200)

    assert (built.user_id, built.delay, built.function) == ("alice", 5.0, resize.name)
    assert (mine.name, mine.fn) == (resize.name, resize.fn)
    assert resize("a.png").user_id == "default"
    assert mine.with_options(priority=1)("a.png").user_id == "alice"
    assert mine.with_options(execute_after=SOON)("a.png").delay is None
    assert mine.with_options(execute_after=SOON).with_options(delay=1)("a.png").execute_after is None
    assert fetch.with_options(timeout=1).is_async


def test_tasks_of_one_function_share_no_labels() -> None:
    one, other = careful(Box(1)), careful(Box(2))

    one.labels["team"] = "b"  # type: ignore[index]

    assert other.labels == {"team": "a"}
    assert careful(Box(3)).labels == {"team": "a"}


def test_options_cannot_be_changed_behind_its_back() -> None:
    with pytest.raises(TypeError):
        resize.options["timeout"] = 1  # type: ignore[index]


def test_a_call_that_does_not_fit_is_refused_where_it_is_built() -> None:
    with pytest.raises(InvalidTaskError, match=r"resize\(\): missing a required argument: 'path'"):
        resize()  # type: ignore[call-arg]
    with pytest.raises(InvalidTaskError, match="'colour'"):
        resize("a.png", colour=1)  # type: ignore[call-arg]
    with pytest.raises(
        InvalidTaskError, match=r"resize\(\) argument 'width' must be int, not 'wide' \(str\)"
    ):
        resize("a.png", width="wide")  # type: ignore[arg-type]


def test_a_bad_option_is_refused_at_decoration() -> None:
    with pytest.raises(InvalidTaskError, match="timeout"):
        task(timeout=0)
    with pytest.raises(InvalidTaskError, match=r"'retries'.*'max_retries'"):
        task(retries=3)  # type: ignore[call-overload]
    with pytest.raises(InvalidTaskError, match="user_id"):
        resize.with_options(user_id="")
    with pytest.raises(InvalidTaskError, match="delay and execute_after"):
        resize.with_options(delay=1, execute_after=SOON)


def test_what_cannot_be_a_task_is_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for generator in (numbers, later):
        with pytest.raises(ConfigError, match="generator"):
            task(name="x")(generator)
    with pytest.raises(ConfigError, match="already"):
        task(resize)
    with pytest.raises(ConfigError, match="by name"):
        task("resize")  # type: ignore[call-overload]


def test_a_function_shows_what_it_is() -> None:
    assert repr(resize.with_options(user_id="alice")) == f"<TaskFunction {__name__}:resize user_id='alice'>"
    assert isinstance(resize, TaskFunction)
