"""TaskScheduler: what is due is pushed, on time and once, by whichever of several leads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque.core.decorator import task
from fairque.core.events import (
    ScheduleFired,
    SchedulerDeposed,
    ScheduleRefused,
    SchedulerElected,
    ScheduleSkipped,
    TaskPushed,
)
from fairque.core.exceptions import ConfigError, FairQueueError, QueueUnavailableError
from fairque.core.middleware import Middleware, Next, NextAsync
from fairque.core.models import Task
from fairque.core.policies import UserPolicy
from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.states import TaskState
from fairque.scheduler.deploy import schedules_in
from fairque.scheduler.scheduler import TaskScheduler
from tests.support.schedulers import LEASE, Office, office
from tests.support.servers import ServerProcess
from tests.support.workers import Workshop, until

__all__ = ["office"]

SECOND = timedelta(seconds=1)


def soon(seconds: float = 0.3) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def once(name: str = "once", seconds: float = 0.3, **fields: Any) -> ScheduledTask:
    return ScheduledTask(name, **{"payload": name, "at": soon(seconds), **fields})


@task(name="scheduler-tests.double")
def double(number: int) -> int:
    return 2 * number


def test_a_run_is_pushed_when_it_is_due_and_observers_are_told(office: Office) -> None:
    schedule = ScheduledTask("doubles", double(21), at=soon(), options=None)
    scheduler = office.scheduler([schedule])
    fired = until(lambda: office.told(ScheduleFired))
    [tick] = schedule.at
    assert [(event.schedule, event.tick, event.task_id) for event in fired] == [
        ("doubles", tick, tick_id("doubles", tick))
    ]
    assert fired[0].scheduler_id == scheduler.scheduler_id
    assert 0 <= fired[0].lateness < 0.5
    print(f"pushed {fired[0].lateness * 1000:.1f} ms after its tick")
    [pushed] = office.told(TaskPushed)
    assert (pushed.task_id, pushed.function) == (fired[0].task_id, "scheduler-tests.double")
    found = office.queue.pop()
    assert found is not None
    assert (found.task_id, found.args, found.labels["tick"]) == (fired[0].task_id, (21,), tick.isoformat())
    office.queue.finish(found)
    assert office.queue.schedules.get("doubles").look_at is None  # type: ignore[union-attr]
    [elected] = office.told(SchedulerElected)
    assert (elected.scheduler_id, elected.token) == (scheduler.scheduler_id, office.leader().token)


@pytest.fixture
def patient(server: ServerProcess, flushed: redis.Redis, tmp_path: Path) -> Iterator[Office]:
    """An office whose leader looks by itself each ten seconds only: what comes earlier comes by a wake-up."""
    made = Office(server, tmp_path, lease=30)
    yield made
    made.close()


def test_a_schedule_that_is_added_is_looked_at_at_once(patient: Office) -> None:
    scheduler = patient.scheduler()
    until(lambda: scheduler.is_leader)
    patient.queue.schedules.add(once())
    [fired] = until(lambda: patient.told(ScheduleFired))
    assert fired.lateness < 5
    patient.queue.schedules.add(ScheduledTask("often", payload=1, every=0.1))
    until(lambda: len(patient.told(ScheduleFired)) >= 6)
    patient.queue.schedules.pause("often")
    count = len(patient.queue.schedules.history("often"))
    patient.queue.schedules.add(once("later"))
    until(lambda: any(event.schedule == "later" for event in patient.told(ScheduleFired)))
    entries = patient.queue.schedules.history("often")
    assert len(entries) == count
    steps = {newer.first - older.first for newer, older in pairwise(entries)}
    assert steps == {timedelta(seconds=0.1)}


def test_with_queue_the_next_run_comes_as_soon_as_the_one_before_is_over(patient: Office) -> None:
    patient.scheduler([ScheduledTask("q", payload=1, every=0.2, overlap="queue")])
    until(lambda: len(patient.told(ScheduleFired)) >= 4)
    patient.queue.schedules.pause("q")
    fired = patient.told(ScheduleFired)
    assert [event.waits for event in fired] == [False, *[True] * (len(fired) - 1)]
    waited: list[float] = []
    for event in fired:
        begun = time.monotonic()
        found = patient.queue.pop(wait=10)
        waited.append(time.monotonic() - begun)
        assert found is not None
        assert found.task_id == event.task_id
        assert patient.queue.pop() is None, "one at a time"
        patient.queue.finish(found)
    print(f"each comes {max(waited[1:]) * 1000:.0f} ms after the one before, at most")
    assert max(waited) < 5


def test_with_skip_ticks_are_left_out_while_a_run_is_not_over(office: Office) -> None:
    office.scheduler([ScheduledTask("s", payload=1, every=0.2, overlap="skip")])
    skipped = until(lambda: office.told(ScheduleSkipped))
    assert (skipped[0].schedule, skipped[0].reason, skipped[0].count) == ("s", "overlap", 1)
    found = office.queue.pop()
    assert found is not None
    office.queue.finish(found)
    until(lambda: len(office.told(ScheduleFired)) == 2)


def test_what_is_refused_is_told_kept_and_tried_again(office: Office) -> None:
    office.queue.set_user_policy("u", UserPolicy(max_queued=1))
    office.queue.push(Task.create(payload=0, user_id="u"))
    office.scheduler([once(options={"user_id": "u"}), once("other", 0.4)])
    [refused] = until(lambda: office.told(ScheduleRefused))
    assert (refused.schedule, "max_queued allows 1" in refused.reason) == ("once", True)
    [fired] = until(lambda: office.told(ScheduleFired))
    assert fired.schedule == "other"  # the others go on
    info = office.queue.schedules.get("once")
    assert info is not None
    assert info.problem == refused.reason
    office.queue.set_user_policy("u", None)
    office.queue.schedules.add(info.schedule)  # a change is looked at at once, but this is none
    until(lambda: len(office.told(ScheduleFired)) == 2, 8)


class Stamp(Middleware):
    def push(self, task: Task[Any], call_next: Next[Any]) -> Any:
        if task.payload == "crash":
            raise ZeroDivisionError("crashed")
        return call_next(task.with_options(task_id=task.task_id, correlation_id="stamped"))

    async def push_async(self, task: Task[Any], call_next: NextAsync[Any]) -> Any:
        return await call_next(task)


def test_runs_go_through_the_middleware_of_pushes(office: Office) -> None:
    office.scheduler([once(payload="good"), once("bad", payload="crash")], middleware=[Stamp()])
    [fired] = until(lambda: office.told(ScheduleFired))
    found = office.queue.get_task(fired.task_id)
    assert found is not None
    assert found.correlation_id == "stamped"
    [refused] = until(lambda: office.told(ScheduleRefused))
    assert refused.reason == "push middleware failed: ZeroDivisionError: crashed"


def test_a_schedule_that_cannot_be_read_keeps_none_from_running(office: Office) -> None:
    for name in ("bad", "good"):
        office.queue.schedules.add(once(name, 0.5))
    packed = office.client.hget("fq:schedules", "bad")
    office.client.hset("fq:schedules", "bad", packed.replace(b"payload", b"paylaod"))
    office.scheduler()
    [fired] = until(lambda: office.told(ScheduleFired))
    assert fired.schedule == "good"
    [refused] = until(lambda: office.told(ScheduleRefused))
    assert (refused.schedule, "paylaod" in refused.reason) == ("bad", True)
    info = office.queue.schedules.get("bad")
    assert info is not None
    assert "ConfigError" in info.problem


def test_lost_times_to_look_are_found_again(office: Office) -> None:
    scheduler = office.scheduler()
    until(lambda: scheduler.is_leader)
    office.queue.schedules.add(once(seconds=1.5 * LEASE))
    office.client.delete("fq:schedules:due")
    [fired] = until(lambda: office.told(ScheduleFired))
    assert fired.lateness < LEASE


def test_one_of_several_leads_and_another_follows_when_it_stops(office: Office) -> None:
    schedulers = [office.scheduler() for _ in range(3)]
    leader = until(lambda: next((each for each in schedulers if each.is_leader), None))
    assert all(each.is_healthy() for each in schedulers)
    assert [each.is_leader for each in schedulers].count(True) == 1
    assert office.leader().scheduler_id == leader.scheduler_id
    begun = time.monotonic()
    assert leader.stop()
    assert not leader.is_healthy()
    other = until(lambda: next((each for each in schedulers if each.is_leader), None))
    print(f"another leads {time.monotonic() - begun:.2f} s after the leader stopped (lease {LEASE} s)")
    assert time.monotonic() - begun < LEASE
    assert other is not leader
    assert [event.scheduler_id for event in office.told(SchedulerDeposed)] == [leader.scheduler_id]


def test_what_configuration_code_and_modules_declare_is_deployed_at_the_start(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "declares_schedules.py").write_text(
        "from fairque import ScheduledTask\n"
        "first = ScheduledTask('m1', payload=1, cron='@daily')\n"
        "several = [first, ScheduledTask('m2', payload=1, cron='@daily')]\n"
        "other = [first, 'not only schedules']\n"
    )
    section = {"c1": {"cron": "@daily", "payload": 1}, "c2": {"every": 3600, "payload": 1, "overlap": "skip"}}
    code = [ScheduledTask("k1", payload=1, cron="@daily")]
    office.queue.schedules.add(once("by hand", 3600))

    def sources() -> dict[str, str]:
        return {info.name: info.source for info in office.queue.schedules.list()}

    office.scheduler(code, sections={"schedules": section}, modules=["declares_schedules"]).stop()
    everything = {
        "c1": "config", "c2": "config", "k1": "code", "m1": "declares_schedules", "m2": "declares_schedules",
        "by hand": "",
    }  # fmt: skip
    assert sources() == everything
    module = sys.modules.pop("declares_schedules")
    assert [schedule.name for schedule in schedules_in(module)] == ["m1", "m2"]
    office.scheduler().stop()  # which declares nothing
    assert sources() == everything
    del section["c1"]
    office.scheduler([], sections={"schedules": section}).stop()
    del everything["c1"], everything["k1"]
    assert sources() == everything
    office.scheduler(sections={"schedules": {}}).stop()
    office.scheduler(
        sections={"schedules": {"c3": section["c2"]}, "scheduler": {"source": "another file"}}
    ).stop()
    office.scheduler(sections={"schedules": {"c4": section["c2"]}}).stop()
    assert sources() == {
        "m1": "declares_schedules", "m2": "declares_schedules", "by hand": "", "c3": "another file", "c4": "config",
    }  # fmt: skip


def test_a_scheduler_starts_once_and_says_why_it_cannot(
    office: Office, new_server: Callable[..., ServerProcess]
) -> None:
    scheduler = office.scheduler()
    with pytest.raises(ConfigError, match="was started before"):
        scheduler.start()
    both = [once(), once()]
    with pytest.raises(ConfigError, match="'once' is declared twice by code"):
        office.scheduler(both)
    server = new_server()
    away = TaskScheduler(office.config(redis={"url": server.url}))
    assert away.scheduler_id == ""
    assert not away.is_healthy()
    assert away.stop()
    server.kill()
    with pytest.raises(QueueUnavailableError):
        away.start()
    with pytest.raises(ConfigError, match="is no Middleware"):
        TaskScheduler(office.config(), middleware=[object()])  # type: ignore[list-item]


def test_it_outlives_its_server(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Killed and restarted, empty at that: what was kept is kept, and somebody leads within a lease."""
    server = new_server(append_only=True, options={"appendfsync": "always"})
    office = Office(server, tmp_path)
    try:
        schedulers = [office.scheduler([ScheduledTask("s", payload=1, every=0.2)]) for _ in range(2)]
        until(lambda: len(office.told(ScheduleFired)) > 3)
        server.kill()
        until(lambda: not any(each.is_healthy() for each in schedulers))
        server.start()
        back = time.monotonic()
        count = len(office.told(ScheduleFired))
        until(lambda: len(office.told(ScheduleFired)) > count, 5)
        print(f"ticks are decided {time.monotonic() - back:.2f} s after the server's return")
        until(lambda: all(each.is_healthy() for each in schedulers), 5)
        for each in schedulers:
            assert each.stop()
        entries = office.queue.schedules.history("s")
        assert {newer.first - older.last for newer, older in pairwise(entries)} == {0.2 * SECOND}
        ids = [event.task_id for event in office.told(ScheduleFired)]
        assert len(ids) == len(set(ids)) == office.queue.get_stats().states[TaskState.QUEUED]
    finally:
        office.close()


