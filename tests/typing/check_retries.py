"""Read by type checkers, never run: retry rules, changes and duplicates. See check_tasks.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from fairque.core.attempts import TaskAttempt
from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.retry import RetryPolicy, exponential, fixed, never
from fairque.core.retry_rules import RetryRules, on
from fairque.core.states import TaskState
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.queue import TaskQueue

# Rules are built where they are used, or apart.
rules = on(ConnectionError, exponential()) | on((ValueError, "m.Error"), never) | fixed(5)
assert_type(rules, RetryRules)
assert_type(on(ValueError, never), RetryRules)
assert_type(never, RetryPolicy)


@task(retry=rules)
def with_rules() -> None: ...


@task(retry=on(OSError, fixed(1)))
def with_one_rule() -> None: ...


with_rules.with_options(retry=never)
Task.create(payload=1, retry=rules)
Task.create(
    payload=1, on_duplicate="debounce", dedup_key="k", dedup_window=1, dedup_max_wait=timedelta(minutes=1)
)

on(5, never)  # E: no exception type
on(int, never)  # E: no exception type
on(ValueError, 5)  # E: no policy
on(ValueError)  # E: no policy
on(ValueError, on(KeyError, never))  # E: rules do not nest
fixed(5) | on(ValueError, never)  # E: the policy for all others stands last
rules | 5  # E: neither rules nor a policy
task(retry={ValueError: never})  # E: rules are made by on()


def change(queue: TaskQueue) -> None:
    assert_type(queue.update_task("t", priority=6, delay=timedelta(seconds=1)), TaskState)
    assert_type(queue.update_task("t", timeout=None, labels={}), TaskState)
    assert_type(queue.get_attempts("t"), tuple[TaskAttempt, ...])
    queue.update_task("t", user_id="bob")  # E: it cannot be changed
    queue.update_task("t", priority="high")  # E: a priority or a number
    queue.update_task("t", delay=None)  # E: leave it out


async def change_async(queue: AsyncTaskQueue, one: Task[Any]) -> None:
    assert_type(await queue.update_task(one, retry=rules), TaskState)
    assert_type((await queue.push(one)).outcome == "throttled", bool)
