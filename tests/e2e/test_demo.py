"""`fairque demo`: a smaller load than usual, the whole way; and its parts."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fairque.cli.demo import chart, load, page, tally, tasks
from fairque.cli.demo.screen import seconds_text
from fairque.cli.demo.stage import Kill, Outcome
from fairque.cli.demo.tally import Line, Tally, Wait
from fairque.core.exceptions import ConfigError
from fairque.queue.queue import TaskQueue

ROOT = Path(__file__).parents[2]


def start(*args: str, directory: Path) -> subprocess.Popen[str]:
    # A server that the user has configured must not be touched, nor even be needed.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "FAIRQUE_REDIS__URL": "redis://127.0.0.1:1/",
        "FAIRQUE_DATA_DIR": str(directory / "untouched"),
        "TMPDIR": str(directory),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "fairque.cli", "demo", *args],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def short_dir() -> Any:
    """A directory whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="fq-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.slow
def test_the_demo_is_fair_loses_nothing_and_leaves_only_its_page(valkey_path: Path, short_dir: Path) -> None:
    demo = start("--tasks", "900", "--seconds", "6", "--json", directory=short_dir)
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, err
    told = json.loads(out)
    assert told["pushed"] == 900 + 6 * 20
    assert (told["lost"], told["doubled"], told["failed"]) == (0, 0, 0)
    assert told["fifo_complete"] is True
    # With the full load it is over 10; this one is a third of it.
    assert told["small_tenants"]["ratio"]["p95"] > 2
    assert told["kill"]["held"] > 0
    assert 0 < told["kill"]["given_back_after"] <= 1
    assert [tenant["tasks"] for tenant in told["tenants"]] == [900] + [20] * 6
    assert [path.name for path in short_dir.iterdir()] == ["fairque-demo.html"]
    text = Path(told["report"]).read_text()
    assert not re.search(r"""(?:src|href)=|url\(|@import|<script|<link""", text), "it loads nothing"
    assert "://" not in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)  # noqa: S314 - the demo has just written it
    for tenant in told["tenants"]:
        assert tenant["tenant"] in text


@pytest.mark.slow
def test_the_demo_leaves_nothing_behind_when_it_is_stopped(valkey_path: Path, short_dir: Path) -> None:
    demo = start("--tasks", "900", "--seconds", "6", directory=short_dir)
    assert demo.stdout is not None
    seen: list[str] = []
    for line in demo.stdout:
        seen.append(line)
        if re.search(r" [1-9]\d*/1020 done", line):
            break
    workers = children(demo.pid)
    demo.send_signal(signal.SIGTERM)
    _, err = demo.communicate(timeout=40)
    assert demo.returncode == 130, (seen, err)
    assert "Traceback" not in err
    assert list(short_dir.iterdir()) == []
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def children(pid: int) -> list[int]:
    """Processes that this one has started (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def test_a_place_that_cannot_be_written_is_told_at_once(short_dir: Path) -> None:
    demo = start("--output", str(short_dir / "absent" / "x.html"), directory=short_dir)
    _, err = demo.communicate(timeout=30)
    assert demo.returncode == 2
    assert "cannot be written" in err


def test_the_plan_names_real_packages_and_files() -> None:
    plan = load.make_plan(200, 1.0)
    assert len(plan.small) == 6
    assert len({tenant.name for tenant in plan.tenants}) == 7
    assert load.LEAST_BYTES <= plan.limit <= load.MOST_BYTES
    for tenant in plan.tenants:
        assert all((tasks.library() / path).is_file() for path in tenant.files)
    flood, trickle = list(plan.flood()), list(plan.trickle("everybody"))
    assert (len(flood), len(trickle), plan.total) == (200, 120, 320)
    assert {task.user_id for task in flood} == {plan.whale.name}
    assert {task.user_id for task in trickle} == {"everybody"}
    assert [task.labels["tenant"] for task in trickle[:6]] == [tenant.name for tenant in plan.small]
    counts = tasks.tokenise.fn(*flood[0].args)
    assert counts["bytes"] <= plan.limit
    assert counts["tokens"] > 0
    assert counts["pid"] == os.getpid()


def test_a_slower_machine_reads_less() -> None:
    files = load.make_plan(200, 1.0).whale.files
    assert load._measured_limit(files, 1e-9) == load.LEAST_BYTES
    assert load._measured_limit(files, 60.0) == load.MOST_BYTES


def test_a_python_without_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "library", lambda: tmp_path)
    with pytest.raises(ConfigError, match="use a Python that has its sources"):
        load.make_plan()


def test_whatever_a_file_holds_is_counted_as_far_as_it_can_be_read() -> None:
    assert tasks.count(b"a = 1  # one\n")[1:] == (1, 1)
    for broken in (b"f(", b'"""', b"# coding: nope\n", b"\xff\xfe", b"if 1:\n x\n  y\n z\n", b""):
        tasks.count(broken)


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [tally.percentile(values, share) for share in (0.01, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert tally.percentile([3.0], 0.95) == 3
    assert math.isnan(tally.percentile([], 0.5))


def outcome(*, kill: Kill | None = None, lost: int = 0, slow: float = 1.0) -> Outcome:
    """A run that has ended, of a tenant with a name that must be escaped, and of one without any wait."""
    found = Tally(TaskQueue(), [("<whale>", True), ("small", False), ("idle", False)])
    found.lines["<whale>"] = Line("<whale>", True, 2, 0, 2, [Wait(0.1, 0.1), Wait(9.0, 9.0)])
    found.lines["small"] = Line("small", False, 1, 0, 1, [Wait(1.2, 0.2 * slow)])
    return Outcome(found, 9.0, True, lost, 0, 0, kill)


def test_the_page_stands_whatever_the_figures_are(tmp_path: Path) -> None:
    plan = load.Plan((load.Tenant("<whale>", ("a.py",), 2, True), load.Tenant("small", ("b.py",), 1)), 5000)
    target = tmp_path / "page.html"
    page.write_page(target, plan, outcome(kill=Kill(7, 4.0, 8, 0.05, 1.0)), outcome(slow=30), 8)
    text = target.read_text()
    assert "<whale>" not in text
    assert "&lt;whale&gt;" in text
    assert "30×" in text
    assert "its tasks are back after 0.05 s" in text
    page.write_page(target, plan, outcome(lost=3), outcome(), 8)
    assert '<b class="bad">3 lost</b>' in target.read_text()
    with pytest.raises(ConfigError, match="cannot be written"):
        page.write_page(tmp_path / "absent" / "x", plan, outcome(), outcome(), 8)


def test_ticks_are_round_and_reach_the_top() -> None:
    for top in (0.003, 0.2, 1, 7, 18.3, 25, 999):
        found = chart.ticks(top)
        assert found[0] == 0
        assert found[-1] >= top
        assert 3 <= len(found) <= 8
    assert chart.ticks(0)[-1] >= 1
    assert chart.ticks(math.nan)[-1] >= 1


def test_waits_as_they_are_shown() -> None:
    assert [seconds_text(value) for value in (math.nan, 0.0123, 0.58, 3.14, 21.7)] == [
        "–", "12 ms", "580 ms", "3.1 s", "22 s",
    ]  # fmt: skip
