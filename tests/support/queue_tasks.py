"""Functions that the queue's tests push; no worker runs them."""

from __future__ import annotations

from dataclasses import dataclass

from fairque.core.decorator import task


@dataclass
class Size:
    """A result that is rebuilt from its annotation."""

    width: int
    height: int


@task
def resize(path: str, width: int = 100) -> Size:
    """A function as users write them."""
    return Size(width, len(path))


@task(priority=5, max_retries=1, timeout=30)
async def fetch(url: str) -> bytes:
    """An async one with options."""
    return url.encode()
