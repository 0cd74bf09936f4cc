"""The systems that are measured, each with its best documented settings. Read by the harness; no peer is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.peers import Environments
from bench.processes import BenchmarkError

THREADS, ASYNC = "threads", "async"
SYNC_SINGLE, SYNC_BULK, ASYNC_SINGLE, ASYNC_BULK = "sync single", "sync bulk", "async single", "async bulk"
THREAD_COUNT, ASYNC_COUNT = 10, 100


@dataclass(frozen=True)
class Place:
    """Where a worker's command finds its programs."""

    python: str
    bin: Path
    concurrency: int


Command = Callable[[Place, str], Sequence[str]]
"""The command of one worker process, for a place and a mode."""


@dataclass(frozen=True)
class System:
    """One system, or one way of using it.

    `modes`: what runs its tasks. `pushes`: how it can enqueue. `drain_tasks`: how many no-ops it is given, so that a
    drain takes some seconds. `tenants`: whether tenants can have queues of their own. `one_by_one`: a process runs one
    task at a time, so ten slots are ten processes. `fans_in`: a task can follow on many, and get their results.
    """

    name: str
    title: str
    environment: str
    packages: tuple[str, ...]
    modes: tuple[str, ...]
    pushes: tuple[str, ...]
    drain_tasks: int
    command: Command
    settings: str
    variables: Mapping[str, str] = field(default_factory=dict)
    tenants: bool = False
    one_by_one: bool = False
    fans_in: bool = False
    module: str = ""
    noop: str = "noop"
    async_slots: int = ASYNC_COUNT

    @property
    def adapter(self) -> str:
        """The name of its module in bench.systems."""
        return self.module or self.name

    @property
    def best_push(self) -> str:
        """The fastest way to fill its queue."""
        order = (SYNC_BULK, ASYNC_BULK, SYNC_SINGLE, ASYNC_SINGLE)
        return next(push for push in order if push in self.pushes)

    def concurrency(self, mode: str) -> int:
        """Tasks at a time in one process, where a workload does not say how many."""
        if self.one_by_one:
            return 1
        return self.async_slots if mode == ASYNC else THREAD_COUNT

    def task(self, mode: str, name: str) -> str:
        """The name of a task in a mode."""
        name = self.noop if name == "noop" else name
        return f"async_{name}" if mode == ASYNC else name


def _fairque(place: Place, mode: str) -> Sequence[str]:
    options = ["--threads", str(place.concurrency), "--log-level", "warning"]
    return [place.python, "-m", "fairque.cli", "worker", "bench.systems.fairque", *options]


def _huey(place: Place, mode: str) -> Sequence[str]:
    options = ["--workers", str(place.concurrency), "--worker-type", "thread", "--no-periodic", "--quiet"]
    return [place.python, "-m", "huey.bin.huey_consumer", "bench.systems.huey.huey", *options]


def _dramatiq(place: Place, mode: str) -> Sequence[str]:
    options = ["--processes", "1", "--threads", str(place.concurrency), "--skip-logging"]
    return [place.python, "-m", "dramatiq", "bench.systems.dramatiq:broker", *options]


