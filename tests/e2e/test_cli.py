"""The command line against a real server: what it prints, what it leaves in the queue, how it ends."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fairque import FairQueueConfig, Task, TaskQueue, UserPolicy
from fairque.cli import app as cli_app
from fairque.cli import output, run, words
from fairque.cli.exits import ExitCode
from tests.support.commands import Fq, fq, project, queue
from tests.support.servers import ServerProcess

__all__ = ["fq", "project", "queue"]

ROOT = Path(__file__).parents[2]

# Tasks that a command has pushed stay in the queue.
pytestmark = pytest.mark.no_leak_check


def settle(queue: TaskQueue, outcome: object) -> Task[Any]:
    """Claim the next task and end it, with a result or an error."""
    task = queue.pop(wait=10)
    assert task is not None
    if isinstance(outcome, Exception):
        queue.fail(task, outcome)
    else:
        queue.finish(task, outcome)
    return task


# -- push


def test_push_prints_the_id_and_the_task_is_in_the_queue(fq: Fq, queue: TaskQueue) -> None:
    done = fq("push", "cli_tasks:add", "1", "--kwargs", '{"b": 2}', "--user", "alice")
    assert (done.code, done.err) == (0, "")
    task = queue.get_task(done.out.strip())
    assert task is not None
    assert (task.function, task.args, task.kwargs, task.user_id) == ("cli_tasks:add", (1,), {"b": 2}, "alice")
    assert task.max_retries == 0, "the function's own options count"


def test_push_takes_every_option(fq: Fq, queue: TaskQueue) -> None:
    done = fq(
        "push", "cli_tasks:add", "1", "--id", "mine", "-u", "bob", "-p", "high", "--delay", "10m", "--timeout", "1.5",
        "--max-retries", "7", "--dedup-key", "k", "--dedup-window", "1h", "--expires-in", "2h", "--label", "a=b=c",
        "--json",
    )  # fmt: skip
    assert done.json == {"task_id": "mine", "user_id": "bob", "existing": False, "outcome": "stored"}
    task = queue.get_task("mine")
    assert task is not None
    assert (task.state, task.priority, task.timeout, task.max_retries) == ("scheduled", 4, 1.5, 7)
    assert (task.dedup_key, task.labels) == ("k", {"a": "b=c"})
    assert task.entered_at is not None
    assert task.created_at is not None
    assert task.expires_at is not None
    assert (task.entered_at - task.created_at).total_seconds() == pytest.approx(600)
    assert (task.expires_at - task.created_at).total_seconds() == pytest.approx(7200, abs=60)


def test_push_of_a_payload(fq: Fq, queue: TaskQueue) -> None:
    done = fq("push", "--payload", '{"to": ["bob"]}', "--user", "alice")
    task = queue.get_task(done.out.strip())
    assert task is not None
    assert (task.function, task.payload, task.user_id) == ("", {"to": ["bob"]}, "alice")


def test_push_of_negative_numbers_and_of_a_function_with_a_name_of_its_own(fq: Fq, queue: TaskQueue) -> None:
    assert fq("push", "cli_tasks:add", "--id", "negative", "--", "-1", "-2").code == 0
    assert fq("push", "-m", "cli_tasks", "cli-named", "0.5", "--id", "named").code == 0
    assert fq("push", "cli_tasks:named", "0.5", "--id", "by-place").code == 0
    negative, named, by_place = (queue.get_task(task_id) for task_id in ("negative", "named", "by-place"))
    assert negative is not None
    assert negative.args == (-1, -2)
    assert named is not None
    assert by_place is not None
    assert named.function == by_place.function == "cli-named"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["cli_tasks:ad", "1"], "did you mean cli_tasks:add?"),
        (["cli_tasks:zzz", "1"], "it has add, fail, named"),
        (["cli_tasks:plain"], "decorate it with @task"),
        (["cli_taskz:add", "1"], "there is no module 'cli_taskz': did you mean cli_tasks?"),
        (["json.tol:add"], "there is no module 'json.tol': did you mean json.tool?"),
        (["cli-named", "1"], "--module MODULE"),
        (["-m", "cli_tasks", "cli-nam", "1"], "did you mean 'cli-named'?"),
        (["cli_broken:add"], "importing cli_broken failed"),
        (["cli_tasks:add", "x"], """as text it is '"x"'"""),
        (["cli_tasks:add", "{"], "argument 1 is not JSON"),
        (["cli_tasks:add", "NaN"], "NaN is no JSON"),
        (["cli_tasks:add", '"x"'], "must be int"),
        (["cli_tasks:add"], "missing a required argument: 'a'"),
        (["cli_tasks:add", "1", "--kwargs", "[1]"], "--kwargs must be a JSON object"),
        (["cli_tasks:add", "1", "--user", ""], "user_id"),
        (["cli_tasks:add", "1", "--max-retries", "-1"], "max_retries"),
        (["cli_tasks:add", "1", "--on-duplicate", "merge"], "on_duplicate"),
        (["cli_tasks:add", "1", "--dedup-window", "5"], "dedup_key"),
        (["--payload", "nope"], "--payload is not JSON"),
        (["cli_tasks:add", "1", "--priority", "urgent"], "very_high (5)"),
        (["cli_tasks:add", "1", "--delay", "soon"], "10m"),
        (["cli_tasks:add", "1", "--label", "x"], "NAME=VALUE"),
        ([], "either MODULE:FUNCTION or --payload"),
        (["cli_tasks:add", "--payload", "1"], "either MODULE:FUNCTION or --payload"),
    ],
)
def test_a_push_that_cannot_be_is_refused_with_the_way_out_and_nothing_is_written(
    fq: Fq, project: Path, queue: TaskQueue, args: list[str], told: str
) -> None:
    (project / "cli_broken.py").write_text("import json\n1 / 0\n")
    done = fq("push", *args)
    assert done.code == ExitCode.USAGE
    assert told in re.sub(r"[\s│]+", " ", done.err)
    assert done.out == ""
    assert sum(queue.get_stats().states.values()) == 0


def test_an_import_that_fails_says_where(fq: Fq, project: Path) -> None:
    (project / "cli_broken.py").write_text("import json\n1 / 0\n")
    (project / "cli_needy.py").write_text("import surely_not_installed\n")
    assert f"{project}/cli_broken.py:2" in fq("push", "cli_broken:f").err
    assert "module cli_needy needs the module 'surely_not_installed'" in fq("push", "cli_needy:f").err


def test_a_duplicate_is_refused_or_returned(fq: Fq) -> None:
    assert fq("push", "cli_tasks:add", "1", "--id", "twice").code == 0
    again = fq("push", "cli_tasks:add", "1", "--id", "twice", "--json")
    assert again.code == ExitCode.REFUSED
    assert (again.error["type"], again.error["task_id"]) == ("DuplicateTaskError", "twice")
    returned = fq("push", "cli_tasks:add", "1", "--id", "twice", "--on-duplicate", "return", "--json")
    assert returned.json["existing"] is True


def test_push_and_wait_prints_the_result(fq: Fq, queue: TaskQueue) -> None:
    consumer = threading.Thread(target=settle, args=(queue, 3))
    consumer.start()
    done = fq("push", "cli_tasks:add", "1", "2", "--wait", "--wait-timeout", "20")
    consumer.join()
    assert (done.code, done.out) == (0, "3\n")


# -- ls and show


def test_ls_lists_what_runs_first_then_what_waits(fq: Fq, queue: TaskQueue) -> None:
    for name in ("one", "two", "three"):
        fq("push", "cli_tasks:add", "1", "--id", name, "--user", "alice")
    fq("push", "cli_tasks:add", "1", "--id", "later", "--delay", "1h", "--user", "bob")
    running = queue.pop()
    assert running is not None
    listed = fq("ls", "--json").json
    assert [(task["task_id"], task["state"]) for task in listed["tasks"]] == [
        ("one", "started"), ("two", "queued"), ("three", "queued"), ("later", "scheduled"),
    ]  # fmt: skip
    assert listed["cursor"] is None
    table = fq("ls").out
    assert re.search(r"^two +queued +alice +cli_tasks:add\(1\) +normal ", table, re.MULTILINE)
    assert fq("ls", "--state", "scheduled", "--json").json["tasks"][0]["user_id"] == "bob"
    assert [task["task_id"] for task in fq("ls", "--user", "bob", "--json").json["tasks"]] == ["later"]
    queue.release(running)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_ls_hold_every_task_once(fq: Fq, queue: TaskQueue, limit: int) -> None:
    pushed = [queue.push(Task.create(user_id=f"u{i % 2}", payload=i)).task_id for i in range(6)]
    pushed += [queue.push(Task.create(user_id="u0", payload=i, delay=99)).task_id for i in range(3)]
    for args, wanted in (
        ([], pushed),
        (["--user", "u1"], pushed[1:6:2]),
        (["--state", "queued"], pushed[:6]),
    ):
        seen: list[str] = []
        cursor: list[str] = []
        while True:
            page = fq("ls", "--json", "--limit", str(limit), *args, *cursor).json
            assert len(page["tasks"]) <= limit
            seen += [task["task_id"] for task in page["tasks"]]
            if page["cursor"] is None:
                break
            cursor = ["--cursor", page["cursor"]]
        assert seen == wanted


def test_ls_refuses_a_state_or_a_cursor_that_is_none(fq: Fq) -> None:
    assert "the states are queued" in fq("ls", "--state", "lost").err
    for wrong in ("x", "queued", "nope:1/2", "queued:zzz"):
        assert fq("ls", "--cursor", wrong).code == ExitCode.USAGE


def test_show_of_a_failed_task_has_every_attempt(fq: Fq, queue: TaskQueue) -> None:
    fq("push", "cli_tasks:fail", '"oh [bold]no\\u001b[31m"', "--id", "bad")
    settle(queue, ValueError("oh no"))
    shown = fq("show", "bad", "--json").json
    assert (shown["state"], shown["reason"], shown["attempt"]) == ("failed", "no retries left", 1)
    assert [(error["type"], error["message"]) for error in shown["errors"]] == [("ValueError", "oh no")]
    assert "result" not in shown
    text = fq("show", "bad").out
    assert "failed: no retries left" in text
    assert "ValueError: oh no" in text
    assert "[bold]" in text, "a task's data is no markup"
    assert "\x1b" not in text, "and commands no terminal"


def test_show_of_a_finished_task_has_its_result_and_of_a_running_one_its_progress(
    fq: Fq, queue: TaskQueue
) -> None:
    fq("push", "cli_tasks:add", "1", "--id", "done")
    settle(queue, {"when": b"\x00\x01", 5: [1.5]})
    assert fq("show", "done", "--json").json["result"] == {"when": "AAE=", "5": [1.5]}
    assert '"AAE="' in fq("show", "done").out
    fq("push", "cli_tasks:add", "1", "--id", "runs")
    running = queue.pop()
    assert running is not None
    shown = fq("show", "runs", "--json").json
    assert (shown["state"], shown["progress"]) == ("started", None)
    queue.release(running)


def test_what_is_not_there_is_not_found(fq: Fq) -> None:
    for args in (["show", "x"], ["wait", "x"], ["retry", "x"], ["dlq", "show", "x"], ["dlq", "purge", "x"]):
        done = fq(*args, "--json")
        assert (done.code, done.error["type"]) == (ExitCode.NOT_FOUND, "TaskNotFoundError")
    assert fq("cancel", "x").code == ExitCode.NOT_FOUND


# -- wait, cancel, retry


def test_wait_ends_as_the_task_does(fq: Fq, queue: TaskQueue) -> None:
    for name, outcome in (("good", [1, 2]), ("bad", ValueError("no")), ("none", None)):
        fq("push", "cli_tasks:add", "1", "--id", name)
        settle(queue, outcome)
    fq("push", "cli_tasks:add", "1", "--id", "gone")
    fq("push", "cli_tasks:add", "1", "--id", "slow")
    assert fq("cancel", "gone").code == 0
    assert json.loads(fq("wait", "good").out) == [1, 2]
    assert fq("wait", "good", "--json").json == {"task_id": "good", "state": "finished", "result": [1, 2]}
    assert fq("wait", "none", "--json").json["result"] is None
    failed = fq("wait", "bad", "--json")
    assert (failed.code, failed.error["error_type"]) == (ExitCode.FAILED, "ValueError")
    canceled = fq("wait", "gone")
    assert (canceled.code, canceled.out) == (ExitCode.FAILED, "")
    assert "error: task gone was canceled" in canceled.err
    begun = time.monotonic()
    assert fq("wait", "slow", "--timeout", "200ms").code == ExitCode.TIMEOUT
    assert time.monotonic() - begun < 5


def test_cancel_tells_of_each(fq: Fq, queue: TaskQueue) -> None:
    for name in ("ended", "running", "waiting"):
        fq("push", "cli_tasks:add", "1", "--id", name)
    settle(queue, 1)
    running = queue.pop()
    assert running is not None
    done = fq("cancel", "waiting", "running", "ended", "--json")
    assert done.code == ExitCode.REFUSED
    assert done.json["tasks"] == [
        {"task_id": "waiting", "canceled": True, "state": "canceled"},
        {"task_id": "running", "canceled": True, "state": "started"},
        {"task_id": "ended", "canceled": False, "state": "finished"},
    ]
    assert "started (canceling)" in fq("ls").out
    queue.release(running)
    assert "ended: it is finished already" in fq("cancel", "ended").err


def test_retry_queues_again_what_failed_or_was_canceled(fq: Fq, queue: TaskQueue) -> None:
    for user in ("a", "a", "b"):
        fq("push", "cli_tasks:fail", '"x"', "--user", user)
        settle(queue, ValueError("x"))
    fq("push", "cli_tasks:add", "1", "--id", "stopped")
    fq("cancel", "stopped")
    assert fq("retry", "--user", "a", "--json").json == {"requeued": 2}
    assert fq("retry", "--all", "--json").json == {"requeued": 1}
    assert fq("retry", "--all", "--state", "canceled").out == "1 queued again\n"
    assert queue.get_stats().states["queued"] == 4
    assert fq("retry", "stopped").code == ExitCode.REFUSED
    for wrong in ([], ["x", "--all"], ["--all", "--state", "queued"]):
        assert fq("retry", *wrong).code == ExitCode.USAGE


# -- the queue


def test_pause_and_resume(fq: Fq, queue: TaskQueue) -> None:
    fq("push", "cli_tasks:add", "1", "--user", "alice")
    assert fq("pause").out == "the queue is paused\n"
    assert queue.pop() is None
    assert fq("stats", "--json").json["paused"] is True
    assert fq("resume", "--json").json == {"paused": False, "user_id": None}
    fq("pause", "--user", "alice")
    assert queue.get_user_policy("alice") == UserPolicy(paused=True)
    assert queue.pop() is None
    fq("resume", "--user", "alice")
    assert queue.pop() is not None


def test_stats_count_states_events_workers_and_users(fq: Fq, queue: TaskQueue) -> None:
    for _ in range(3):
        fq("push", "cli_tasks:add", "1", "--user", "alice")
    settle(queue, 1)
    found = fq("stats", "--user", "alice", "--user", "nobody", "--json").json
    assert (found["states"]["queued"], found["states"]["finished"]) == (2, 1)
    assert (found["counters"]["pushed"], found["counters"]["finished"]) == (3, 1)
    assert [worker["kind"] for worker in found["workers"]] == ["consumer"]
    assert [(user["user_id"], user["normal"], user["finished"]) for user in found["users"]] == [
        ("alice", 2, 1), ("nobody", 0, 0),
    ]  # fmt: skip
    text = fq("stats", "--user", "alice").out
    assert re.search(r"^queued +2$", text, re.MULTILINE)
    assert re.search(r"^alice +0 +2 ", text, re.MULTILINE)


# -- dead letters


@pytest.fixture
def dead(fq: Fq, queue: TaskQueue) -> list[str]:
    """Three dead letters: of a, a and b."""
    for number, user in enumerate(("a", "a", "b")):
        fq("push", "cli_tasks:fail", '"x"', "--user", user, "--id", f"dead{number}")
        settle(queue, ValueError(f"number {number}"))
    return ["dead0", "dead1", "dead2"]


def test_dlq_list_and_show(fq: Fq, dead: list[str]) -> None:
    listed = fq("dlq", "list", "--json").json
    assert [entry["task"]["task_id"] for entry in listed["dead_letters"]] == dead
    assert [
        entry["task"]["user_id"] for entry in fq("dlq", "list", "-u", "b", "--json").json["dead_letters"]
    ] == ["b"]
    page = fq("dlq", "list", "--limit", "2", "--json").json
    rest = fq("dlq", "list", "--cursor", page["cursor"], "--json").json
    assert [entry["task"]["task_id"] for part in (page, rest) for entry in part["dead_letters"]] == dead
    assert "ValueError: number 1" in fq("dlq", "list").out
    shown = fq("dlq", "show", "dead1", "--json").json
    assert (shown["reason"], shown["errors"][0]["message"]) == ("no retries left", "number 1")
    assert "ValueError: number 1" in fq("dlq", "show", "dead1").out


def test_dlq_requeue_and_purge(fq: Fq, queue: TaskQueue, dead: list[str]) -> None:
    assert fq("dlq", "requeue", "dead0").out == "1 queued again\n"
    assert fq("dlq", "purge", "dead0").code == ExitCode.REFUSED, "it is no dead letter any more"
    assert fq("dlq", "purge", "dead1", "--json").json == {"purged": 1}
    assert queue.get_task("dead1") is None
    refused = fq("dlq", "purge", "--all")
    assert refused.code == ExitCode.USAGE
    assert "--yes" in refused.err
    assert fq("dlq", "purge", "--user", "b", "--yes").out == "1 removed\n"
    assert fq("dlq", "purge", "--all", "--yes", "--json").json == {"purged": 0}
    assert fq("dlq", "list", "--json").json["dead_letters"] == []
    for command in ("requeue", "purge"):
        assert fq("dlq", command).code == ExitCode.USAGE


# -- set-up


def test_the_embedded_server_starts_shows_itself_and_stops(fq: Fq, valkey_path: Path, tmp_path: Path) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    assert fq("server", "status", *where, url=None).code == ExitCode.NO_SERVER
    assert fq("server", "status", *where, "--json", url=None).json == {"running": False}
    try:
        started = fq("server", "start", *where, "--json", url=None).json
        assert started["started"] is True
        assert fq("server", "start", *where, url=None).out.strip() == started["url"]
        status = fq("server", "status", *where, "--json", url=None).json
        assert (status["running"], status["ready"], status["pid"]) == (True, True, started["pid"])
        assert str(started["pid"]) in fq("server", "status", *where, url=None).out
        assert fq("stats", url=f"embedded://{tmp_path}/data").code == 0
    finally:
        stopped = fq("server", "stop", *where, url=None)
    assert (stopped.code, stopped.out) == (0, "stopped\n")
    assert fq("server", "stop", *where, url=None).code == ExitCode.NO_SERVER


def test_server_commands_are_for_the_embedded_one(fq: Fq) -> None:
    done = fq("server", "status")
    assert done.code == ExitCode.USAGE
    assert "--data-dir" in done.err


def test_config_check_names_every_mistake(fq: Fq, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = project / "good.yaml", project / "bad.yaml"
    good.write_text(
        "redis: {url: 'redis://me:secret@db.example/3'}\nworkers: [{id: w1}]\nqueue: {lease_seconds: 20}\n"
    )
    bad.write_text("queue: {lease: 20, aging_seconds: x}\n")
    assert "good.yaml: good" in fq("config", "check", "good.yaml", url=None).out
    checked = fq("config", "check", "good.yaml", "--json", url=None).json
    assert (checked["ok"], checked["server"], checked["workers"]) == (True, "redis://db.example:6379", ["w1"])
    wrong = fq("config", "check", "bad.yaml", url=None)
    assert wrong.code == ExitCode.USAGE
    assert "did you mean 'lease_seconds'" in wrong.err
    assert "queue.aging_seconds" in wrong.err
    assert fq("config", "check", url=None).code == ExitCode.USAGE
    assert fq("config", "check", "absent.yaml", url=None).code == ExitCode.USAGE
    monkeypatch.setenv("FAIRQUE_CONFIG", "good.yaml")
    shown = fq("config", "show", "--json", url=None).json
    assert (shown["queue"]["lease_seconds"], shown["redis"]["url"]) == (20, "redis://db.example/3")
    assert "password: secret" not in fq("config", "show", url=None).out
    assert "password: secret" in fq("config", "show", "--include-secrets", url=None).out


def test_a_url_on_the_command_line_wins_and_takes_no_password_along(
    fq: Fq, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "c.yaml").write_text(
        "redis: {url: 'redis://me:secret@db.example/3'}\nqueue: {lease_seconds: 20}\n"
    )
    monkeypatch.setenv("FAIRQUE_REDIS__HOST", "elsewhere")
    for before in (["--config", "c.yaml"], []):
        shown = fq(*before, "config", "show", "--include-secrets", "--json", url="redis://other:1/").json
        assert shown["redis"] == {"url": "redis://other:1/", "db": 0, "max_connections": 50}
        assert shown["queue"]["lease_seconds"] == (20 if before else 15)


def test_config_init_writes_a_file_that_is_good_and_names_every_field(fq: Fq, project: Path) -> None:
    assert fq("config", "init", url=None).code == 0
    text = (project / "fairque.yaml").read_text()
    assert FairQueueConfig.from_yaml("fairque.yaml") == FairQueueConfig.create_default()
    for section in ("redis", "queue"):
        for name in type(getattr(FairQueueConfig.create_default(), section)).model_fields:
            assert re.search(rf"^  #{name}:", text, re.MULTILINE), name
    again = fq("config", "init", url=None)
    assert again.code == ExitCode.USAGE
    assert "--force" in again.err
    assert fq("config", "init", "--force", url=None).code == 0
    # Taking the comments away gives a good file too, but for what excludes each other.
    kept = [
        line
        for line in text.splitlines()
        if not re.match(r" +#(url|host|port|\w*username|\w*password|ssl\w*):", line)
    ]
    (project / "full.yaml").write_text("\n".join(re.sub(r"^( +)#(\w+:)", r"\1\2", line) for line in kept))
    assert FairQueueConfig.from_yaml("full.yaml").queue == FairQueueConfig.create_default().queue


# -- the shared options, and errors


def test_without_a_server_there_is_one_line_and_exit_code_3(fq: Fq) -> None:
    done = fq("stats", url="redis://127.0.0.1:1/")
    assert (done.code, done.out, done.err.count("\n")) == (ExitCode.NO_SERVER, "", 1)
    as_json = fq("stats", "--json", url="redis://127.0.0.1:1/")
    assert as_json.error["type"] == "QueueUnavailableError"
    assert json.loads(as_json.err)["exit_code"] == 3


def test_shared_options_may_stand_before_the_command(fq: Fq, server: ServerProcess) -> None:
    done = fq("--url", server.url, "--json", "dlq", "list", url=None)
    assert done.json == {"dead_letters": [], "cursor": None}


def test_a_fault_of_our_own_is_one_line_too(fq: Fq, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: run.Run) -> TaskQueue:
        raise RuntimeError("a bug")

    monkeypatch.setattr(run.Run, "queue", broken)
    done = fq("stats")
    assert done.code == ExitCode.INTERNAL
    assert "error: internal: RuntimeError: a bug (FAIRQUE_TRACEBACK=1 shows where)" in done.err


def test_wrong_usage_is_exit_code_2(fq: Fq) -> None:
    for args in (["nope"], ["ls", "--nope"], ["ls", "--limit", "0"], ["show"]):
        assert fq(*args, url=None).code == ExitCode.USAGE


def test_every_command_has_help_and_stands_in_the_docs(fq: Fq) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    top = fq("--help", url=None)
    assert top.code == 0
    commands = {
        info.name or info.callback.__name__ for info in cli_app.app.registered_commands if info.callback
    }
    groups = {group.name for group in cli_app.app.registered_groups}
    assert {
        "demo",
        "worker",
        "push",
        "ls",
        "show",
        "wait",
        "cancel",
        "retry",
        "pause",
        "resume",
        "stats",
    } <= commands
    for name in sorted(commands | {str(group) for group in groups}):
        assert f"`fairque {name}`" in page
        assert fq(name, "--help", url=None).code == 0
    for code in ExitCode:
        assert f"| {code.value} | {code.text} |" in page
        assert str(code.value) in top.out
    assert fq("--version", url=None).out.startswith("fairque ")


def test_values_as_people_write_them() -> None:
    for text, wanted in (
        ("90", 90),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("10m", 600),
        ("2h", 7200),
        (" 1D ", 86400),
    ):
        assert words.seconds(text) == wanted
    for name, number in (("critical", 6), ("Very-High", 5), ("1", 1)):
        assert words.priority(name) == number
    assert [words.span(value) for value in (0, 0.25, 9.94, 59.4, 61, 3600, 90_000)] == [
        "0 s", "250 ms", "9.9 s", "59 s", "1 min 1 s", "1 h", "1 d 1 h",
    ]  # fmt: skip
    assert words.size(512) == "512 B"
    assert words.size(5 * 2**30) == "5.0 GiB"
    assert output.tame("a\x1b[31m\r\x07b\n\tc") == "a\\x1b[31m\\x0d\\x07b\n\tc"
    assert json.loads(output.to_json({1: {(2, 3): 2**70}, "x": float("nan")})) == {
        "1": {"(2, 3)": 2**70}, "x": None,
    }  # fmt: skip


# -- as processes


def fairque(*args: str, **options: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRQUE_")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [sys.executable, "-m", "fairque.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_a_worker_serves_until_sigterm(
    fq: Fq, server: ServerProcess, project: Path, queue: TaskQueue
) -> None:
    worker = fairque("worker", "cli_tasks", "--threads", "2", "--url", server.url, cwd=project)
    try:
        assert fq("push", "cli_tasks:add", "20", "22", "--wait", "--wait-timeout", "60").out == "42\n"
        failed = fq("push", "cli_tasks:fail", '"so it is"', "--wait", "--wait-timeout", "60")
        assert (failed.code, "ValueError: so it is" in failed.err) == (ExitCode.FAILED, True)
        [serving] = [one for one in queue.get_stats().workers if one.fields["kind"] == "worker"]
        assert serving.fields["worker_id"] == "worker"
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=30)
        assert worker.returncode == 0, told
        assert "is ready: 2 slots" in told
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["cli_taskz"], "did you mean cli_tasks?"),
        (["cli_tasks:add"], "the module is 'cli_tasks'"),
        ([], "name a MODULE"),
        (["--handler", "cli_tasks"], "MODULE:CLASS"),
        (["cli_tasks", "--worker-id", "nope"], "did you mean worker?"),
        (["cli_tasks", "--threads", "0"], "max_concurrent_tasks"),
        (["cli_tasks", "--log-level", "loud"], "there are debug"),
    ],
)
def test_a_worker_that_cannot_start_says_why(fq: Fq, args: list[str], told: str) -> None:
    done = fq("worker", *args)
    assert done.code == ExitCode.USAGE
    assert told in re.sub(r"[\s│]+", " ", done.err)


def test_a_reader_that_goes_away_is_no_fault(project: Path, server: ServerProcess, queue: TaskQueue) -> None:
    queue.push_batch(Task.create(payload="x" * 200) for _ in range(3000))
    listing = fairque("ls", "--limit", "3000", "--json", "--url", server.url, cwd=project)
    assert listing.stdout is not None
    assert listing.stderr is not None
    assert listing.stdout.readline() == "{\n"
    listing.stdout.close()
    assert listing.wait(60) == ExitCode.BROKEN_PIPE
    assert listing.stderr.read() == ""
    listing.stderr.close()


def test_the_installed_program_is_this_one() -> None:
    from fairque import cli

    assert 'fairque = "fairque.cli:main"' in (ROOT / "pyproject.toml").read_text()
    assert inspect.signature(cli.main).parameters == {}
