"""Limits in real time, seen from outside: how many leases a capped tenant holds, how fast a limited one
starts, how long the users of a dead worker wait."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import redis

from fairque.core.config import FairQueueConfig
from fairque.core.models import Task
from fairque.queue.queue import TaskQueue
from tests.support import cap_tasks
from tests.support.cap_tasks import Run, runs, stamped
from tests.support.herd import Herd

MODULES = (cap_tasks.__name__,)
USER = "capped"

# What workers hold at one instant, live ones and those that are dead but not yet cleared away: the worker and the user.
HELD = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'fq:worker:*:tasks')) do
  for _, entry in ipairs(redis.call('HVALS', key)) do
    found[#found + 1] = string.match(key, '^fq:worker:(.+):tasks$')
    found[#found + 1] = string.match(entry, '^[^\\n]+', 19)
  end
end
return found
"""


def order(url: str, entries: Sequence[dict[str, Any]], **rest: Any) -> dict[str, Any]:
    """A configuration as a mapping."""
    return {"redis": {"url": url}, "workers": list(entries), **rest}


def push_all(queue: TaskQueue, tasks: Iterator[Task[Any]]) -> None:
    """Push them, and fail if one is refused."""
    for outcome in queue.push_batch(tasks):
        outcome.unwrap()


@dataclass(frozen=True, slots=True)
class Hammered:
    """`most_held`: leases at once, as polled `polls` times; `most_running`: tasks at once; `longest_below`: seconds
    that fewer ran than may, after the last kill of who held one; `longest_dead`: seconds that the leases of a dead
    process lasted; `kills`, and `hits`, those of who held a lease."""

    most_held: int
    most_running: int
    longest_below: float
    longest_dead: float
    polls: int
    kills: int
    hits: int
    done: int
    seconds: float


def hammer(
    url: str,
    client: redis.Redis,
    ledger: Path,
    seconds: float,
    *,
    cap: int = 3,
    processes: int = 8,
    threads: int = 8,
    lease: float = 2.0,
    every: tuple[float, float] = (0.4, 1.6),
) -> Hammered:
    """Let many workers, which are killed at random, hammer one tenant that may run `cap` tasks at once."""
    config = order(
        url,
        [{"id": "herd", "max_concurrent_tasks": threads}],
        queue={"lease_seconds": lease},
        users={USER: {"max_concurrency": cap}},
    )
    ledger.touch()
    chance = random.Random()
    with TaskQueue(FairQueueConfig.from_dict(config)) as queue:
        lengths = (chance.uniform(0.01, 0.12) for _ in range(round(seconds * cap / 0.04)))
        push_all(
            queue,
            (
                stamped.with_options(user_id=USER)(str(ledger), USER, key, length)
                for key, length in enumerate(lengths)
            ),
        )
        herd = Herd(config, MODULES, ["herd"] * processes, every)
        most_held = polls = 0
        held_at: dict[str, float] = {}
        until = time.monotonic() + seconds
        try:
            script = client.register_script(HELD)
            while time.monotonic() < until:
                held = script()
                most_held = max(most_held, held[1::2].count(USER.encode()))
                now = time.monotonic()
                held_at.update({worker.decode(): now for worker in held[::2]})
                polls += 1
                time.sleep(0.001)
            assert queue.get_user_stats(USER).queued > 0, "there was not enough to do"
        finally:
            herd.close()
    seen = [run for run in runs(ledger) if run.begin < until]
    # Who still held something after its death had held it when it died.
    lasted = {
        killed.at: held_at[killed.incarnation] - killed.at
        for killed in herd.killed
        if held_at.get(killed.incarnation, 0.0) > killed.at
    }
    deaths = {killed.pid: killed.at for killed in herd.killed}
    most_running, longest = _below(seen, deaths, sorted(lasted), cap, until)
    return Hammered(
        most_held,
        most_running,
        longest,
        max(lasted.values(), default=0.0),
        polls,
        len(herd.killed),
        len(lasted),
        sum(run.end is not None for run in seen),
        seconds,
    )


