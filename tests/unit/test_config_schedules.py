"""The sections `schedules` and `scheduler` of a configuration."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import ConfigError
from fairque.core.schedules.models import ScheduledTask
from tests.support.config import no_environment, refusal

__all__ = ["no_environment"]
pytestmark = pytest.mark.usefixtures("no_environment")

FILE = """\
schedules:
  nightly:
    cron: "30 2 * * MON-FRI"
    timezone: Europe/Berlin
    function: reports:nightly
    kwargs: {kind: full, since: 2025-01-01}
    options: {priority: 5, user_id: acme}
    start: 2025-01-01
    end: 2030-12-31T12:00
  poll: {every: 30, payload: [1, 2], overlap: skip, paused: true}
  launch:
    at: [2030-01-01T09:00:00+01:00, 2031-01-01T09:00]
    payload: {}
scheduler:
  lease_seconds: 2
"""


def test_schedules_are_read_from_a_file_and_written_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FILE)
    config = FairQueueConfig.from_yaml(tmp_path / "a.yaml")
    assert config.scheduler.lease_seconds == 2
    assert list(config.schedules) == ["nightly", "poll", "launch"]
    nightly = config.schedules["nightly"]
    assert (nightly.name, nightly.function, nightly.timezone) == (
        "nightly",
        "reports:nightly",
        "Europe/Berlin",
    )
    assert nightly.end == datetime(2030, 12, 31, 11, tzinfo=UTC)
    assert config.schedules["launch"].at == (
        datetime(2030, 1, 1, 8, tzinfo=UTC),
        datetime(2031, 1, 1, 9, tzinfo=UTC),
    )
    config.to_yaml(tmp_path / "b.yaml")
    assert FairQueueConfig.from_yaml(tmp_path / "b.yaml") == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


def test_a_section_that_is_there_declares_also_when_it_is_empty(tmp_path: Path) -> None:
    assert not FairQueueConfig.create_default().declares_schedules
    assert not FairQueueConfig.from_dict({"schedules": None}).declares_schedules
    assert "schedules" not in yaml.safe_load(FairQueueConfig.create_default().to_yaml())
    empty = FairQueueConfig.from_dict({"schedules": {}})
    assert empty.declares_schedules
    assert yaml.safe_load(empty.to_yaml())["schedules"] == {}


def test_every_mistake_is_told_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "schedules:\n"
        "  a: {cron: 0 22-2 * * *, payload: 1}\n"
        "  b:\n"
        "    every: 5\n"
        "    paylaod: 1\n"
        "  c: {every: 5, payload: 1, timezone: Berlin}\n"
        "  d: {every: 5, function: f, options: {delay: 3}}\n"
        "  e: {every: 5, at: 2030-01-01T00:00, payload: 1}\n"
        "  f: @\n".replace("@", "'@daily'")
    )
    with pytest.raises(ConfigError) as refused:
        FairQueueConfig.from_yaml(tmp_path / "a.yaml")
    assert [line.strip() for line in str(refused.value).splitlines()[1:]] == [
        "schedules.a.cron: cron hour '22-2' runs backwards: write 22-23,0-2 (in '0 22-2 * * *') (line 2)",
        "schedules.b.paylaod: 'paylaod' is not known: did you mean 'payload'? (line 5)",
        "schedules.c.timezone: timezone 'Berlin' is not known: did you mean 'Europe/Berlin'? (line 6)",
        "schedules.d.options: options delay 3.0: the schedule says when its tasks are due: use cron=, every= or at= "
        "(line 7)",
        "schedules.e: exactly one of cron, every and at says when it runs, but every and at are given (line 8)",
        "schedules.f: must be a mapping such as {cron: '@daily', function: 'app:report'}, not '@daily' (line 9)",
    ]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (["a"], "schedules: must be a mapping of names to schedules, not a list"),
        (
            {"a": {"name": "b", "every": 5, "payload": 1}},
            "schedules.a.name: unknown key; the name stands before",
        ),
        ({"": {"every": 5, "payload": 1}}, 'schedules[""]: name must take 1 to'),
        ({1: {"every": 5, "payload": 1}}, 'schedules["1"]: the key 1 must be text: quote it'),
        ({"a": ScheduledTask("b", every=5, payload=1)}, "schedules.a: must be a mapping"),
    ],
)
def test_what_is_no_schedule_is_refused(section: Any, told: str) -> None:
    [problem] = refusal({"schedules": section})
    assert problem.startswith(told)


def test_python_code_may_give_the_schedules_themselves() -> None:
    schedule = ScheduledTask("a", every=5, payload=Decimal("1.5"))
    config = FairQueueConfig(schedules={"a": schedule})
    assert config.schedules == {"a": schedule}
    with pytest.raises(ConfigError, match=r"schedules\.a holds what YAML has no word for: .*Decimal"):
        config.to_yaml()


def test_what_looks_secret_in_a_schedule_is_not_written() -> None:
    section = {"rotate-keys": {"every": 60, "function": "f", "kwargs": {"api_token": "t", "x": 1}}}
    config = FairQueueConfig.from_dict({"schedules": section})
    text = config.to_yaml()
    assert text.splitlines()[0] == "# schedules.rotate-keys.kwargs.api_token is left out: it is secret"
    assert yaml.safe_load(text)["schedules"]["rotate-keys"]["kwargs"] == {"x": 1}
    assert "api_token: t" in config.to_yaml(include_secrets=True)


def test_a_variable_sets_a_field_of_a_schedule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRQUE_SCHEDULES__Nightly__CRON", "@hourly")
    monkeypatch.setenv("FAIRQUE_SCHEDULER__SOURCE", "blue")
    (tmp_path / "a.yaml").write_text("schedules:\n  Nightly: {cron: '@daily', payload: 1}\n")
    config = FairQueueConfig.from_yaml(tmp_path / "a.yaml")
    assert config.schedules["Nightly"].cron == "@hourly"
    assert config.scheduler.source == "blue"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"lease_seconds": 0.5}, "scheduler.lease_seconds: must be at least 1, not 0.5"),
        ({"source": "*"}, "scheduler.source: must be a name, not '*'"),
        ({"source": ""}, "scheduler.source: must have at least 1 character, not ''"),
        ({"lease": 5}, "scheduler.lease: unknown key; did you mean 'lease_seconds'?"),
    ],
)
def test_the_scheduler_section_is_checked(section: dict[str, Any], told: str) -> None:
    assert refusal({"scheduler": section}) == [told]
