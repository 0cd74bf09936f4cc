"""`fairque cron`, `fairque scheduler` and `fairque worker --scheduler` against a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fairque import ScheduledTask, TaskQueue
from fairque.cli.exits import ExitCode
from tests.support.commands import Fq, fq, project, queue
from tests.support.servers import ServerProcess
from tests.support.workers import probe, until

__all__ = ["fq", "project", "queue"]
pytestmark = pytest.mark.no_leak_check

ROOT = Path(__file__).parents[2]
BERLIN = ("--cron", "30 2 * * MON-FRI", "--timezone", "Europe/Berlin")


def flat(text: str) -> str:
    """Without the line breaks and frames of a terminal."""
    return re.sub(r"[\s│]+", " ", text)


# -- add and look


def test_add_prints_the_next_five_runs_and_the_schedule_is_there(fq: Fq, queue: TaskQueue) -> None:
    done = fq("cron", "add", "nightly", "cli_tasks:add", "1", "--kwargs", '{"b": 2}', *BERLIN)
    assert (done.code, done.err) == (0, "")
    first, *runs = done.out.splitlines()
    assert first == "schedule nightly is added"
    assert len(runs) == 5
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d 02:30:00\+0[12]:00  in \d.*", run) for run in runs)
    info = queue.schedules.get("nightly")
    assert info is not None
    assert info.schedule == ScheduledTask(
        "nightly", function="cli_tasks:add", args=[1], kwargs={"b": 2}, cron="30 2 * * MON-FRI",
        timezone="Europe/Berlin", options={"max_retries": 0},
    )  # fmt: skip
    assert fq("cron", "add", "nightly", "cli_tasks:add", "1", "--kwargs", '{"b": 2}', *BERLIN).out.startswith(
        "schedule nightly is as it was"
    )
    assert fq("cron", "add", "nightly", "cli_tasks:add", "1", *BERLIN, "--json").json["change"] == "changed"


def test_add_takes_every_field(fq: Fq, queue: TaskQueue) -> None:
    done = fq(
        "cron", "add", "all", "--payload", '{"to": "bob"}', "--every", "10m", "--options", '{"user_id": "alice"}',
        "--misfire", "run_all", "--misfire-limit", "7", "--misfire-grace", "2m", "--overlap", "queue", "--jitter",
        "30s", "--start", "2030-01-01", "--end", "2030-12-31T12:00", "-z", "Asia/Tokyo", "--paused", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(done.json["next_runs"]) == 5
    info = queue.schedules.get("all")
    assert info is not None
    assert info.schedule == ScheduledTask.from_data(
        {
            "name": "all", "payload": {"to": "bob"}, "every": 600, "options": {"user_id": "alice"},
            "misfire": "run_all", "misfire_limit": 7, "misfire_grace_seconds": 120, "overlap": "queue",
            "jitter_seconds": 30, "start": "2030-01-01", "end": "2030-12-31T12:00", "timezone": "Asia/Tokyo",
            "paused": True,
        }
    )  # fmt: skip
    dates = fq("cron", "add", "dates", "-m", "cli_tasks", "cli-named", "0.5", "--at", "2031-05-01T09:00", "--at",
               "2030-05-01T09:00")  # fmt: skip
    assert [line[:16] for line in dates.out.splitlines()[1:]] == ["2030-05-01 09:00", "2031-05-01 09:00"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["cli_tasks:add", "1", "--cron", "0 22-2 * * *"],
            "cron hour '22-2' runs backwards: write 22-23,0-2",
        ),
        (["cli_tasks:add", "1", "--cron", "@daily", "-z", "Berlin"], "did you mean 'Europe/Berlin'?"),
        (["cli_tasks:add", "1", "--cron", "@daily", "--every", "5"], "cron and every are given"),
        (["cli_tasks:add", "1"], "none of them is given"),
        (["cli_tasks:add", "1", "--every", "often"], "10m"),
        (["cli_tasks:add", "1", "--every", "10ms"], "every must be at least 0.1 s"),
        (["cli_tasks:add", "1", "--at", "tomorrow"], "write it as 2025-03-31T09:00"),
        (["cli_tasks:add", "1", "--cron", "@daily", "--overlap", "wait"], "overlap must be one of"),
        (["cli_tasks:add", "1", "--cron", "@daily", "--options", '{"delay": 5}'], "the schedule says when"),
        (["cli_tasks:add", "1", "--cron", "@daily", "--options", '{"user": "a"}'], "did you mean 'user_id'?"),
        (["cli_tasks:add", '"x"', "--cron", "@daily"], "must be int"),
        (["cli_tasks:ad", "1", "--cron", "@daily"], "did you mean cli_tasks:add?"),
        (["cli_tasks:add", "1", "--cron", "@daily", "--payload", "1"], "either MODULE:FUNCTION or --payload"),
        (["--cron", "@daily"], "either MODULE:FUNCTION or --payload"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_the_way_out(
    fq: Fq, queue: TaskQueue, args: list[str], told: str
) -> None:
    done = fq("cron", "add", "bad", *args)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert told in flat(done.err)
    assert queue.schedules.get("bad") is None


def test_ls_and_show_say_when_what_and_how(fq: Fq, queue: TaskQueue) -> None:
    assert fq("cron", "ls").out == ""
    assert fq("cron", "ls", "--json").json == {"schedules": [], "leader": None}
    queue.schedules.add(ScheduledTask("b", payload=1, every=90, overlap="skip"))
    queue.schedules.add(ScheduledTask("a", function="app:f", args=[1], cron="@daily", timezone="Asia/Tokyo"))
    queue.schedules.reconcile([ScheduledTask("c", payload=1, at=datetime.now(UTC), paused=True)], "app")
    handle = queue.schedules.trigger("b")
    shown = fq("cron", "ls")
    head, a, b, c = shown.out.splitlines()
    assert head.split() == ["name", "when", "what", "next", "run", "last", "run", "state"]
    assert a.startswith("a     @daily Asia/Tokyo  ")
    assert "app:f(1)" in a
    assert re.search(r"b +every 1 min 30 s +payload 1 +in .*-now \(not over\)", b)
    assert c.split()[-1] == "paused"
    assert "nobody decides their ticks: start `fairque scheduler`" in flat(shown.err)
    data = fq("cron", "ls", "--json").json["schedules"]
    assert [item["name"] for item in data] == ["a", "b", "c"]
    assert [item["source"] for item in data] == [None, None, "app"]
    assert data[1]["last_task_id"] == handle.task_id
    shown = fq("cron", "show", "b")
    pairs = dict(line.split("  ", 1) for line in shown.out.splitlines())
    assert pairs["when"].strip() == "every 1 min 30 s"
    assert pairs["overlap"].strip() == "skip"
    assert pairs["last run"].strip() == f"{handle.task_id} (not over)"
    data = fq("cron", "show", "b", "--json").json
    assert data["definition"] == {"name": "b", "payload": 1, "every": 90, "overlap": "skip"}


# -- pause, run, remove


def test_pause_resume_next_and_rm(fq: Fq, queue: TaskQueue) -> None:
    queue.schedules.add(ScheduledTask("a", payload=1, cron="@daily", timezone="Europe/Berlin"))
    queue.schedules.add(ScheduledTask("b", payload=1, at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert fq("cron", "pause", "a", "b").out == "schedule a is paused\nschedule b is paused\n"
    runs = fq("cron", "next", "a", "-n", "3")
    assert len(runs.out.splitlines()) == 3
    assert "it is paused" in runs.err
    assert fq("cron", "resume", "a", "--json").json == {"paused": False, "schedules": ["a"]}
    assert [len(fq("cron", "next", name, "--json").json["next_runs"]) for name in ("a", "b")] == [5, 0]
    assert "it has ended" in fq("cron", "next", "b").err
    done = fq("cron", "rm", "a", "nope", "b")
    assert (done.code, done.out) == (ExitCode.NOT_FOUND, "schedule a is no more\nschedule b is no more\n")
    assert "nope: there is no such schedule" in done.err
    assert fq("cron", "rm", "a", "--json").json == {"removed": []}


def test_trigger_pushes_a_run_and_history_shows_it(fq: Fq, queue: TaskQueue) -> None:
    queue.schedules.add(ScheduledTask("a", payload=1, cron="@daily"))
    assert "nothing was decided yet" in fq("cron", "history", "a").err
    task_id = fq("cron", "trigger", "a").out.strip()
    assert fq("cron", "trigger", "a", "--json").json["task_id"] != task_id
    task = queue.pop()
    assert task is not None
    assert task.task_id == task_id
    newest, first = fq("cron", "history", "a", "--json").json["history"]
    assert (first["outcome"], first["task_id"], first["count"]) == ("asked", task_id, 1)
    assert newest["at"] > first["at"]
    assert task_id in fq("cron", "history", "a", "-n", "2").out.splitlines()[2]
    assert "pushed, by hand" in fq("cron", "history", "a").out


@pytest.mark.parametrize("command", ["show", "pause", "resume", "trigger", "history", "next"])
def test_a_name_that_there_is_not(fq: Fq, command: str) -> None:
    done = fq("cron", command, "nope", "--json")
    assert done.code == ExitCode.NOT_FOUND
    assert (done.error["type"], done.error["schedule"]) == ("ScheduleNotFoundError", "nope")
    assert "`fairque cron ls`" in done.error["message"]


# -- the processes


class Process:
    """A command in a process of its own."""

    def __init__(self, server: ServerProcess, project: Path, *args: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("FAIRQUE_")}
        env |= {"FAIRQUE_REDIS__URL": server.url, "PYTHONPATH": f"{ROOT}:{env.get('PYTHONPATH', '')}"}
        self.log = project / "log"
        with self.log.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "fairque.cli", *args], cwd=project, env=env, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(40)


SCHEDULES = """
from fairque import ScheduledTask
from cli_tasks import add

