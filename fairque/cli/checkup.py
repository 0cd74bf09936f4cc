"""What `fairque doctor` looks at. Each check reads what the server says of itself, and finds one thing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import redis
from redis.exceptions import AuthenticationError, AuthorizationError

from fairque.cli import checkup_depth
from fairque.cli.checkup_depth import Depths, Finding, Level, sound
from fairque.cli.words import size, span
from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import FairQueueError
from fairque.core.keys import Keys
from fairque.queue.embedded import server_status
from fairque.queue.operations.admin import QueueStats
from fairque.queue.operations.base import SCHEMA
from fairque.queue.operations.schedule_views import Leader, ScheduleInfo
from fairque.queue.queue import TaskQueue
from fairque.queue.server_binary import find_server

OLDEST = (7, 0)
SKEW_WARN_SECONDS = 0.5
SKEW_FAIL_SECONDS = 5.0
SLOW_SECONDS = 0.01
FULL_WARN = 0.75
FULL_FAIL = 0.95


@dataclass(frozen=True, slots=True)
class Patient:
    """All that the checks read. `latency` and `skew` are seconds; a positive skew: the server's clock is ahead."""

    config: FairQueueConfig
    info: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    skew: float = 0.0
    schema: bytes | None = None
    stats: QueueStats | None = None
    schedules: tuple[ScheduleInfo, ...] = ()
    """The first page of them."""
    leader: Leader | None = None
    trouble: str = ""
    """Why there are no stats."""
    depths: Depths | None = None


def examine(config: FairQueueConfig) -> list[Finding]:
    """All findings, the first about the connection: without one there are no others."""
    asleep = _asleep(config)
    if asleep is not None:
        return [asleep]
    try:
        patient = _meet(config)
    except (FairQueueError, redis.RedisError, OSError) as error:
        return [_unreachable(config, error)]
    return [finding for check in CHECKS for finding in check(patient)]


def _asleep(config: FairQueueConfig) -> Finding | None:
    """An embedded server that does not run is not started for being looked at."""
    address = config.redis.address
    if address.kind != "embedded":
        return None
    from pathlib import Path

    if server_status(Path(address.path) if address.path else None) is not None:
        return None
    try:
        program = find_server()
    except FairQueueError as error:
        return Finding("connection", "fail", "no server", str(error))
    return Finding(
        "connection", "ok", f"no embedded server runs yet; it starts when first needed ({program})"
    )


def _unreachable(config: FairQueueConfig, error: Exception) -> Finding:
    text = str(error) or type(error).__name__
    address = config.redis.address
    lower = text.lower()
    if isinstance(error, AuthenticationError | AuthorizationError) or "noauth" in lower:
        advice = "give redis.username and redis.password, or put them into the url"
    elif "ssl" in lower or "certificate" in lower:
        advice = "see redis.ssl_ca_certs and redis.ssl_check_hostname; a server without TLS wants redis://, not rediss://"
    else:
        advice = f"is {address} right, does the server run, and does it listen there? (redis.url, FAIRQUE_REDIS__URL)"
    return Finding("connection", "fail", text, advice)


def _meet(config: FairQueueConfig) -> Patient:
    client: Any = config.redis.create_redis_client()
    with contextlib.closing(client):
        client.ping()
        latency, skew = _clock(client)
        info = dict(client.info("all"))
        schema = client.hget(Keys(config.key_prefix).meta, "schema")
        settings: dict[str, str] = {}
        for name in ("appendfsync", "save", "stop-writes-on-bgsave-error", "min-replicas-to-write"):
            try:
                settings |= {_text(k): _text(v) for k, v in client.config_get(name).items()}
            except redis.RedisError:  # managed servers do not let anybody read it
                break
    schedules: tuple[ScheduleInfo, ...] = ()
    stats, leader, depths, trouble = None, None, None, ""
    if schema is None or _text(schema) == str(SCHEMA):
        try:
            with TaskQueue(config) as queue:
                stats = queue.get_stats()
                schedules, leader = queue.schedules.list().items, queue.schedules.leader()
                depths = sound(queue, sum(stats.states.values()))
        except (FairQueueError, redis.RedisError) as error:
            trouble = str(error)
    return Patient(config, info, settings, latency, skew, schema, stats, schedules, leader, trouble, depths)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _clock(client: Any) -> tuple[float, float]:
    """Seconds for the fastest of some round trips, and how far the server's clock was ahead in that one."""
    best = (float("inf"), 0.0)
    for _ in range(5):
        before, sent = time.perf_counter(), time.time()
        whole, micros = client.time()
        took = time.perf_counter() - before
        best = min(best, (took, int(whole) + int(micros) / 1e6 - (sent + took / 2)))
    return best


