"""The example of docs/reliability.md, as it stands there: effects that happen once although a task runs twice."""

from __future__ import annotations

import importlib
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fairque.core.context import TaskContext, running
from fairque.core.models import Task
from tests.support.facades import Clock
from tests.support.queues import MakeQueue

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
LEASE = 15.0


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module, imported once: a function is registered once."""
    directory = tmp_path_factory.mktemp("example")
    [(name, text)] = FILE.findall(DOCS.read_text())
    (directory / name).write_text(text)
    sys.path.insert(0, str(directory))
    yield importlib.import_module("payments")
    sys.path.remove(str(directory))


def run(task: Task[Any]) -> Any:
    """As a worker calls it, in this thread."""
    function = sys.modules["payments"].__dict__[task.function.partition(":")[2]].fn
    with running(TaskContext(task)):
        return function(*task.args, **task.kwargs)


def rows(database: str, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


def test_an_effect_under_the_tasks_id_happens_once(
    payments: Any, make_queue: MakeQueue, clock: Clock, tmp_path: Path
) -> None:
    database = str(tmp_path / "db")
    lost, heir = make_queue(clock=clock), make_queue(clock=clock)
    for _ in range(2):  # said again after a lost answer, say
        heir.push(
            payments.charge.with_options(task_id="charge-17", on_duplicate="return")(database, "17", 1250)
        )
    first = lost.pop()
    assert run(first) is True
    second = _claim_again(heir, clock)
    assert (second.task_id, second.attempt) == ("charge-17", 2)
    assert run(second) is False
    heir.finish(second, False)
    assert rows(database, "SELECT order_id, cents FROM charges") == [("17", 1250)]


def test_an_effect_under_the_claims_token_does_not_go_back(
    payments: Any, make_queue: MakeQueue, clock: Clock, tmp_path: Path
) -> None:
    database = str(tmp_path / "db")
    lost, heir = make_queue(clock=clock), make_queue(clock=clock)
    heir.push(payments.publish(database, "index", "old"))
    stopped = lost.pop()
    again = _claim_again(heir, clock)
    assert run(again) is True
    heir.finish(again, True)
    heir.push(payments.publish(database, "index", "new"))
    newest = heir.pop()
    assert run(newest) is True
    heir.finish(newest, True)
    assert run(stopped) is False  # it goes on after a minute
    assert rows(database, "SELECT text FROM pages") == [("new",)]


def _claim_again(heir: Any, clock: Clock) -> Task[Any]:
    """What another held, after its lease is over."""
    for _ in range(20):
        clock.advance(LEASE / 6)
        heir.pop(users=["nobody"])
    task: Task[Any] = heir.pop()
    return task
