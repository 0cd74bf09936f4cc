"""docs/configuration.md says what the models say, and its examples work."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fairque.core.config import FairQueueConfig
from fairque.core.policies import GroupPolicy
from tests.support.config import no_environment
from tests.support.config_tables import MODELS, PAGE, POLICIES, filled

__all__ = ["no_environment"]
pytestmark = pytest.mark.usefixtures("no_environment")


def test_the_tables_are_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == filled(page), "run: python -m tests.support.config_tables"


def test_every_field_is_on_the_page() -> None:
    page = PAGE.read_text()
    for model in MODELS.values():
        for name in model.model_fields:
            assert f"| `{name}` |" in page
    for kind in POLICIES.values():
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in page


def test_the_example_file_works(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "fairque.yaml"
    file.write_text(example)
    config = FairQueueConfig.from_yaml(file)
    assert str(config.redis.address) == "rediss://db.example:6380"
    assert [worker.id for worker in config.workers] == ["mail", "rest"]
    policy = config.policy_for("trial-7")
    assert policy is not None
    assert (policy.max_concurrency, policy.rate_limit) == (1, pytest.approx(100 / 60))
    assert config.groups["acme"] == GroupPolicy(weight=3, max_concurrency=200)
    assert config.limiters["stripe-api"].rate_limit == 25


def test_the_variables_work(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = re.findall(r"^\| `(FAIRQUE_\w+)=([^`]*)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(variables) == 9
    for name, value in variables:
        monkeypatch.setenv(name, value)
    config = FairQueueConfig()
    assert config.redis.url == "redis://db:6379/0"
    assert config.queue.aging_seconds == 10
    assert config.workers[0].assigned_users == ["alice", "bob"]
    assert config.users["alice"].weight == 2
    assert config.groups["acme"].rate_limit == pytest.approx(100 / 60)
    assert config.plugins == {"metrics": {"port": 9464}}
