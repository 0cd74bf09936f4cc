"""Tasks of the workflows in tests; they do real work on small things."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fairque.core.decorator import task


@dataclass
class Total:
    """A result that is rebuilt from its annotation."""

    sum: int
    parts: list[int]


@task
def numbers(count: int) -> list[int]:
    return list(range(count))


@task
def double(number: int) -> int:
    return 2 * number


@task
def add(parts: list[int], more: int = 0) -> Total:
    return Total(sum(parts) + more, parts)


@task(max_retries=0)
def fail(text: str = "no") -> int:
    raise ValueError(text)


@task
def ok(value: int = 1) -> int:
    return value


@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
def show(value: object) -> str:
    return repr(value)


@task
async def double_async(number: int) -> int:
    return 2 * number


@task(max_retries=0)
def pick(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number
