"""The code in the pages about retries and waiting tasks works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fairque import Task, TaskQueue, UserPolicy
from fairque.core.registry import Registry, default_registry
from fairque.core.retry import fixed
from tests.support.commands import project, queue

__all__ = ["project", "queue"]

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.no_leak_check


@pytest.fixture
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code blocks of a page define."""
    registry = Registry()
    monkeypatch.setattr("fairque.core.decorator.default_registry", lambda: registry)
    text = (DOCS / f"{request.param}.md").read_text()
    names: dict[str, Any] = {"__name__": f"docs_{request.param}"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, f"{request.param}.md", "exec"), names)  # noqa: S102 - our own pages
    assert default_registry() is not registry
    return names


@pytest.mark.parametrize("page", ["retries"], indirect=True)
def test_the_page_about_retries(
    page: dict[str, Any], queue: TaskQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = page["send"].options["retry"]
    assert rules.policy_for(ConnectionResetError()).kind == "exponential"
    assert rules.policy_for(TimeoutError()) == fixed(30)
    assert rules.policy_for(UnicodeError()) == page["never"]
    handle = queue.push(Task.create(payload=1, max_retries=0))
    task = queue.pop(wait=10)
    assert task is not None
    queue.fail(task, ValueError("oh no"))
    page["show_history"](queue, handle.task_id)
    told = capsys.readouterr().out
    assert "oh no None 0.0" in told
    page["limit_retries"](queue)
    assert queue.get_user_policy("acme") == UserPolicy(retry_budget=0.2)


@pytest.mark.parametrize("page", ["waiting"], indirect=True)
def test_the_page_about_waiting_tasks(page: dict[str, Any], queue: TaskQueue) -> None:
    handle = queue.push(Task.create(payload=1))
    page["hurry"](queue, handle.task_id)
    task = handle.task()
    assert task is not None
    assert (task.state, task.priority, task.max_retries, dict(task.labels)) == (
        "scheduled",
        6,
        0,
        {"by": "ann"},
    )
    assert [page["save"](queue, "a", version) for version in (1, 2)] == ["stored", "debounced"]
    assert page["save"](queue, "b", 1) == "stored"
    outcomes = [queue.push(page["refresh_prices"]()).outcome for _ in range(2)]
    assert outcomes == ["stored", "throttled"]
