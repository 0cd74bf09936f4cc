"""`fairque doctor` on servers that are well, and on servers that are not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fairque import FairQueueConfig, ScheduledTask, Task, TaskQueue, TaskScheduler
from fairque.cli import checkup
from fairque.cli.app import app
from fairque.cli.checkup import Finding, Patient
from tests.support.servers import ServerProcess
from tests.support.workers import until

NewServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.no_leak_check


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FAIRQUE_")]:
        monkeypatch.delenv(name)


def config_of(url: str, **sections: Any) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url}, **sections})


def findings(config: FairQueueConfig) -> dict[str, Finding]:
    return {finding.check: finding for finding in checkup.examine(config)}


def test_a_well_kept_server_is_well(new_server: NewServer) -> None:
    server = new_server(append_only=True, options={"maxmemory": "100mb", "maxmemory-policy": "noeviction"})
    result = CliRunner().invoke(app, ["doctor", "--url", server.url, "--json"])
    told = json.loads(result.stdout)
    assert [item for item in told["findings"] if item["level"] != "ok"] == []
    assert (result.exit_code, told["ok"], told["server"]) == (0, True, server.url)
    text = CliRunner().invoke(app, ["doctor", "--url", server.url])
    assert text.exit_code == 0
    assert "Valkey" in text.stdout
    assert "0 to change" in text.stdout


def test_what_would_lose_tasks_is_a_failure_with_the_way_out(new_server: NewServer) -> None:
    server = new_server(options={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"})
    found = findings(config_of(server.url))
    assert found["eviction"].level == found["persistence"].level == "fail"
    assert "maxmemory-policy noeviction" in found["eviction"].advice
    assert "appendonly yes" in found["persistence"].advice
    result = CliRunner().invoke(app, ["doctor", "--url", server.url])
    assert result.exit_code == 1
    assert "eviction: a full server would throw tasks away" in result.stdout


def test_snapshots_are_better_than_nothing(new_server: NewServer) -> None:
    server = new_server(options={"save": "3600 1"})
    found = findings(config_of(server.url))
    assert (found["persistence"].level, found["memory"].level) == ("warn", "warn")
    assert "save 3600 1" in found["persistence"].found


def test_a_full_server_is_found(new_server: NewServer) -> None:
    server = new_server()
    client = server.client()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.8))
    assert findings(config_of(server.url))["memory"].level == "warn"
    client.config_set("maxmemory", 1)
    found = findings(config_of(server.url))
    assert found["memory"].level == "fail"


def test_a_replica_is_not_where_to_push(new_server: NewServer) -> None:
    primary = new_server(tcp=True)
    replica = new_server(options={"replicaof": f"127.0.0.1 {primary.port}"})
    found = findings(config_of(replica.url))
    assert (found["replication"].level, found["replication"].found) == ("fail", "this is a replica")


def test_replicated_durability_needs_a_replica(new_server: NewServer) -> None:
    server = new_server()
    found = findings(config_of(server.url, queue={"durability": "replicated"}))
    assert found["replication"].level == "fail"


def test_a_layout_of_another_version_is_found_and_left_alone(new_server: NewServer) -> None:
    server = new_server()
    client = server.client()
    client.hset("fq:meta", "schema", "99")
    found = findings(config_of(server.url))
    assert (found["data"].level, "scripts" in found) == ("fail", False)
    assert client.keys() == [b"fq:meta"]


def test_nobody_serving_a_pause_dead_letters_and_orphans_are_found(new_server: NewServer) -> None:
    server = new_server()
    config = config_of(server.url, queue={"lease_seconds": 1})
    with TaskQueue(config) as queue:
        dead = queue.push(Task.create(payload=1))
        queue.move_to_dlq(dead.task_id, "to be found")
        queue.push(Task.create(payload=2))
        queue.pause()
        found = findings(config)
    assert {name for name in ("workers", "pause", "dead letters") if found[name].level == "warn"} == {
        "workers", "pause", "dead letters",
    }  # fmt: skip
    assert "fairque worker" in found["workers"].advice
    assert found["orphans"].level == "ok"
    queue.resume()
    client = server.client()
    with TaskQueue(config) as lost:
        assert lost.pop() is not None
        client.zremrangebyrank("fq:workers", 0, -1)  # as if its lease had run out
        assert findings(config)["orphans"].level == "warn"
    queue.close()


def test_schedules_that_nobody_decides_or_whose_runs_are_refused_are_found(new_server: NewServer) -> None:
    config = config_of(new_server().url)
    assert "schedules" not in findings(config)
    with TaskQueue(config) as queue:
        queue.schedules.add(ScheduledTask("a", payload=1, every=0.1, options={"limiter": "none"}))
        assert findings(config)["schedules"].level == "warn"
        scheduler = TaskScheduler(config)
        scheduler.start()
        try:
            until(lambda: "refused: a" in findings(config)["schedules"].found)
            queue.schedules.remove("a")
            found = findings(config)["schedules"]
            assert (found.level, found.found) == ("ok", f"scheduler {scheduler.scheduler_id} leads")
        finally:
            scheduler.stop()


def test_who_may_not_log_in_is_told_how(new_server: NewServer) -> None:
    server = new_server(tcp=True)
    server.client().config_set("requirepass", "let me in")
    for url in (server.tcp_url, server.tcp_url.replace("127", ":wrong@127")):
        [finding] = checkup.examine(config_of(url))
        assert (finding.check, finding.level) == ("connection", "fail")
        assert "redis.password" in finding.advice


def test_a_user_whose_acl_forbids_scripts_is_found(new_server: NewServer) -> None:
    server = new_server(tcp=True)
    server.client().execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-@scripting")
    found = findings(config_of(server.tcp_url.replace("127", "limited:pw@127")))
    assert found["scripts"].level == "fail"


def test_no_server_is_a_finding(tmp_path: Path) -> None:
    [finding] = checkup.examine(config_of("redis://127.0.0.1:1/"))
    assert finding.level == "fail"
    assert "does the server run" in finding.advice
    [asleep] = checkup.examine(config_of(f"embedded://{tmp_path}/nothing"))
    assert asleep.level == "ok"
    assert not (tmp_path / "nothing").exists(), "looking starts nothing"


PATIENT = Patient(FairQueueConfig.from_dict({"redis": {"url": "redis://db.example/"}}), {})


def level(check: str, patient: Patient) -> str:
    found = [finding for look in checkup.CHECKS for finding in look(patient) if finding.check == check]
    return found[0].level if found else "none"


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        ({"valkey_version": "9.1.0", "redis_version": "7.2.4"}, "ok"),
        ({"valkey_version": "7.2.5", "redis_version": "7.2.4"}, "ok"),
        ({"redis_version": "7.0.15"}, "ok"),
        ({"redis_version": "8.2.1"}, "ok"),
        ({"redis_version": "6.2.14"}, "fail"),
        ({"redis_version": "unstable"}, "warn"),
        ({}, "warn"),
    ],
)
def test_versions(info: dict[str, str], wanted: str) -> None:
    patient = replace(PATIENT, info=info)
    assert level("version", patient) == wanted


@pytest.mark.parametrize(
    ("skew", "wanted"),
    [(0.0, "ok"), (0.3, "ok"), (-0.6, "warn"), (3.0, "warn"), (-6.0, "fail"), (60.0, "fail")],
)
def test_clock_skew(skew: float, wanted: str) -> None:
    assert level("clock", replace(PATIENT, skew=skew, latency=0.01)) == wanted


@pytest.mark.parametrize(
    ("redis", "tls", "login"),
    [
        ({"url": "redis://db.example/"}, "warn", "warn"),
        ({"url": "redis://:pw@db.example/"}, "warn", "none"),
        ({"url": "redis://127.0.0.1/"}, "ok", "none"),
        ({"url": "redis://localhost/"}, "ok", "none"),
        ({"url": "unix:///run/x.sock"}, "ok", "none"),
        ({"url": "rediss://:pw@db.example/"}, "ok", "none"),
        (
            {"url": "rediss://:pw@db.example/", "ssl_cert_reqs": "none", "ssl_check_hostname": False},
            "warn",
            "none",
        ),
        ({"url": "rediss://:pw@db.example/", "ssl_check_hostname": False}, "warn", "none"),
    ],
)
def test_tls_and_login(redis: dict[str, Any], tls: str, login: str) -> None:
    patient = replace(PATIENT, config=FairQueueConfig.from_dict({"redis": redis}))
    assert (level("TLS", patient), level("login", patient)) == (tls, login)


def test_persistence_that_does_not_work() -> None:
    for info, settings, wanted in (
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, {}, "fail"),
        ({"aof_enabled": 1}, {"appendfsync": "no"}, "warn"),
        ({"aof_enabled": 1}, {}, "ok"),
        ({"aof_enabled": 0}, {}, "warn"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, {"save": "60 1"}, "fail"),
        ({"aof_enabled": 1, "loading": 1}, {}, "warn"),
    ):
        assert level("persistence", replace(PATIENT, info=info, settings=settings)) == wanted


def test_a_server_far_away_is_told() -> None:
    assert level("connection", replace(PATIENT, latency=0.05)) == "warn"