often = ScheduledTask("often", add(1), every=0.2)
"""


def test_a_scheduler_process_decides_ticks_and_leaves_in_order(
    server: ServerProcess, project: Path, fq: Fq, queue: TaskQueue
) -> None:
    (project / "cli_schedules.py").write_text(SCHEDULES)
    (project / "fq.yaml").write_text("schedules:\n  rare: {cron: '@yearly', payload: 1}\n")
    process = Process(server, project, "-c", "fq.yaml", "scheduler", "cli_schedules", "--health-port", "0")
    try:
        until(lambda: queue.get_stats().counters.get("pushed", 0) >= 3, what=process.said)
        assert {info.name: info.source for info in queue.schedules.list()} == {
            "often": "cli_schedules",
            "rare": "config",
        }
        assert fq("cron", "ls", "--json").json["leader"]
        found = re.search(r"health on port (\d+)", process.said())
        assert found is not None
        assert [probe(int(found[1]), path) for path in ("/healthz", "/readyz")] == [200, 200]
    finally:
        code = process.end()
    assert code == 0
    assert queue.schedules.leader() is None, "it has resigned"
    assert process.said().rstrip().endswith("is out")


def test_a_worker_decides_ticks_too_if_it_is_told_to(
    server: ServerProcess, project: Path, queue: TaskQueue
) -> None:
    (project / "cli_schedules.py").write_text(SCHEDULES)
    process = Process(
        server, project, "worker", "cli_tasks", "cli_schedules", "--scheduler", "--log-level", "warning"
    )
    try:
        until(lambda: queue.get_stats().counters.get("finished", 0) >= 3, what=process.said)
    finally:
        code = process.end()
    assert (code, process.said()) == (0, "")
    assert queue.schedules.leader() is None
    assert queue.schedules.history("often")[0].outcome == "run"


def test_a_scheduler_says_why_it_cannot_start(fq: Fq, project: Path) -> None:
    (project / "cli_twice.py").write_text(
        "from fairque import ScheduledTask\n"
        "a = [ScheduledTask('x', payload=1, every=5), ScheduledTask('x', payload=2, every=5)]\n"
    )
    assert "there is no module 'cli_taskz': did you mean cli_tasks?" in flat(fq("scheduler", "cli_taskz").err)
    done = fq("scheduler", "cli_twice")
    assert (done.code, "'x' is declared twice by cli_twice" in flat(done.err)) == (ExitCode.USAGE, True)
    assert "there is no log level 'loud'" in flat(fq("scheduler", "--log-level", "loud").err)
    (project / "bad.yaml").write_text("schedules:\n  x: {cron: '61 * * * *', payload: 1}\n")
    done = fq("scheduler", "--config", "bad.yaml", url=None)
    assert done.code == ExitCode.USAGE
    assert "schedules.x.cron: cron minute '61'" in flat(done.err)
    assert "(line 2)" in done.err
