"""The scripts of schedules: one office, decisions that are taken once, runs that wait for the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from fairque.core.exceptions import NotLeaderError, ScheduleNotFoundError
from fairque.core.models import Task
from fairque.core.policies import UserPolicy
from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.schedules.planner import plan
from fairque.core.states import TaskState
from fairque.queue.operations import firing, policies, push, schedule_views, schedules, tasks
from fairque.queue.operations.base import Call, Flow
from fairque.queue.operations.firing import Due, Fired, Office
from fairque.queue.operations.schedule_views import ScheduleInfo
from tests.support.bench import Bench, settlement
from tests.support.invariants import assert_consistent, dump

LEASE = 5.0
MINUTE = timedelta(minutes=1)


def minutely(name: str = "s", **fields: Any) -> ScheduledTask:
    return ScheduledTask(name, **{"payload": 1, "every": 60, **fields})


class Desk:
    """A scheduler's view of a bench."""

    def __init__(self, bench: Bench, who: str = "a") -> None:
        self.bench, self.who = bench, who
        self.office: Office = self.ask()

    def run(self, flow: Flow[Any]) -> Any:
        return self.bench.run(flow)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.bench.clock.seconds, UTC)

    def ask(self) -> Office:
        token = self.office.token if hasattr(self, "office") else 0
        self.office = self.run(firing.lead(self.bench.engine, self.who, token, LEASE))
        return self.office

    def resign(self) -> None:
        self.run(firing.resign(self.bench.engine, self.who, self.office.token))

    def add(self, schedule: ScheduledTask) -> None:
        self.run(schedules.add(self.bench.engine, schedule))

    def info(self, name: str = "s") -> ScheduleInfo:
        info: ScheduleInfo = self.run(schedule_views.require(self.bench.engine, name))
        return info

    def look(self, *names: str) -> tuple[Due, ...]:
        items: tuple[Due, ...] = self.run(firing.look(self.bench.engine, self.office, names)).items
        return items

    def plan_and_fire(self, due: Due) -> Fired:
        planned = plan(due.schedule, cursor=due.cursor, now=self.now, active=due.active)
        fired: Fired = self.run(
            firing.fire(self.bench.engine, self.office, due, planned, self.now, lambda task: task)
        )
        return fired

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and the lease is renewed in it."""
        self.bench.clock.advance(seconds)
        self.ask()

    def decide(self, seconds: float = 60) -> list[str]:
        """After some time, decide all that is due; the ids that are pushed."""
        self.pass_time(seconds)
        ids: list[str] = []
        for due in self.look():
            ids += [item.decision.task_id for item in self.plan_and_fire(due).decided or () if item.task]  # type: ignore[union-attr]
        return ids

    def outcomes(self, name: str = "s") -> list[str]:
        return [item.outcome for item in self.run(schedule_views.history(self.bench.engine, name))]


@pytest.fixture
def desk(bench: Bench) -> Iterator[Desk]:
    bench.clock.micros += -bench.clock.micros % 60_000_000  # to a full minute
    yield Desk(bench)
    assert_consistent(bench.client)


def end(desk: Desk, task_id: str) -> None:
    """Claim the next task, which is this one, and finish it."""
    task = desk.bench.claim()
    assert task.task_id == task_id
    desk.bench.exchange(settlement(task, "finish"))


# -- the office


def test_one_leads_and_renews_and_the_others_are_told_who(desk: Desk) -> None:
    assert desk.office.leads
    other = Desk(desk.bench, "b")
    assert (other.office.leads, other.office.leader) == (False, "a")
    assert other.office.lease_left == pytest.approx(LEASE, abs=0.001)
    desk.pass_time(LEASE * 0.9)
    assert desk.office.lease_left == LEASE
    desk.bench.clock.advance(LEASE * 0.9)
    assert not other.ask().leads


def test_after_its_lease_another_leads_under_a_higher_token(desk: Desk) -> None:
    desk.bench.clock.advance(LEASE - 0.001)
    other = Desk(desk.bench, "b")
    assert not other.office.leads
    desk.bench.clock.advance(0.001)
    assert other.ask().leads
    assert other.office.token > desk.office.token
    assert not desk.ask().leads
    desk.bench.clock.advance(LEASE)
    token = other.office.token
    assert other.ask().leads  # nobody took it meanwhile; what was said before is refused all the same
    assert other.office.token > token


def test_only_who_leads_can_resign(desk: Desk) -> None:
    other = Desk(desk.bench, "b")
    keys = dump(desk.bench.client)
    with pytest.raises(NotLeaderError, match="scheduler b does not lead, or no longer: a does"):
        other.resign()
    with pytest.raises(NotLeaderError):  # nor with the leader's token
        desk.run(firing.resign(desk.bench.engine, "b", desk.office.token))
    with pytest.raises(NotLeaderError):  # nor who led before, by its own name
        desk.run(firing.resign(desk.bench.engine, "a", desk.office.token - 1))
    assert dump(desk.bench.client) == keys
    desk.resign()
    assert other.ask().leads
    with pytest.raises(NotLeaderError, match="b does"):
        desk.resign()


@pytest.mark.parametrize("how", ["expired", "replaced", "key deleted"])
def test_who_leads_no_more_looks_and_decides_nothing(desk: Desk, how: str) -> None:
    desk.add(minutely())
    desk.pass_time(60)
    [due] = desk.look()
    if how == "key deleted":
        desk.bench.client.delete(desk.bench.keys.leader)
    else:
        desk.bench.clock.advance(LEASE)
    if how == "replaced":
        assert Desk(desk.bench, "b").office.leads
    keys = dump(desk.bench.client)
    for act in (lambda: desk.look(), lambda: desk.plan_and_fire(due)):
        with pytest.raises(NotLeaderError):
            act()
    assert dump(desk.bench.client) == keys


def test_tokens_go_on_when_the_clock_is_lost(bench: Bench) -> None:
    token = Desk(bench, "a").office.token
    bench.client.delete(bench.keys.clock, bench.keys.leader)
    assert Desk(bench, "b").office.token > token


# -- decisions


def test_a_tick_is_decided_once_whatever_is_asked_again(desk: Desk) -> None:
    desk.add(minutely())
    desk.pass_time(60)
    [due] = desk.look()
    planned = plan(due.schedule, cursor=due.cursor, now=desk.now, active=due.active)
    call: Call | None = None

    def twice(flow: Flow[Any]) -> Flow[Any]:
        nonlocal call
        call = next(flow)
        yield call  # its reply is lost
        keys = dump(desk.bench.client)
        reply = yield call
        assert dump(desk.bench.client) == keys
        try:
            flow.send(reply)
        except StopIteration as stop:
            return stop.value

    fire = firing.fire(desk.bench.engine, desk.office, due, planned, desk.now, lambda task: task)
    fired = desk.run(twice(fire))
    assert [(item.decision.task_id, item.waits, item.existed) for item in fired.decided] == [
        (tick_id("s", desk.now), False, False)
    ]
    # Another plan from before is stale, and changes nothing.
    keys = dump(desk.bench.client)
    assert desk.plan_and_fire(due).decided is None
    assert dump(desk.bench.client) == keys
    assert desk.bench.client.zcard(desk.bench.keys.state("queued")) == 1
    assert desk.look() == ()
    info = desk.info()
    assert (info.decided_until, info.look_at, info.last_task_id, info.running) == (
        desk.now, desk.now + MINUTE, tick_id("s", desk.now), True,
    )  # fmt: skip


@pytest.mark.parametrize("change", ["replaced", "paused", "removed", "asked for", "decided by another"])
def test_a_plan_of_what_has_changed_is_not_taken(desk: Desk, change: str) -> None:
    desk.add(minutely())
    desk.pass_time(60)
    [due] = desk.look()
    engine = desk.bench.engine
    changes: dict[str, Callable[[], object]] = {
        "replaced": lambda: desk.add(minutely(payload=2)),
        "paused": lambda: desk.run(schedules.pause(engine, "s", True)),
        "removed": lambda: desk.run(schedules.remove(engine, ["s"])),
        "asked for": lambda: desk.run(schedules.trigger(engine, "s")),
        "decided by another": lambda: desk.plan_and_fire(due),
    }
    changes[change]()
    keys = dump(desk.bench.client)
    assert desk.plan_and_fire(due).decided is None
    assert dump(desk.bench.client) == keys


def test_a_tick_whose_task_is_there_already_is_decided(desk: Desk) -> None:
    """Also what saves a queue whose schedules were restored from an older copy."""
    desk.add(minutely())
    first = tick_id("s", desk.now + MINUTE)
    desk.bench.push(first)
    desk.pass_time(120)
    [due] = desk.look()
    fired = desk.plan_and_fire(due)
    assert [item.existed for item in fired.decided or ()] == [True, False]
    assert desk.outcomes() == ["run", "existing"]
    assert desk.bench.client.zcard(desk.bench.keys.state("queued")) == 2


def test_a_run_that_is_refused_is_tried_again_and_those_before_it_stay(desk: Desk) -> None:
    desk.run(policies.set_user_policy(desk.bench.engine, "u", UserPolicy(max_queued=2)))
    desk.add(minutely(misfire="run_all", options={"user_id": "u"}))
    desk.pass_time(180)
    [due] = desk.look()
    fired = desk.plan_and_fire(due)
    assert len(fired.decided or ()) == 2
    assert "user u has 2 tasks waiting, and max_queued allows 2" in str(fired.refusal)
    info = desk.info()
    assert info.problem == str(fired.refusal)
    assert info.decided_until == desk.now - MINUTE
    assert (info.look_at or desk.now) - desk.now == pytest.approx(timedelta(seconds=5), abs=MINUTE / 1000)
    assert desk.look() == ()
    assert desk.decide(5.001) == []
    end(desk, tick_id("s", desk.now.replace(second=0, microsecond=0) - 2 * MINUTE))
    assert desk.decide(5.001) == [tick_id("s", info.decided_until + MINUTE)]
    assert desk.info().problem == ""


def test_what_cannot_be_packed_is_kept_as_a_problem(desk: Desk) -> None:
    desk.add(minutely(payload="x" * 2000))
    desk.bench.engine.config = desk.bench.engine.config.model_copy(update={"max_payload_bytes": 1000})
    assert desk.decide() == []
    assert "the limit is 1,000 (queue.max_payload_bytes)" in desk.info().problem
    desk.bench.engine.config = desk.bench.engine.config.model_copy(update={"max_payload_bytes": 10_000})
    assert desk.decide(5.001) == [tick_id("s", desk.info().decided_until)]


def test_a_full_plan_takes_less_than_50_ms(desk: Desk) -> None:
    spent: list[int] = []
    for name in ("a", "b", "c"):  # the machine may be busy
        schedule = ScheduledTask(name, payload=b"x", every=0.1)
        desk.add(schedule)
        desk.pass_time(50)
        [due] = desk.look(name)
        assert len(plan(schedule, cursor=due.cursor, now=desk.now).runs) == 500
        desk.bench.client.config_resetstat()
        assert len(desk.plan_and_fire(due).decided or ()) == 500
        spent.append(desk.bench.client.info("commandstats")["cmdstat_fcall"]["usec"])
    assert min(spent) < 50_000


def test_a_plan_of_large_runs_is_taken_in_parts(desk: Desk) -> None:
    desk.add(ScheduledTask("big", payload=bytes(1_000_000), every=0.1))
    desk.pass_time(1)
    parts = []
    while due := desk.look():
        parts.append(len(desk.plan_and_fire(due[0]).decided or ()))
    assert (max(parts), sum(parts)) == (4, 10)
    assert desk.outcomes("big") == ["run"] * 10


def test_history_keeps_fifty_entries_and_neighbours_that_were_left_out_are_one(desk: Desk) -> None:
    desk.add(minutely(overlap="skip"))
    [first] = desk.decide()
    for _ in range(3):
        assert desk.decide() == []
    entries = desk.run(schedule_views.history(desk.bench.engine, "s"))
    assert [(item.outcome, item.count, item.task_id) for item in entries] == [
        ("overlap", 3, None), ("run", 1, first),
    ]  # fmt: skip
    assert entries[0].last - entries[0].first == 2 * MINUTE
    desk.add(minutely("t"))
    for _ in range(60):
        desk.decide()
    assert len(desk.outcomes("t")) == 50


def test_a_paused_schedule_is_not_looked_at(desk: Desk) -> None:
    desk.add(minutely())
    desk.run(schedules.pause(desk.bench.engine, "s", True))
    assert desk.decide(3600) == []
    assert (desk.info().paused, desk.info().look_at) == (True, None)
    assert not desk.run(schedules.pause(desk.bench.engine, "s", True))
    desk.run(schedules.pause(desk.bench.engine, "s", False))
    assert desk.decide(60) == [tick_id("s", desk.now)]
    assert desk.outcomes() == ["run"]


def test_lost_times_to_look_are_noticed(desk: Desk) -> None:
    for name in ("s", "t"):
        desk.add(minutely(name))
    assert desk.ask().complete
    desk.bench.client.delete(desk.bench.keys.schedules_due)
    assert not desk.ask().complete
    for due in desk.look("s", "t"):
        desk.plan_and_fire(due)
    assert desk.ask().complete
    assert len(desk.decide()) == 2


def test_a_name_that_is_no_more_is_looked_at_once(desk: Desk) -> None:
    desk.add(minutely())
    desk.bench.client.delete(desk.bench.keys.schedules)
    desk.pass_time(60)
    assert desk.run(firing.look(desk.bench.engine, desk.office)).lost == ("s",)
    assert not desk.bench.client.exists(desk.bench.keys.schedules_due)
    desk.bench.client.hset(desk.bench.keys.schedules, "s", b"\xc1 nothing")
    desk.bench.client.zadd(desk.bench.keys.schedules_due, {"s": 0})
    assert desk.decide() == []
    desk.add(minutely())
    assert len(desk.decide()) == 1


# -- runs that wait for the one before


def state(desk: Desk, task_id: str) -> TaskState | None:
    return desk.bench.state(task_id)


def test_with_queue_each_run_waits_for_the_one_before(desk: Desk) -> None:
    desk.add(minutely(overlap="queue"))
    ids = [*desk.decide(), *desk.decide(), *desk.decide()]
    assert [state(desk, task_id) for task_id in ids] == ["queued", "deferred", "deferred"]
    assert desk.run(tasks.list_tasks(desk.bench.engine, "deferred")).items[0].task_id == ids[1]
    for task_id, following in zip(ids, [*ids[1:], None], strict=True):
        end(desk, task_id)
        if following is not None:
            assert state(desk, following) == "deferred"
            desk.look("s")
            assert state(desk, following) == "queued"
    assert not desk.bench.client.exists(desk.bench.keys.waiting("s"))
    assert desk.decide() == [tick_id("s", desk.now)]
    assert state(desk, tick_id("s", desk.now)) == "queued"


def test_several_ticks_of_one_plan_wait_for_each_other(desk: Desk) -> None:
    desk.add(minutely(overlap="queue", misfire="run_all"))
    ids = desk.decide(240)
    assert [state(desk, task_id) for task_id in ids] == ["queued", "deferred", "deferred", "deferred"]
    assert desk.bench.client.lrange(desk.bench.keys.waiting("s"), 0, -1) == [i.encode() for i in ids]


def test_a_run_that_waits_can_be_canceled_and_the_next_comes(desk: Desk) -> None:
    desk.add(minutely(overlap="queue", misfire="run_all"))
    ids = desk.decide(240)
    for task_id in ids[1:3]:
        desk.run(tasks.cancel(desk.bench.engine, task_id))
    desk.look("s")
    assert state(desk, ids[3]) == "deferred"
    end(desk, ids[0])
    desk.look("s")
    assert state(desk, ids[3]) == "queued"


def test_the_leader_hears_that_a_run_is_over_and_looks_again_by_itself(desk: Desk) -> None:
    desk.add(ScheduledTask("s", payload=1, every=3600, overlap="queue", start=desk.now + MINUTE))
    [first] = desk.decide()
    waiting = desk.run(schedules.trigger(desk.bench.engine, "s")).task_id
    assert state(desk, waiting) == "deferred"
    wake = desk.bench.keys.wake(firing.NEWS)
    desk.bench.client.delete(wake)
    end(desk, first)
    assert any(first.encode() in message for message in desk.bench.client.lrange(wake, 0, -1))
    # And should the message be lost, in a while.
    desk.pass_time(14)
    assert desk.look() == ()
    desk.pass_time(1.001)
    assert len(desk.look()) == 1
    assert state(desk, waiting) == "queued"


def test_runs_that_wait_outlive_their_schedule(desk: Desk) -> None:
    desk.add(minutely(overlap="queue", misfire="run_all"))
    ids = desk.decide(180)
    desk.run(schedules.remove(desk.bench.engine, ["s"]))
    for task_id in ids:
        end(desk, task_id)
        desk.pass_time(15.001)
        look = desk.run(firing.look(desk.bench.engine, desk.office))
        assert (look.items, look.lost) == ((), ())
    assert not desk.bench.client.exists(desk.bench.keys.waiting("s"), desk.bench.keys.schedules_due)


# -- changes


def going_on(flow: Flow[Any], reply: Any) -> Flow[Any]:
    """The rest of a flow whose first call was made before."""
    try:
        call = flow.send(reply)
        while True:
            call = flow.send((yield call))
    except StopIteration as stop:
        return stop.value


def test_a_change_that_crosses_with_a_decision_is_made_again(desk: Desk) -> None:
    desk.add(minutely())
    desk.pass_time(60)
    [due] = desk.look()
    flow = schedules.add(desk.bench.engine, minutely(payload=2))
    reading = next(flow)
    reply = desk.bench.manager.execute(reading)
    desk.plan_and_fire(due)
    assert desk.run(going_on(flow, reply)) is schedules.Change.CHANGED
    assert desk.info().decided_until == desk.now
    assert desk.info().last_task_id == tick_id("s", desk.now)


def test_two_who_ask_for_a_run_at_once_get_two(desk: Desk) -> None:
    desk.add(minutely())
    ids = [desk.run(schedules.trigger(desk.bench.engine, "s")).task_id for _ in range(2)]
    flow = schedules.trigger(desk.bench.engine, "s")
    call = next(flow)
    reply = desk.bench.manager.execute(call)
    other = desk.run(schedules.trigger(desk.bench.engine, "s")).task_id
    mine = desk.run(going_on(flow, reply)).task_id
    assert len({*ids, other, mine}) == 4
    assert desk.outcomes() == ["asked"] * 4


def test_a_run_by_hand_that_lost_its_reply_is_one(desk: Desk) -> None:
    desk.add(minutely())
    flow = schedules.trigger(desk.bench.engine, "s")
    call = flow.send(desk.bench.manager.execute(next(flow)))
    replies = [desk.bench.manager.execute(call) for _ in range(2)]
    assert replies[0] == replies[1]
    assert desk.outcomes() == ["asked"]
    assert desk.bench.client.zcard(desk.bench.keys.state("queued")) == 1


def test_what_there_is_not_is_named(desk: Desk) -> None:
    for flow in (
        schedules.trigger(desk.bench.engine, "no: {such}"),
        schedules.pause(desk.bench.engine, "no: {such}", True),
        schedule_views.history(desk.bench.engine, "no: {such}"),
        schedule_views.next_runs(desk.bench.engine, "no: {such}"),
    ):
        with pytest.raises(ScheduleNotFoundError, match=r"there is no schedule 'no: \{such\}'") as raised:
            desk.run(flow)
        assert raised.value.schedule == "no: {such}"
    task_id, data, *_ = push.pack(desk.bench.engine, Task.create(payload=1))
    with pytest.raises(ScheduleNotFoundError, match="'s'"):
        desk.bench.call("schedule_run", "s", task_id, data, "", 0)


def test_a_full_server_still_elects_looks_and_removes(flushed: redis.Redis) -> None:
    bench = Bench(flushed)
    desk = Desk(bench)
    desk.add(minutely())
    bench.client.config_set("maxmemory", 1)
    try:
        desk.ask()
        assert desk.look() == ()
        assert desk.info().name == "s"
        assert desk.run(schedules.remove(bench.engine, ["s"])) == 1
        desk.resign()
    finally:
        bench.client.config_set("maxmemory", 0)
