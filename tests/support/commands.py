"""`fq`: the command line in this process, on the test's server, in a directory with tasks of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from fairque.cli import app as cli_app
from fairque.core.config import FairQueueConfig
from fairque.core.registry import default_registry
from fairque.queue.queue import TaskQueue
from tests.support.servers import ServerProcess

TASKS = """
from fairque import task

@task(max_retries=0)
def add(a: int, b: int = 1) -> int:
    return a + b

@task(max_retries=0, priority=5)
def fail(text: str) -> None:
    raise ValueError(text)

@task(name="cli-named")
def named(x: float) -> float:
    return x

def plain() -> None: ...
"""


@dataclass
class Done:
    """What a command has left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


Fq = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module cli_tasks, as a user would stand in one."""
    functions = dict(default_registry()._functions)
    (tmp_path / "cli_tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith("FAIRQUE_")]:
        monkeypatch.delenv(name)
    yield tmp_path
    # The next test imports the module anew, from its own directory.
    sys.modules.pop("cli_tasks", None)
    default_registry()._functions = functions


@pytest.fixture
def fq(project: Path, server: ServerProcess, flushed: redis.Redis) -> Fq:
    """Runs a command on the test's server, in this process."""

    def call(*args: str, url: str | None = server.url, stdin: str = "") -> Done:
        end = ["--url", url] if url else []
        # Common options may stand anywhere; here after the command, before what follows `--`.
        at = args.index("--") if "--" in args else len(args)
        result = CliRunner().invoke(
            cli_app.app, [*args[:at], *end, *args[at:]], input=stdin, prog_name="fairque"
        )
        assert "Traceback" not in result.stderr.partition("error: task")[0], result.stderr
        return Done(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def queue(server: ServerProcess, flushed: redis.Redis) -> Iterator[TaskQueue]:
    with TaskQueue(FairQueueConfig.from_dict({"redis": {"url": server.url}})) as queue:
        yield queue
