"""What the tasks do: they write down that they began, take some time, and write down how they ended."""

from __future__ import annotations

import asyncio
import os
import time

from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.retry import fixed
from tests.support.ledger import sheet

RETRIES = 3


class MeantError(Exception):
    """A task fails as it was told to."""


def _begin(path: str) -> float:
    here, begun = current_task(), time.monotonic()
    sheet.write(path, "begin", here.task_id, here.attempt, begun)
    return begun


def _end(path: str, begun: float, failures: int) -> str:
    here = current_task()
    fails = here.attempt <= failures
    sheet.write(path, "fail" if fails else "end", here.task_id, here.attempt, begun)
    if fails:
        raise MeantError(f"attempt {here.attempt}")
    return f"{here.attempt}/{os.getpid()}/{begun!r}"


@task(max_retries=RETRIES, retry=fixed(0.05))
def step(path: str, seconds: float, failures: int = 0) -> str:
    """Its first `failures` attempts fail; the result names the execution."""
    begun = _begin(path)
    if seconds:
        time.sleep(seconds)
    return _end(path, begun, failures)


@task(max_retries=RETRIES, retry=fixed(0.05))
async def step_async(path: str, seconds: float, failures: int = 0) -> str:
    begun = _begin(path)
    await asyncio.sleep(seconds)
    return _end(path, begun, failures)


@task(max_retries=RETRIES)
def tick(path: str) -> str:
    """What schedules push."""
    return _end(path, _begin(path), 0)
