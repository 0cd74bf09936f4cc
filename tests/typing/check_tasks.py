"""Read by type checkers, never run: right calls have the right types, and marked lines are refused.

After the mark ``# E:`` stands what is wrong in the line.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from fairque.core.decorator import AsyncTaskFunction, TaskFunction, task
from fairque.core.models import Priority, Task
from fairque.core.retry import exponential


@task
def bare(path: str, width: int = 100) -> dict[str, int]:
    return {path: width}


@task(priority=Priority.HIGH, max_retries=3, timeout=30, retry=exponential(base=1, cap=60, jitter=True))
def with_defaults(path: str, *, width: int) -> list[str]:
    return [path] * width


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task(name="other", user_id="alice")
async def fetch_all(*urls: str) -> list[bytes]:
    return [url.encode() for url in urls]


@task
def nothing() -> None: ...


# A call builds a task of what the function returns; async def: of what awaiting it gives.
assert_type(bare("a.png"), Task[dict[str, int]])
assert_type(bare("a.png", width=200), Task[dict[str, int]])
assert_type(with_defaults("a.png", width=200), Task[list[str]])
assert_type(fetch("https://"), Task[bytes])
assert_type(fetch_all("a", "b"), Task[list[bytes]])
assert_type(nothing(), Task[None])

# The plain function keeps its type.
assert_type(bare.fn("a.png", 200), dict[str, int])
plain_coroutine_function: Callable[[str], Coroutine[Any, Any, bytes]] = fetch.fn


async def wait_for_it() -> None:
    assert_type(await fetch.fn("a"), bytes)
    assert_type(await fetch.with_options(timeout=1).fn("a"), bytes)


# Options change neither parameters nor result.
assert_type(bare.with_options(user_id="alice", delay=5)("a.png"), Task[dict[str, int]])
assert_type(fetch.with_options(priority=2)("a"), Task[bytes])
assert_type(bare("a.png").with_options(user_id="alice"), Task[dict[str, int]])
assert_type(Task.create(user_id="alice", payload={"to": "bob"}), Task[Any])

# A task of a subclass's result serves where one of the base's is wanted.
anything: Task[object] = bare("a.png")
functions: list[TaskFunction[..., Any]] = [bare, with_defaults, fetch, fetch_all, nothing]
coroutine: AsyncTaskFunction[[str], bytes] = fetch

# Where the result does not matter, it need not be named.
assert_type(Task(payload=1), Task[Any])


def handle(task: Task) -> object:
    return assert_type(task.payload, Any)


# Wrong calls.
bare()  # E: no path
bare(1)  # E: path is no str
bare("a.png", width="wide")  # E: width is no int
bare("a.png", colour="red")  # E: no such parameter
bare("a.png", 1, 2)  # E: too many
with_defaults("a.png", 200)  # E: width is keyword-only
with_defaults("a.png")  # E: no width
fetch(b"a")  # E: url is no bytes
fetch_all("a", 2)  # E: urls are str
nothing(1)  # E: too many
bare.with_options(user_id="alice")(1)  # E: path is no str

# Wrong options.
bare.with_options(user="alice")  # E: no such option
bare.with_options(user_id=5)  # E: user_id is a str
bare("a.png").with_options(trigger_rule="sometimes")  # E: no such rule
Task.create(on_duplicate="ignore")  # E: reject or return
task(retries=3)  # E: no such option
task(timeout="soon")  # E: seconds

# Wrong results, and changes to what cannot be changed.
wrong: Task[str] = bare("a.png")  # E: it is a Task[dict[str, int]]
bare("a.png").user_id = "bob"  # E: tasks are immutable
