"""The key-leak check: after a test, each key that is left needs a TTL or a reason.

The idea is docket's: a queue that leaves one small key per task behind works well in every test and fills the
server in a month.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import redis

# What may stay for ever in a FairQueue, as globs below the prefix: its size does not grow with tasks served.
LASTING_KEYS = (
    "meta",
    "stats",
    "clock",
    "policies",
    "groups",
    "limiters",
    "rules",
    "assign",
    "assign:entries",
    "assigned:*",
    "estimates",
    # Until the records of these users expire; the sweep takes out who has none.
    "users",
    "users:*",
    # Until the next call of a worker, which lets those in who wait.
    "limiter:*",
    "parked",
    "functions",
    # How far the round of clean-up is.
    "cleanup",
    "schedules",
    "schedules:due",
    # Registries of what is kept for its TTL; the sweep takes out what has expired.
    "state:finished",
    "state:canceled",
    # Until the sweep after the last workflow's record has expired.
    "workflows",
    # While a worker lives. The reaper takes them when it does not.
    "workers",
    "workers:dead",
    "waiters",
    "worker:*",
)

NO_TTL = -1


def all_keys(client: redis.Redis, pattern: str = "*") -> Iterator[bytes]:
    """Every key that matches the glob, without blocking the server."""
    yield from client.scan_iter(match=pattern, count=1000)


def leaked_keys(client: redis.Redis, prefix: str, allowed: Iterable[str] = ()) -> list[str]:
    """The keys without a TTL below `prefix` that no glob of `allowed` matches, sorted.

    A key outside of the prefix is leaked whatever its TTL: all names come from the one module of keys.
    """
    globs = tuple(allowed)
    keys = list(all_keys(client))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
        ttls = pipe.execute() if keys else []
    leaked: list[str] = []
    for key, ttl in zip(keys, ttls, strict=True):
        name = key.decode("utf-8", "backslashreplace")
        below = name.removeprefix(f"{prefix}:")
        foreign = below == name
        lasting = any(fnmatchcase(below, glob) for glob in globs)
        if foreign or (ttl == NO_TTL and not lasting):
            leaked.append(name)
    return sorted(leaked)


def assert_no_leaks(client: redis.Redis, prefix: str, allowed: Iterable[str] = ()) -> None:
    """Fail with the list of leaked keys, if there are any; see `leaked_keys`."""
    leaked = leaked_keys(client, prefix, allowed)
    if leaked:
        described = "\n  ".join(f"{name} ({client.type(name)!r})" for name in leaked[:40])
        raise AssertionError(f"{len(leaked)} keys were left without a TTL or a reason:\n  {described}")
