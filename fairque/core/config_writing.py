"""How a configuration is shown: as YAML that reads back the same, and as a `repr` without secrets."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fairque.core.config_errors import is_secret, path_text
from fairque.core.config_server import TLS_FIELDS
from fairque.core.exceptions import ConfigError
from fairque.core.policies import AnyPolicy, rate_text

if TYPE_CHECKING:
    from fairque.core.config import FairQueueConfig

_NAMES = (("users",), ("groups",), ("limiters",), ("schedules",))  # sections whose keys people choose
_OWNER_ONLY = 0o600
_EVERYBODY = 0o666  # less what the umask takes away


def as_yaml(config: FairQueueConfig, path: Path | None, *, include_secrets: bool) -> str:
    """`config` as YAML with every field, also written to `path` if given.

    Raises:
        ConfigError: the file cannot be written.
    """
    data = _plain(config)
    left_out = [] if include_secrets else list(_take_secrets(data, ()))
    text = "".join(f"# {name} is left out: it is secret\n" for name in left_out)
    text += yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    if path is not None:
        _write(path, text, _OWNER_ONLY if include_secrets else _EVERYBODY)
    return text


def shown(config: FairQueueConfig) -> Iterator[tuple[str | None, Any]]:
    """The arguments of `repr(config)`: of plugins, whose options may be keys and tokens, only the names."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        yield name, list(value) if name == "plugins" else value


def _plain(config: FairQueueConfig) -> dict[str, Any]:
    redis = config.redis.model_dump(exclude_none=True)
    if not config.redis.ssl:  # they say nothing then, and would be refused
        redis = {name: value for name, value in redis.items() if name not in TLS_FIELDS}
    return {
        "redis": redis,
        "workers": [_tidy(entry.model_dump()) for entry in config.workers],
        "queue": _tidy(config.queue.model_dump()),
        "scheduler": _tidy(config.scheduler.model_dump()),
        "breaker": _tidy(config.breaker.model_dump()),
        "spool": _tidy(config.spool.model_dump(exclude_none=True)),
        "users": {name: policy_data(policy) for name, policy in config.users.items()},
        "groups": {name: policy_data(policy) for name, policy in config.groups.items()},
        "limiters": {name: policy_data(policy) for name, policy in config.limiters.items()},
        **({"schedules": _schedules(config)} if config.declares_schedules else {}),
        "plugins": {name: dict(options) for name, options in config.plugins.items()},
    }


def _schedules(config: FairQueueConfig) -> dict[str, Any]:
    # Copies: what is secret is taken out of them.
    data = {name: copy.deepcopy(schedule.to_data()) for name, schedule in config.schedules.items()}
    for name, fields in data.items():
        del fields["name"]
        try:
            yaml.safe_dump(fields)
        except yaml.YAMLError as exc:
            problem = str(exc).splitlines()[0]
            raise ConfigError(f"schedules.{name} holds what YAML has no word for: {problem}") from None
    return data


def policy_data(policy: AnyPolicy) -> dict[str, Any]:
    """Only what differs from a policy's defaults: most users have one or two limits."""
    fields = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    defaults = {field.name: field.default for field in dataclasses.fields(policy)}
    changed = {name: value for name, value in fields.items() if value != defaults[name]}
    if policy.rate_limit is not None:
        changed["rate_limit"] = rate_text(policy.rate_limit)
    return _tidy(changed)


def _tidy(data: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers without the `.0`."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in data.items()
    }


def _take_secrets(data: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    """Remove what is secret from `data`, and say what was. Names of users and the like are no secrets."""
    items: Iterable[tuple[Any, Any]] = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in list(items):
        if path not in _NAMES and isinstance(name, str) and is_secret(name) and value is not None:
            del data[name]
            yield path_text((*path, name))
        elif isinstance(value, dict | list):
            yield from _take_secrets(value, (*path, name))


def _write(path: Path, text: str, mode: int) -> None:
    """Write by renaming, so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {exc.strerror or exc}") from None
