"""`fairque update`, `show --attempts`, and pushes that meet others, against a real server."""

from __future__ import annotations

import pytest

from fairque import Task, TaskQueue, UserPolicy
from fairque.cli.exits import ExitCode
from fairque.core.retry import fixed
from tests.support.commands import Fq, fq, project, queue

__all__ = ["fq", "project", "queue"]

pytestmark = pytest.mark.no_leak_check


def test_update_changes_what_waits(fq: Fq, queue: TaskQueue) -> None:
    queue.push(Task.create(task_id="t", payload=1, labels={"old": "1"}))
    done = fq(
        "update", "t", "--priority", "critical", "--timeout", "90", "--max-retries", "9", "--label", "a=b"
    )
    assert (done.code, done.out) == (0, "t: queued\n")
    task = queue.get_task("t")
    assert task is not None
    assert (task.priority, task.timeout, task.max_retries, dict(task.labels)) == (6, 90, 9, {"a": "b"})
    put_off = fq("update", "t", "--delay", "2h", "--expires-in", "3h")
    assert put_off.out.startswith("t: scheduled, due ")
    data = fq("update", "t", "--delay", "0", "--json").json
    assert (data["state"], data["priority"]) == ("queued", "critical")
    assert data["expires_at"] is not None


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["nowhere", "--priority", "3"], ExitCode.NOT_FOUND, "there is no task nowhere"),
        (["runs", "--priority", "3"], ExitCode.REFUSED, "task runs is started and cannot be updated"),
        (["t"], ExitCode.USAGE, "there is nothing to change: give --priority, --delay or"),
        (["t", "--priority", "urgent"], ExitCode.USAGE, "very_high (5)"),
        (["t", "--label", "x"], ExitCode.USAGE, "NAME=VALUE"),
        (["t", "--max-retries", "-1"], ExitCode.USAGE, "max_retries"),
    ],
)
def test_update_refuses_with_the_way_out(
    fq: Fq, queue: TaskQueue, args: list[str], code: int, told: str
) -> None:
    queue.push(Task.create(task_id="runs", payload=1))
    running = queue.pop()
    queue.push(Task.create(task_id="t", payload=1))
    done = fq("update", *args)
    assert (done.code, told in done.err) == (code, True), done.err
    assert running is not None
    queue.release(running)


def test_show_has_the_history_of_all_runs(fq: Fq, queue: TaskQueue) -> None:
    queue.push(Task.create(task_id="t", payload=1, retry=fixed(0), max_retries=1))
    for text in ("first", "second\nwith more lines", "third"):
        task = queue.pop(wait=10)
        assert task is not None
        queue.fail(task, ValueError(text))
        if text.startswith("second"):
            queue.dlq.requeue("t")
    found = fq("show", "t", "--attempts", "--json").json["attempts"]
    assert [(one["run"], one["attempt"], one["retry_in"]) for one in found] == [
        (0, 1, 0),
        (0, 2, None),
        (1, 1, 0),
    ]
    assert all(one["worker"] and one["started_at"] and one["failed_at"] >= one["started_at"] for one in found)
    text = fq("show", "t", "--attempts").out
    assert "ValueError: first" in text
    assert "at once" in text
    assert "never" in text
    assert "with more lines" not in text
    assert [error["message"] for error in fq("show", "t", "--json").json["errors"]] == ["third"]
    queue.push(Task.create(task_id="fresh", payload=1))
    assert "no attempt has failed" in fq("show", "fresh", "--attempts").err


def test_a_push_says_whom_it_has_met(fq: Fq, queue: TaskQueue) -> None:
    key = ["--dedup-key", "k", "--dedup-window", "60"]
    debounce = [*key, "--on-duplicate", "debounce", "--dedup-max-wait", "5m"]
    assert fq("push", "cli_tasks:add", "1", "--id", "first", *debounce).out == "first\n"
    again = fq("push", "cli_tasks:add", "2", *debounce)
    assert again.out == "first\n"
    assert "it waits, and does what this push says from now on" in again.err
    task = queue.get_task("first")
    assert task is not None
    assert (task.args, task.dedup_max_wait) == ((2,), 300)
    dropped = fq("push", "cli_tasks:add", "3", *key, "--on-duplicate", "throttle")
    assert "dropped: this one was pushed within the window" in dropped.err
    assert (
        fq("push", "cli_tasks:add", "3", *key, "--on-duplicate", "return", "--json").json["outcome"]
        == "returned"
    )
    refused = fq("push", "cli_tasks:add", "3", "--on-duplicate", "throttle")
    assert "'throttle' needs a dedup_key, and a dedup_window" in refused.err


def test_users_have_a_retry_budget(fq: Fq, queue: TaskQueue) -> None:
    assert fq("users", "set", "alice", "--retry-budget", "0.2", "--retry-minimum", "30/m").code == 0
    assert queue.get_user_policy("alice") == UserPolicy(retry_budget=0.2, retry_minimum="30/m")
    shown = fq("users", "show", "alice").out
    assert "retry budget" in shown
    assert "0.5/s" in shown
    assert fq("users", "set", "alice", "--weight", "2", "--retry-budget", "none").code == 0
    assert queue.get_user_policy("alice") == UserPolicy(weight=2)
    refused = fq("users", "set", "alice", "--retry-budget", "20")
    assert refused.code != 0
    assert "retry_budget" in refused.err
    assert "0.2 is a fifth" in refused.err


def test_why_tells_of_a_budget_that_is_used_up(fq: Fq, queue: TaskQueue) -> None:
    queue.set_user_policy("alice", UserPolicy(retry_budget=0, retry_minimum="1/h"))
    for number in range(11):
        queue.push(Task.create(task_id=f"t{number}", payload=1, user_id="alice", retry=fixed(1)))
    for task in queue.pop(count=11):
        queue.fail(task, ValueError("no"))
    held = [number for number in range(11) if "retry_budget" in fq("why", f"t{number}").out]
    assert len(held) == 1
    assert fq("why", f"t{held[0]}", "--json").json["reason"] == "retry_budget"
    assert "by the budget" in fq("show", f"t{held[0]}", "--attempts").out
