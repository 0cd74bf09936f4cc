"""What a configuration says of tenants, put on the server when workers start; and what of it has no effect yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fairque.core.config import FairQueueConfig
from fairque.core.keys import encode
from fairque.core.patterns import is_pattern
from fairque.core.policies import AnyPolicy, GroupPolicy, UserPolicy
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import assignment, policies
from fairque.queue.operations.base import Engine, Flow

_log = logging.getLogger(__name__)
_Tenant = TypeVar("_Tenant", UserPolicy, GroupPolicy)


def apply_policies(manager: LuaScriptManager, engine: Engine, config: FairQueueConfig) -> int:
    """Put the groups, limiters, users and rules of the configuration on the server, and which worker entry serves
    whom; returns how many of them differed from the server's.

    What the file says wins over what was set at run time, at each start of a worker; but a pause stays, and so does
    what the file does not name.

    Raises:
        UnknownGroupError: a group went while its members were written.
    """
    for problem in without_effect(config):
        _log.warning("%s has no effect yet", problem)
    return manager.run(_apply(engine, config))


def _apply(engine: Engine, config: FairQueueConfig) -> Flow[int]:
    # Groups first: who names one that is not there is refused.
    changed = 0
    for name, group in config.groups.items():
        found = yield from policies.stored(engine, "group", encode(name, "group name"))
        group = _still_paused(found, group)
        changed += yield from _put(found, group, policies.set_group_policy(engine, name, group))
    for name, limiter in config.limiters.items():
        found = yield from policies.stored(engine, "limiter", encode(name, "limiter name"))
        changed += yield from _put(found, limiter, policies.set_limiter(engine, name, limiter))
    for name, user in own_policies(config).items():
        found = yield from policies.stored(engine, "user", encode(name))
        user = _still_paused(found, user)
        changed += yield from _put(found, user, policies.set_user_policy(engine, name, user))
    changed += yield from _apply_rules(engine, rules_of(config))
    changed += yield from assignment.publish(engine, assignment.assignment(config.workers))
    return changed


def _put(found: Mapping[str, Any], wanted: AnyPolicy, put: Flow[None]) -> Flow[bool]:
    """Write a policy, by `put`, if it differs from what is stored; whether it did."""
    if found == policies.fields_of(wanted):
        put.close()
        return False
    yield from put
    return True


def _still_paused(found: Mapping[str, Any], wanted: _Tenant) -> _Tenant:
    """An operator's pause outlives a deployment."""
    return replace(wanted, paused=True) if found.get("paused") else wanted


def _apply_rules(engine: Engine, wanted: dict[str, UserPolicy]) -> Flow[bool]:
    """Write the rules if there are any and they differ; whether they did."""
    if not wanted:
        return False
    found = yield from policies.get_policy_rules(engine)
    if policies.packed_rules(found) == policies.packed_rules(wanted):
        return False
    yield from policies.set_policy_rules(engine, wanted)
    return True


def own_policies(config: FairQueueConfig) -> dict[str, UserPolicy]:
    """The policies of users that the configuration names by id."""
    return {name: policy for name, policy in config.users.items() if not _is_rule(name)}


def rules_of(config: FairQueueConfig) -> dict[str, UserPolicy]:
    """The policies by pattern, and that for everybody else."""
    return {name: policy for name, policy in config.users.items() if _is_rule(name)}


def _is_rule(name: str) -> bool:
    return name == policies.DEFAULT or is_pattern(name)


def without_effect(config: FairQueueConfig) -> list[str]:
    """The settings that are taken but not acted on by this version, by their paths."""
    return [f"plugins.{name}" for name in config.plugins]
