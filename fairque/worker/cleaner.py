"""What a worker does for the queue beside its tasks: its turn in the clean-up, and telling observers who has died.

One worker at a time goes through the queue's own round, under a lease; where it is stands on the server, so that
another one goes on should it die. Who is not needed asks again when the round, or the lease, should be over.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from redis.exceptions import RedisError

from fairque.core.config import FairQueueConfig
from fairque.core.events import DeadLettered, DeadLettersPassed
from fairque.core.exceptions import FairQueueError
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import cleanup, dead_letters
from fairque.queue.operations.base import Engine

_log = logging.getLogger(__name__)

REST = 4.0
"""Between two calls it rests so many times as long as a call took, so that others come in between: calls of 5 ms take a
fifth of the server's time."""
LEAST_REST, MOST_REST = 0.001, 0.02
"""Seconds. A call that took longer has waited for its turn, and rests enough."""


class Cleaner:
    """A thread with a connection of its own, from `start` to `stop`."""

    def __init__(self, config: FairQueueConfig, engine: Engine, incarnation: str) -> None:
        self._engine, self._owner, self._out = engine, incarnation, threading.Event()
        self._config = config
        self._every = engine.config.cleanup_interval_seconds
        self._heartbeat = engine.config.lease_seconds / 3
        self._random = random.Random(incarnation)
        self._thread = threading.Thread(target=self._run, name="fairque-cleaner", daemon=True)
        self._due = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """End, waiting for the call that is under way for up to `timeout` seconds."""
        self._out.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        manager = LuaScriptManager(
            self._config.redis.create_redis_client(), breaker=breaker_for(self._config, self._engine.bus)
        )
        manager.assured.lenient = True
        try:
            wait = 0.0
            while not self._out.wait(wait):
                try:
                    self._tell(manager)
                    wait = self._clean(manager)
                except (FairQueueError, RedisError, OSError) as error:
                    # The control loop says that the server is away; here it is enough to come again.
                    _log.debug("the clean-up waits: %s", error)
                    wait = self._heartbeat
        finally:
            manager.client.close()

    def _wants_news(self) -> bool:
        bus = self._engine.bus
        return bus.wants(DeadLettered) or bus.wants(DeadLettersPassed)

    def _tell(self, manager: LuaScriptManager) -> None:
        """Ask only if somebody listens here: each piece of news is told once in all."""
        while self._wants_news() and not self._out.is_set():
            events = manager.run(dead_letters.take_news(self._engine))
            for event in events:
                self._engine.bus.emit(event)
            if len(events) < dead_letters.NEWS:
                return

    def _clean(self, manager: LuaScriptManager) -> float:
        """A piece of the round, if it is this worker's turn; seconds until there is something to do again."""
        begun = time.monotonic()
        if begun < self._due or self._every <= 0:
            return self._heartbeat
        turn = manager.run(cleanup.take_turn(self._engine, self._owner, self._every))
        now = time.monotonic()
        if not turn.over:
            return min(MOST_REST, max(LEAST_REST, REST * (now - begun)))
        # Not all at the same moment.
        self._due = now + turn.wait + self._random.random() * self._heartbeat
        return self._heartbeat if self._wants_news() else max(0.0, self._due - now)
