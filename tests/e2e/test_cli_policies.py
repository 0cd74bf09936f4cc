"""`fairque users`, `groups`, `limiters` and `config coverage` against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairque import GroupPolicy, LimiterPolicy, Task, TaskQueue, UserPolicy
from fairque.cli.exits import ExitCode
from tests.support.commands import Fq, fq, project, queue

__all__ = ["fq", "project", "queue"]
pytestmark = pytest.mark.no_leak_check


def pairs(text: str) -> dict[str, str]:
    """Names and values, as they are printed line by line."""
    lines = [line.split("  ", 1) for line in text.splitlines() if line.strip()]
    return {name: value.strip() for name, value in lines}


# -- users


def test_only_what_is_given_changes(fq: Fq, queue: TaskQueue) -> None:
    queue.set_group_policy("acme", GroupPolicy())
    done = fq(
        "users", "set", "alice", "--weight", "2", "--rate", "100/m", "--max-queued", "9", "--group", "acme"
    )
    assert (done.code, done.err) == (0, "")
    assert pairs(done.out) == {
        "user": "alice", "weight": "2", "rate limit": "100/m", "burst": "2", "max queued": "9", "group": "acme",
    }  # fmt: skip
    wanted = UserPolicy(weight=2, rate_limit="100/m", max_queued=9, group="acme")
    assert queue.get_user_policy("alice") == wanted
    steps: list[tuple[list[str], UserPolicy]] = [
        (["--max-concurrency", "5"], UserPolicy(weight=2, rate_limit="100/m", max_queued=9, group="acme",
                                                max_concurrency=5)),
        (["--burst", "7", "--paused"], UserPolicy(weight=2, rate_limit="100/m", burst=7, max_queued=9, group="acme",
                                                  max_concurrency=5, paused=True)),
        (["--rate", "none", "--no-paused"], UserPolicy(weight=2, max_queued=9, group="acme", max_concurrency=5)),
        (["--max-queued", "NONE", "--group", "none", "--max-concurrency", "none", "--rate", "2.5"],
         UserPolicy(weight=2, rate_limit=2.5)),
    ]  # fmt: skip
    for options, policy in steps:
        done = fq("users", "set", "alice", *options, "--json")
        assert done.code == 0
        assert (done.json["user_id"], done.json["source"]) == ("alice", "its own")
        assert queue.get_user_policy("alice") == policy
        assert done.json["policy"]["rate_limit"] == policy.rate_limit
    assert fq("users", "reset", "alice").code == 0
    assert queue.get_user_policy("alice") is None


def test_what_a_user_gets_and_why(fq: Fq, queue: TaskQueue) -> None:
    queue.set_group_policy("acme", GroupPolicy(weight=3))
    queue.set_policy_rules(
        {"t-*": UserPolicy(max_concurrency=1, group="acme"), "default": UserPolicy(weight=4)}
    )
    queue.push_batch(Task.create(payload=number, user_id="t-1") for number in range(3))
    shown = fq("users", "show", "t-1")
    assert "rule t-*" in shown.out
    assert pairs(shown.out)["queued"] == "3"
    data = fq("users", "show", "t-1", "--json").json
    assert (data["source"], data["policy"]["max_concurrency"]) == ("rule t-*", 1)
    assert (data["group"]["weight"], data["stats"]["normal"]) == (3, 3)
    assert fq("users", "show", "zoe", "--json").json["source"] == "rule default"
    rules = fq("users", "rules", "--json").json["rules"]
    assert [(rule["pattern"], rule["weight"], rule["group"]) for rule in rules] == [
        ("t-*", 1, "acme"), ("default", 4, None),
    ]  # fmt: skip
    assert "t-*" in fq("users", "rules").out
    # What is in effect stays, also where it came from a rule.
    assert fq("users", "set", "t-1", "--weight", "2").code == 0
    assert queue.get_user_policy("t-1") == UserPolicy(weight=2, max_concurrency=1, group="acme")
    assert fq("users", "show", "t-1", "--json").json["source"] == "its own"
    assert fq("users", "reset", "t-1", "--json").json["source"] == "rule t-*"
    queue.set_policy_rules({})
    assert fq("users", "rules").out == ""
    assert fq("users", "rules", "--json").json == {"rules": []}
    assert fq("users", "show", "t-1", "--json").json["source"] == "the defaults"


def test_a_user_is_paused_and_goes_on(fq: Fq, queue: TaskQueue) -> None:
    assert fq("users", "pause", "alice").out == "user alice is paused\n"
    assert queue.get_user_policy("alice") == UserPolicy(paused=True)
    queue.set_policy_rules({"a*": UserPolicy(max_concurrency=3)})
    data = fq("users", "show", "alice", "--json").json
    assert (data["source"], data["policy"]["max_concurrency"], data["policy"]["paused"]) == (
        "rule a*",
        3,
        True,
    )
    queue.set_policy_rules({})
    assert fq("users", "resume", "alice", "--json").json == {"paused": False, "user_id": "alice"}
    assert queue.get_user_policy("alice") is None


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], ExitCode.USAGE, "nothing to change"),
        (["--weight", "0"], ExitCode.USAGE, "weight must be from 0.01 to 100, not 0"),
        (["--rate", "100/x"], ExitCode.USAGE, "'100/x'"),
        (["--rate", "nan"], ExitCode.USAGE, "not nan"),
        (["--burst", "3"], ExitCode.USAGE, "give the rate_limit too"),
        (["--max-concurrency", "0"], ExitCode.USAGE, "max_concurrency must be from 1"),
        (["--max-queued", "many"], ExitCode.USAGE, "--max-queued takes a whole number"),
        (["--group", "nope"], ExitCode.NOT_FOUND, "there is no group 'nope'"),
    ],
)
def test_bad_policies_are_refused(fq: Fq, queue: TaskQueue, options: list[str], code: int, told: str) -> None:
    done = fq("users", "set", "alice", *options)
    assert done.code == code
    assert told in " ".join(done.err.replace("│", " ").split())
    assert queue.get_user_policy("alice") is None


# -- groups and limiters


def test_groups(fq: Fq, queue: TaskQueue) -> None:
    assert (fq("groups", "ls").out, fq("groups", "ls", "--json").json) == ("", {"groups": []})
    assert fq("groups", "set", "b").code == 0
    assert queue.get_group_policy("b") == GroupPolicy()
    done = fq("groups", "set", "acme", "--weight", "3", "--rate", "50", "--max-concurrency", "9", "--json")
    assert (done.json["name"], done.json["weight"], done.json["rate_limit"]) == ("acme", 3, 50)
    assert fq("groups", "set", "acme", "--paused", "--max-queued", "5").code == 0
    assert queue.get_group_policy("acme") == GroupPolicy(
        weight=3, rate_limit=50, max_concurrency=9, max_queued=5, paused=True
    )
    assert [group["name"] for group in fq("groups", "ls", "--json").json["groups"]] == ["acme", "b"]
    header, *rows = fq("groups", "ls").out.splitlines()
    assert header.split()[:2] == ["group", "weight"]
    assert [row.split()[0] for row in rows] == ["acme", "b"]
    assert "50/s" in rows[0]
    assert pairs(fq("groups", "show", "acme").out)["max queued"] == "5"
    assert fq("groups", "rm", "acme").out == "group acme is no more\n"
    assert fq("groups", "rm", "b", "--json").json == {"removed": "b"}
    for gone in (fq("groups", "show", "acme", "--json"), fq("groups", "rm", "acme", "--json")):
        assert (gone.code, gone.error["type"], gone.error["group"]) == (
            ExitCode.NOT_FOUND, "UnknownGroupError", "acme",
        )  # fmt: skip


def test_a_group_with_work_is_not_removed(fq: Fq, queue: TaskQueue) -> None:
    queue.set_group_policy("acme", GroupPolicy())
    for user in ("ann", "bob"):
        queue.set_user_policy(user, UserPolicy(group="acme"))
        queue.push(Task.create(payload=1, user_id=user))
    refused = fq("groups", "rm", "acme", "--json")
    assert (refused.code, refused.error["type"], refused.error["tasks"]) == (
        ExitCode.REFUSED,
        "GroupInUseError",
        2,
    )
    assert queue.get_group_policy("acme") == GroupPolicy()


def test_limiters(fq: Fq, queue: TaskQueue) -> None:
    assert (fq("limiters", "ls").out, fq("limiters", "ls", "--json").json) == ("", {"limiters": []})
    refused = fq("limiters", "set", "api")
    assert (refused.code, "a limiter limits something" in refused.err) == (ExitCode.USAGE, True)
    assert pairs(fq("limiters", "set", "api", "--rate", "25").out) == {
        "limiter": "api", "rate limit": "25/s", "burst": "3",
    }  # fmt: skip
    assert fq("limiters", "set", "api", "--max-concurrency", "4").code == 0
    assert queue.get_limiter("api") == LimiterPolicy(rate_limit=25, max_concurrency=4)
    assert fq("limiters", "set", "api", "--rate", "none", "--json").json["rate_limit"] is None
    assert queue.get_limiter("api") == LimiterPolicy(max_concurrency=4)
    assert fq("limiters", "show", "api", "--json").json["max_concurrency"] == 4
    assert [one["name"] for one in fq("limiters", "ls", "--json").json["limiters"]] == ["api"]
    assert "api" in fq("limiters", "ls").out
    assert fq("limiters", "rm", "api").code == 0
    gone = fq("limiters", "show", "api", "--json")
    assert (gone.code, gone.error["limiter"]) == (ExitCode.NOT_FOUND, "api")


# -- coverage


def write(folder: Path, workers: list[dict[str, Any]], **sections: Any) -> str:
    """A configuration file, as JSON, which is YAML."""
    (folder / "fairque.yaml").write_text(json.dumps({"workers": workers, **sections}))
    return "fairque.yaml"


def test_everybody_is_served_by_default(fq: Fq) -> None:
    done = fq("config", "coverage", url=None)
    assert (done.code, done.out) == (
        0,
        "ok    worker serves the users that no entry names; nobody else does\n",
    )


def test_users_that_nobody_serves(fq: Fq, project: Path) -> None:
    file = write(
        project,
        [
            {"id": "mail", "assigned_users": ["alice", "bob"], "steal_targets": ["carol"]},
            {"id": "web", "assigned_users": ["dan"], "steal_targets": ["alice", "bob"]},
        ],
        users={"zoe": {"weight": 2}, "trial-*": {}, "default": {}},
    )
    done = fq("config", "coverage", file, url=None)
    assert done.code == ExitCode.FAILED
    assert done.out.splitlines() == [
        "ok    mail serves alice and bob; web steals from them",
        "warn  mail serves carol, but only by stealing",
        "ok    web serves dan; nobody else does",
        "fail  nobody serves zoe and the users that no entry names: add them to the assigned_users or steal_targets "
        'of an entry, or write "*" there',
    ]
    data = fq("config", "coverage", "--json", "--config", file, url=None).json
    assert data["ok"] is False
    assert data["served"][-1] == {"users": ["zoe"], "others": True, "assigned_to": [], "stolen_by": []}


def test_entries_that_share_users(fq: Fq, project: Path) -> None:
    many = [f"u{number:03}" for number in range(50)]
    file = write(
        project,
        [
            {"id": "a", "assigned_users": "*", "steal_targets": []},
            {"id": "b", "assigned_users": "*", "steal_targets": []},
            {"id": "c", "assigned_users": many},
            {"id": "d", "assigned_users": []},
        ],
    )
    first, second = fq("config", "coverage", file, url=None).out.splitlines()
    assert first.startswith("ok    c serves u000, u001, ")
    assert first.endswith(" u019 and 30 more; d steals from them")
    assert second == "ok    a and b share the users that no entry names; c and d steal from them"


def test_entries_that_have_no_live_worker(fq: Fq, queue: TaskQueue, project: Path) -> None:
    file = write(
        project,
        [
            {"id": "mail", "assigned_users": ["alice"], "steal_targets": []},
            {"id": "rest", "assigned_users": "*", "steal_targets": []},
            {"id": "spare", "assigned_users": [], "steal_targets": "*"},
        ],
    )
    assert queue.pop(worker_id="spare") is None
    done = fq("config", "coverage", file, "--live")
    assert done.code == ExitCode.FAILED
    assert done.out.splitlines()[2:] == [
        "fail  entry mail has no live worker",
        "fail  entry rest has no live worker",
        "ok    entry spare has 1 live worker",
        "warn  so spare serves alice now, by stealing",
        "warn  so spare serves the users that no entry names now, by stealing",
    ]
    data = fq("config", "coverage", file, "--live", "--json").json
    assert (data["ok"], data["live_workers"]) == (False, {"mail": 0, "rest": 0, "spare": 1})
    queue.close()
    with TaskQueue(queue.config) as other:
        assert other.pop(worker_id="old") is None
        lines = fq("config", "coverage", file, "--live").out.splitlines()
    assert "fail  so nobody serves alice now" in lines
    assert lines[-1] == "warn  workers live of old, of which this configuration knows nothing"
    assert fq("config", "coverage", file, "--live", url="unix:///nonexistent").code == ExitCode.NO_SERVER
