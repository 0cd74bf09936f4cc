"""Filters, dead letters and the clean-up on the command line."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from fairque.cli.exits import ExitCode
from fairque.core.models import Task
from fairque.queue.queue import TaskQueue
from tests.support.commands import Fq, fq, project, queue

__all__ = ["fq", "project", "queue"]

pytestmark = pytest.mark.no_leak_check  # tasks stay where a command has left them


def push(queue: TaskQueue, count: int, **options: Any) -> None:
    queue.push_batch(Task.create(payload=number, max_retries=0, **options) for number in range(count))


def fail(queue: TaskQueue, error: Exception) -> None:
    while tasks := queue.pop(count=100):
        for task in tasks:
            queue.fail(task, error)


@pytest.fixture
def dead(queue: TaskQueue) -> None:
    """Three of a that timed out, two of b that did not."""
    push(queue, 3, user_id="a", labels={"env": "prod"})
    fail(queue, TimeoutError("the bank"))
    push(queue, 2, user_id="b")
    fail(queue, ValueError("no"))


def test_cancel_by_filter_counts_asks_and_does(
    fq: Fq, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(queue, 3, user_id="a", priority=4)
    push(queue, 2, user_id="b", delay=60)
    preview = fq("cancel", "--filter", "user=?", "--filter", "priority=high,3", "--dry-run", "--json").json
    assert (preview["matched"], preview["done"], preview["dry_run"]) == (5, 0, True)
    refused = fq("cancel", "-f", "user=a")
    assert refused.code == ExitCode.USAGE
    assert "this is about 3 tasks" in refused.err
    assert "--yes" in refused.err
    assert fq("cancel", "-f", "user=a", "--yes", "--most", "1").out == "1 canceled\n"
    monkeypatch.setattr("fairque.cli.filters._is_asked", lambda: True)
    asked = fq("cancel", "-f", "state=queued", stdin="n\n")
    assert "Cancel 2 tasks?" in asked.out
    assert asked.code == 1
    assert queue.get_stats().states["queued"] == 2
    asked = fq("cancel", "-f", "state=queued,scheduled", stdin="y\n")
    assert asked.out.endswith("4 canceled\n")
    assert asked.code == 0
    assert fq("cancel", "-f", "user=nobody").out == "0 canceled\n"


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("users=a", "no condition 'users'"),
        ("user", "takes NAME=VALUE"),
        ("older_than=soon", "no duration"),
        ("state=dead", "there is no state 'dead'"),
        ("state=finished", "a cancel is for tasks that are"),
        ("priority=7", "no priority"),
    ],
)
def test_a_condition_that_cannot_be_one_is_wrong_usage(fq: Fq, condition: str, told: str) -> None:
    refused = fq("cancel", "--filter", condition, "--yes")
    assert refused.code == ExitCode.USAGE
    assert told in " ".join(refused.err.replace("│", " ").split())
    twice = fq("cancel", "-f", "user=a", "-f", "user=b", "--yes")
    assert twice.code == ExitCode.USAGE
    assert "twice" in twice.err


def test_ids_and_filters_do_not_go_together(fq: Fq) -> None:
    for args in (["cancel"], ["cancel", "x", "-f", "user=a"], ["retry", "x", "-f", "user=a"],
                 ["dlq", "requeue", "x", "-f", "user=a"], ["dlq", "purge", "--dry-run"],
                 ["dlq", "requeue", "--all", "--payload", "1"]):  # fmt: skip
        assert fq(*args).code == ExitCode.USAGE, args


def test_retry_by_filter(fq: Fq, queue: TaskQueue, dead: None) -> None:
    assert fq("retry", "-f", "error=bank", "-u", "a", "--dry-run").out == "3 fit; nothing was done\n"
    assert fq("retry", "-f", "label.env=p*", "--yes", "--json").json["done"] == 3
    assert fq("retry", "-f", "older_than=1h", "--yes").out == "0 queued again\n"
    assert queue.get_stats().states["queued"] == 3


def test_dead_letters_by_filter(fq: Fq, queue: TaskQueue, dead: None) -> None:
    letters = fq("dlq", "ls", "-f", "error=valueerror", "--json").json["dead_letters"]
    assert [letter["task"]["user_id"] for letter in letters] == ["b", "b"]
    page = fq("dlq", "ls", "-n", "2", "-f", "user=a", "--json").json
    assert len(page["dead_letters"]) == 2
    rest = fq("dlq", "ls", "-f", "user=a", "--cursor", page["cursor"], "--json").json
    assert len(rest["dead_letters"]) == 1
    assert rest["cursor"] is None
    assert "there are no such dead letters" in fq("dlq", "ls", "-f", "error=zebra").err
    users = fq("dlq", "users", "--json").json["users"]
    assert [(user["user_id"], user["count"]) for user in users] == [("a", 3), ("b", 2)]
    assert "a" in fq("dlq", "users").out
    assert fq("dlq", "requeue", "-f", "error=bank", "--most", "2", "--yes").out == "2 queued again\n"
    assert fq("dlq", "purge", "-f", "error=bank", "--yes", "--json").json["done"] == 1
    assert fq("dlq", "purge", "--all", "--dry-run").out == "2 fit; nothing was done\n"
    assert "this is about 2 tasks" in fq("dlq", "purge", "--user", "b").err
    assert queue.dlq.count() == 2


def test_one_is_queued_again_with_other_arguments(fq: Fq, queue: TaskQueue) -> None:
    fq("push", "cli_tasks:add", "1", "--id", "sum")
    fail(queue, ValueError())
    push(queue, 1, task_id="load")
    fail(queue, ValueError())
    wrong = fq("dlq", "requeue", "sum", "--args", "[1, 2, 3]")
    assert wrong.code == ExitCode.USAGE
    assert fq("dlq", "requeue", "sum", "--args", "1").code == ExitCode.USAGE
    assert fq("dlq", "requeue", "sum", "--args", "[5]", "--kwargs", '{"b": 6}').out == "1 queued again\n"
    assert fq("dlq", "requeue", "load", "--payload", '{"x": 1}', "--json").json == {"requeued": 1}
    task = queue.get_task("sum")
    assert task is not None
    assert task() == 11
    again = queue.get_task("load")
    assert again is not None
    assert again.payload == {"x": 1}


def test_cleanup_tells_what_it_did(fq: Fq, queue: TaskQueue, flushed: redis.Redis) -> None:
    assert "there was nothing to do" in fq("cleanup").err
    flushed.rpush("fq:errors:nothing", "x")
    assert fq("cleanup").out == "1 left-overs were mended or removed\n"
    assert set(fq("cleanup", "--json").json.values()) == {0}


def test_users_delete(fq: Fq, queue: TaskQueue, dead: None) -> None:
    push(queue, 1, user_id="a")
    assert fq("users", "delete", "a").code == ExitCode.USAGE
    busy = fq("users", "delete", "a", "--yes", "--json")
    assert busy.code == ExitCode.REFUSED
    assert (busy.error["user_id"], busy.error["queued"]) == ("a", 1)
    held = queue.pop()
    assert held is not None
    half = fq("users", "delete", "a", "--yes", "--force", "--json")
    assert (half.code, half.json) == (ExitCode.REFUSED, {"done": False, "tasks": 3, "running": 1})
    queue.finish(held, 1)
    assert "user a is gone, with 1 tasks" in fq("users", "delete", "a", "--yes").out
    assert [one.user_id for one in queue.dlq.users()] == ["b"]
