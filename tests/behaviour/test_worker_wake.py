"""An idle worker is woken: which thread makes the claim, and what happens when that fails."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fairque.core.events import TaskClaimed
from fairque.core.exceptions import QueueUnavailableError
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims
from fairque.queue.operations.base import Call
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.workers import Heard, Workshop, until

WAKER = "fairque-waker"


def until_idle(workshop: Workshop, worker: Worker) -> None:
    """The worker is registered as one that waits, and its loop has gone to sleep."""
    loop = worker._loop
    assert loop is not None
    until(lambda: workshop.client.zcard("fq:waiters") == 1 and not loop._turning.locked())


def test_the_thread_that_hears_of_work_claims_it(workshop: Workshop) -> None:
    heard = Heard()
    threads: list[str] = []
    heard.bus.subscribe(TaskClaimed, lambda _event: threads.append(threading.current_thread().name))
    worker = workshop.worker(events=heard.bus)
    for number in range(20):
        until_idle(workshop, worker)
        assert workshop.push(worker_tasks.quick(number)).result(10) == number
    assert len(threads) == 20
    assert threads.count(WAKER) > 15  # not all: a heartbeat can be on its way
    workshop.assert_settled()


def test_the_loop_keeps_what_the_waker_learned(workshop: Workshop) -> None:
    """More work than slots, a task that is due soon, and one that reports: all came by way of the waker."""
    worker = workshop.worker(max_concurrent_tasks=2, poll_interval_seconds=30)
    for number in range(3):
        until_idle(workshop, worker)
        begun = time.monotonic()
        later = workshop.push(worker_tasks.quick.with_options(delay=0.3)(number))
        many = workshop.push_all(worker_tasks.quick(number) for number in range(50))
        assert [handle.result(10) for handle in many] == list(range(50))
        assert later.result(5) == number
        assert time.monotonic() - begun < 3
    workshop.assert_settled()


def test_a_waker_that_finds_its_incarnation_dead_has_the_loop_begin_anew(workshop: Workshop) -> None:
    worker = workshop.worker(poll_interval_seconds=30)
    before = worker.incarnation
    until_idle(workshop, worker)
    workshop.queue.run(claims.leave(workshop.queue.engine, before))
    workshop.client.lpush(f"fq:wake:{before}", "w")
    until(lambda: worker.incarnation != before, 1)  # a heartbeat would take longer
    assert workshop.push(worker_tasks.quick(7)).result(10) == 7
    workshop.assert_settled()


@pytest.mark.parametrize("reply_lost", [True, False], ids=["reply-lost", "never-sent"])
def test_a_claim_that_fails_in_the_waker_is_made_again_by_the_loop(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, reply_lost: bool
) -> None:
    worker = workshop.worker(poll_interval_seconds=30)
    until_idle(workshop, worker)
    begin, execute = LuaScriptManager.begin, LuaScriptManager.execute
    callers: list[str] = []

    def fail_first(self: LuaScriptManager, call: Call) -> Any:
        callers.append(threading.current_thread().name)
        if callers == [WAKER]:
            if reply_lost:
                begin(self, call)()
            raise QueueUnavailableError("gone for a moment")
        return begin(self, call)

    def watch(self: LuaScriptManager, call: Call) -> Any:
        if call.script == "settle_and_claim":
            callers.append(threading.current_thread().name)
        return execute(self, call)

    monkeypatch.setattr(LuaScriptManager, "begin", fail_first)
    monkeypatch.setattr(LuaScriptManager, "execute", watch)
    assert workshop.push(worker_tasks.quick(3)).result(10) == 3
    assert callers[0] == WAKER
    assert callers[1] == "fairque-loop"
    workshop.assert_settled()