def _celery(place: Place, mode: str) -> Sequence[str]:
    options = ["--pool", "threads", "--concurrency", str(place.concurrency), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [place.python, "-m", "celery", "--app", "bench.systems.celery", "worker", *options, *quiet]


def _taskiq(place: Place, mode: str) -> Sequence[str]:
    count = str(place.concurrency)
    options = ["--workers", "1", "--max-async-tasks", count, "--max-threadpool-threads", count]
    more = ["--max-prefetch", count, "--no-parse", "--log-level", "WARNING"]
    return [place.python, "-m", "taskiq", "worker", "bench.systems.taskiq:broker", *options, *more]


def _arq(place: Place, mode: str) -> Sequence[str]:
    return [str(place.bin / "arq"), "bench.systems.arq.WorkerSettings"]


def _saq(place: Place, mode: str) -> Sequence[str]:
    return [str(place.bin / "saq"), "bench.systems.saq.settings"]


def _streaq(place: Place, mode: str) -> Sequence[str]:
    return [str(place.bin / "streaq"), "run", "bench.systems.streaq:worker"]


def _docket(place: Place, mode: str) -> Sequence[str]:
    return [place.python, "-m", "bench.systems.docket"]


def _rq(place: Place, mode: str) -> Sequence[str]:
    return [place.python, "-m", "bench.systems.rq", "simple"]


def _rq_fork(place: Place, mode: str) -> Sequence[str]:
    return [place.python, "-m", "bench.systems.rq", "fork"]


def _bullmq(place: Place, mode: str) -> Sequence[str]:
    return [place.python, str(place.bin / "worker.mjs")]


FAIRQUE = System(
    name="fairque",
    title="FairQueue",
    environment="own",
    packages=("fairque", "redis", "hiredis"),
    modes=(THREADS, ASYNC),
    pushes=(SYNC_SINGLE, SYNC_BULK, ASYNC_SINGLE, ASYNC_BULK),
    drain_tasks=20_000,
    command=_fairque,
    settings="`fairque worker` with its supervisor; default settings (fairness, leases, fencing, statistics), except "
    "`result_ttl_seconds: 0`, since the peers store no results either; bulk is `push_batch`",
    variables={"FAIRQUE_QUEUE__RESULT_TTL_SECONDS": "0"},
    tenants=True,
    fans_in=True,
)
FAIRQUE_WORKER_TIME = replace(
    FAIRQUE,
    name="fairque-worker-time",
    title="FairQueue, worker_time",
    module="fairque",
    settings="as FairQueue, with `fairness: worker_time`",
    variables={**FAIRQUE.variables, "FAIRQUE_QUEUE__FAIRNESS": "worker_time"},
)
FAIRQUE_RESULTS = replace(
    FAIRQUE,
    name="fairque-results",
    title="FairQueue, results stored",
    module="fairque",
    modes=(THREADS,),
    settings="as FairQueue, with results stored for a day, and a task that returns one",
    variables={},
    noop="answer",
)

PEERS = (
    System(
        name="bullmq",
        title="BullMQ",
        environment="node",
        packages=("bullmq", "ioredis"),
        modes=(ASYNC,),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=20_000,
        command=_bullmq,
        settings="Node; `concurrency` as given, `removeOnComplete` and `removeOnFail` with count 0; bulk is `addBulk`. "
        "Its groups are not in the free edition. The fan-in is a flow (`FlowProducer`)",
        fans_in=True,
    ),
    System(
        name="huey",
        title="huey",
        environment="peers",
        packages=("huey", "redis"),
        modes=(THREADS,),
        pushes=(SYNC_SINGLE,),
        drain_tasks=20_000,
        command=_huey,
        settings="RedisHuey with blocking pops, `results=False`, threads, `--no-periodic`; no async functions, no bulk "
        "enqueue; a task that a dying worker held is lost",
    ),
    System(
        name="dramatiq",
        title="dramatiq",
        environment="peers",
        packages=("dramatiq", "redis"),
        modes=(THREADS, ASYNC),
        pushes=(SYNC_SINGLE,),
        drain_tasks=20_000,
        command=_dramatiq,
        settings="RedisBroker, one process, no result backend, default prefetch (twice the threads), AsyncIO "
        "middleware; each running coroutine holds a thread; no bulk enqueue",
        tenants=True,
    ),
    System(
        name="taskiq",
        title="taskiq",
        environment="peers",
        packages=("taskiq", "taskiq-redis", "redis", "uvloop"),
        modes=(THREADS, ASYNC),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=20_000,
        command=_taskiq,
        settings="ListQueueBroker (its fastest; it acknowledges nothing, so what a dying worker held is lost), orjson, "
        "uvloop, no result backend, `--max-prefetch` as the concurrency, `--no-parse`; bulk is `kiq`, 20 awaited "
        "together",
    ),
    System(
        name="docket",
        title="docket",
        environment="peers",
        packages=("pydocket", "redis"),
        modes=(ASYNC,),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=10_000,
        command=_docket,
        settings="`execution_ttl=0`, `minimum_check_interval` 1 ms, default message batch, 50 at a time where others "
        "have 100 (its connection pool ends at 100); bulk is `add_many`; async only",
        async_slots=50,
    ),
    System(
        name="saq",
        title="SAQ",
        environment="saq",
        packages=("saq", "redis"),
        modes=(ASYNC,),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=5000,
        command=_saq,
        settings="RedisQueue, `ttl=-1` (nothing kept), default timers; bulk is `enqueue`, 20 awaited together",
    ),
    System(
        name="celery",
        title="Celery",
        environment="peers",
        packages=("celery", "kombu", "redis"),
        modes=(THREADS,),
        pushes=(SYNC_SINGLE,),
        drain_tasks=5000,
        command=_celery,
        settings="Redis broker, threads pool, `task_ignore_result`, `worker_prefetch_multiplier` 100 (1 with a queue "
        "per tenant, taken round robin), no events, gossip, mingle or heartbeat; no async functions, no bulk enqueue. "
        "The fan-in is a chord, with the Redis result backend",
        tenants=True,
        fans_in=True,
    ),
    System(
        name="arq",
        title="arq",
        environment="arq",
        packages=("arq", "redis"),
        modes=(ASYNC,),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=5000,
        command=_arq,
        settings="`keep_result=0`, `poll_delay` 1 ms, `log_results=False`; bulk is `enqueue_job`, 20 awaited together",
    ),
    System(
        name="streaq",
        title="streaQ",
        environment="peers",
        packages=("streaq", "coredis"),
        modes=(THREADS, ASYNC),
        pushes=(ASYNC_SINGLE, ASYNC_BULK),
        drain_tasks=5000,
        command=_streaq,
        settings="`ttl=0` (no results), `silent`, default prefetch (the concurrency); bulk is `enqueue_many`",
    ),
    System(
        name="rq",
        title="RQ",
        environment="peers",
        packages=("rq", "redis"),
        modes=(THREADS,),
        pushes=(SYNC_SINGLE, SYNC_BULK),
        drain_tasks=1500,
        command=_rq,
        settings="SimpleWorker (no forking; one task at a time in a process, so ten slots are ten processes), "
        "functions imported beforehand, `result_ttl=0`; with a queue per tenant, round robin; bulk is `enqueue_many`",
        tenants=True,
        one_by_one=True,
    ),
    System(
        name="rq-fork",
        title="RQ, forking",
        environment="peers",
        packages=("rq", "redis"),
        modes=(THREADS,),
        pushes=(SYNC_SINGLE, SYNC_BULK),
        drain_tasks=200,
        command=_rq_fork,
        settings="as RQ, with its default worker, which forks for each task",
        one_by_one=True,
        module="rq",
    ),
)
VARIANTS = (FAIRQUE_WORKER_TIME, FAIRQUE_RESULTS)
ALL = (FAIRQUE, *PEERS)
QUICK = ("fairque", "bullmq", "huey", "taskiq")


def chosen(names: Sequence[str]) -> list[System]:
    """The systems of these names, in the catalogue's order.

    Raises:
        BenchmarkError: there is no such system.
    """
    known = {system.name: system for system in ALL}
    for name in names:
        if name not in known:
            raise BenchmarkError(f"there is no system {name!r}: there are {', '.join(known)}")
    return [system for system in ALL if system.name in names]


def worker_argv(system: System, mode: str, concurrency: int, environments: Environments) -> list[str]:
    """The command of one worker process."""
    if system.environment == "node":
        assert environments.node is not None
        place = Place(environments.node.node, environments.bullmq, concurrency)
    else:
        name = system.environment
        place = Place(environments.python(name), environments.bin(name), concurrency)
    return list(system.command(place, mode))


def driver_argv(system: System, kind: str, environments: Environments) -> list[str]:
    """The command of a producer of this kind (`sync` or `async`)."""
    if system.environment == "node":
        assert environments.node is not None
        return [environments.node.node, str(environments.bullmq / "driver.mjs")]
    return [environments.python(system.environment), "-m", "bench.driver", system.adapter, kind]
