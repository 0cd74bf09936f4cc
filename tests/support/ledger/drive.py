"""One run: everything is started, harmed by the plan, healed, drained, and audited."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fairque.core.codec import decode_value
from fairque.core.config import FairQueueConfig
from fairque.core.keys import Keys, encode
from fairque.core.models import Task
from fairque.core.schedules.models import ScheduledTask, tick_id
from fairque.core.states import TaskState
from fairque.queue.queue import TaskQueue
from tests.support.invariants import Snapshot
from tests.support.ledger import sheet, work
from tests.support.ledger.audit import Evidence, Findings, Recorded, audit
from tests.support.ledger.book import Book
from tests.support.ledger.crew import Crew, orders
from tests.support.ledger.faults import Hand
from tests.support.ledger.plan import LEASE, draw
from tests.support.ledger.producers import Producers
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess

SCHEDULES = 5
SECOND = timedelta(seconds=1)
START_SECONDS = 30.0
DRAIN_SECONDS = 90.0
TICKS_AFTER = 3.0
"""Schedules begin so long after the start, and end before everything is healed."""
OPTIONS = {"appendfsync": "always", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run. `figures` for a table; the run is good if there are no `violations`."""

    seed: int
    seconds: float
    figures: dict[str, int]
    faults: dict[str, int]
    drained: float
    """Seconds from the last fault until everything had ended."""
    violations: list[str]
    logs: Path


@dataclass(slots=True)
class Ledger:
    """A run of `seconds` of faults, in `directory`, on a server of its own."""

    server: ServerProcess
    directory: Path
    seed: int
    seconds: float
    rate: float = 60.0
    book: Book = field(default_factory=Book)
    ticks: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """The sheet."""
        return self.directory / "sheet"

    def config(self, url: str) -> dict[str, Any]:
        return {
            "redis": {"url": url},
            "queue": {"lease_seconds": LEASE},
            "scheduler": {"lease_seconds": LEASE / 2},
        }

    def run(self) -> Result:
        """Must be called in a thread that lives as long as the run: the kernel ends its processes with that."""
        self.path.touch()
        plan = draw(self.seed, self.seconds)
        with FaultProxy(self.server.url) as for_producers, FaultProxy(self.server.url) as for_workers:
            near = self.config(self.server.url)
            crew = Crew(self.directory, orders(near, self.config(for_workers.url)))
            hand = Hand(crew, self.server, (for_producers, for_workers))
            try:
                with TaskQueue(FairQueueConfig.from_dict(near)) as queue:
                    self._until(hand, lambda: self._all_there(queue), START_SECONDS)
                    self._declare(queue)
                producers = Producers(
                    FairQueueConfig.from_dict(self.config(for_producers.url)),
                    FairQueueConfig.from_dict(near),
                    self.book,
                    str(self.path),
                    self.seed,
                    self.rate,
                )
                producers.start()
                hand.run(plan, self.seconds)
                healed = time.monotonic()
                producers.stop()
                with TaskQueue(FairQueueConfig.from_dict(near)) as queue:
                    stuck = not self._until(hand, lambda: self._is_quiet(queue), DRAIN_SECONDS)
                    drained = time.monotonic() - healed
                    # Whoever still holds something of before has his chance to do harm.
                    self._until(hand, lambda: False, 1.5 * LEASE)
                    found = self._audit(queue, crew, hand)
            finally:
                hand.heal()
                crew.close()
        if stuck:
            found.violations.insert(0, f"after {DRAIN_SECONDS:.0f} s not everything had ended")
        return Result(
            self.seed,
            self.seconds,
            found.figures,
            dict(sorted(hand.done.items())),
            drained,
            found.violations,
            self.directory,
        )

    def _until(self, hand: Hand, condition: Any, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            hand.look_after()
            time.sleep(0.05)
        return True

    def _all_there(self, queue: TaskQueue) -> bool:
        return len(queue.get_stats().workers) >= 4 and queue.schedules.leader() is not None

    def _is_quiet(self, queue: TaskQueue) -> bool:
        states = queue.get_stats().states
        waiting = (TaskState.QUEUED, TaskState.STARTED, TaskState.SCHEDULED)
        return not any(states.get(str(state), 0) for state in waiting) and all(
            info.look_at is None for info in queue.schedules.list().items
        )

    def _declare(self, queue: TaskQueue) -> None:
        """Schedules with one tick a second, for most of the run."""
        begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=round(TICKS_AFTER))
        count = max(1, round(self.seconds - TICKS_AFTER - 2))
        for number in range(SCHEDULES):
            start = begin + SECOND / 5 * number
            name = f"tick{number}"
            queue.schedules.add(
                ScheduledTask(
                    name,
                    work.tick(str(self.path)),
                    every=1,
                    start=start,
                    end=start + (count - 1) * SECOND,
                    misfire="run_all",
                    misfire_limit=1000,
                    misfire_grace_seconds=1000,
                )
            )
            self.ticks |= {tick_id(name, start + index * SECOND) for index in range(count)}

    # -- the end

    def _audit(self, queue: TaskQueue, crew: Crew, hand: Hand) -> Findings:
        client: Any = self.server.client()
        recorded = _recorded(queue, client)
        stats = queue.get_stats()
        found = audit(
            Evidence(
                self.book.all(),
                self.ticks,
                sheet.read(self.path),
                recorded,
                stats.counters.get("finished", 0),
                crew.harms,
                hand.weather,
            )
        )
        found.violations += [*crew.faults, *self.book.errors, *Snapshot(client).problems()]
        if stats.counters.get("pushed", 0) != len(recorded):
            found.violations.append(
                f"{stats.counters.get('pushed')} pushes were counted for {len(recorded)} tasks"
            )
        found.figures |= {
            "pushes without an answer": self.book.unanswered,
            "processes started": sum(place.lives for place in crew.places),
            "faults that met nobody": hand.skipped,
        }
        return found


def _recorded(queue: TaskQueue, client: Any) -> dict[str, Recorded]:
    """Every task that the server has."""
    keys = Keys("fq")
    found: dict[str, Recorded] = {}
    for state in TaskState:
        cursor: str | None = None
        while True:
            page = queue.list_tasks(state, cursor=cursor, limit=1000)
            tasks: list[Task[Any]] = list(page.items)
            results = client.mget([keys.result(encode(task.task_id)) for task in tasks]) if tasks else []
            for task, result in zip(tasks, results, strict=True):
                value = decode_value(result) if result else None
                found[task.task_id] = Recorded(task.state, task.attempt, task.reason, value)
            if page.cursor is None:
                break
            cursor = page.cursor
    return found
