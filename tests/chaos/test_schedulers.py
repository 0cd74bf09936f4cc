"""Ten schedulers, whose leaders are stopped and killed, whose replies are lost: each tick is pushed exactly once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from fairque.core.events import ScheduleFired, SchedulerElected
from fairque.core.exceptions import NotLeaderError
from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.states import TaskState
from fairque.queue.lua_manager import RESEND_PAUSES
from fairque.queue.operations import firing
from fairque.scripts import SCRIPTS
from tests.support.proxy import FaultProxy
from tests.support.schedulers import LEASE, Office, SchedulerProcess, office
from tests.support.servers import ServerProcess
from tests.support.workers import until

__all__ = ["office"]

SCHEDULERS, SCHEDULES, TICKS = 10, 100, 10
SECOND = timedelta(seconds=1)


def declare(office: Office, ticks: int = TICKS, schedules: int = SCHEDULES) -> set[str]:
    """Schedules that have `ticks` ticks each, one a second, beginning in a moment; the ids of their runs."""
    begin = datetime.now(UTC).replace(microsecond=0) + 2 * SECOND
    expected: set[str] = set()
    for number in range(schedules):
        # All ticks of a second together, as schedules in the field have them, and some of them in between.
        start = begin + SECOND / 10 * (number % 3)
        schedule = ScheduledTask(
            f"s{number}", payload=number, every=1, start=start, end=start + (ticks - 1) * SECOND, misfire="run_all",
            options={"user_id": f"u{number % 7}"},
        )  # fmt: skip
        office.queue.schedules.add(schedule)
        expected |= {tick_id(schedule.name, start + index * SECOND) for index in range(ticks)}
    return expected


def assert_pushed_once(office: Office, expected: set[str]) -> None:
    """Every tick has its task, and there are no others."""
    found: list[str] = []
    cursor = None
    while True:
        page = office.queue.list_tasks(TaskState.QUEUED, cursor=cursor, limit=500)
        found += [task.task_id for task in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(found) == len(set(found))
    assert set(found) == expected
    stats = office.queue.get_stats()
    assert (stats.counters["pushed"], stats.states[TaskState.QUEUED]) == (len(expected), len(expected))
    for info in office.queue.schedules.list().items:
        assert info.look_at is None
        assert {entry.outcome for entry in office.queue.schedules.history(info.name)} == {"run"}


def new_leader(office: Office, old: str, begun: float) -> tuple[str, float]:
    """Who leads after `old`, and how many seconds after `begun`."""

    def other() -> str | None:
        leader = office.queue.schedules.leader()
        return leader.scheduler_id if leader is not None and leader.scheduler_id != old else None

    found = until(other)
    return found, time.monotonic() - begun


def test_a_leader_that_sleeps_for_three_leases_and_one_that_is_killed(office: Office) -> None:
    processes: dict[str, SchedulerProcess] = {}
    for process in [office.process() for _ in range(SCHEDULERS)]:
        processes[process.scheduler_id()] = process
    expected = declare(office)
    assert len(expected) == SCHEDULES * TICKS == 1000
    begun = time.monotonic()
    until(lambda: office.queue.get_stats().counters.get("pushed", 0) >= SCHEDULES)

    first = office.leader()
    os.kill(processes[first.scheduler_id].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    second, after_stop = new_leader(office, first.scheduler_id, stopped)
    # A stranger, and the one that led before, can give nothing up.
    engine = office.queue.engine
    for who, token in ((first.scheduler_id, first.token), ("stranger", office.leader().token)):
        with pytest.raises(NotLeaderError):
            office.queue.run(firing.resign(engine, who, token))
    time.sleep(max(0.0, stopped + 3 * LEASE - time.monotonic()))
    os.kill(processes[first.scheduler_id].pid, signal.SIGCONT)
    until(lambda: "leads no more" in processes[first.scheduler_id].said())

    assert office.leader().scheduler_id == second
    processes[second].kill()
    _third, after_kill = new_leader(office, second, time.monotonic())

    until(lambda: office.queue.get_stats().counters["pushed"] >= len(expected))
    took = time.monotonic() - begun
    time.sleep(LEASE)  # whoever is late has its chance to do harm
    assert_pushed_once(office, expected)
    assert max(after_stop, after_kill) <= 1.5 * LEASE
    print(
        f"{len(expected)} ticks of {SCHEDULES} schedules in {took:.1f} s by {SCHEDULERS} schedulers; another led "
        f"{after_stop:.2f} s after a stop and {after_kill:.2f} s after a kill (lease {LEASE} s)"
    )


def test_leaders_that_change_all_the_time(office: Office) -> None:
    """Each is stopped as soon as it has decided something; what it holds in its hands is not taken."""
    expected = declare(office, ticks=5)
    schedulers = [office.scheduler() for _ in range(3)]
    stopped = 0
    while (count := len(office.told(ScheduleFired))) < len(expected):
        leading = next((each for each in schedulers if each.is_leader), None)
        if leading is None:
            time.sleep(0.005)
            continue
        until(lambda: len(office.told(ScheduleFired)) > count)
        schedulers.remove(leading)
        schedulers.append(office.scheduler())
        assert leading.stop()
        stopped += 1
    assert_pushed_once(office, expected)
    assert len({event.token for event in office.told(SchedulerElected)}) == len(office.told(SchedulerElected))
    print(f"{stopped} leaders stopped")


def test_replies_that_are_lost_push_nothing_twice(
    server: ServerProcess, flushed: redis.Redis, tmp_path: Path
) -> None:
    """Of each call that decides, the first reply; then so many that the leader takes the server for away."""
    functions = [f"{SCRIPTS[name].function}\r\n".encode() for name in ("schedule_fire", "schedule_look")]
    seen: Counter[bytes] = Counter()
    times = 1

    def matching(request: bytes) -> bool:
        if not any(function in request for function in functions):
            return False
        seen[request] += 1
        return seen[request] <= times

    office = Office(server, tmp_path)
    try:
        with FaultProxy(server.url) as proxy:
            expected = declare(office, ticks=3)
            proxy.drop_replies(10_000, matching=matching)
            office.scheduler(sections={"redis": {"url": proxy.url}})
            until(lambda: len(office.told(ScheduleFired)) >= SCHEDULES)
            lost = proxy.replies_dropped
            times = 1 + len(RESEND_PAUSES)
            until(lambda: proxy.replies_dropped >= lost + times)
            times = 0
            until(lambda: office.queue.get_stats().counters["pushed"] >= len(expected))
            assert lost > SCHEDULES
            assert_pushed_once(office, expected)
            print(f"{proxy.replies_dropped} replies lost")
    finally:
        office.close()
