"""What dependencies cost: a chain, a fan out and in, against as many plain tasks; and the longest script call.

    python benchmarks/workflows.py [--tasks 10000] [--wake 5000] [--url redis://...]

Without a URL it starts a server of its own. Tasks are claimed and settled by one process that runs nothing, so what is
compared is the cost of storing, waking and settling them, not that of running something.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from fairque.core.compose import Node
from fairque.core.config import FairQueueConfig
from fairque.core.models import Task
from fairque.core.pipeline import Group
from fairque.queue.operations import claims
from fairque.queue.operations.claims import Session, Settlement, token_of
from fairque.queue.queue import TaskQueue

BATCH = 100


def make(count: int) -> list[Task[Any]]:
    return [Task.create(payload=None) for _ in range(count)]


def drain(queue: Queue, batch: int = BATCH) -> tuple[int, float]:
    """Everything that can run, in calls that settle what came with the last one; how many, and the seconds of it."""
    session = Session(slots=batch)
    queue.run(claims.join(queue.engine, session))
    done, settlements = 0, list[Settlement]()
    begun = time.perf_counter()
    while True:
        exchange = queue.run(
            claims.settle_and_claim(queue.engine, session, want=batch, settlements=settlements)
        )
        settlements = [
            Settlement(task.task_id, token_of(task), "finish", 0.0, b"\xc0", 60_000)
            for task in exchange.claimed
        ]
        done += len(settlements)
        if not settlements and not queue.run_left():
            break
    seconds = time.perf_counter() - begun
    queue.run(claims.leave(queue.engine, session.incarnation))
    return done, seconds


class Queue(TaskQueue):
    """A queue that tells whether something is left to be gone on with."""

    def run_left(self) -> int:
        def flow() -> Any:
            return (yield self.engine.call("go_on"))

        return int(self.run(flow()))


def longest(client: Any) -> float:
    """Milliseconds of the slowest command since the last reset."""
    entries = client.slowlog_get(10)
    return max((entry["duration"] for entry in entries), default=0) / 1000


def measure(
    queue: Queue, client: Any, name: str, work: Node[Any] | list[Task[Any]], count: int, batch: int = BATCH
) -> float:
    client.flushall()
    client.slowlog_reset()
    begun = time.perf_counter()
    if isinstance(work, list):
        assert all(outcome.ok for outcome in queue.push_batch(work))
    else:
        queue.enqueue(work)  # type: ignore[call-overload]
    stored = time.perf_counter() - begun
    done, seconds = drain(queue, batch)
    assert done == count, (name, done, count)
    print(
        f"{name:24} {count:6} tasks: stored {1e6 * stored / count:6.1f} us each, "
        f"drained {1e6 * seconds / count:6.1f} us each, longest call {longest(client):5.1f} ms",
        flush=True,
    )
    return seconds / count


def chain(tasks: list[Task[Any]]) -> Node[Any]:
    work: Node[Any] = tasks[0]
    for task in tasks[1:]:
        work = work >> task
    return work


def run(url: str, count: int, wake: int) -> None:
    config = FairQueueConfig.from_dict({"redis": {"url": url}})
    with Queue(config) as queue:
        client = config.redis.create_redis_client()
        client.config_set("slowlog-log-slower-than", 1000)
        plain = measure(queue, client, "plain", make(count), count)
        single = measure(queue, client, "plain, one at a time", make(count), count, batch=1)
        chained = measure(queue, client, "chain", chain(make(count)), count, batch=1)
        first, last = make(2)
        middle = make(count)
        fan = measure(queue, client, "fan out and in", first >> Group(tuple(middle)) >> last, count + 2)
        print(
            f"an edge costs, in plain tasks: in a chain {(chained - single) / single:.2f} (both one at a time), "
            f"in a fan {(fan - plain) / plain / 2:.2f}"
        )
        first = Task.create(payload=None)
        measure(queue, client, f"one wakes {wake:,}", first >> Group(tuple(make(wake))), wake + 1)
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--wake", type=int, default=5_000)
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.url:
        return run(options.url, options.tasks, options.wake)
    from tests.support.servers import ServerProcess, valkey_binary

    binary = valkey_binary()
    if binary is None:
        raise SystemExit("there is no valkey-server: give --url")
    with ServerProcess(binary, tcp=True) as server:
        return run(server.tcp_url, options.tasks, options.wake)


if __name__ == "__main__":
    main()
