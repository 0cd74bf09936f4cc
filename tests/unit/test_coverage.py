"""Who serves whom, from the configuration alone."""

from __future__ import annotations

from typing import Any

import pytest

from fairque.core.config import FairQueueConfig
from fairque.core.coverage import Served, coverage
from tests.support.config import no_environment

__all__ = ["no_environment"]
pytestmark = pytest.mark.usefixtures("no_environment")


def served(users: dict[str, Any] | None = None, /, **workers: tuple[Any, Any]) -> tuple[Served, ...]:
    """What entries (own users, steal targets) serve."""
    entries = [
        {"id": name, "assigned_users": own, "steal_targets": steal} for name, (own, steal) in workers.items()
    ]
    return coverage(FairQueueConfig.from_dict({"workers": entries, "users": users or {}}))


def test_by_default_one_entry_serves_everybody() -> None:
    assert coverage(FairQueueConfig()) == (Served((), True, ("worker",), ()),)


def test_a_user_that_an_entry_names_is_nobody_elses_own() -> None:
    assert served(a=(["ann", "bob"], []), b=("*", []), c=("*", "*")) == (
        Served(("ann", "bob"), False, ("a",), ("c",)),
        Served((), True, ("b", "c"), ()),
    )


def test_users_that_only_steal_targets_name() -> None:
    assert served(a=(["ann"], ["cid"]), b=([], ["ann", "dan"])) == (
        Served(("ann",), False, ("a",), ("b",)),
        Served(("cid",), False, (), ("a",)),
        Served(("dan",), False, (), ("b",)),
        Served((), True, (), ()),
    )


def test_everybody_is_only_stolen() -> None:
    assert served({"zoe": {}}, a=(["ann"], "*"), b=([], "*")) == (
        Served(("ann",), False, ("a",), ("b",)),
        Served(("zoe",), True, (), ("a", "b")),
    )


def test_users_with_a_policy_count_patterns_and_default_do_not() -> None:
    users: dict[str, Any] = {"zoe": {}, "ann": {}, "t-*": {}, "default": {}}
    assert served(users, a=(["ann"], [])) == (
        Served(("ann",), False, ("a",), ()),
        Served(("zoe",), True, (), ()),
    )


def test_entries_that_serve_nobody_now() -> None:
    [part] = served(a=("*", []), b=("*", []))
    assert part.without({"a"}) == Served((), True, ("b",), ())
    assert part.without({"a", "b", "c"}) == Served((), True, (), ())