def _connection(patient: Patient) -> Iterator[Finding]:
    took = patient.latency
    found = f"{patient.config.redis.address} answers in {took * 1000:.2f} ms"
    if patient.depths is not None:
        found += f" (100 pings: {patient.depths.pings}; 100 empty scripts: {patient.depths.scripts})"
    if took > SLOW_SECONDS:
        advice = "each task costs a worker a part of a round trip: run workers near the server"
        yield Finding("connection", "warn", found, advice)
    else:
        yield Finding("connection", "ok", found)


def _version(patient: Patient) -> Iterator[Finding]:
    # Valkey says 7.2.4 in redis_version, for clients that look there, whatever its own version is.
    info = patient.info
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2:
        yield Finding(
            "version", "warn", f"unknown ({version!r})", "Redis 7.0 or Valkey 7.2 is needed at least"
        )
    elif numbers < OLDEST:
        yield Finding("version", "fail", f"{name} {version}", "upgrade the server: Redis 7.0, or any Valkey")
    else:
        yield Finding("version", "ok", f"{name} {version}")


def _eviction(patient: Patient) -> Iterator[Finding]:
    policy = str(patient.info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        yield Finding("eviction", "ok", policy)
    elif policy == "unknown":
        yield Finding("eviction", "warn", policy, "make sure that maxmemory-policy is noeviction")
    else:
        yield Finding(
            "eviction", "fail", policy,
            "a full server would throw tasks away. Set maxmemory-policy noeviction (CONFIG SET, and in its file)",
        )  # fmt: skip


def _memory(patient: Patient) -> Iterator[Finding]:
    used, most = int(patient.info.get("used_memory", 0)), int(patient.info.get("maxmemory", 0))
    if not most:
        if patient.config.redis.address.kind == "embedded":
            yield Finding("memory", "ok", f"{size(used)} used, no limit (embedded)")
            return
        yield Finding(
            "memory", "warn", f"{size(used)} used, no limit",
            "set maxmemory below what the machine has: at the limit a push is refused, and without one the system "
            "kills the server",
        )  # fmt: skip
        return
    found, part = f"{size(used)} of {size(most)} used", used / most
    advice = "raise maxmemory, let workers catch up, or purge dead letters: at the limit pushes are refused"
    level: Level = "fail" if part > FULL_FAIL else "warn" if part > FULL_WARN else "ok"
    yield Finding("memory", level, found, "" if level == "ok" else advice)


def _persistence(patient: Patient) -> Iterator[Finding]:
    info, settings = patient.info, patient.settings
    if int(info.get("loading", 0)):
        yield Finding("persistence", "warn", "it is loading its data", "wait until it has")
    if int(info.get("aof_enabled", 0)):
        how = settings.get("appendfsync", "")
        bound = {"everysec": "a crash of its machine costs up to 1 s", "always": "every write is on disk",
                 "no": "the system decides when it is written"}.get(how, "")  # fmt: skip
        found = "append-only file" + (f", appendfsync {how}: {bound}" if bound else "")
        if str(info.get("aof_last_write_status", "ok")) != "ok":
            yield Finding(
                "persistence", "fail", "the append-only file cannot be written", "is its disk full?"
            )
        elif how == "no":
            yield Finding("persistence", "warn", found, "set appendfsync everysec")
        else:
            yield Finding("persistence", "ok", found)
        return
    advice = "set appendonly yes (CONFIG SET appendonly yes, and in its file)"
    snapshots = settings.get("save")
    if str(info.get("rdb_last_bgsave_status", "ok")) != "ok":
        yield Finding("persistence", "fail", "the last snapshot failed", f"is its disk full? And {advice}")
    elif snapshots == "":
        yield Finding("persistence", "fail", "none: a restart loses every task", advice)
    elif snapshots is None:
        yield Finding("persistence", "warn", "no append-only file", f"a crash loses recent tasks: {advice}")
    else:
        yield Finding(
            "persistence", "warn", f"snapshots only (save {snapshots})",
            f"a crash loses what came since the last one: {advice}",
        )  # fmt: skip


def _skew(patient: Patient) -> Iterator[Finding]:
    ahead = patient.skew
    off = max(0.0, abs(ahead) - patient.latency / 2)
    found = f"the server is {span(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    if off < 0.001:
        found = "the same"
    level: Level = "fail" if off > SKEW_FAIL_SECONDS else "warn" if off > SKEW_WARN_SECONDS else "ok"
    advice = (
        "times given as execute_after and expires_at count by the server's clock: run NTP on both machines"
    )
    yield Finding("clock", level, found, "" if level == "ok" else advice)


def _security(patient: Patient) -> Iterator[Finding]:
    config = patient.config.redis
    address = config.address
    if address.kind in ("unix", "embedded"):
        yield Finding("TLS", "ok", "not needed: a socket of this machine")
        return
    local = all(_is_local(host) for host, _port in address.nodes)
    if not address.tls:
        level: Level = "ok" if local else "warn"
        advice = "" if local else "tasks and passwords can be read on the way: use rediss:// (docs: TLS)"
        yield Finding("TLS", level, "off" + (" (this machine)" if local else ""), advice)
    elif config.ssl_cert_reqs != "required":
        yield Finding(
            "TLS", "warn", f"on, certificates {config.ssl_cert_reqs}",
            "anybody can pose as the server: leave redis.ssl_cert_reqs at required",
        )  # fmt: skip
    elif not config.ssl_check_hostname:
        yield Finding(
            "TLS", "warn", "on, host name not checked",
            "any server with a certificate of the same authority passes: set redis.ssl_check_hostname",
        )  # fmt: skip
    else:
        yield Finding("TLS", "ok", "on, certificate and host name checked")
    if config.password is None and not local and config.ssl_certfile is None:
        yield Finding("login", "warn", "no password", "give the server one (requirepass, or an ACL user)")


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _schema(patient: Patient) -> Iterator[Finding]:
    found = patient.schema
    prefix = patient.config.key_prefix
    if found is None:
        yield Finding("data", "ok", f"nothing under {prefix}: yet; layout {SCHEMA} will be written")
    elif _text(found) == str(SCHEMA):
        yield Finding("data", "ok", f"layout {SCHEMA} under {prefix}:")
    else:
        yield Finding(
            "data", "fail", f"layout {_text(found)} under {prefix}:",
            f"this version reads {SCHEMA}: upgrade it, or use another queue.prefix",
        )  # fmt: skip


def _queue(patient: Patient) -> Iterator[Finding]:
    stats = patient.stats
    if stats is None:
        if patient.trouble:
            yield Finding(
                "scripts",
                "fail",
                patient.trouble,
                "fairque acl prints the rights that a user of the queue needs",
            )
        return
    yield Finding("scripts", "ok", "they run")
    queued, started = stats.states.get("queued", 0), stats.states.get("started", 0)
    held = sum(worker.running for worker in stats.workers)
    orphans = max(0, started - held)
    workers = f"{len(stats.workers)} alive, {held} tasks running, {queued} waiting"
    if queued and not stats.workers:
        yield Finding("workers", "warn", workers, "nobody serves them: fairque worker MODULE")
    else:
        yield Finding("workers", "ok", workers)
    if orphans or stats.numbers.get("dead_workers"):
        yield Finding(
            "orphans", "warn", f"{orphans} tasks of workers that are gone",
            "they are queued again when their lease ends, if any worker is alive to see it: start one, or run "
            "fairque repair --apply",
        )  # fmt: skip
    else:
        yield Finding("orphans", "ok", "none")
    if stats.paused:
        yield Finding("pause", "warn", "the queue is paused", "fairque resume")
    if dead := stats.states.get("failed", 0):
        yield Finding("dead letters", "warn", f"{dead}", "fairque dlq list")


def _schedules(patient: Patient) -> Iterator[Finding]:
    refused = [info.name for info in patient.schedules if info.problem]
    if patient.schedules and patient.leader is None:
        advice = "start fairque scheduler, or a worker with --scheduler"
        yield Finding("schedules", "warn", "nobody decides their ticks", advice)
    elif refused:
        yield Finding(
            "schedules", "warn", f"runs are refused: {', '.join(refused[:10])}", "fairque cron show NAME"
        )
    elif patient.leader is not None:
        yield Finding("schedules", "ok", f"scheduler {patient.leader.scheduler_id} leads")


CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    _connection,
    _version,
    _eviction,
    _memory,
    _persistence,
    _skew,
    _security,
    checkup_depth.replication,
    _schema,
    _queue,
    checkup_depth.rights,
    checkup_depth.library,
    checkup_depth.stuck,
    _schedules,
)
