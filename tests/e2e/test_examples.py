"""Every example runs, and prints what it says that it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support.servers import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.leaves_keys(
    "functions", "state:*", "policies", "dlq:*", "errors:*", "task:*"
)  # dead letters stay
def test_example(name: str, server: ServerProcess, flushed: redis.Redis, tmp_path: Path) -> None:
    source = (EXAMPLES / name).read_text()
    _, heading, printed = source.partition("\n# Prints:\n")
    assert heading, f"{name} does not say what it prints"
    expected = "".join(f"{line.removeprefix('# ').removeprefix('#')}\n" for line in printed.splitlines())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FAIRQUE_")}
    environment |= {"FAIRQUE_REDIS__URL": server.url, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected


def test_the_list_of_examples_is_complete() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in NAMES if f"[{name}]({name})" not in listed] == []
