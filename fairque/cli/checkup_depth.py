"""What `fairque doctor` finds by asking the queue itself: latency, rights, its library, states that are stuck."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import redis

from fairque.core.rights import ALL_COMMANDS, FSYNC_COMMANDS, OPTIONAL
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.reconcile import Repair, Report

if TYPE_CHECKING:
    from fairque.cli.checkup import Patient
    from fairque.queue.queue import TaskQueue

Level: TypeAlias = Literal["ok", "warn", "fail"]

SAMPLES = 100
SAMPLE_SECONDS = 2.0
BUSY_SECONDS = 0.025
FEW_TASKS = 20_000
"""Up to so many are all looked at; of more, only what is counted of them."""
MANY_LIBRARIES = 3
LAG_SECONDS = 10
FSYNC_SINCE = (7, 2)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: what was looked at, how bad it is, what there is, and what to change."""

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some round trips, in seconds."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50 * 1000:.2f} ms, p99 {self.p99 * 1000:.2f} ms"


@dataclass(frozen=True, slots=True)
class Depths:
    """What the queue said. `lacking`: commands that this user may not use; `libraries`: names of all versions of ours
    that the server has, None if it may not say; `whole`: whether all tasks were looked at."""

    pings: Spread
    scripts: Spread
    lacking: tuple[str, ...]
    libraries: tuple[str, ...] | None
    library: str
    report: Report
    whole: bool


def sound(queue: TaskQueue, tasks: int) -> Depths:
    """Ask; `tasks` is how many there are. Nothing is changed."""
    manager = queue._open()
    client: Any = manager.client
    whole = tasks <= FEW_TASKS
    return Depths(
        pings=_spread(client.ping),
        scripts=_spread(lambda: queue.run(_lacking(queue.engine, ()))),
        lacking=tuple(queue.run(_lacking(queue.engine, (*ALL_COMMANDS, *FSYNC_COMMANDS)))),
        libraries=_libraries(client),
        library=manager.library.name,
        report=queue.reconcile(tasks=whole, dry_run=True),
        whole=whole,
    )


def _lacking(engine: Engine, names: tuple[str, ...]) -> Flow[list[str]]:
    reply = yield engine.call("rights", *names)
    return [name.decode() for name in reply]


def _spread(call: Callable[[], object]) -> Spread:
    taken: list[float] = []
    end = time.perf_counter() + SAMPLE_SECONDS
    while len(taken) < SAMPLES and (not taken or time.perf_counter() < end):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    taken.sort()
    return Spread(taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)])


def _libraries(client: Any) -> tuple[str, ...] | None:
    try:
        found = client.function_list(library="fairque_*")
    except redis.RedisError:
        return None
    flat = [dict(zip(one[::2], one[1::2], strict=True)) if isinstance(one, list) else one for one in found]
    names = [one.get(b"library_name", one.get("library_name", b"")) for one in flat]
    return tuple(sorted(name.decode() if isinstance(name, bytes) else str(name) for name in names))


def rights(patient: Patient) -> Iterator[Finding]:
    """What this user may do."""
    if patient.depths is None:
        return
    wanted = patient.config.queue.durability
    lacking = [name for name in patient.depths.lacking if name not in FSYNC_COMMANDS or wanted == "fsync"]
    needed = {"fsync": {*FSYNC_COMMANDS}, "replicated": {"wait"}}.get(wanted, set())
    if patient.config.redis.db:
        needed.add("select")
    missing = [name for name in lacking if name not in OPTIONAL or name in needed]
    if not lacking:
        yield Finding("rights", "ok", "all that a queue needs")
        return
    advice = (
        f"ACL SETUSER {patient.config.redis.username or '<user>'} {' '.join(f'+{name}' for name in lacking)} "
        "(fairque acl prints the whole line)"
    )
    # Whoever has loaded the library once needs not do so again, until the next version comes.
    level: Level = "fail" if set(missing) - {"function|load"} else "warn"
    yield Finding("rights", level, f"this user may not use {', '.join(lacking)}", advice)


