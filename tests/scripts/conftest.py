"""Scripts are tested on a real server, with the clock in the test's hand."""

from __future__ import annotations

import pytest
import redis

from tests.support.bench import Bench


@pytest.fixture
def bench(flushed: redis.Redis) -> Bench:
    """A queue of scripts on an empty server, with one worker that has joined."""
    return Bench(flushed)


@pytest.fixture
def lasting_keys() -> tuple[str, ...]:
    """What a script leaves is compared key by key here; whole lives are looked at in tests/behaviour."""
    return ("*",)
