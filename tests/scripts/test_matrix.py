"""Every script against a task in every state: what the table allows happens, all else writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import redis

from fairque.core.exceptions import (
    FairQueueError,
    InvalidStateError,
    StaleCallError,
    TaskNotFoundError,
    WorkerDeadError,
)
from fairque.core.models import Task
from fairque.core.states import NEW, TRANSITIONS, TaskState
from fairque.queue.operations import claims, dead_letters, push, tasks
from fairque.queue.operations.claims import Settled
from fairque.queue.operations.update import update_task
from tests.support.bench import ERROR, LEASE, SETTLE_KINDS, Bench, settlement
from tests.support.invariants import assert_consistent, dump

QUEUED, STARTED, DEFERRED, SCHEDULED, FINISHED, FAILED, CANCELED = TaskState
STATES: tuple[TaskState | None, ...] = (None, *TaskState)
ENDED = (FINISHED, FAILED, CANCELED)
WAITING = (QUEUED, SCHEDULED, DEFERRED)
GONE = "gone"
After = TaskState | Literal["gone"]

Act = Callable[[Bench, Task[Any] | None], Any]


def refused_with(error: type[FairQueueError], run: Callable[[], Any]) -> None:
    with pytest.raises(error):
        run()


def act_push(bench: Bench, task: Task[Any] | None) -> Any:
    """Another task under the same id."""
    again = Task.create(task_id="t", payload=2, on_duplicate="return")
    return bench.run(push.push(bench.engine, again)).existing


def act_cancel(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.call("cancel", "t")


def act_bury(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.call("bury_task", "t", ERROR)


def act_delete(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.call("delete", "t")


def act_requeue(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.call("requeue", "t")


def act_claim(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.exchange(want=1).claimed


def act_promote(bench: Bench, _: Task[Any] | None) -> Any:
    """An hour passes, and its worker renews in time."""
    keep_alive(bench, 3601)
    return bench.call("sweep", "", 0, 0, "due", "0")


def act_expire(bench: Bench, _: Task[Any] | None) -> Any:
    """Its last moment to start passes."""
    keep_alive(bench, 61)
    return bench.call("sweep", "", 0, 0, "due", "0")


def act_reap(bench: Bench, _: Task[Any] | None) -> Any:
    """Its worker is silent, while another one is not."""
    other = bench.join()
    for _beat in range(12):
        bench.clock.advance(LEASE / 3)
        bench.run(claims.renew(bench.engine, other))
    return None


def keep_alive(bench: Bench, seconds: float) -> None:
    bench.clock.advance(seconds)
    bench.run(claims.renew(bench.engine, bench.worker))


def act_progress(bench: Bench, task: Task[Any] | None) -> Any:
    token = claims.token_of(task) if task is not None and task.claim else bytes(16)
    return bench.call("progress", 1000, "t", token, b"\x93\x01\x02\xa0")


def act_renew(bench: Bench, task: Task[Any] | None) -> Any:
    token = claims.token_of(task) if task is not None and task.claim else bytes(16)
    return bench.call("renew", bench.worker.incarnation, b"", "t", token)


def act_watch(bench: Bench, _: Task[Any] | None) -> Any:
    return bool(bench.call("watch", "t", "client", 60_000))


def act_update(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.run(update_task(bench.engine, "t", {"priority": 6, "max_retries": 9, "labels": {"a": "b"}}))


def act_put_off(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.run(update_task(bench.engine, "t", {"delay": 60}))


def act_bring_forward(bench: Bench, _: Task[Any] | None) -> Any:
    return bench.run(update_task(bench.engine, "t", {"delay": 0, "priority": 6}))


# For each action: what becomes of a task in which state. A state that is not named stays as it is, and nothing at
# all is written, but what the notes of `written` say.
MATRIX: dict[str, tuple[Act, dict[TaskState | None, After]]] = {
    "push": (act_push, {None: QUEUED}),
    "cancel": (act_cancel, dict.fromkeys(WAITING, CANCELED) | {STARTED: STARTED}),
    "bury_task": (act_bury, dict.fromkeys((*WAITING, STARTED), FAILED)),
    "delete": (act_delete, dict.fromkeys((*WAITING, *ENDED), GONE)),
    "requeue": (act_requeue, {FAILED: QUEUED, CANCELED: QUEUED}),
    "claim": (act_claim, {QUEUED: STARTED}),
    "promote": (act_promote, {SCHEDULED: QUEUED}),
    "expire": (act_expire, dict.fromkeys(WAITING, CANCELED)),
    "reap": (act_reap, {STARTED: QUEUED}),
    "progress": (act_progress, {STARTED: STARTED}),
    "renew": (act_renew, {}),
    "update": (act_update, {state: state for state in WAITING}),
    "put off": (act_put_off, {QUEUED: SCHEDULED, SCHEDULED: SCHEDULED}),
    "bring forward": (act_bring_forward, {QUEUED: QUEUED, SCHEDULED: QUEUED}),
    "watch": (act_watch, {state: state for state in TaskState}),
}


def written(bench: Bench) -> dict[bytes, object]:
    """Every key, but for what each call of a worker writes: the clock, its lease, its own hash and its place."""
    own = {
        bench.keys.clock,
        bench.keys.workers,
        bench.keys.waiters,
        bench.keys.worker(bench.worker.incarnation),
    }
    return {key: value for key, value in dump(bench.client).items() if key.decode() not in own}


@pytest.mark.parametrize("before", STATES, ids=lambda state: state or "missing")
@pytest.mark.parametrize("name", MATRIX)
def test_every_script_in_every_state(bench: Bench, name: str, before: TaskState | None) -> None:
    act, allowed = MATRIX[name]
    options: dict[str, Any] = {}
    if name == "expire":
        options["expires_at"] = datetime.fromtimestamp(bench.clock.seconds + 60, UTC)
    task = bench.put(before, **options)
    keys = written(bench)
    after = allowed.get(before)
    error: FairQueueError | None = None
    try:
        act(bench, task)
    except (TaskNotFoundError, InvalidStateError) as raised:
        error = raised
    if error is not None:
        assert after is None
        assert error.task_id == "t"
        assert isinstance(error, TaskNotFoundError) == (before is None)
        assert getattr(error, "state", before) == before
    if after is None:
        assert bench.state() is before
        if name == "reap":  # the worker itself is gone, whatever it held
            keys = {key: value for key, value in keys.items() if not key.startswith(b"fq:stats")}
            now = {key: value for key, value in written(bench).items() if not key.startswith(b"fq:stats")}
            other = {key for key in now if key.startswith(b"fq:worker:")}
            assert {key: value for key, value in now.items() if key not in other} == keys
        else:
            assert written(bench) == keys
    elif after == GONE:
        assert bench.state() is None
        assert not [key for key in bench.client.keys("*") if key.endswith(b":t")]
        for key in (
            *map(bench.keys.state, TaskState),
            bench.keys.dlq("default"),
            bench.keys.normal("default"),
        ):
            assert bench.client.zscore(key, "t") is None
    else:
        assert bench.state() is after
    assert_consistent(bench.client)


SETTLED: dict[str, tuple[TaskState, Settled]] = {
    "finish": (FINISHED, Settled.FINISHED),
    "fail": (SCHEDULED, Settled.RETRIED),
    "give up": (FAILED, Settled.FAILED),
    "release": (QUEUED, Settled.RELEASED),
    "snooze": (SCHEDULED, Settled.SNOOZED),
    "discard": (CANCELED, Settled.CANCELED),
    "unknown": (SCHEDULED, Settled.PASSED_ON),
    "crash": (QUEUED, Settled.RETRIED),
    "invalid": (FAILED, Settled.FAILED),
}


OUTCOMES = {"finish", "fail", "give up", "discard", "invalid"}
"""What is remembered by its token; the other kinds give the task back without one."""


@pytest.mark.parametrize("kind", SETTLE_KINDS)
def test_a_started_task_is_settled_once(bench: Bench, kind: str) -> None:
    """Said again, by whatever incarnation, an outcome is answered as before and changes nothing."""
    after, code = SETTLED[kind]
    task = bench.put(STARTED)
    assert task is not None
    assert bench.exchange(settlement(task, kind)).codes == (code,)
    assert bench.state() is after
    assert_consistent(bench.client)
    keys = written(bench)
    again = code if kind in OUTCOMES else Settled.STALE
    assert bench.exchange(settlement(task, kind)).codes == (again,)
    assert written(bench) == keys
    other = bench.join()
    keys = written(bench)
    assert bench.exchange(settlement(task, kind), session=other).codes == (again,)
    del keys[bench.keys.worker(other.incarnation).encode()]
    assert keys.items() <= written(bench).items()


@pytest.mark.parametrize("second", SETTLE_KINDS)
@pytest.mark.parametrize("first", SETTLE_KINDS)
def test_a_claim_that_was_settled_cannot_be_settled_otherwise(bench: Bench, first: str, second: str) -> None:
    task = bench.put(STARTED)
    assert task is not None
    bench.exchange(settlement(task, first))
    keys = written(bench)
    [code] = bench.exchange(settlement(task, second)).codes
    assert written(bench) == keys
    # A failure said again is answered by what became of the first.
    failures = {"fail", "give up", "invalid"}
    same = first == second if first in OUTCOMES - failures else {first, second} <= failures
    if same and (first, second) != ("fail", "invalid"):
        assert code is SETTLED[first][1]
    else:
        assert code is Settled.STALE


@pytest.mark.parametrize("kind", SETTLE_KINDS)
@pytest.mark.parametrize("before", STATES)
def test_without_its_token_nothing_is_settled(bench: Bench, before: TaskState | None, kind: str) -> None:
    other = bench.put(STARTED, "other")
    assert other is not None
    bench.put(before)
    keys = written(bench)
    stranger = settlement(other, kind)
    forged = claims.Settlement("t", stranger.token, stranger.kind, 0.1, stranger.first, stranger.second)
    assert bench.exchange(forged).codes == (Settled.STALE,)
    assert written(bench) == keys
    assert_consistent(bench.client)


@pytest.mark.parametrize("kind", SETTLE_KINDS)
def test_after_a_cancel_every_settlement_cancels(bench: Bench, kind: str) -> None:
    task = bench.put(STARTED)
    assert task is not None
    assert bench.call("cancel", "t") == [2, STARTED.code]
    assert bench.call("cancel", "t") == [2, STARTED.code]
    assert bench.exchange(settlement(task, kind)).codes == (Settled.CANCELED,)
    assert bench.state() is CANCELED
    assert not bench.client.exists(bench.keys.result("t"))
    assert bench.exchange(settlement(task, kind)).codes == (Settled.CANCELED,)
    assert_consistent(bench.client)


@pytest.mark.parametrize(
    "how", ["reap", "leave", "leave, all had begun", "leave, it had begun", "bury", "delete"]
)
@pytest.mark.parametrize("kind", SETTLE_KINDS)
def test_a_lost_claim_cannot_be_settled(bench: Bench, how: str, kind: str) -> None:
    """A worker that was away comes back with its outcome: refused, and nothing is written."""
    task = bench.put(STARTED)
    assert task is not None
    if how == "reap":
        act_reap(bench, task)
    elif how == "bury":
        act_bury(bench, task)
    elif how == "delete":
        act_bury(bench, task)
        act_delete(bench, task)
    else:
        begun = None if "all" in how else [claims.token_of(task)] if "it" in how else ()
        bench.run(claims.leave(bench.engine, bench.worker.incarnation, begun))
    if how in ("bury", "delete"):
        returned = bench.worker
    else:
        refused_with(WorkerDeadError, lambda: bench.exchange(settlement(task, kind)))
        returned = bench.join()
    keys = written(bench)
    assert bench.exchange(settlement(task, kind), session=returned).codes == (Settled.STALE,)
    own = {bench.keys.worker(returned.incarnation).encode()}
    assert {k: v for k, v in written(bench).items() if k not in own} == {
        k: v for k, v in keys.items() if k not in own
    }
    assert_consistent(bench.client)


def test_the_scripts_make_the_transitions_of_the_table() -> None:
    """Each that it has, and no others."""
    made = {
        (before, after)
        for _, allowed in MATRIX.values()
        for before, after in allowed.items()
        if after != before and after != GONE
    }
    made |= {(STARTED, after) for after, _ in SETTLED.values()}
    made |= {(NEW, SCHEDULED)}  # a push with a delay
    # tests/scripts/test_waiting.py
    made |= {(STARTED, DEFERRED), (NEW, DEFERRED), *((DEFERRED, after) for after in (QUEUED, SCHEDULED))}
    made |= {(before, DEFERRED) for before in (FAILED, CANCELED)}
    assert made == set(TRANSITIONS)


# -- refusals by name


def test_refusals_name_the_task_as_its_user_wrote_it(bench: Bench) -> None:
    name = "a b: {c} script: x"
    bench.run(push.push(bench.engine, Task.create(task_id=name, payload=1)))
    bench.run(tasks.cancel(bench.engine, name))
    at = datetime.fromtimestamp(bench.clock.seconds, UTC)
    with pytest.raises(InvalidStateError) as refused:
        bench.run(dead_letters.move_to_dlq(bench.engine, name, "", at))
    assert (refused.value.task_id, refused.value.state) == (name, "canceled")
    with pytest.raises(TaskNotFoundError) as missing:
        bench.run(tasks.cancel(bench.engine, f"{name}2"))
    assert missing.value.task_id == f"{name}2"


def test_a_push_that_stores_nothing_writes_nothing(flushed: redis.Redis) -> None:
    """Also when virtual time has passed a tenant meanwhile, which the next call that does something takes note of."""
    bench = Bench(flushed, fairness="worker_time")
    for task_id, user in (("a1", "a"), ("b1", "b"), ("b2", "b")):
        bench.push(task_id, user_id=user)
    assert bench.claim().task_id == "a1"
    assert flushed.zrange(bench.keys.ahead, 0, -1) == [b"a"]
    bench.clock.advance(5)
    keys = dump(flushed)
    again = Task.create(task_id="b1", payload=1, on_duplicate="return")
    assert bench.run(push.push(bench.engine, again)).existing
    assert dump(flushed) == keys
    bench.push("b3", user_id="b")
    assert flushed.zcard(bench.keys.ahead) == 0
    assert_consistent(flushed)


# -- calls of a worker


def test_the_same_call_gets_the_same_answer(bench: Bench) -> None:
    one, two = bench.put(STARTED, "one"), bench.push("two")
    assert one is not None
    session = bench.worker
    first = bench.exchange(settlement(one, "finish"), want=1)
    keys = dump(bench.client)
    session.sequence -= 1
    again = bench.exchange(settlement(one, "finish"), want=1)
    assert [task.claim for task in again.claimed] == [task.claim for task in first.claimed]
    assert [task.task_id for task in again.claimed] == [two.task_id]
    assert again.codes == first.codes == (Settled.FINISHED,)
    assert dump(bench.client) == keys


def test_a_call_that_is_said_again_renews_the_lease(bench: Bench) -> None:
    """Its reply was lost, and so may be those of its repetitions: who asks again and again is alive all the same."""
    held, other = bench.put(STARTED, "held"), bench.join()
    for _ in range(6):
        bench.clock.advance(LEASE / 3)
        bench.worker.sequence -= 1
        bench.exchange(want=0)
        bench.exchange(session=other)
    assert bench.state("held") is STARTED
    assert bench.exchange(settlement(held, "finish")).codes == (Settled.FINISHED,)


def test_a_late_call_is_refused(bench: Bench) -> None:
    bench.exchange()
    bench.exchange()
    bench.push()
    bench.worker.sequence -= 2
    keys = dump(bench.client)
    with pytest.raises(StaleCallError, match=r"call number 1 is lower than the last one seen \(2\)"):
        bench.exchange(want=1)
    assert dump(bench.client) == keys


def test_an_answer_repeats_only_claims_that_still_stand(bench: Bench) -> None:
    bench.push("one")
    bench.push("two")
    first = bench.exchange(want=2)
    bench.call("bury_task", "one", b"")
    bench.worker.sequence -= 1
    assert [task.task_id for task in first.claimed] == ["one", "two"]
    assert [task.task_id for task in bench.exchange(want=2).claimed] == ["two"]


@pytest.mark.parametrize("script", ["settle_and_claim", "renew"])
def test_who_never_joined_gets_nothing(bench: Bench, script: str) -> None:
    stranger = claims.Session(slots=1)
    bench.push()
    keys = dump(bench.client)
    call = (
        claims.renew(bench.engine, stranger)
        if script == "renew"
        else claims.settle_and_claim(bench.engine, stranger, want=1)
    )
    with pytest.raises(WorkerDeadError, match=stranger.incarnation):
        bench.run(call)
    assert dump(bench.client) == keys


def test_a_claim_of_many_is_bounded(bench: Bench) -> None:
    flow = push.push_chunk(bench.engine, [Task.create(payload=i) for i in range(1500)])
    assert all(pushed.ok for pushed in bench.run(flow))
    assert [len(bench.exchange(want=1500).claimed) for _ in range(6)] == [300, 300, 300, 300, 300, 0]
    assert_consistent(bench.client)


def test_a_claim_of_large_ones_is_bounded(bench: Bench) -> None:
    flow = push.push_chunk(bench.engine, [Task.create(payload=bytes(1_000_000)) for _ in range(10)])
    assert all(pushed.ok for pushed in bench.run(flow))
    assert len(bench.exchange(want=10).claimed) == 5  # the one that goes over 4 MiB is the last
    assert len(bench.exchange(want=10).claimed) == 5


def test_the_server_and_the_worker_compare_what_they_hold(bench: Bench) -> None:
    one, two = bench.put(STARTED, "one"), bench.put(STARTED, "two")
    assert one is not None
    assert two is not None
    both = [claims.token_of(one), claims.token_of(two)]
    assert bench.exchange(holding=both).held is None
    lost_one = bench.exchange(holding=both[:1]).held
    assert lost_one is not None
    assert {task.task_id for task in lost_one} == {"one", "two"}
    bench.call("cancel", "one")
    assert bench.exchange(holding=both).cancels == ("one",)
    bench.client.delete(bench.keys.task("two"))
    assert [task.task_id for task in bench.exchange(holding=both[:1]).held or ()] == ["one"]
    assert bench.exchange(holding=both[:1]).held is None
    assert_consistent(bench.client)
