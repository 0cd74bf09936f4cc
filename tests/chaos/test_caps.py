"""Limits under fire and on the clock: exact, whoever dies. benchmarks/caps.py does the same for longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import caps
from tests.support.servers import ServerProcess

MINUTES = float(os.environ.get("FAIRQUE_CHAOS_MINUTES", "0"))
LEASE = 2.0


@pytest.mark.timeout(60 + 60 * MINUTES)
def test_a_cap_holds_while_workers_are_killed(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server()
    seen = caps.hammer(
        server.url,
        server.client(),
        tmp_path / "ledger",
        9 + 60 * MINUTES,
        cap=3,
        lease=LEASE,
        every=(0.2, 0.8),
    )
    print(seen)
    assert seen.most_held == seen.most_running == 3
    assert seen.kills > 3
    # A lease, and the interval at which others look for those that have run out, with some room for a busy machine.
    assert seen.longest_below <= 1.5 * LEASE + 0.3


def test_rates_hold(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = new_server()
    for rated in caps.rated(server.url, tmp_path / "ledger", [50.0, 7.0], 9.0):
        print(rated)
        # One start more or less at the edges of the span, and never more than the rate. A machine that is
        # away for longer than a burst lasts loses the tokens of that time.
        allowed = rated.rate * rated.seconds
        assert 0.95 * allowed - 1 <= rated.starts <= allowed + 1


def test_users_of_a_dead_worker_are_served_elsewhere(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server()
    waits = caps.waits_of_orphans(server.url, tmp_path / "ledger", 1.0, 3)
    print(waits)
    assert max(waits) <= 1.0 + 1.0
    assert min(waits) >= 0.9, "its own worker was alive after all"