def test_a_supervisor_decides_ticks_beside_its_workers(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "supervised_schedules.py").write_text(
        "from fairque import ScheduledTask, task\n"
        "@task(name='supervised.tick')\n"
        "def tick() -> None: ...\n"
        "schedule = ScheduledTask('tick', tick(), every=0.2)\n"
    )
    supervised = workshop.supervise(modules=["supervised_schedules"], path=[str(tmp_path)], scheduler=True)
    queue = workshop.queue
    until(lambda: workshop.count(TaskState.FINISHED) >= 3)
    info = queue.schedules.get("tick")
    assert info is not None
    assert info.source == "supervised_schedules"
    assert queue.schedules.leader() is not None
    assert supervised.supervisor.is_healthy()
    supervised.stop()
    assert supervised.code == 0
    assert queue.schedules.leader() is None
    queue.schedules.remove("tick")


def test_an_error_of_any_kind_ends_no_scheduler(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = office.scheduler()
    until(lambda: scheduler.is_leader)
    decider = scheduler._decider
    assert decider is not None
    before = decider.decide
    fails = iter([RuntimeError("no"), FairQueueError("no")])

    def decide(*args: Any) -> None:
        if error := next(fails, None):
            raise error
        before(*args)

    monkeypatch.setattr(decider, "decide", decide)
    office.queue.schedules.add(once())
    until(lambda: office.told(ScheduleFired))
