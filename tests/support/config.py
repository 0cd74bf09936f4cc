"""For tests of the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import ConfigError


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away what the machine's environment sets for FairQueue."""
    for name in list(os.environ):
        if name.startswith("FAIRQUE_"):
            monkeypatch.delenv(name)


def refusal(data: Mapping[str, Any]) -> list[str]:
    """The problems that a configuration is refused for."""
    with pytest.raises(ConfigError) as refused:
        FairQueueConfig.from_dict(data)
    return problems(refused.value)


def problems(error: ConfigError) -> list[str]:
    """The problems that the error of a configuration without a file lists."""
    first, *rest = str(error).splitlines()
    assert not rest or first == f"{len(rest)} problems in the configuration:"
    return [line.removeprefix("  ") for line in rest] or [first]
