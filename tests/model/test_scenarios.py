"""What the scheduler promises, on the real scripts in simulated time, with the default settings.

The workloads, what is measured of each and what that must be stand in tests/model/scenarios: one test for each mode and
number of slots. Every figure is printed (`pytest -s`) beside its limit; benchmarks/fairness.py prints them as a table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from fairque.core.config import QueueConfig
from tests.model.driver import Driver
from tests.model.scenarios import SCENARIOS, SLOTS, Case, Scripts
from tests.model.values import Job, Outcome
from tests.support.servers import ServerProcess

CASES = [case for scenario in SCENARIOS for case in scenario.cases()]


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[redis.Redis]:
    """A client of a server that this module has for itself while it runs."""
    client = server.client()
    yield client
    client.flushall()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scenario(client: redis.Redis, case: Case) -> None:
    result = case.run(Scripts(client))
    scenario = case.scenario
    limit = result.limit or scenario.limit
    said = f"{scenario.workload}, {case.mode}, {case.slots} slots: {scenario.measured}: {result.figure} ({limit})"
    print(f"\n{said}", end="")
    assert result.passed, said


@pytest.mark.parametrize("slots", SLOTS)
def test_batches_decide_one_task_at_a_time(client: redis.Redis, slots: int) -> None:
    driver = Driver(client, QueueConfig())
    worker = driver.join(0, slots)
    driver.push(0, [Job(f"{user}{i}", user) for user in "ABC" for i in range(100)])
    starts = ""
    outcomes: list[Outcome] = []
    for now in range(1, 44):
        claimed = driver.exchange(now * 1_000_000, worker, outcomes, want=7).claimed
        starts += "".join(claim.user for claim in claimed)
        outcomes = [Outcome(claim.task_id, "finish", 1.0) for claim in claimed]
    assert starts == "ABC" * 100
