"""A function that only some workers have: those that import this module."""

from __future__ import annotations

from fairque.core.decorator import task
from tests.support.worker_tasks import say

RARE = "rare"


@task(name=RARE)
def rare(ledger: str, key: str) -> str:
    say(ledger, "begin", key)
    return key
