"""What a configuration says of users, put on the server when workers start; and what of it has no effect yet."""

from __future__ import annotations

import logging
from dataclasses import replace

from fairque.core.config import FairQueueConfig, QueueConfig, WorkerConfig
from fairque.core.config_checks import is_pattern
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin
from fairque.queue.operations.base import Engine

_log = logging.getLogger(__name__)


def apply_policies(manager: LuaScriptManager, engine: Engine, config: FairQueueConfig) -> int:
    """Set the policy of each user that the configuration names by id; returns how many differed from the
    server's.

    A policy in the file wins over one that was set at run time, at each start of a worker; but a pause stays.
    """
    for problem in without_effect(config):
        _log.warning("%s has no effect yet", problem)
    changed = 0
    for user, policy in config.users.items():
        if user == "default" or is_pattern(user):
            continue
        found = manager.run(admin.get_user_policy(engine, user))
        if found is not None and found.paused:
            policy = replace(policy, paused=True)  # an operator's pause outlives a deployment
        if found != policy:
            manager.run(admin.set_user_policy(engine, user, policy))
            changed += 1
    return changed


def without_effect(config: FairQueueConfig) -> list[str]:
    """The settings that are stored but not enforced by this version, by their paths."""
    found = [
        f"workers.{entry.id}.{name}"
        for entry in config.workers
        for name in ("assigned_users", "steal_targets")
        if getattr(entry, name) != WorkerConfig.model_fields[name].default
    ]
    if config.queue.max_user_share < 1:
        found.append("queue.max_user_share")
    if config.queue.steal_after_seconds != QueueConfig.model_fields["steal_after_seconds"].default:
        found.append("queue.steal_after_seconds")
    found += [f"plugins.{name}" for name in config.plugins]
    if config.queue.durability != "local":
        found.append("queue.durability")
    for user, policy in config.users.items():
        if user == "default" or is_pattern(user):
            found.append(f"users.{user} (a policy by pattern, or for everybody else)")
        later = ("rate_limit", "max_queued", "group")
        found += [f"users.{user}.{name}" for name in later if getattr(policy, name) is not None]
    return found