def _below(
    seen: Sequence[Run], deaths: dict[int, float], hits: Sequence[float], cap: int, until: float
) -> tuple[int, float]:
    """The most that ran at once; how long fewer than `cap` ran at most. `deaths`: of processes; `hits`: of those
    that held a lease."""
    turns: list[tuple[float, int]] = []
    for run in seen:
        end = deaths.get(run.pid, until) if run.end is None else run.end
        turns += [(run.begin, 1), (min(end, until), -1)]
    running = most = 0
    below_since: float | None = None
    longest = 0.0
    for at, change in [*sorted(turns), (until, 0)]:
        if running < cap and below_since is not None:
            # Each death opens another hole, which has its own time to be filled.
            since = max([below_since, *(hit for hit in hits if below_since < hit < at)])
            longest = max(longest, at - since)
        running += change
        most = max(most, running)
        if running >= cap:
            below_since = None
        elif below_since is None and most >= cap:
            below_since = at
    return most, longest


@dataclass(frozen=True, slots=True)
class Rated:
    """Starts of a tenant within a span, of what its rate allows."""

    rate: float
    starts: int
    seconds: float

    @property
    def part(self) -> float:
        """1: exactly the rate."""
        return self.starts / (self.rate * self.seconds)


def rated(url: str, ledger: Path, rates: Sequence[float], seconds: float) -> list[Rated]:
    """Tenants with backlogs under rates, beside one without that keeps half of the slots busy."""
    users = {f"rate{number}": rate for number, rate in enumerate(rates)}
    config = order(
        url,
        [{"id": "herd", "max_concurrent_tasks": 8}],
        users={user: {"rate_limit": rate} for user, rate in users.items()} | {"busy": {"max_concurrency": 4}},
    )
    ledger.touch()
    with TaskQueue(FairQueueConfig.from_dict(config)) as queue:
        herd = Herd(config, MODULES, ["herd"])
        try:
            for user, rate in users.items():
                task = stamped.with_options(user_id=user)
                push_all(
                    queue, (task(str(ledger), user, key, 0.0) for key in range(round(rate * (seconds + 5))))
                )
            busy = stamped.with_options(user_id="busy")
            push_all(
                queue,
                (busy(str(ledger), "busy", key, 0.02) for key in range(round(4 / 0.02 * (seconds + 1)))),
            )
            time.sleep(seconds + 1)
        finally:
            herd.close()
    found: list[Rated] = []
    for user, rate in users.items():
        begins = [run.begin for run in runs(ledger) if run.user == user]
        # From the end of the first burst on.
        first = begins[0] + 0.5
        starts = sum(first <= begin < first + seconds for begin in begins)
        found.append(Rated(rate, starts, seconds))
    return found


def waits_of_orphans(url: str, ledger: Path, steal_after: float, tasks: int) -> list[float]:
    """How long each task of a user waits whose only worker was killed, beside a worker that is busy with its own
    user."""
    config = order(
        url,
        [
            {"id": "mine", "assigned_users": ["orphan"], "max_concurrent_tasks": 4},
            {"id": "busy", "assigned_users": ["own"], "max_concurrent_tasks": 4},
        ],
        queue={"lease_seconds": 15, "steal_after_seconds": steal_after},
    )
    ledger.touch()
    names = count()
    orphan, own = stamped.with_options(user_id="orphan"), stamped.with_options(user_id="own")
    with TaskQueue(FairQueueConfig.from_dict(config)) as queue:
        herd = Herd(config, MODULES, ["mine", "busy"])
        try:
            seconds = tasks * (steal_after + 2)
            push_all(queue, (own(str(ledger), "own", key, 0.2) for key in range(round(4 / 0.2 * seconds))))
            queue.push(orphan(str(ledger), "orphan", next(names), 0.01)).result(10)
            herd.kill(0)
            pushed: dict[int, float] = {}
            for key in (next(names) for _ in range(tasks)):
                pushed[key] = time.monotonic()
                queue.push(orphan(str(ledger), "orphan", key, 0.01)).result(steal_after + 10)
        finally:
            herd.close()
    begun = {run.key: run.begin for run in runs(ledger) if run.user == "orphan"}
    return [begun[key] - at for key, at in pushed.items()]
