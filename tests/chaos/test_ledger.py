"""The ledger, in its short form: all that can be killed is killed for a while, and nothing is lost or done twice.

`make chaos MINUTES=10 SEED=7` is the same for longer. The seed is printed; SEED replays a schedule.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ledger.drive import OPTIONS, Ledger
from tests.support.servers import ServerProcess

SECONDS = 16.0


@pytest.mark.timeout(240)
def test_what_was_sent_is_done_whatever_is_killed(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    seed = int(os.environ.get("SEED") or random.randrange(1 << 30))
    print(f"SEED={seed}")
    server = new_server(append_only=True, options=OPTIONS)
    result = Ledger(server, tmp_path, seed, SECONDS).run()
    print(result.figures, result.faults)
    assert result.violations == []
    assert result.figures["of these lost"] == result.figures["recorded twice"] == 0
    assert result.figures["ticks run"] == result.figures["ticks due"] > 0
    assert result.figures["tasks sent"] > 10 * SECONDS, "there was too little to do"
    assert sum(count for fault, count in result.faults.items() if fault.startswith("kill")) >= 3
