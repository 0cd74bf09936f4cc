"""Whoever cleans up is killed in the midst of it: another one goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support import worker_tasks
from tests.support.workers import Workshop, until

COUNT = 150_000
EACH = 15_000


@pytest.mark.timeout(240)
def test_a_sweeper_that_is_killed_half_way_is_followed_by_another(
    make_workshop: Callable[..., Workshop],
) -> None:
    """Its place is on the server; tasks run all the while, and what is kept stays."""
    workshop = make_workshop(lease_seconds=1, cleanup_interval_seconds=0.5)
    client = workshop.client
    before = (time.time() - 2 * 86_400) * 1e6
    for start in range(0, COUNT, EACH):
        names = [f"f{number:07}" for number in range(start, start + EACH)]
        client.zadd("fq:state:finished", dict.fromkeys(names, before))
    left = [COUNT]

    def half_way() -> bool:
        left[0] = client.zcard("fq:state:finished")
        return left[0] < COUNT * 0.9

    first = workshop.process(poll_interval_seconds=0.5)
    owner = until(lambda: client.hget("fq:cleanup", "owner"))
    until(half_way)
    first.kill()
    assert left[0] > 0, "it was too fast to be killed half-way"
    assert client.hget("fq:cleanup", "step") == b"finished"
    left[0] = client.zcard("fq:state:finished")
    second = workshop.worker()
    handles = [workshop.push(worker_tasks.quick(number)) for number in range(20)]
    assert [handle.result(20) for handle in handles] == list(range(20))
    until(lambda: client.zcard("fq:state:finished") == 20, 120)
    assert client.hget("fq:cleanup", "owner") == second.incarnation.encode() != owner
    until(lambda: client.hget("fq:cleanup", "step") == b"")
    workshop.assert_consistent()
