"""The sections that say what happens while the server is away: `breaker` and `spool`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, GetPydanticSchema
from pydantic_core import core_schema

from fairque.core import config_checks
from fairque.core.config_errors import Problem, Section

_MIB = 1024 * 1024
OnUnavailable: TypeAlias = Literal["raise", "spool"]


def _directory_schema(_source: Any, handler: Any) -> core_schema.CoreSchema:
    """Text; Python code may give a `Path`."""
    return core_schema.no_info_before_validator_function(
        lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value, handler(str)
    )


DirectoryName: TypeAlias = Annotated[str, GetPydanticSchema(_directory_schema)]


class BreakerConfig(Section):
    """The circuit breaker: while the server is away, calls fail at once instead of each trying for itself."""

    enabled: bool = True
    """Whether there is one."""
    failure_threshold: int = Field(default=10, ge=1, le=1_000_000)
    """Attempts that must fail in a row before it opens. A call makes up to six, so one call alone does not open it."""
    failure_seconds: float = Field(default=1.75, ge=0, le=3600)
    """How long they must have failed. The default is how long a call tries by itself: a server that is back within that
    time costs nobody an error."""
    recovery_timeout_seconds: float = Field(default=0.5, ge=0.01, le=3600)
    """How long an open breaker lets nothing through before one call may try the server again."""
    wait_seconds: float = Field(default=0, ge=0, le=3600)
    """How long a call waits for an open breaker to close before it fails; 0 for not at all."""


class SpoolConfig(Section):
    """The local spool: files that keep what is pushed with `on_unavailable="spool"` while the server is away."""

    on_unavailable: OnUnavailable = "raise"
    """What a push does without a server that does not say so itself: raise, or write the task to the spool."""
    directory: DirectoryName | None = Field(default=None, min_length=1)
    """Where the files are, on a disk of this machine; left out, `spool` in the data directory (`FAIRQUE_DATA_DIR`)."""
    max_bytes: int = Field(default=256 * _MIB, ge=8 * _MIB, le=1024 * 1024 * _MIB)
    """How much all files for one queue may take together before a push is refused."""

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        return config_checks.spool_contradictions(data)
