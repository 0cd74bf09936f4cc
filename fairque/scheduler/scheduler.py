"""TaskScheduler: pushes the tasks of schedules when they are due.

One thread does everything: it takes part in the election, and while it leads it looks at what is due, plans, has the
plans taken, and sleeps until the next look. A second one blocks on a wake list meanwhile, and ends that sleep when
somebody changes a schedule, or a run ends that another waits for. A wake-up that is lost costs a third of a lease.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus
from fairque.core.exceptions import (
    ConfigError,
    NotLeaderError,
    QueueFullError,
    QueueUnavailableError,
)
from fairque.core.keys import decode
from fairque.core.middleware import Middleware, check_middleware
from fairque.core.schedules.models import ScheduledTask
from fairque.queue.circuit_breaker import breaker_for
from fairque.queue.connection import create_blocking_client
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, firing, schedule_views
from fairque.queue.operations.base import Engine
from fairque.queue.operations.firing import NEWS, Look
from fairque.queue.operations.results import read_message
from fairque.queue.reader import BlockingReader
from fairque.scheduler.decider import Decider
from fairque.scheduler.deploy import deploy, deploy_config, deploy_modules
from fairque.scheduler.leader import RENEWALS, Leadership

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5
"""After a call that failed."""
MAX_ROUNDS = 100
"""Pages that are looked at before the loop turns to other things."""
LEAVE_SECONDS = 5.0


class TaskScheduler:
    """Decides the ticks of all schedules of a queue, in turn with others like it. It opens nothing before `start`.

    Any number may run: one leads, and each tick is pushed exactly once whatever becomes of it. `schedules` are declared
    under the name `source`, beside those of the configuration: what the same source declared before and does not now
    is removed; None declares nothing. `modules` are imported at the start, and declare the schedules that stand in
    them, each under its own name. Each task goes through the `middleware` of pushes. `run` handles signals; to
    embed a scheduler, use `start` and `stop`, from any thread.
    """

    def __init__(
        self,
        config: FairQueueConfig | None = None,
        schedules: Iterable[ScheduledTask] | None = None,
        *,
        source: str = "code",
        modules: Sequence[str] = (),
        middleware: Sequence[Middleware] = (),
        events: EventBus | None = None,
    ) -> None:
        self.config = config or FairQueueConfig.create_default()
        check_middleware(middleware)
        self.events = events or EventBus()
        self._schedules = None if schedules is None else tuple(schedules)
        self._source = source
        self.modules = tuple(modules)
        self._engine = Engine(
            self.config.queue, self.config.key_prefix, bus=self.events, middleware=middleware
        )
        self._lease = self.config.scheduler.lease_seconds
        self._manager: LuaScriptManager | None = None
        self._leadership: Leadership | None = None
        self._decider: Decider | None = None
        self._reader: BlockingReader | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._out = threading.Event()
        self._stopping = False
        self._ended: set[str] = set()
        self._last_good = 0.0
        self._away = False

    # -- starting and stopping

    def start(self) -> None:
        """Return when the server has answered and what is declared is there; ticks are decided from then on.

        Raises:
            QueueUnavailableError: no server answers.
            ConfigError: two schedules have one name, or this scheduler was started before.
        """
        if self._manager is not None:
            raise ConfigError("this scheduler was started before: make a new one")
        manager = self._manager = LuaScriptManager(
            self.config.redis.create_redis_client(), breaker=breaker_for(self.config, self.events)
        )
        try:
            manager.run(admin.open_queue(self._engine, serves=True))
            deploy_config(manager, self._engine, self.config)
            deploy_modules(manager, self._engine, self.modules)
            if self._schedules is not None:
                deploy(manager, self._engine, self._schedules, self._source)
        except BaseException:
            manager.client.close()
            raise
        self._leadership = Leadership(self._engine, manager, self._lease, self.events)
        self._decider = Decider(self._engine, manager, self.events, self._leadership.scheduler_id)
        self._last_good = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="fairque-scheduler", daemon=True)
        self._thread.start()
        _log.info("scheduler %s runs", self._leadership.scheduler_id)

    def stop(self, timeout: float = LEAVE_SECONDS) -> bool:
        """Decide no more, and let another scheduler lead; returns when this one is out. False: not within `timeout`
        seconds."""
        self.ask_to_stop()
        return self.join(timeout)

    def ask_to_stop(self) -> None:
        """As `stop`, without waiting."""
        self._stopping = True
        self._wake.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is out; False if `timeout` seconds were not enough."""
        return self._thread is None or self._out.wait(timeout)

    def run(self) -> None:
        """Start, decide until SIGTERM or SIGINT, and leave.

        Raises: as `start`.
        """

        def on_signal(number: int, _frame: FrameType | None) -> None:
            _log.info("%s: the scheduler stops", signal.Signals(number).name)
            self.ask_to_stop()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.start()
            while not self._out.wait(0.5):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- how it is

    @property
    def scheduler_id(self) -> str:
        """Its name on the server, empty before the start."""
        return self._leadership.scheduler_id if self._leadership else ""

    @property
    def is_leader(self) -> bool:
        """Whether it leads, as far as it knows."""
        return self._leadership is not None and self._leadership.leads

    def is_healthy(self) -> bool:
        """Whether it runs and the server answered within the last two renewals."""
        if self._thread is None or not self._thread.is_alive():
            return False
        return time.monotonic() - self._last_good < 2 * self._lease / RENEWALS + 0.5

    # -- the loop

    def _serve(self) -> None:
        leadership, manager = self._leadership, self._manager
        if leadership is None or manager is None:
            return
        try:
            while not self._stopping:
                # Before the look: what comes meanwhile ends the next sleep.
                self._wake.clear()
                pause = self._guarded_step(leadership)
                if not self._stopping:
                    self._wake.wait(max(0.0, pause))
        finally:
            self._listen(False)
            leadership.resign()
            manager.client.close()
            _log.info("scheduler %s is out", leadership.scheduler_id)
            self._out.set()

    def _guarded_step(self, leadership: Leadership) -> float:
        """One round, whatever happens; how many seconds to the next."""
        try:
            pause = self._step(leadership)
        except NotLeaderError:
            leadership.lose()
            pause = 0.0
        except (QueueUnavailableError, QueueFullError) as error:
            if not self._away:  # once
                _log.warning("no ticks are decided now: %s", error)
            self._away = True
            return AGAIN_SECONDS
        except Exception:  # noqa: BLE001 - the next round may be better, and somebody must decide
            _log.exception("scheduler %s failed, and goes on", leadership.scheduler_id)
            return AGAIN_SECONDS
        if self._away:
            _log.info("ticks are decided again")
        self._away, self._last_good = False, time.monotonic()
        return pause

    def _step(self, leadership: Leadership) -> float:
        if time.monotonic() >= leadership.due_at:
            self._ask(leadership)
        if not leadership.leads:
            return leadership.due_at - time.monotonic()
        look_at = self._decide(leadership)
        return min(look_at, leadership.due_at) - time.monotonic()

    def _ask(self, leadership: Leadership) -> None:
        office = leadership.ask()
        self._listen(office.leads)
        if office.leads and not office.complete and self._manager is not None:
            # Somebody has deleted the times at which to look: all are looked at.
            self._ended.update(self._manager.run(schedule_views.all_of(self._engine)))

    def _decide(self, leadership: Leadership) -> float:
        """Decide all that is due; when the next is (monotonic seconds)."""
        for _ in range(MAX_ROUNDS):
            names = [self._ended.pop() for _ in range(min(len(self._ended), firing.PAGE))]
            office = leadership.office
            if office is None or self._manager is None or self._stopping:
                break
            look = self._manager.run(firing.look(self._engine, office, names))
            seen = time.monotonic()
            if look.lost:
                _log.error(
                    "schedules whose definition is lost, and must be added again: %s", ", ".join(look.lost)
                )
            if not look.items and not names:
                if look.next_look is None:
                    return leadership.due_at
                return seen + (look.next_look - look.now).total_seconds()
            self._decide_each(leadership, look)
        return time.monotonic()

    def _decide_each(self, leadership: Leadership, look: Look) -> None:
        for due in look.items:
            if time.monotonic() >= leadership.due_at:
                self._ask(leadership)
            office = leadership.office
            if office is None or self._decider is None or self._stopping:
                return
            self._decider.decide(office, due, look.now)

    # -- being woken

    def _listen(self, leads: bool) -> None:
        """Read the leader's wake list, or no more."""
        if leads == (self._reader is not None):
            return
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            return
        block = max(0.1, self._lease / RENEWALS)
        key = self._engine.keys.wake(NEWS)
        self._reader = BlockingReader(
            lambda: create_blocking_client(self.config.redis, block),
            lambda: ("BLPOP", key, block),
            self._hear,
            "fairque-scheduler-waker",
            self._wake.set,
            breaker_for(self.config),
        )
        self._reader.start()

    def _hear(self, reply: Any) -> None:
        """Something is due earlier than was known, or a run that others wait for has changed its state."""
        try:
            task_id, update = read_message(reply[1])
        except ValueError:
            self._wake.set()
            return
        if update.is_last:
            # The id of a run is its schedule's name and its tick (core/schedules/models.py).
            self._ended.add(decode(task_id).rpartition("@")[0])
            self._wake.set()
