"""The file that `fairque config init` writes, made from the models, so that it names every field there is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pydantic import BaseModel

_HEAD = """\
# Configuration of FairQueue. Lines that begin with # are the defaults. Check it with: fairque config check FILE
# The environment wins over this file: FAIRQUE_REDIS__URL is redis.url, FAIRQUE_QUEUE__LEASE_SECONDS is
# queue.lease_seconds.
"""
_POLICIES = """\
# Limits of single users, by id or pattern; `default` is for everybody else.
users: {}
#  alice: {weight: 2, group: acme}
#  "trial-*": {max_concurrency: 1, rate_limit: 100/m}
#  default: {max_concurrency: 50}

# What the users of an organisation get together; a user's policy names its group.
groups: {}
#  acme: {weight: 3, max_concurrency: 200}

# Limits for all tasks together that name them: @task(limiter="stripe-api")
limiters: {}
#  stripe-api: {rate_limit: 25/s, max_concurrency: 10}

# Tasks that are pushed at certain times, by name. With this section (be it empty: `schedules: {}`), schedules that an
# earlier version of this file declared, and that are gone from it, are removed.
#schedules:
#  nightly-report: {cron: "30 2 * * MON-FRI", timezone: Europe/Berlin, function: "reports:nightly", args: [full]}
#  poll: {every: 30, function: "feeds:poll", overlap: skip}
"""


def template() -> str:
    """The text of a new configuration file; it is a valid one, with the defaults."""
    from fairque.core.config import QueueConfig, RedisConfig, SchedulerConfig, WorkerConfig
    from fairque.core.config_outages import BreakerConfig, SpoolConfig

    examples = {"url": "redis://localhost:6379/0", "host": "localhost", "port": 6379}
    return "\n".join(
        [
            _HEAD,
            "redis:",
            *_fields(RedisConfig, "  ", examples),
            "",
            "# Kinds of worker; a process runs one of them: fairque worker --worker-id ID MODULE",
            "workers:",
            "  - id: worker",
            *_fields(WorkerConfig, "    ", {}, left_out=("id",)),
            "",
            "queue:",
            *_fields(QueueConfig, "  ", {}),
            "",
            "# What decides the ticks of schedules: fairque scheduler, or fairque worker --scheduler",
            "scheduler:",
            *_fields(SchedulerConfig, "  ", {}),
            "",
            "# While the server is away, calls fail at once instead of each trying for itself.",
            "breaker:",
            *_fields(BreakerConfig, "  ", {}),
            "",
            "# Where tasks wait that are pushed while the server is away, if a push, or this section, asks for it.",
            "spool:",
            *_fields(SpoolConfig, "  ", {"directory": "/var/spool/fairque"}),
            "",
            _POLICIES,
        ]
    )


def _fields(
    model: type[BaseModel], indent: str, examples: Mapping[str, object], left_out: tuple[str, ...] = ()
) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        about = " ".join((field.description or "").split())
        lines += textwrap.wrap(about, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        value = examples.get(name, field.default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        shown = yaml.safe_dump({name: value}, default_flow_style=False).rstrip()
        # A null would be read as "not set" too, but invites to fill in text where none belongs.
        lines.append(f"{indent}#{shown.removesuffix(' null')}")
    return lines
