"""What code and configuration declare, put on the server when a scheduler starts."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Sequence
from types import ModuleType

from fairque.core.config import FairQueueConfig
from fairque.core.schedules.models import ScheduledTask
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, schedules
from fairque.queue.operations.base import Engine
from fairque.queue.operations.schedules import Reconciled

_log = logging.getLogger(__name__)


def deploy(
    manager: LuaScriptManager, engine: Engine, declared: Iterable[ScheduledTask], source: str
) -> Reconciled:
    """Have what `source` declares, and no more of what it declared before; what was done is logged.

    Raises:
        ConfigError: two have one name.
    """
    done = manager.run(schedules.reconcile(engine, declared, source))
    if done.added or done.changed or done.removed:
        _log.info(
            "schedules of %s: %d added, %d changed, %d removed, %d as they were",
            source, len(done.added), len(done.changed), len(done.removed), len(done.unchanged),
        )  # fmt: skip
    if done.taken_over:
        _log.warning(
            "schedules that another source had declared are now of %s: %s; give them other names, or the files one "
            "`scheduler.source`, or they will change hands at each deploy", source, ", ".join(done.taken_over),
        )  # fmt: skip
    return done


def deploy_config(manager: LuaScriptManager, engine: Engine, config: FairQueueConfig) -> None:
    """Have what the section `schedules` declares, if there is one."""
    if config.declares_schedules:
        deploy(manager, engine, config.schedules.values(), config.scheduler.source)


def deploy_modules(manager: LuaScriptManager, engine: Engine, modules: Sequence[str]) -> None:
    """Import each module, and have what it declares; its name is the source."""
    for name in modules:
        deploy(manager, engine, schedules_in(importlib.import_module(name)), name)


def deploy_from(config: FairQueueConfig, modules: Sequence[str]) -> None:
    """As `deploy_modules`, over a connection of its own.

    Raises:
        QueueUnavailableError: no server answers.
    """
    manager, engine = (
        LuaScriptManager(config.redis.create_redis_client(), breaker=breaker_for(config)),
        Engine(config.queue, config.key_prefix),
    )
    try:
        manager.run(admin.open_queue(engine))
        deploy_modules(manager, engine, modules)
    finally:
        manager.client.close()


def schedules_in(module: ModuleType) -> list[ScheduledTask]:
    """The schedules that stand in a module, by themselves or in a list or tuple of schedules."""
    found: dict[int, ScheduledTask] = {}
    for value in vars(module).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, ScheduledTask):
                found[id(item)] = item
    return list(found.values())
