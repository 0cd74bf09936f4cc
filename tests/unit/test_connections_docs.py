"""docs/connections.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig
from fairque.core.redis_url import SCHEMES
from fairque.queue.lua_manager import RESEND_PAUSES

PAGE = Path(__file__).parents[2] / "docs" / "connections.md"


def test_every_kind_of_url_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert all(f"`{scheme}" in text for scheme in SCHEMES)


def test_its_yaml_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "fairque.yaml"
    for example in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL):
        server = "" if example.startswith("redis:") else "redis: {url: redis://localhost}\n"
        file.write_text(server + example)
        FairQueueConfig.from_yaml(file)


def test_its_fields_and_pauses_are_those_of_the_code() -> None:
    text = PAGE.read_text()
    fields = {*QueueConfig.model_fields, *RedisConfig.model_fields}
    for name in re.findall(r"`(?:queue|redis)\.(\w+)`", text):
        assert name in fields, name
    assert "pauses of 0, 50, 200, 500 and 1,000 ms" in text
    assert RESEND_PAUSES == (0.0, 0.05, 0.2, 0.5, 1.0)
    assert f"({RedisConfig().max_connections})" in text
