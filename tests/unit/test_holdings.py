"""What a worker remembers of its claims, and how it portions what it tells the server."""

from __future__ import annotations

from typing import Any

from fairque.core.models import Claim, Task
from fairque.queue.operations.claims import Settlement
from fairque.worker.lease import ENTRY_BYTES, MEMORY_BYTES, Holdings
from fairque.worker.outbox import MAX_BYTES, MAX_SETTLEMENTS, Outbox


def claimed(number: int) -> Task[Any]:
    return Task._restore(task_id=f"t{number}", claim=Claim(token=bytes([number]) * 16, incarnation="i"))


def ended(task: Task[Any], size: int = 0) -> Settlement:
    assert task.claim is not None
    return Settlement(task.task_id, task.claim.token, "finish", first=b"x" * size)


def test_a_claim_is_taken_once() -> None:
    holdings, task = Holdings(10), claimed(1)
    assert holdings.take([task]) == [task]
    assert holdings.take([task]) == []
    holdings.settle([ended(task)], 0)
    assert holdings.take([task]) == []  # a reply that came twice
    assert len(holdings) == 0


def test_a_comparison_tells_what_was_missed_what_to_say_again_and_what_is_lost() -> None:
    holdings = Holdings(10)
    kept, settled, lost, missed = (claimed(number) for number in range(4))
    holdings.take([kept, settled, lost])
    holdings.settle([ended(settled)], 0)
    difference = holdings.compare([kept, settled, missed])
    assert difference.missed == (missed,)
    assert difference.unsettled == (ended(settled),)
    assert difference.lost == (lost,)
    assert holdings.tasks() == (kept,)


def test_settlements_are_forgotten_with_time() -> None:
    holdings = Holdings(10)
    tasks = [claimed(number) for number in range(3)]
    for second, task in enumerate(tasks):
        holdings.take([task])
        holdings.settle([ended(task)], second * 6.0)
    assert holdings.compare(tasks).unsettled == (ended(tasks[1]), ended(tasks[2]))


def test_what_is_settled_again_is_remembered_anew() -> None:
    holdings = Holdings(10)
    first, second = claimed(1), claimed(2)
    holdings.take([first, second])
    holdings.settle([ended(first)], 0)
    holdings.settle([ended(first)], 8)
    holdings.settle([ended(second)], 16)
    assert holdings.compare([first, second]).unsettled == (ended(first), ended(second))
    holdings.settle([], 30)
    assert holdings.compare([first, second]).unsettled == (ended(second),)  # the last stays, however old


def test_large_results_are_not_hoarded() -> None:
    holdings, size = Holdings(1000), MEMORY_BYTES // 4 - ENTRY_BYTES
    tasks = [claimed(number) for number in range(20)]
    for task in tasks:
        holdings.take([task])
        holdings.settle([ended(task, size)], 0)
    assert len(holdings.compare(tasks).unsettled) == 4


def test_many_small_results_are_not_hoarded_either() -> None:
    holdings, count = Holdings(1000), MEMORY_BYTES // ENTRY_BYTES
    for start in range(0, 2 * count, 500):
        holdings.settle(
            [Settlement("t", start.to_bytes(8) + number.to_bytes(8), "finish") for number in range(500)], 0
        )
    remembered = sum(len(batch.settlements) for batch in holdings._batches)
    assert count - 500 <= remembered <= count
    assert len(holdings._settled) == remembered


def test_one_call_carries_a_bounded_portion_in_order() -> None:
    outbox = Outbox()
    settlements = [ended(claimed(number % 200)) for number in range(MAX_SETTLEMENTS + 10)]
    outbox.add(settlements)
    first = outbox.take()
    assert [item.settlement for item in first] == settlements[:MAX_SETTLEMENTS]
    outbox.put_back(first)
    assert [item.settlement for item in outbox.take() + outbox.take()] == settlements
    assert not outbox
    outbox.add(ended(claimed(number), MAX_BYTES // 2 + 1) for number in range(3))
    assert [len(outbox.take()) for _ in range(3)] == [1, 1, 1]
    outbox.add([ended(claimed(1), 2 * MAX_BYTES)])  # too large for any call, but it must go some time
    assert len(outbox.take()) == 1
