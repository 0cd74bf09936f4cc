"""A user's retries within its budget: what they leave to new work, and that none is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairque.core.models import Task
from fairque.core.policies import UserPolicy
from fairque.core.states import TaskState
from fairque.queue.operations import policies, push, tasks
from fairque.queue.operations.claims import Settlement, token_of
from fairque.queue.operations.explain import explain
from tests.support.bench import ERROR, Bench, settlement
from tests.support.invariants import assert_consistent

AT_ONCE = 10
"""Retries that a whole budget lets through at once (lib/budget.lua)."""
STEP = 0.5


def fails(task: Task[Any], delay: float = 1.0) -> Settlement:
    return Settlement(task.task_id, token_of(task), "fail", 0.1, ERROR, round(delay * 1e6))


class Site:
    """Time in steps of half a second; in each, workers with `slots` slots run what they claim, and users push."""

    def __init__(self, bench: Bench, slots: int) -> None:
        self.bench, self.slots = bench, slots
        self.number = 0
        self.running: list[Task[Any]] = []
        self.started: list[tuple[float, str, bool, float]] = []
        """When, whose, whether a retry, and after how long in the queue (new work: since its push)."""

    def push(self, user: str, count: int, **options: Any) -> None:
        batch = []
        for _ in range(count):
            self.number += 1
            batch.append(Task.create(task_id=f"t{self.number}", payload=1, user_id=user, **options))
        assert all(pushed.ok for pushed in self.bench.run(push.push_chunk(self.bench.engine, batch)))

    def step(self, broken: str = "broken", delay: float = 1.0) -> None:
        self.bench.clock.advance(STEP)
        told = [
            fails(task, delay) if task.user_id == broken else settlement(task, "finish")
            for task in self.running
        ]
        self.running = list(self.bench.exchange(*told, want=self.slots).claimed)
        now = self.bench.clock.seconds
        for task in self.running:
            assert task.enqueued_at is not None
            waited = now - task.enqueued_at.timestamp()
            self.started.append((now, task.user_id, task.retries > 0, waited))

    def starts(self, user: str, since: float = 0.0) -> Counter[bool]:
        """Of a user: how many were retries, and how many not."""
        return Counter(retry for at, who, retry, _ in self.started if who == user and at >= since)


def run_site(client: redis.Redis, budget: float | None) -> tuple[Site, float]:
    """Two minutes of a user all of whose tasks fail, ten times each, beside one whose tasks do not."""
    client.flushall()
    bench = Bench(client)
    if budget is not None:
        bench.run(policies.set_user_policy(bench.engine, "broken", UserPolicy(retry_budget=budget)))
    site = Site(bench, slots=20)
    begun = 0.0
    for step in range(240):
        # Together they may start 40 a second; without failures each would get all it asks for.
        site.push("broken", 8, max_retries=10)
        site.push("healthy", 8)
        site.step()
        if step == 120:
            begun = bench.clock.seconds
    return site, begun


def test_failures_leave_new_work_its_share(flushed: redis.Redis) -> None:
    without, since = run_site(flushed, None)
    starts = without.starts("broken", since)
    assert starts[True] > starts[False]  # what the budget is for: most of what it runs are retries
    within, since = run_site(flushed, 0.2)
    starts = within.starts("broken", since)
    assert starts[True] / starts.total() < 0.25
    assert starts[False] >= 0.95 * 16 * 60  # all that it pushes in a minute starts
    waits = [
        waited for at, who, retry, waited in within.started if who == "broken" and not retry and at >= since
    ]
    assert max(waits) < 1.5
    # And whatever it does, the other user gets what it asks for at once.
    for site in (without, within):
        assert site.starts("healthy", since)[False] >= 0.95 * 16 * 60
        assert max(waited for at, who, _, waited in site.started if who == "healthy" and at >= since) < 1.5
    assert_consistent(flushed)


def test_what_was_put_off_is_tried_again_and_all_attempts_are_kept(bench: Bench) -> None:
    policy = UserPolicy(retry_budget=0.0, retry_minimum=1)
    bench.run(policies.set_user_policy(bench.engine, "broken", policy))
    site = Site(bench, slots=100)
    site.push("broken", 30, max_retries=2)
    for _ in range(400):
        site.step()
    assert site.starts("broken") == Counter({False: 30, True: 60})
    for number in range(1, 31):
        task = bench.get(f"t{number}")
        assert task is not None
        assert (task.state, task.attempt, task.retries) == (TaskState.FAILED, 3, 2)
    # One a second beyond what goes at once.
    at = sorted(when for when, _, retry, _ in site.started if retry)
    for first in range(len(at)):
        within = sum(1 for when in at[first:] if when <= at[first] + 10)
        assert within <= AT_ONCE + 10 + 2
    assert bench.client.pttl(bench.keys.retries("broken")) != -1
    assert bench.call("get_stats")  # it counts those that were put off
    assert int(bench.client.hget(bench.keys.stats, "held_back")) >= 40
    assert_consistent(bench.client)


def held(bench: Bench, task_id: str) -> Any:
    return bench.run(tasks.get_attempts(bench.engine, task_id))[-1]


def test_a_retry_that_was_put_off_says_so(bench: Bench) -> None:
    bench.run(policies.set_user_policy(bench.engine, "u", UserPolicy(retry_budget=0.1, retry_minimum="6/m")))
    site = Site(bench, slots=20)
    site.push("u", AT_ONCE + 2, max_retries=3)
    site.step("u", delay=2)
    site.step("u", delay=2)
    seen = [held(bench, f"t{number}") for number in range(1, AT_ONCE + 3)]
    assert [attempt.held_back for attempt in seen[:AT_ONCE]] == [0] * AT_ONCE
    # 12 starts of late, of which a tenth would be 1.2 in 30 to 60 s: the minimum is more.
    assert [attempt.held_back for attempt in seen[AT_ONCE:]] == pytest.approx([10, 20], abs=0.01)
    assert seen[-1].retry_in == pytest.approx(22, abs=0.01)
    found = bench.run(explain(bench.engine, f"t{AT_ONCE + 2}"))
    assert found.reason == "retry_budget"
    assert (
        "due in 22 s: that is 20 s later, since the retries of user u use up their retry_budget" in found.text
    )
    assert found.starts_in == pytest.approx(22, abs=0.01)
    assert bench.run(explain(bench.engine, "t1")).reason == "scheduled"


@pytest.mark.parametrize("way", ["own", "rule", "paused"])
def test_the_budget_is_that_of_the_policy_in_effect(bench: Bench, way: str) -> None:
    policy = UserPolicy(retry_budget=0.0, retry_minimum="1/m")
    if way == "own":
        bench.run(policies.set_user_policy(bench.engine, "u1", policy))
    else:
        bench.run(policies.set_policy_rules(bench.engine, {"u*": policy}))
    if way == "paused":
        bench.run(policies.pause_user(bench.engine, "u1", True))
        bench.run(policies.pause_user(bench.engine, "u1", False))
    site = Site(bench, slots=40)
    for user in ("u1", "other"):
        site.push(user, AT_ONCE + 1, max_retries=3)
    site.step("")
    told = [fails(task) for task in site.running]
    bench.exchange(*told)
    assert held(bench, f"t{AT_ONCE + 1}").held_back == pytest.approx(60)
    assert held(bench, f"t{2 * AT_ONCE + 2}").held_back == 0


def test_without_a_budget_nothing_is_kept_of_retries(bench: Bench) -> None:
    site = Site(bench, slots=10)
    site.push("u", 5, max_retries=3)
    site.step("u", delay=0)
    site.step("u", delay=0)
    assert not bench.client.exists(bench.keys.retries("u"))
    bench.run(policies.set_user_policy(bench.engine, "u", UserPolicy(retry_budget=0.5)))
    site.step("u", delay=0)
    assert 0 < bench.client.pttl(bench.keys.retries("u")) <= 5_000


def test_a_crash_and_a_snooze_are_no_retries(bench: Bench) -> None:
    bench.run(policies.set_user_policy(bench.engine, "default", UserPolicy(retry_budget=0.5)))
    for kind in ("snooze", "crash", "release", "unknown"):
        bench.push(kind)
        bench.exchange(settlement(bench.claim(), kind))
        bench.run(tasks.delete_tasks(bench.engine, [kind]))
    assert not bench.client.exists(bench.keys.retries("default"))


@pytest.fixture
def anew(flushed: redis.Redis) -> Iterator[redis.Redis]:
    yield flushed
    flushed.flushall()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    minimum=st.sampled_from([0.1, 1.0, 5.0]),
    delay=st.sampled_from([0.0, 1.0, 7.0]),
    pushes=st.lists(st.integers(0, 12), min_size=20, max_size=60),
)
def test_retries_never_come_faster_than_the_budget_and_the_minimum(
    anew: redis.Redis, budget: float, minimum: float, delay: float, pushes: list[int]
) -> None:
    """Whatever comes: in no ten seconds more than what goes at once and what the rate allows."""
    anew.flushall()
    bench = Bench(anew)
    policy = UserPolicy(retry_budget=budget, retry_minimum=minimum)
    bench.run(policies.set_user_policy(bench.engine, "broken", policy))
    site = Site(bench, slots=30)
    for count in pushes:
        if count:
            site.push("broken", count, max_retries=2)
        site.step(delay=delay)
    for _ in range(60):
        site.step(delay=delay)
    busiest = max(Counter(int(at // 30) for at, *_ in site.started).values(), default=0) / 30
    rate = max(minimum, budget * busiest * 2)
    retries = sorted(at for at, _, retry, _ in site.started if retry)
    for first, at in enumerate(retries):
        within = sum(1 for other in retries[first:] if other <= at + 10)
        assert within <= AT_ONCE + rate * (10 + 2 * STEP) + 2
    # And in the end all have had all of their attempts.
    bench.exchange(*(fails(task, delay) for task in site.running))
    for _ in range(20):
        bench.clock.advance(4000)
        bench.worker = bench.join()
        for _ in range(10):
            claimed = bench.exchange(want=100).claimed
            if not claimed:
                break
            bench.exchange(*(fails(task, delay) for task in claimed))
    for number in range(1, site.number + 1):
        task = bench.get(f"t{number}")
        assert task is not None
        assert (task.state, task.retries) == (TaskState.FAILED, 2)
