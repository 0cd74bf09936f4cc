"""Nothing to do for a while: nothing happens, and nothing is said."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support import worker_tasks
from tests.support.workers import Workshop, until

QUIET_SECONDS = 6.0
LOUD = ("INFO", "WARNING", "ERROR", "CRITICAL", "Traceback")


def test_idle_workers_are_silent_and_keep_their_connections(make_workshop: Callable[..., Workshop]) -> None:
    """Six seconds are 18 heartbeats and six leases here."""
    workshop = make_workshop(lease_seconds=1)
    process = workshop.process(1, log="DEBUG", poll_interval_seconds=0.5)
    alone = workshop.process(log="DEBUG", poll_interval_seconds=0.5)
    assert workshop.push(worker_tasks.quick(1)).result(10) == 1
    for worker in (process, alone):
        until(lambda worker=worker: "is ready" in worker.said())
    before = {name: len(worker.said()) for name, worker in (("supervised", process), ("alone", alone))}
    info = workshop.client.info("stats")
    connections, commands = info["total_connections_received"], info["total_commands_processed"]
    time.sleep(QUIET_SECONDS)
    info = workshop.client.info("stats")
    assert info["total_connections_received"] == connections
    assert info["total_commands_processed"] > commands
    for name, worker in (("supervised", process), ("alone", alone)):
        said = worker.said()[before[name] :]
        assert not [line for line in said.splitlines() if any(word in line for word in LOUD)], said
    counters = workshop.stats().counters
    assert counters.get("workers_dead", 0) == counters.get("digest_mismatches", 0) == 0
    assert len(workshop.stats().workers) == 2
    assert workshop.push(worker_tasks.quick(2)).result(10) == 2
