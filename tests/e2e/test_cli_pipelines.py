"""`fairque pipelines` against a real server."""

from __future__ import annotations

import pytest

from fairque import Task, TaskQueue
from fairque.cli.exits import ExitCode
from tests.support.commands import Fq, fq, project, queue

__all__ = ["fq", "project", "queue"]
pytestmark = pytest.mark.no_leak_check


def made(name: str) -> Task[object]:
    return Task.create(task_id=name, payload=name, max_retries=0)


def test_pipelines(fq: Fq, queue: TaskQueue) -> None:
    assert (fq("pipelines", "ls").out, fq("pipelines", "ls", "--json").json) == ("", {"workflows": []})
    work = made("a") >> (made("b") | made("c")) >> made("d")
    handle = queue.enqueue(work.with_options(name="nightly", workflow_id="w"))
    assert "nightly" in fq("pipelines", "ls").out
    assert fq("pipelines", "show", "w").out.splitlines() == [
        "nightly w: running, 0 of 4 tasks have ended",
        "`- . payload a queued",
        "   |- - payload b deferred",
        "   `- - payload c deferred",
        "      `- - payload d deferred after 2",
    ]
    task = queue.pop()
    assert task is not None
    queue.fail(task, ValueError("no"))
    shown = fq("pipelines", "show", "w", "--watch", "--json").json
    assert (shown["state"], shown["failed"], shown["progress"]) == ("failed", 4, 1.0)
    assert (shown["tasks"][0]["task_id"], shown["tasks"][0]["state"]) == ("a", "failed")
    assert "(a dependency failed)" in fq("pipelines", "show", "w").out
    assert fq("pipelines", "retry", "w", "--from", "b", "--json").json == {"workflow_id": "w", "requeued": 2}
    assert fq("pipelines", "retry", "w").out == "2 tasks of workflow w run again\n"
    assert fq("pipelines", "cancel", "w", "--json").json == {"workflow_id": "w", "canceled": True}
    assert fq("pipelines", "cancel", "w").out == "workflow w had ended\n"
    assert handle.state() == "canceled"
    assert fq("pipelines", "show", "nowhere").code == ExitCode.NOT_FOUND
