"""Whom a script wakes, and which idle worker sets its alarm for the next due time."""

from __future__ import annotations

from typing import Any

from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.queue.operations import admin, claims, push
from fairque.queue.operations.claims import Session
from tests.support.bench import LEASE, Bench, settlement


def woken(bench: Bench, *sessions: Session) -> list[list[bytes]]:
    """What each session finds on its wake list, which is emptied."""
    found: list[list[bytes]] = []
    for session in sessions:
        key = bench.keys.wake(session.incarnation)
        found.append(bench.client.lrange(key, 0, -1))
        bench.client.delete(key)
    return found


def park(bench: Bench, session: Session, **options: Any) -> float | None:
    return bench.exchange(session=session, want=1, park=True, **options).due_in


def test_a_push_wakes_the_one_that_parked_last(bench: Bench) -> None:
    one, two = bench.join(), bench.join()
    park(bench, one)
    park(bench, two)
    bench.push("a")
    assert woken(bench, one, two) == [[], [b"w"]]
    bench.push("b")
    assert woken(bench, one, two) == [[b"w"], []]
    bench.push("c")
    assert woken(bench, one, two) == [[], []]
    assert bench.client.zcard(bench.keys.waiters) == 0


def test_a_batch_wakes_one_who_wakes_the_next(bench: Bench) -> None:
    one, two, three = sessions = [bench.join() for _ in range(3)]
    for session in sessions:
        park(bench, session)
    bench.run(push.push_chunk(bench.engine, [Task.create(payload=n) for n in range(2)]))
    assert woken(bench, one, two, three) == [[], [], [b"w"]]
    bench.claim(three)
    assert woken(bench, one, two, three) == [[], [b"w"], []]
    bench.claim(two)
    assert woken(bench, one, two, three) == [[], [], []]


def test_who_got_what_it_wanted_does_not_park(bench: Bench) -> None:
    bench.push("a")
    park(bench, bench.worker)
    assert bench.client.zcard(bench.keys.waiters) == 0
    park(bench, bench.worker)
    assert bench.client.zcard(bench.keys.waiters) == 1
    bench.exchange()
    assert bench.client.zcard(bench.keys.waiters) == 0


def test_with_others_of_it_still_blocking_an_incarnation_stays_parked(bench: Bench) -> None:
    task = bench.put(TaskState.STARTED)
    assert task is not None
    bench.exchange(settlement(task, "finish"), others_block=True)
    assert bench.client.zcard(bench.keys.waiters) == 1
    bench.push("a")
    bench.exchange(want=1, others_block=True)
    assert bench.client.zcard(bench.keys.waiters) == 1


def test_one_idle_worker_promises_to_wake_for_the_next_due_time(bench: Bench) -> None:
    one, two = bench.join(), bench.join()
    bench.push("later", delay=60)
    due = park(bench, one)
    assert due is not None
    assert 59.9 < due < 60.001
    assert park(bench, two) is None
    bench.clock.advance(10)
    again = park(bench, one)  # it keeps its promise
    assert again is not None
    assert 49.9 < again < 50.001
    assert woken(bench, one, two) == [[], []]


def test_a_promise_is_handed_on_by_who_goes_to_work(bench: Bench) -> None:
    one, two = bench.join(), bench.join()
    bench.push("later", delay=60)
    park(bench, one)
    park(bench, two)
    bench.push("now")
    bench.client.delete(bench.keys.wake(two.incarnation))
    bench.claim(one)
    park(bench, two)
    assert park(bench, two) is not None


def test_a_promise_is_handed_on_by_who_leaves_or_is_reaped(bench: Bench) -> None:
    for how in ("leave", "reap"):
        one, two = bench.join(), bench.join()
        bench.push(how, delay=600)
        assert park(bench, one) is not None
        assert park(bench, two) is None
        if how == "leave":
            bench.run(claims.leave(bench.engine, one.incarnation))
        else:
            for _ in range(12):
                bench.clock.advance(LEASE / 3)
                bench.run(claims.renew(bench.engine, two))
        assert woken(bench, two) == [[b"w"]]
        assert park(bench, two) is not None
        bench.run(claims.leave(bench.engine, two.incarnation))
        bench.call("delete", how)


def test_an_earlier_due_time_wakes_one(bench: Bench) -> None:
    one, two = bench.join(), bench.join()
    bench.push("later", delay=60)
    park(bench, one)
    park(bench, two)
    bench.push("even later", delay=90)
    assert woken(bench, one, two) == [[], []]
    bench.push("sooner", delay=5)
    assert woken(bench, one, two) == [[], [b"w"]]
    due = park(bench, two)
    assert due is not None
    assert due < 5.001


def test_an_overdue_promise_is_anybodys(bench: Bench) -> None:
    one, two = bench.join(), bench.join()
    bench.push("later", delay=5)
    bench.run(admin.pause(bench.engine, True))
    assert park(bench, one) is not None
    bench.clock.advance(4)
    bench.push("much later", delay=60)
    bench.clock.advance(2)
    assert park(bench, two) is not None  # the first has not come


def test_a_paused_queue_wakes_nobody(bench: Bench) -> None:
    bench.run(admin.pause(bench.engine, True))
    park(bench, bench.worker)
    bench.push("a")
    assert woken(bench, bench.worker) == [[]]
    bench.run(admin.pause(bench.engine, False))
    assert woken(bench, bench.worker) == [[b"w"]]


def test_a_cancel_is_told_to_the_holder(bench: Bench) -> None:
    bench.put(TaskState.STARTED)
    bench.call("cancel", "t")
    bench.call("cancel", "t")
    assert woken(bench, bench.worker) == [[b"ct"]]


def test_a_dead_holders_list_does_not_stay(bench: Bench) -> None:
    """A cancel that comes after its holder's end, and before its tasks are back, is no leak."""
    bench.put(TaskState.STARTED)
    bench.client.zrem(bench.keys.workers, bench.worker.incarnation)
    bench.client.zadd(bench.keys.dead, {bench.worker.incarnation: 1})
    bench.call("cancel", "t")
    bench.run(claims.leave(bench.engine, bench.worker.incarnation))
    assert bench.state() is TaskState.CANCELED
    assert not bench.client.keys("fq:wake:*")
