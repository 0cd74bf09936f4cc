"""`fairque repair` mends every stuck state that `fairque doctor` names; `fairque acl` prints what a user needs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from fairque import FairQueueConfig, Task, TaskQueue
from fairque.cli import checkup
from fairque.cli.app import app
from tests.support.invariants import assert_consistent
from tests.support.servers import ServerProcess

NewServer = Callable[..., ServerProcess]
pytestmark = pytest.mark.no_leak_check


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FAIRQUE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAIRQUE_QUEUE__LEASE_SECONDS", "1")


@pytest.fixture
def place(new_server: NewServer) -> Iterator[tuple[ServerProcess, TaskQueue]]:
    """A server with a task that runs, two that wait, a delayed one and a dead letter; nobody else is there."""
    server = new_server()
    queue = TaskQueue(config_of(server.url))
    for name in ("running", "waiting", "critical", "dead"):
        queue.push(
            Task.create(payload=1, task_id=name, user_id="alice", priority=6 if name == "critical" else 3)
        )
    queue.push(Task.create(payload=1, task_id="later", user_id="alice", delay=600))
    queue.move_to_dlq("dead", "a reason")
    taken = queue.pop()
    assert taken is not None
    yield server, queue
    queue.close()


def config_of(url: str) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url}})


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def stuck(url: str) -> list[str]:
    return [
        finding.found
        for finding in checkup.examine(config_of(url))
        if finding.check in ("stuck states", "orphans") and finding.level != "ok"
    ]


DAMAGES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a running task that nobody holds": (
        "nobody holds",
        lambda client: client.delete(*client.keys("fq:worker:*:tasks")),
    ),
    "a running task in no list": ("list of a state", lambda client: client.delete("fq:state:started")),
    "a queued task in no list": ("list of a state", lambda client: client.zrem("fq:state:queued", "waiting")),
    "a delayed task in no list": (
        "list of a state",
        lambda client: client.zrem("fq:state:scheduled", "later"),
    ),
    "a queued task in no queue": (
        "in no queue",
        lambda client: client.delete("fq:queue:user:alice:normal", "fq:queue:user:alice:critical"),
    ),
    "a dead letter that is not listed": ("dead letters", lambda client: client.delete("fq:dlq:alice")),
    "a user who is not ready": (
        "nobody looks",
        lambda client: client.delete("fq:ready:all", "fq:ready:sparse"),
    ),
    "a user without a record": ("record is lost", lambda client: client.delete("fq:user:alice")),
    "a user whom nobody knows": ("", lambda client: client.delete("fq:users")),
    "a task that is gone": ("", lambda client: client.delete("fq:task:waiting")),
    "counts that begin anew": ("", lambda client: client.delete("fq:clock")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_whatever_the_doctor_names_repair_mends(place: tuple[ServerProcess, TaskQueue], name: str) -> None:
    server, _queue = place
    client = server.client()
    words, damage = DAMAGES[name]
    assert stuck(server.url) == []
    damage(client)
    told = stuck(server.url)
    assert told, "the doctor must see it"
    assert any(words in text for text in told), told
    before = {key: client.dump(key) for key in client.keys("*") if not key.startswith(b"fq:worker")}
    code, shown = run("repair", "--url", server.url)
    assert (code, shown["applied"]) == (1, False)
    assert shown["repairs"]
    assert {key: client.dump(key) for key in before} == before, "it was only to be shown"
    code, mended = run("repair", "--apply", "--no-wait", "--url", server.url)
    assert (code, mended["applied"]) == (0, True)
    assert mended["repairs"]
    assert stuck(server.url) == []
    if name != "a task that is gone":  # its entry leaves its queue when its turn comes
        assert_consistent(client)
    assert run("repair", "--no-wait", "--url", server.url)[1]["repairs"] == []


def test_tasks_of_a_worker_that_is_gone_are_queued_again(new_server: NewServer) -> None:
    server = new_server()
    config = config_of(server.url)
    lost = TaskQueue(config)
    lost.push(Task.create(payload=1, task_id="orphan"))
    assert lost.pop() is not None
    client = server.client()
    client.zadd("fq:workers", dict.fromkeys(client.zrange("fq:workers", 0, -1), 1))  # a lease of long ago
    assert any("workers that are gone" in text for text in stuck(server.url)) or stuck(server.url) == []
    code, shown = run("repair", "--url", server.url)
    assert (code, [one["tasks"] for one in shown["dead_workers"]]) == (1, [1])
    code, mended = run("repair", "--apply", "--url", server.url)
    assert code == 0, mended
    with TaskQueue(config) as queue:
        assert queue.get_stats().states["queued"] == 1
        again = queue.pop()
        assert again is not None
        assert (again.task_id, again.attempt) == ("orphan", 2)
        queue.finish(again)
    assert_consistent(client)
    lost.close()


def test_what_people_read(place: tuple[ServerProcess, TaskQueue]) -> None:
    server, _queue = place
    fine = CliRunner().invoke(app, ["repair", "--url", server.url])
    assert fine.exit_code == 0
    assert "nothing to mend" in fine.stdout
    server.client().delete("fq:state:queued")
    shown = CliRunner().invoke(app, ["repair", "--url", server.url])
    assert shown.exit_code == 1
    assert "registry of task waiting" in shown.stdout
    assert "Nothing was changed: fairque repair --apply" in shown.stdout
    mended = CliRunner().invoke(app, ["repair", "--apply", "--url", server.url])
    assert mended.exit_code == 0
    assert "mended, of" in mended.stdout


def test_acl_prints_one_line_that_works(new_server: NewServer) -> None:
    server = new_server(tcp=True)
    shown = CliRunner().invoke(app, ["acl", "queue-user", "--url", server.url])
    assert shown.exit_code == 0
    [line] = shown.stdout.splitlines()
    assert line.startswith(
        "ACL SETUSER queue-user on ><password> resetkeys ~fq:* resetchannels -@all +fcall "
    )
    server.client().execute_command(*line.replace("<password>", "secret").split())
    url = server.tcp_url.replace("127", "queue-user:secret@127")
    with TaskQueue(config_of(url)) as queue:
        queue.push(Task.create(payload=1))
    rules = CliRunner().invoke(app, ["acl", "--rules", "--url", server.url]).stdout
    assert rules.strip() in line
    code, told = run("acl", "--url", "cluster://127.0.0.1")
    assert (code, told["user"]) == (0, "fairque")
    assert " ~{fq}:* " in told["line"]
    assert run("acl", "--url", server.url)[1]["rules"] == rules.strip()


def test_doctor_tells_latency_the_library_and_rights(new_server: NewServer) -> None:
    server = new_server(tcp=True)
    found = {one.check: one for one in checkup.examine(config_of(server.tcp_url))}
    assert found["connection"].found.count("p99") == 2
    assert (found["rights"].level, found["library"].level) == ("ok", "ok")
    assert found["library"].found.startswith("fairque_")
    client = server.client()
    for number in range(4):
        name = f"fairque_old{number}"
        client.function_load(f"#!lua name={name}\nredis.register_function('{name}', function() return 1 end)")
    line = CliRunner().invoke(app, ["acl", "limited", "--url", server.url]).stdout
    client.execute_command(*line.replace("<password>", "pw").split(), "-zcount", "-config|get")
    found = {
        one.check: one for one in checkup.examine(config_of(server.tcp_url.replace("127", "limited:pw@127")))
    }
    assert found["library"].level == "warn"
    assert "FUNCTION DELETE fairque_old0" in found["library"].advice
    assert found["rights"].level == "fail"
    assert "ACL SETUSER limited +config|get +zcount" in found["rights"].advice


@pytest.mark.parametrize(
    ("options", "durability", "check", "level"),
    [
        ({}, {"durability": "fsync"}, "durability", "fail"),
        ({"appendonly": "yes"}, {"durability": "fsync"}, "durability", "ok"),
        ({}, {"durability": "replicated"}, "replication", "fail"),
        ({}, {}, "replication", "ok"),
    ],
)
def test_doctor_on_durability(
    new_server: NewServer, options: dict[str, str], durability: dict[str, Any], check: str, level: str
) -> None:
    server = new_server(options=options)
    config = FairQueueConfig.from_dict({"redis": {"url": server.url}, "queue": durability})
    assert {one.check: one.level for one in checkup.examine(config)}[check] == level


def test_doctor_wants_servers_that_stop_without_replicas(new_server: NewServer) -> None:
    primary = new_server(tcp=True, options={"repl-diskless-sync-delay": "0"})
    new_server(options={"replicaof": f"127.0.0.1 {primary.port}"})
    config = FairQueueConfig.from_dict({"redis": {"url": primary.url}, "queue": {"durability": "replicated"}})

    def look() -> Any:
        return {one.check: one for one in checkup.examine(config)}["replication"]

    from tests.support.workers import until

    until(lambda: look().level != "fail")
    assert "min-replicas-to-write 1" in look().advice
    primary.client().config_set("min-replicas-to-write", 1)
    until(lambda: look().level == "ok")
