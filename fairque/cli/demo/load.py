"""The load: which packages are the tenants, and how much of a file a task reads.

The tenants are packages of the standard library of this machine. The one with the most files is the whale.
How much a task reads is measured out so that the whale keeps a worker busy for some `STAGE_SECONDS`, however
fast the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fairque.cli.demo.tasks import count, library, tokenise
from fairque.core.exceptions import ConfigError
from fairque.core.models import Task

WHALE_TASKS = 3000
SMALL_TASKS = 20
SMALL_TENANTS = 6
SMALL_AFTER_SECONDS = 1.0
MOST_BYTES = 20_000
LEAST_BYTES = 1_000
STAGE_SECONDS = 20.0
_SAMPLE = 60


@dataclass(frozen=True, slots=True)
class Tenant:
    """A package, and how many tasks it pushes."""

    name: str
    files: tuple[str, ...]
    tasks: int
    is_whale: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Who pushes what. `limit`: bytes that a task reads of its file."""

    tenants: tuple[Tenant, ...]
    limit: int

    @property
    def whale(self) -> Tenant:
        """The one that floods the queue."""
        return self.tenants[0]

    @property
    def small(self) -> tuple[Tenant, ...]:
        """The others."""
        return self.tenants[1:]

    @property
    def total(self) -> int:
        """How many tasks there are in all."""
        return sum(tenant.tasks for tenant in self.tenants)

    def flood(self, user: str | None = None) -> Iterator[Task[Any]]:
        """The whale's tasks; under `user`, if given, instead of its own name."""
        return self._tasks(self.whale, user)

    def trickle(self, user: str | None = None) -> Iterator[Task[Any]]:
        """The small tenants' tasks, one of each in turn."""
        for row in zip(*(self._tasks(tenant, user) for tenant in self.small), strict=True):
            yield from row

    def _tasks(self, tenant: Tenant, user: str | None) -> Iterator[Task[Any]]:
        build = tokenise.with_options(user_id=user or tenant.name, labels={"tenant": tenant.name})
        for path in islice(cycle(tenant.files), tenant.tasks):
            yield build(path, self.limit)


def make_plan(whale_tasks: int = WHALE_TASKS, stage_seconds: float = STAGE_SECONDS) -> Plan:
    """The plan for this machine.

    Raises:
        ConfigError: the standard library has no source files here.
    """
    packages = _packages()
    if len(packages) <= SMALL_TENANTS:
        raise ConfigError(
            f"the demo reads source files of Python's standard library, and {library()} has only "
            f"{len(packages)} packages with some: use a Python that has its sources"
        )
    (whale, files), *others = packages
    tenants = [Tenant(whale, files, whale_tasks, is_whale=True)]
    tenants += [Tenant(name, part, SMALL_TASKS) for name, part in others[:SMALL_TENANTS]]
    return Plan(tuple(tenants), _measured_limit(files, stage_seconds / whale_tasks))


def _packages() -> list[tuple[str, tuple[str, ...]]]:
    """Packages with their source files, that with the most files first."""
    root = library()
    found: list[tuple[str, tuple[str, ...]]] = []
    for directory in sorted(root.iterdir()):
        if (directory / "__init__.py").is_file() and not directory.name.startswith(("_", "site-")):
            files = [path for path in sorted(directory.rglob("*.py")) if path.stat().st_size > 0]
            found.append((directory.name, tuple(path.relative_to(root).as_posix() for path in files)))
    found.sort(key=lambda package: -len(package[1]))
    return found


def _measured_limit(files: tuple[str, ...], seconds: float) -> int:
    """How many bytes a task may read to take `seconds` on average."""
    step = max(1, len(files) // _SAMPLE)
    sample = [_read(library() / path, MOST_BYTES) for path in files[::step]]
    limit = MOST_BYTES
    for _ in range(4):  # time is not quite proportional to size: small files are not cut at all
        begun = time.perf_counter()
        for data in sample:
            count(data[:limit])
        took = (time.perf_counter() - begun) / len(sample)
        if took <= seconds * 1.05 or limit == LEAST_BYTES:
            break
        limit = max(LEAST_BYTES, int(limit * seconds / took))
    return limit


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)
