"""`fairque spool`: what waits on this machine is shown, and told to the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fairque.cli.exits import ExitCode
from fairque.core.config import FairQueueConfig
from fairque.core.models import Task
from fairque.core.policies import LimiterPolicy
from fairque.queue.queue import TaskQueue
from tests.support.commands import Fq, fq, project
from tests.support.servers import ServerProcess
from tests.support.workers import until

__all__ = ["fq", "project"]
pytestmark = pytest.mark.no_leak_check


def test_what_was_left_behind_is_listed_drained_and_decided_upon(
    fq: Fq, new_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRQUE_SPOOL__DIRECTORY", str(tmp_path / "spool"))
    server = new_server(append_only=True)

    def spool(*args: str) -> tuple[str, ...]:
        return ("spool", *args)

    empty = fq(*spool("ls"), url=server.url)
    assert (empty.code, empty.out) == (ExitCode.OK, "")
    assert "nothing waits" in empty.err

    server.kill()
    with TaskQueue(FairQueueConfig.from_dict({"redis": {"url": server.url}})) as queue:
        for number in range(3):
            limiter = "api" if number == 1 else None
            queue.push(
                Task.create(payload=number, user_id="alice", task_id=f"t{number}", limiter=limiter),
                on_unavailable="spool",
            )
        held = fq(*spool("ls"), url=server.url)
        assert "alive" in held.out
    gone = fq(*spool("ls", "--json"), url=server.url).json
    [file] = gone["files"]
    assert file["process"] == "gone"
    assert [task["task_id"] for task in file["tasks"]] == ["t0", "t1", "t2"]
    assert gone["set_aside"] == []
    away = fq(*spool("drain"), url=server.url)
    assert away.code == ExitCode.NO_SERVER

    server.start()
    until(
        lambda: fq("stats", url=server.url).code == ExitCode.OK
    )  # the circuit is this process's, and stays open a while
    drained = fq(*spool("drain", "--json"), url=server.url)
    assert drained.json == {"stored": 2, "refused": 1, "damaged": 0, "files_of_living_processes": 0}
    listed = fq(*spool("ls"), url=server.url)
    assert "t1" in listed.out
    assert "limiter" in listed.out
    assert fq(*spool("retry"), url=server.url).out == "0 stored\n"
    with TaskQueue(FairQueueConfig.from_dict({"redis": {"url": server.url}})) as queue:
        queue.set_limiter("api", LimiterPolicy(max_concurrency=1))
        assert fq(*spool("retry"), url=server.url).out == "1 stored\n"
        assert {task.task_id for task in queue.list_tasks()} == {"t0", "t1", "t2"}

    refused = fq(*spool("purge"), url=server.url)
    assert refused.out == "0 removed\n"


def test_purge_asks_before_it_removes(
    fq: Fq, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairque.core.spool_records import SetAside
    from fairque.queue.spool import spool_for

    monkeypatch.setenv("FAIRQUE_SPOOL__DIRECTORY", str(tmp_path / "spool"))
    spool = spool_for(FairQueueConfig.from_dict({"redis": {"url": server.url}}))
    spool.directory.mkdir(parents=True)
    spool.aside.add([SetAside(1.0, "some.spool", "damaged", b"rubbish", False)])
    assert "7 bytes" in fq("spool", "ls").out
    assert fq("spool", "purge").code == ExitCode.USAGE
    assert fq("spool", "retry").out == "0 stored\n"
    assert fq("spool", "purge", "--yes").out == "1 removed\n"
    assert spool.aside.count() == 0
