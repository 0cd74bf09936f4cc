"""Tasks that wait, or run, for many leases: each starts once. And a queue that had many keeps nothing of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairque.core.states import TaskState
from tests.support import worker_tasks
from tests.support.keys import all_keys
from tests.support.servers import ServerProcess
from tests.support.workers import Workshop, until

LEASE = 1.0
LEASES = 10
COUNT = 1000
TASKS = 3_000


def test_a_delay_and_a_run_of_ten_leases_are_one_start(make_workshop: Callable[..., Workshop]) -> None:
    """Half of them run so long; the other half waits so long. Nobody takes either for lost."""
    workshop = make_workshop(lease_seconds=LEASE)
    workers = [workshop.process(n, max_concurrent_tasks=COUNT // 4) for n in (0, 1)]
    long = workshop.push_all(
        worker_tasks.work_async(workshop.path, f"long{n}", LEASES * LEASE) for n in range(COUNT // 2)
    )
    later = workshop.push_all(
        worker_tasks.work_async.with_options(delay=LEASES * LEASE)(workshop.path, f"later{n}")
        for n in range(COUNT // 2)
    )
    pushed = time.monotonic()
    until(lambda: workshop.count(TaskState.STARTED) == len(long))
    assert not any(key.startswith("later") for key in workshop.ledger.count("begin"))
    workshop.wait_until_done(COUNT)
    assert time.monotonic() - pushed >= LEASES * LEASE - 1
    assert workshop.ledger.count("begin") == {
        f"{kind}{n}": 1 for kind in ("long", "later") for n in range(COUNT // 2)
    }
    counters = workshop.stats().counters
    assert (counters["claimed"], counters["finished"]) == (COUNT, COUNT)
    assert counters.get("lost", 0) == counters.get("workers_dead", 0) == 0
    assert len(later) == len(long) == COUNT // 2
    assert all(worker.popen.poll() is None for worker in workers)
    workshop.assert_settled()


def test_nothing_stays_of_tasks_that_have_expired(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Neither keys nor memory: the number of both is that of before, whoever came and went."""
    server = new_server()
    workshop = Workshop(server, tmp_path, result_ttl_seconds=1, user_ttl_seconds=1, lease_seconds=LEASE)
    client: Any = workshop.client

    def serve(tenants: range, tasks: int) -> None:
        done = workshop.stats().counters.get("finished", 0)
        workshop.push_all(
            worker_tasks.noop.with_options(user_id=f"tenant{n % len(tenants) + tenants.start}")(n, "x" * 200)
            for n in range(tasks)
        )
        until(lambda: workshop.stats().counters.get("finished", 0) == done + tasks, 60)
        until(lambda: not list(all_keys(client, "fq:task:*")) and not list(all_keys(client, "fq:user:*")), 20)
        until(lambda: workshop.count(TaskState.FINISHED) == 0, 20, lambda: workshop.stats())
        until(lambda: client.zcard("fq:users") == 0, 20, lambda: client.zcard("fq:users"))

    def measure() -> tuple[int, int]:
        client.memory_purge()
        return client.dbsize(), int(client.info("memory")["used_memory"])

    try:
        workshop.worker(max_concurrent_tasks=8)
        for first in (0, 1000):  # then the server's tables, and those of the scripts, have their sizes
            serve(range(first, first + 1000), TASKS)
        keys, memory = measure()
        serve(range(2000, 3000), TASKS)
        keys_after, memory_after = measure()
        print(
            f"{keys} keys, {memory:,} bytes; {TASKS:,} tasks of other tenants later {keys_after}, {memory_after:,}"
        )
        assert keys_after <= keys
        assert memory_after <= 1.01 * memory + 30_000  # buffers of connections come and go
    finally:
        workshop.close()
