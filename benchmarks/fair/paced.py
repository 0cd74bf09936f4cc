"""What others wait beside a tenant under a rate limit, against one that starts as many tasks by itself; in real time.

A block: four tenants push 60 tasks of 20 ms each at once, and their mean wait until all have run is what is measured.
Beside them a fifth tenant starts 50 short tasks a second: either out of a backlog under a rate limit of 50/s, which the
scheduler parks and lets go, or without any limit, its tasks pushed one by one at that pace. Blocks of both kinds take
turns, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.policies import UserPolicy
from fairque.queue.queue import TaskQueue
from tests.support.cap_tasks import runs, stamped
from tests.support.caps import MODULES, order, push_all
from tests.support.herd import Herd

RATE, SLOTS, OTHERS, EACH, LENGTH = 50, 4, 4, 60, 0.02


@dataclass(frozen=True, slots=True)
class Paced:
    """Mean waits (s) of all blocks with and without the limit."""

    limited: list[float]
    free: list[float]

    @property
    def change(self) -> float:
        """What the limit adds, of the wait without: the median over pairs of blocks that came one after the other."""
        return statistics.median(one / other - 1 for one, other in zip(self.limited, self.free, strict=True))

    @property
    def error(self) -> float:
        """The standard error of the mean of these."""
        changes = [one / other - 1 for one, other in zip(self.limited, self.free, strict=True)]
        return statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else float("inf")


def paced(url: str, ledger: Path, pairs: int) -> Paced:
    """Measure so many pairs of blocks."""
    config: dict[str, Any] = order(url, [{"id": "herd", "max_concurrent_tasks": SLOTS}])
    ledger.touch()
    with TaskQueue(FairQueueConfig.from_dict(config)) as queue:
        herd = Herd(config, MODULES, ["herd"])
        try:
            runner = _Blocks(queue, ledger)
            runner.block(limited=True)
            runner.block(limited=False)
            found = Paced([], [])
            for number in range(pairs):
                for limited in (True, False) if number % 2 else (False, True):
                    (found.limited if limited else found.free).append(runner.block(limited=limited))
            return found
        finally:
            herd.close()


class _Blocks:
    def __init__(self, queue: TaskQueue, ledger: Path) -> None:
        self.queue, self.ledger = queue, ledger
        self.number = 0

    def block(self, *, limited: bool) -> float:
        """One block; returns the others' mean wait."""
        self.number += 1
        names = [f"other{self.number}x{part}" for part in range(OTHERS)]
        beside = f"beside{self.number}"
        task = stamped.with_options(user_id=beside)
        lasting = OTHERS * EACH * LENGTH / SLOTS * 2 + 2
        out = threading.Event()
        if limited:
            self.queue.set_user_policy(beside, UserPolicy(rate_limit=RATE))
            push_all(
                self.queue, (task(str(self.ledger), beside, key, 0.0) for key in range(round(RATE * lasting)))
            )
        pacer = threading.Thread(target=self._pace, args=(task, beside, out), daemon=True)
        if not limited:
            pacer.start()
        time.sleep(0.3)  # past the burst
        made = [
            stamped.with_options(user_id=name)(str(self.ledger), name, key, LENGTH)
            for key in range(EACH)
            for name in names
        ]
        pushed = time.monotonic()
        push_all(self.queue, iter(made))
        handles = [self.queue.get_handle(one.task_id) for one in made[-OTHERS:]]
        for handle in handles:
            handle.result(60)
        out.set()
        if limited:
            self.queue.pause_user(beside)
        else:
            pacer.join()
        begun = [run.begin for run in runs(self.ledger) if run.user in names]
        while len(begun) < OTHERS * EACH:
            time.sleep(0.01)
            begun = [run.begin for run in runs(self.ledger) if run.user in names]
        self.ledger.write_text("")
        return statistics.mean(begin - pushed for begin in begun)

    def _pace(self, task: Any, user: str, out: threading.Event) -> None:
        began = time.monotonic()
        key = 0
        while not out.is_set():
            time.sleep(max(0.0, began + key / RATE - time.monotonic()))
            self.queue.push(task(str(self.ledger), user, key, 0.0))
            key += 1