def library(patient: Patient) -> Iterator[Finding]:
    """The functions that the server keeps, and how long they take."""
    depths = patient.depths
    if depths is None:
        return
    if depths.scripts.p50 > BUSY_SECONDS and depths.scripts.p50 > 3 * depths.pings.p50:
        yield Finding(
            "script latency", "warn", str(depths.scripts),
            "something else keeps the server busy: see SLOWLOG GET, and give the queue a server of its own",
        )  # fmt: skip
    if depths.libraries is None:
        return
    old = [name for name in depths.libraries if name != depths.library]
    found = depths.library + (f", and {len(old)} of other versions" if old else "")
    if len(old) > MANY_LIBRARIES:
        advice = f"when no client of these versions is left: FUNCTION DELETE {' | '.join(old[:5])}"
        yield Finding("library", "warn", found, advice)
    else:
        yield Finding("library", "ok", found)


def replication(patient: Patient) -> Iterator[Finding]:
    """Whether this is a primary, and whether its replicas suffice for `queue.durability`."""
    info, queue = patient.info, patient.config.queue
    role, replicas = str(info.get("role", "unknown")), int(info.get("connected_slaves", 0))
    found = f"{role}, {replicas} replica{'s' if replicas != 1 else ''}"
    if role in ("slave", "replica"):
        advice = "a replica takes no writes: name the primary, or use sentinel://"
        yield Finding("replication", "fail", "this is a replica", advice)
        return
    if queue.durability == "fsync":
        yield from _fsync(patient)
    lags = [int(one.get("lag", 0)) for one in _replicas(info)]
    if queue.durability == "replicated" and replicas < queue.min_replicas:
        yield Finding(
            "replication", "fail", "no replica" if not replicas else found,
            f"queue.durability is replicated and min_replicas {queue.min_replicas}: every push fails. Attach replicas, "
            "or set durability: local",
        )  # fmt: skip
    elif queue.durability == "replicated" and patient.settings.get("min-replicas-to-write") == "0":
        yield Finding(
            "replication", "warn", found,
            f"set min-replicas-to-write {queue.min_replicas}: a primary that has lost its replicas then takes no tasks",
        )  # fmt: skip
    elif lags and max(lags) > LAG_SECONDS:
        advice = "a failover to it loses what came since: look at its network and its load"
        yield Finding("replication", "warn", f"{found}; one is {max(lags)} s behind", advice)
    else:
        yield Finding("replication", "ok", found)


def _fsync(patient: Patient) -> Iterator[Finding]:
    info = patient.info
    version = str(info.get("valkey_version") or info.get("redis_version") or "0.0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if "valkey_version" not in info and numbers < FSYNC_SINCE:
        advice = "queue.durability is fsync, which needs Redis 7.2 or any Valkey: upgrade, or set durability: local"
        yield Finding("durability", "fail", f"version {version} has no WAITAOF", advice)
    elif not int(info.get("aof_enabled", 0)):
        advice = "queue.durability is fsync: set appendonly yes, or durability: local"
        yield Finding("durability", "fail", "no append-only file", advice)
    else:
        yield Finding("durability", "ok", "fsync")


def _replicas(info: Any) -> list[Any]:
    return [value for name, value in info.items() if name.startswith("slave") and isinstance(value, dict)]


# What a repair is of (lib/holdings.lua, lib/reconcile.lua, lib/mend.lua), as people ask for it.
_KINDS = {
    "holder": "running tasks that nobody holds",
    "registry": "tasks missing from, or left in, the list of a state",
    "queue": "queued tasks in no queue",
    "known": "users with tasks that the queue does not know",
    "place": "users who wait where nobody looks",
    "record": "users whose record is lost",
    "expiry": "tasks that would not expire",
    "dead letters": "dead letters that are not listed",
}
_COUNTS = "counts that differ from what is there"


def kind_of(repair: Repair) -> str:
    """What is stuck or wrong, in words."""
    return _KINDS.get(repair.what.partition(" of ")[0], _COUNTS)


def stuck(patient: Patient) -> Iterator[Finding]:
    """States that contradict each other: what `fairque repair` mends."""
    depths = patient.depths
    if depths is None:
        return
    if not depths.report.repaired:
        looked = f"none among {depths.report.checked} records" + ("" if depths.whole else " (counts only)")
        yield Finding("stuck states", "ok", looked)
        return
    kinds = Counter(kind_of(repair) for repair in depths.report.repaired)
    for kind, count in kinds.most_common():
        first = next(repair for repair in depths.report.repaired if kind_of(repair) == kind)
        example = f"{first.what}: {first.was}, should be {first.now}"
        yield Finding(
            "stuck states", "fail", f"{count} {kind} ({example})", "fairque repair --apply mends it"
        )
