"""Who serves whom, from the configuration alone: the users that nobody serves, or that are served in one way only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from fairque.core.config import FairQueueConfig, WorkerConfig
from fairque.core.patterns import is_pattern


@dataclass(frozen=True, slots=True)
class Served:
    """Users, sorted, whom the same entries serve: `owners` as theirs, `thieves` when their own leave slots free.

    `others` says that all users whom the configuration does not name are among them.
    """

    users: tuple[str, ...]
    others: bool
    owners: tuple[str, ...]
    thieves: tuple[str, ...]

    def without(self, entries: Collection[str]) -> Served:
        """The same users, when these entries serve nobody."""
        return Served(
            self.users,
            self.others,
            tuple(entry for entry in self.owners if entry not in entries),
            tuple(entry for entry in self.thieves if entry not in entries),
        )


def coverage(config: FairQueueConfig) -> tuple[Served, ...]:
    """Every user that the configuration names, and all others, by who serves them; all others come last."""
    assigned = {user: entry.id for entry in config.workers for user in _listed(entry.assigned_users)}
    targets: defaultdict[str, set[str]] = defaultdict(set)
    for entry in config.workers:
        for target in _listed(entry.steal_targets):
            targets[target].add(entry.id)
    of_all = [entry.id for entry in config.workers if entry.assigned_users == "*"]
    from_all = [entry.id for entry in config.workers if entry.steal_targets == "*"]
    named = {user for user in config.users if user != "default" and not is_pattern(user)}
    found: defaultdict[tuple[tuple[str, ...], tuple[str, ...]], list[str | None]] = defaultdict(list)
    users: list[str | None] = [*sorted(named | assigned.keys() | targets.keys()), None]
    for user in users:
        owners = of_all if user is None or user not in assigned else [assigned[user]]
        thieves = {*from_all, *(targets.get(user, ()) if user is not None else ())} - {*owners}
        found[tuple(owners), _in_order(config.workers, thieves)].append(user)
    served = [
        Served(tuple(user for user in theirs if user is not None), None in theirs, owners, thieves)
        for (owners, thieves), theirs in found.items()
    ]
    return tuple(sorted(served, key=lambda part: part.others))


def _listed(users: list[str] | str) -> list[str]:
    return [] if isinstance(users, str) else users


def _in_order(workers: Collection[WorkerConfig], ids: Collection[str]) -> tuple[str, ...]:
    return tuple(entry.id for entry in workers if entry.id in ids)
