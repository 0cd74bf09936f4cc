"""pop(wait=): woken by what happens, long before the safety net would look."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from fairque.core.models import Task, UserPolicy
from tests.support.proxy import FaultProxy
from tests.support.queues import MakeQueue, wait_until
from tests.support.servers import ServerProcess

SOON = 1.0
"""Far below the five seconds after which a waiting pop looks by itself."""


class Popper:
    """Pops in a thread, and notes when."""

    def __init__(self, queue: Any, wait: float = 20.0, **options: Any) -> None:
        self.at = 0.0
        self.got: Any = None
        self.error: Exception | None = None
        self._pop = lambda: queue.pop(wait=wait, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.got = self._pop()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.at = time.monotonic()

    def join(self, timeout: float = 15.0) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still waiting after {timeout} s"
        if self.error is not None:
            raise self.error
        return self.got

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()


def blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


def test_a_push_wakes_who_waits(queue: Any, other: Any, flushed: redis.Redis) -> None:
    late: list[float] = []
    for number in range(20):
        popper = Popper(queue)
        wait_until(lambda: blocked(flushed) == 1)
        pushed = time.monotonic()
        other.push(Task.create(payload=number))
        assert popper.join().payload == number
        late.append(popper.at - pushed)
        queue.finish(popper.got)
    late.sort()
    print(f"pop after push: p50 {late[10] * 1e3:.2f} ms, worst {late[-1] * 1e3:.2f} ms")
    assert late[10] < 0.05
    assert late[-1] < SOON


def test_one_push_wakes_one(make_queue: MakeQueue, queue: Any, flushed: redis.Redis) -> None:
    poppers = [Popper(make_queue()) for _ in range(5)]
    wait_until(lambda: blocked(flushed) == 5)
    before = flushed.info("stats")["total_commands_processed"]
    for left in (4, 3, 2, 1, 0):
        begun = time.monotonic()
        queue.push(Task.create(payload=left))
        wait_until(lambda left=left: sum(popper.done for popper in poppers) == 5 - left)
        assert time.monotonic() - begun < SOON
        assert blocked(flushed) == left
    assert sorted(popper.join().payload for popper in poppers) == [0, 1, 2, 3, 4]
    # Each push is itself, a wake-up and a claim, with what the scripts call, and no others were stirred.
    assert flushed.info("stats")["total_commands_processed"] - before < 5 * 100


def test_a_batch_wakes_as_many_as_it_can_use(make_queue: MakeQueue, queue: Any, flushed: redis.Redis) -> None:
    poppers = [Popper(make_queue()) for _ in range(5)]
    wait_until(lambda: blocked(flushed) == 5)
    begun = time.monotonic()
    queue.push_batch(Task.create(payload=number) for number in range(5))
    assert sorted(popper.join().payload for popper in poppers) == [0, 1, 2, 3, 4]
    assert time.monotonic() - begun < SOON


def test_several_may_wait_on_one_object(queue: Any, other: Any, flushed: redis.Redis) -> None:
    """Threads, or tasks of one loop: each push wakes one of them, and none is forgotten."""
    poppers = [Popper(queue) for _ in range(4)]
    wait_until(lambda: blocked(flushed) == 4)
    for number in range(4):
        begun = time.monotonic()
        other.push(Task.create(payload=number))
        wait_until(lambda number=number: sum(popper.done for popper in poppers) == number + 1)
        assert time.monotonic() - begun < SOON
    assert sorted(popper.join().payload for popper in poppers) == [0, 1, 2, 3]
    poppers = [Popper(queue) for _ in range(4)]
    wait_until(lambda: blocked(flushed) == 4)
    begun = time.monotonic()
    other.push_batch(Task.create(payload=number) for number in range(4))
    assert sorted(popper.join().payload for popper in poppers) == [0, 1, 2, 3]
    assert time.monotonic() - begun < SOON


def test_a_settlement_does_not_make_the_server_forget_who_waits(
    queue: Any, other: Any, flushed: redis.Redis
) -> None:
    other.push(Task.create(payload="first"))
    task = queue.pop()
    popper = Popper(queue)
    wait_until(lambda: blocked(flushed) == 1)
    queue.finish(task)  # on the same object, while another thread waits
    begun = time.monotonic()
    other.push(Task.create(payload="second"))
    assert popper.join().payload == "second"
    assert popper.at - begun < SOON


@pytest.mark.parametrize("delay", [0.3, 0.02])
def test_a_delayed_task_comes_on_time(queue: Any, other: Any, flushed: redis.Redis, delay: float) -> None:
    popper = Popper(queue)
    wait_until(lambda: blocked(flushed) == 1)
    due = time.monotonic() + delay
    other.push(Task.create(payload=1, delay=delay))
    assert popper.join().payload == 1
    assert -0.05 < popper.at - due < 0.5


def test_an_earlier_due_time_is_not_overlooked(queue: Any, other: Any, flushed: redis.Redis) -> None:
    other.push(Task.create(payload="late", delay=60))
    popper = Popper(queue)
    wait_until(lambda: blocked(flushed) == 1)
    due = time.monotonic() + 0.2
    other.push(Task.create(payload="early", delay=0.2))
    assert popper.join().payload == "early"
    assert popper.at - due < SOON


def test_who_promised_to_wake_and_went_to_work_hands_the_promise_on(
    make_queue: MakeQueue, queue: Any, flushed: redis.Redis
) -> None:
    """One idle worker sets its alarm for the next due time; when it gets something to do, another one must."""
    queue.push(Task.create(payload="delayed", delay=0.6))
    due = time.monotonic() + 0.6
    first = Popper(make_queue())
    wait_until(lambda: blocked(flushed) == 1)
    second = Popper(make_queue())
    wait_until(lambda: blocked(flushed) == 2)
    begun = time.monotonic()
    queue.push(Task.create(payload="now"))
    wait_until(lambda: first.done or second.done)
    assert time.monotonic() - begun < SOON
    first.join()
    second.join()
    last = max(first, second, key=lambda popper: popper.at)
    assert last.got.payload == "delayed"
    assert last.at - due < SOON


def test_who_promised_to_wake_and_left_hands_the_promise_on(
    make_queue: MakeQueue, queue: Any, flushed: redis.Redis
) -> None:
    queue.push(Task.create(payload="delayed", delay=0.7))
    due = time.monotonic() + 0.7
    leaver = make_queue()
    assert leaver.pop(wait=0.1) is None
    stayer = Popper(make_queue())
    wait_until(lambda: blocked(flushed) == 1)
    leaver.close()
    assert stayer.join().payload == "delayed"
    assert stayer.at - due < SOON


def test_a_promise_is_kept_across_other_wake_ups(
    make_queue: MakeQueue, queue: Any, flushed: redis.Redis
) -> None:
    """It is woken for something that others take, and still comes back for the delayed task."""
    queue.push(Task.create(payload="delayed", delay=0.6))
    due = time.monotonic() + 0.6
    popper = Popper(make_queue())
    wait_until(lambda: blocked(flushed) == 1)
    for _ in range(3):
        [waiter] = flushed.zrange("fq:waiters", 0, -1)
        flushed.zrem("fq:waiters", waiter)
        flushed.lpush(f"fq:wake:{waiter.decode()}", "w")
        wait_until(lambda: flushed.zcard("fq:waiters") == 1 and blocked(flushed) == 1)
    assert popper.join().payload == "delayed"
    assert popper.at - due < SOON


@pytest.mark.parametrize(
    "how", ["resume", "resume_user", "raise the cap", "release", "finish under a cap", "requeue"]
)
def test_whatever_makes_a_task_claimable_wakes(
    queue: Any, other: Any, flushed: redis.Redis, how: str
) -> None:
    match how:
        case "resume":
            other.pause()
        case "resume_user":
            other.pause_user("u")
        case "raise the cap" | "finish under a cap":
            other.set_user_policy("u", UserPolicy(max_concurrency=1))
    other.push_batch(Task.create(payload=number, user_id="u") for number in range(2))
    held = None
    if how in ("raise the cap", "finish under a cap"):
        held = other.pop()
    elif how in ("release", "requeue"):
        held, _gone = other.pop(count=2)
        if how == "requeue":
            other.move_to_dlq(held)
    popper = Popper(queue)
    wait_until(lambda: blocked(flushed) == 1)
    begun = time.monotonic()
    match how:
        case "resume":
            other.resume()
        case "resume_user":
            other.resume_user("u")
        case "raise the cap":
            other.set_user_policy("u", UserPolicy(max_concurrency=2))
        case "release":
            other.release(held)
        case "requeue":
            other.dlq.requeue(held)
        case "finish under a cap":
            other.finish(held)
    assert popper.join() is not None
    assert popper.at - begun < SOON


def test_nothing_to_do_is_none_in_time(queue: Any) -> None:
    begun = time.monotonic()
    assert queue.pop(wait=0.3) is None
    assert queue.pop(count=3, wait=0.05) == []
    assert 0.35 <= time.monotonic() - begun < 2


def test_waiting_for_some_tenants_only(queue: Any, other: Any) -> None:
    popper = Popper(queue, users=["b"])
    other.push(Task.create(payload="a", user_id="a"))
    other.push(Task.create(payload="b", user_id="b"))
    assert popper.join().payload == "b"
    assert queue.pop().payload == "a"


def test_waiting_survives_resets(
    make_queue: MakeQueue, queue: Any, server: ServerProcess, flushed: redis.Redis
) -> None:
    with FaultProxy(server.url) as proxy:
        far = make_queue(url=proxy.url)
        popper = Popper(far)
        for _ in range(3):
            wait_until(lambda: blocked(flushed) == 1)
            proxy.reset()
        wait_until(lambda: blocked(flushed) == 1)
        queue.push(Task.create(payload=1))
        assert popper.join().payload == 1
        far.close()


def test_waiting_costs_the_server_next_to_nothing(make_queue: MakeQueue, flushed: redis.Redis) -> None:
    poppers = [Popper(make_queue(), wait=1.5) for _ in range(8)]
    wait_until(lambda: blocked(flushed) == 8)
    before = flushed.info("stats")["total_commands_processed"]
    time.sleep(1.0)  # what happens while nothing happens
    commands = flushed.info("stats")["total_commands_processed"] - before
    assert commands <= 2  # these two looks themselves
    assert [popper.join() for popper in poppers] == [None] * 8
