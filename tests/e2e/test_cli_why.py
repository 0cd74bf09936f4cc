"""`fairque why`, `users ls`, `users show` and `users reconcile` against a real server."""

from __future__ import annotations

import pytest
import redis

from fairque import GroupPolicy, Task, TaskQueue, UserPolicy
from fairque.cli.exits import ExitCode
from tests.support.commands import Fq, fq, project, queue

__all__ = ["fq", "project", "queue"]
pytestmark = pytest.mark.no_leak_check


def push(queue: TaskQueue, user: str, count: int) -> None:
    outcomes = queue.push_batch(
        Task.create(task_id=f"{user}-{number}", payload=number, user_id=user) for number in range(count)
    )
    assert all(outcome.ok for outcome in outcomes)


# -- why


def test_why_a_task_waits(fq: Fq, queue: TaskQueue) -> None:
    queue.set_group_policy("acme", GroupPolicy(max_concurrency=9))
    queue.set_user_policy("alice", UserPolicy(max_concurrency=1, group="acme"))
    push(queue, "alice", 4)
    push(queue, "bob", 2)
    assert len(queue.pop(count=2)) == 2
    done = fq("why", "alice-3")
    assert (done.code, done.err) == (0, "")
    first, _, rest = done.out.partition("\n")
    assert first.startswith(
        "Task alice-3 of user alice waits: 1 of at most 1 tasks of user alice run; 2 tasks come"
    )
    assert "user_cap, behind_own" in rest
    assert "2 of its user" in rest
    assert "group acme" in rest
    data = fq("why", "alice-3", "--json").json
    assert (data["task_id"], data["state"], data["reason"]) == ("alice-3", "queued", "user_cap")
    assert [reason["code"] for reason in data["reasons"]][:2] == ["user_cap", "behind_own"]
    assert (data["position"], data["group"], data["limits"][0]["used"]) == (2, "acme", 1)
    assert fq("why", "alice-0").out.startswith("Task alice-0 of user alice: it has been running for")
    ahead = fq("why", "bob-1")
    assert ahead.code == 0


def test_why_shows_who_is_served_before(fq: Fq, queue: TaskQueue) -> None:
    queue.pop()
    for user in ("alice", "bob"):
        push(queue, user, 3)
    assert queue.pop() is not None  # of alice, whose tag moves on
    shown = fq("why", "alice-2").out
    assert "served before" in shown
    assert "bob" in shown.rpartition("served before")[2]
    assert fq("why", "alice-2", "--json").json["ahead"][0]["name"] == "bob"


def test_why_of_a_task_that_is_not_there(fq: Fq, queue: TaskQueue) -> None:
    done = fq("why", "nothing", "--json")
    assert done.code == ExitCode.NOT_FOUND
    assert done.error["task_id"] == "nothing"
    assert fq("why").code == ExitCode.USAGE


# -- users


def test_users_are_listed(fq: Fq, queue: TaskQueue) -> None:
    assert fq("users", "ls").out == ""
    assert fq("users", "ls", "--json").json == {"users": [], "cursor": None}
    queue.set_group_policy("acme", GroupPolicy())
    queue.set_user_policy("large", UserPolicy(group="acme", weight=2))
    for user, count in (("small", 1), ("large", 40), ("middle", 10)):
        push(queue, user, count)
    queue.pause_user("small")
    listed = fq("users", "ls")
    lines = listed.out.splitlines()
    assert lines[0].split()[:3] == ["user", "group", "queued"]
    assert [line.split()[0] for line in lines[1:]] == ["large", "middle", "small"]
    assert "acme" in lines[1]
    assert lines[3].endswith("paused")
    page = fq("users", "ls", "-n", "2", "--json").json
    assert [user["user_id"] for user in page["users"]] == ["large", "middle"]
    assert page["users"][0]["queued"] == 40
    rest = fq("users", "ls", "--limit", "2", "--cursor", page["cursor"], "--json").json
    assert [user["user_id"] for user in rest["users"]] == ["small"]
    assert "--cursor" in fq("users", "ls", "-n", "1").err
    for by in ("service", "wait"):
        found = fq("users", "ls", "--by", by, "--json").json["users"]
        assert {user["user_id"] for user in found} == {"small", "large", "middle"}
    for options in (["--by", "size"], ["--limit", "501"], ["--cursor", "x"]):
        assert fq("users", "ls", *options).code == ExitCode.USAGE


def test_a_user_is_shown_in_full(fq: Fq, queue: TaskQueue) -> None:
    push(queue, "alice", 5)
    task = queue.pop()
    assert task is not None
    queue.finish(task, seconds=2)
    shown = fq("users", "show", "alice").out
    pairs = {
        line.split("  ", 1)[0]: line.split("  ", 1)[1].strip() for line in shown.splitlines() if "  " in line
    }
    assert pairs["state"] == "ready"
    assert (pairs["queued"], pairs["running"], pairs["finished"]) == ("4", "0", "1")
    assert pairs["share of late"] == "100.0%"
    assert "oldest waits" in pairs
    stats = fq("users", "show", "alice", "--json").json["stats"]
    assert (stats["queued"], stats["finished"], stats["actual_share"]) == (4, 1, 1)
    assert "idle" in fq("users", "show", "nobody").out


def test_reconcile_says_what_it_mended(fq: Fq, queue: TaskQueue, flushed: redis.Redis) -> None:
    push(queue, "alice", 3)
    queue.pop(count=1)
    done = fq("users", "reconcile")
    assert done.code == 0
    assert done.out.endswith("looked at: all of it agrees\n")
    flushed.delete("fq:ready:all", "fq:queue:user:alice:normal")
    flushed.set("fq:queue:user:alice:normal", "no queue")
    done = fq("users", "reconcile")
    assert done.code == ExitCode.FAILED
    assert "mended  normal of user alice: was a string, is a queue" in done.out
    assert "things mended" in done.out
    flushed.delete("fq:ready:all")
    data = fq("users", "reconcile", "--no-tasks", "--json")
    assert data.code == ExitCode.FAILED
    assert {"what", "was", "now"} == set(data.json["repaired"][0])
    assert fq("users", "reconcile", "--json").json["repaired"] == []
    assert len(queue.pop(count=5)) == 2
