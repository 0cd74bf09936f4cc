"""What dependencies cost: a chain, a fan out and in, against as many plain tasks; and the longest script call.

    python benchmarks/workflows.py [--tasks 10000] [--wake 5000] [--rounds 3] [--url redis://...]

Without a URL it starts a server of its own. First tasks are claimed and settled by one process that runs nothing, so that
what is compared is the cost of storing, waking and settling them; then by a real worker. Plain tasks and those that wait
take turns, and the ratios are medians of the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from fairque.core.compose import Node
from fairque.core.config import FairQueueConfig
from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.pipeline import Group
from fairque.core.states import TaskState
from fairque.queue.operations import claims
from fairque.queue.operations.claims import Session, Settlement, token_of
from fairque.queue.queue import TaskQueue
from fairque.worker.worker import Worker

BATCH = 100
SECONDS = 600
Pair = tuple[float, float]
Work = Node[Any] | list[Task[Any]]


@task(name="workflows:nothing")
def nothing() -> None:
    """Nothing."""


def make(count: int) -> list[Task[Any]]:
    return [nothing() for _ in range(count)]


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


def server_seconds(client: Any) -> float:
    """What the server has used of its processor so far: unlike wall time, much the same whatever else runs."""
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def longest(client: Any) -> float:
    """Milliseconds of the slowest command since the last reset."""
    entries = client.slowlog_get(10)
    return max((entry["duration"] for entry in entries), default=0) / 1000


def measure(
    queue: Queue, client: Any, name: str, work: Work, count: int, batch: int = BATCH
) -> tuple[float, float]:
    """Seconds on the wall, and of the server's processor, to drain it."""
    client.flushall()
    client.slowlog_reset()
    begun = time.perf_counter()
    if isinstance(work, list):
        assert all(outcome.ok for outcome in queue.push_batch(work))
    else:
        queue.enqueue(work)  # type: ignore[call-overload]
    stored = time.perf_counter() - begun
    used = server_seconds(client)
    done, seconds = drain(queue, batch)
    used = server_seconds(client) - used
    assert done == count, (name, done, count)
    print(
        f"{name:24} {count:6} tasks: stored {1e6 * stored / count:6.1f} us each, "
        f"drained {1e6 * seconds / count:6.1f} us each (server {1e6 * used / count:5.1f}), "
        f"longest call {longest(client):5.1f} ms",
        flush=True,
    )
    return seconds, used


def chain(tasks: list[Task[Any]]) -> Node[Any]:
    work: Node[Any] = tasks[0]
    for after in tasks[1:]:
        work = work >> after
    return work


def worked(queue: Queue, client: Any, name: str, work: Work, count: int, slots: int) -> tuple[float, float]:
    """As `measure`, by a worker with so many threads, from the first claim to the end of the last task."""
    client.flushall()
    queue.pause()
    if isinstance(work, list):
        assert all(outcome.ok for outcome in queue.push_batch(work))
    else:
        queue.enqueue(work)  # type: ignore[call-overload]
    client.slowlog_reset()
    worker = Worker(queue_config(client, max_concurrent_tasks=slots))
    worker.start()
    begun, used = time.perf_counter(), server_seconds(client)
    queue.resume()
    finished = queue.engine.keys.state(TaskState.FINISHED)
    while (done := client.zcard(finished)) < count and time.perf_counter() - begun < SECONDS:
        time.sleep(0.01)
    seconds, used = time.perf_counter() - begun, server_seconds(client) - used
    worker.stop(10)
    assert done == count, (name, done, count)
    print(
        f"{name:24} {count:6} tasks: run by a worker with {slots:2} slots {1e6 * seconds / count:6.1f} us each "
        f"(server {1e6 * used / count:5.1f}), longest call {longest(client):5.1f} ms",
        flush=True,
    )
    return seconds, used


def queue_config(client: Any, **worker: Any) -> FairQueueConfig:
    options = client.connection_pool.connection_kwargs
    url = f"unix://{options['path']}" if "path" in options else f"redis://{options['host']}:{options['port']}"
    return FairQueueConfig.from_dict({"redis": {"url": url}, "workers": [worker]})


def fan_in(count: int) -> Node[Any]:
    return Group(tuple(make(count - 1))) >> nothing()


def ratio(rounds: int, one: Callable[[], Pair], other: Callable[[], Pair]) -> Pair:
    """The medians of the pairs: on the wall, and of the server's processor."""
    pairs = [(one(), other()) for _ in range(rounds)]
    wall, server = (statistics.median(b[at] / max(a[at], 1e-9) for a, b in pairs) for at in (0, 1))
    return wall, server


def run(url: str, count: int, wake: int, rounds: int) -> None:
    config = FairQueueConfig.from_dict({"redis": {"url": url}})
    with Queue(config) as queue:
        client = config.redis.create_redis_client()
        client.config_set("slowlog-log-slower-than", 1000)
        found = {
            "a chain, one at a time": ratio(
                rounds,
                lambda: measure(queue, client, "plain, one at a time", make(count), count, batch=1),
                lambda: measure(queue, client, "chain", chain(make(count)), count, batch=1),
            ),
            "a fan into one": ratio(
                rounds,
                lambda: measure(queue, client, "plain", make(count), count),
                lambda: measure(queue, client, "fan into one", fan_in(count), count),
            ),
            "a chain, by a worker with one slot": ratio(
                rounds,
                lambda: worked(queue, client, "plain", make(count), count, 1),
                lambda: worked(queue, client, "chain", chain(make(count)), count, 1),
            ),
            "a fan into one, by a worker with ten slots": ratio(
                rounds,
                lambda: worked(queue, client, "plain", make(count), count, 10),
                lambda: worked(queue, client, "fan into one", fan_in(count), count, 10),
            ),
        }
        for name, (wall, server) in found.items():
            print(f"a task of {name}: {wall:.2f} of a plain one, {server:.2f} on the server")
        measure(queue, client, f"one wakes {wake:,}", nothing() >> Group(tuple(make(wake))), wake + 1)
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--wake", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each pair is measured")
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.url:
        return run(options.url, options.tasks, options.wake, options.rounds)
    from tests.support.servers import ServerProcess, valkey_binary

    binary = valkey_binary()
    if binary is None:
        raise SystemExit("there is no valkey-server: give --url")
    with ServerProcess(binary, tcp=True) as server:
        return run(server.tcp_url, options.tasks, options.wake, options.rounds)


if __name__ == "__main__":
    main()
