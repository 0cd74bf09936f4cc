"""The control loop: one call settles what ended and claims what fits, so a busy worker makes one round trip a
batch.

Executors answer into `Slots`; the loop collects the answers, tells the server, and claims as many tasks as
there are free slots, plus at most `prefetch_milliseconds` of expected work. An idle loop sleeps until the
waker, a due time or its heartbeat calls.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from fairque.core.codec import encode_error
from fairque.core.config import QueueConfig, WorkerConfig
from fairque.core.events import TaskClaimed
from fairque.core.exceptions import FairQueueError, QueueUnavailableError, WorkerDeadError
from fairque.core.keys import decode
from fairque.core.models import Task
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims, tasks
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Exchange, Session, Settled, Settlement
from fairque.worker.executors.base import Executor, OutcomeKind
from fairque.worker.lease import Holdings
from fairque.worker.outbox import Ended, Outbox
from fairque.worker.page import Page
from fairque.worker.settlements import claimed_event, giving_up, release_of, settlement_of, tell
from fairque.worker.slots import Slots
from fairque.worker.waker import Waker

_log = logging.getLogger(__name__)

AWAY_PAUSE_SECONDS = 0.25
PROGRESS_SECONDS = 0.1
DRAIN_LOOK_SECONDS = 0.1
NO_FUNCTIONS = ("-",)
"""What a worker without any announces: an empty list would mean that it takes everything."""
MIN_BEAT_SECONDS = 0.25


class ControlLoop:
    """Runs in one thread (`run`) until `stop`. `page`: shared with the supervisor, if there is one."""

    def __init__(
        self,
        engine: Engine,
        manager: LuaScriptManager,
        executor: Executor,
        entry: WorkerConfig,
        waker: Waker,
        functions: tuple[str, ...],
        page: Page | None = None,
    ) -> None:
        self._engine, self._manager, self._executor, self._entry = engine, manager, executor, entry
        self._queue: QueueConfig = engine.config
        self._waker, self._page = waker, page
        lease, unknown = self._queue.lease_seconds, self._queue.unknown_function_seconds
        self._beat = min(lease / 3, max(MIN_BEAT_SECONDS, unknown / 6))
        # Often enough that nobody takes a function for unknown while this worker lives.
        self._announce_seconds = min(lease, unknown / 2)
        self._functions = functions
        self.session = self._new_session()
        self._holdings = Holdings(2 * self._queue.lease_seconds)
        self.slots = Slots(executor, entry, engine.bus, page)
        self._cancels: deque[str] = deque()
        self._outbox = Outbox()
        self._in_flight: list[Ended] = []
        self._poked = False
        self._due: float | None = None
        self._next_beat = self._next_announcement = self._next_progress = 0.0
        self._limit: float | None = None
        self._drained = False
        self._full_claim = True
        self.last_good = 0.0
        self.completed = 0
        self.released = 0

    def _new_session(self) -> Session:
        return Session(
            slots=self._entry.max_concurrent_tasks,
            fields={
                "kind": "worker",
                "worker_id": self._entry.id,
                "executor": self._entry.executor,
                "host": socket.gethostname(),
                "pid": os.getpid(),
            },
            functions=self._functions,
        )

    # -- called by the waker

    def on_message(self, message: bytes) -> None:
        """There is work, or a task that this worker holds is to be cancelled."""
        if message[:1] == b"c":
            self._cancels.append(decode(message[1:].decode()))
        else:
            self._poked = True
        self.slots.wake()

    # -- the loop

    def join(self) -> None:
        """Take a lease."""
        self._manager.run(claims.join(self._engine, self.session))
        self.last_good = time.monotonic()
        self._next_beat = self.last_good + self._beat
        self._next_announcement = self.last_good + self._announce_seconds
        if self._page is not None:
            self._page.set_incarnation(self.session.incarnation)
            self._page.set_last_good(self.last_good)

    def stop(self, timeout: float) -> None:
        """Claim no more, let what runs end within `timeout` seconds, give the rest back; a shorter one wins."""
        limit = time.monotonic() + timeout
        if self._limit is None or limit < self._limit:
            self._limit = limit
        self.slots.wake()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._limit is not None

    def run(self) -> None:
        """Until it was told to stop and everything is settled or given back."""
        away = False
        while True:
            try:
                if self._limit is not None and self._drain():
                    break
                self._turn()
                if away:
                    _log.info("the server answers again")
                away = False
            except WorkerDeadError as error:
                self._start_again(error)
            except QueueUnavailableError as error:
                if not away:
                    _log.warning("%s; the worker keeps its tasks and tries again", error)
                away = True
                if self._limit is not None and time.monotonic() > self._limit:
                    _log.warning("the server is away: what could not be settled is given back by its lease")
                    return
                time.sleep(AWAY_PAUSE_SECONDS)
            except FairQueueError:
                _log.exception("the control loop goes on")
                time.sleep(AWAY_PAUSE_SECONDS)
        self.leave()

    def _turn(self) -> None:
        """One call if there is a reason for it, then sleep until there may be one."""
        now = time.monotonic()
        self._pass_on_cancels()
        self._give_back(self.slots.withdraw_late(now))
        want = self._want()
        beat = now >= self._next_beat
        due = self._due is not None and now >= self._due
        waiting = bool(self.slots.has_outcomes or self._outbox or self.session.lost)
        if waiting or self._poked or beat or due or (want > 0 and self._full_claim):
            self._poked = False
            if due:
                self._due = None
            self._exchange(want, beat)
        if now >= self._next_announcement:
            self._manager.run(claims.renew(self._engine, self.session, announce=True))
            self._next_announcement = now + self._announce_seconds
        self._send_progress()
        self._sleep()

    def _want(self) -> int:
        """Free slots, and room for prefetched work."""
        if self._limit is not None:
            return 0
        prefetch = self.slots.allowance(self._queue.prefetch_milliseconds / 1000)
        return max(0, self.slots.room() + prefetch)

    def _collect(self) -> list[Ended]:
        """What ended since, as much of it as one call may carry."""
        for outcome in self.slots.collect():
            claim = outcome.task.claim
            if claim is None or claim.token not in self._holdings:
                continue  # of an incarnation that is dead, or a claim that was lost
            self._outbox.add_outcome(settlement_of(self._engine, outcome), outcome)
        return self._outbox.take()

    def _give_back(self, waiting: list[Task[Any]]) -> None:
        self._outbox.add(release_of(task) for task in waiting)

    def _exchange(self, want: int, beat: bool) -> None:
        engine, session = self._engine, self.session
        if self._fetch_lost():
            want = min(want, self._want())
        now = time.monotonic()
        self._in_flight = self._collect()
        for ended in self._in_flight:
            self._holdings.settle(ended.settlement, now)
        exchange = self._manager.run(
            claims.settle_and_claim(
                engine,
                session,
                want=want,
                settlements=[ended.settlement for ended in self._in_flight],
                park=want > 0,
                holding=self._holdings.tokens() if beat else None,
            )
        )
        if beat:
            self._next_beat = time.monotonic() + self._beat
        self._full_claim = want > 0 and len(exchange.claimed) >= want
        self._take(exchange, self._in_flight)

    def _fetch_lost(self) -> bool:
        """The answer to a call whose reply never came, before anything new is said; whether there was one."""
        if self.session.lost is None:
            return False
        try:
            lost = self._manager.run(claims.fetch_lost(self.session))
        except (QueueUnavailableError, WorkerDeadError):
            raise
        except FairQueueError:
            # The server knows nothing of that call, or cannot answer it: say it anew.
            self.session.lost = None
            self._outbox.put_back(self._in_flight)
            self._in_flight = []
            raise
        if lost is not None:
            self._take(lost, self._in_flight)
        return True

    def _take(self, exchange: Exchange, in_flight: list[Ended]) -> None:
        now = self.last_good = time.monotonic()
        if self._page is not None:
            self._page.set_last_good(now)
        lacking: set[str] = set()
        for ended, code in zip(in_flight, exchange.codes, strict=False):
            if code is Settled.RELEASED:
                self.released += 1
            elif ended.outcome is not None and code is not Settled.PASSED_ON:
                self.completed += 1
            if ended.outcome is not None:
                if code is Settled.STALE:
                    _log.warning("the outcome of task %s came too late", ended.settlement.task_id)
                if ended.outcome.kind is OutcomeKind.UNKNOWN:
                    lacking.add(ended.outcome.task.function)
                tell(self._engine.bus, ended.outcome, code)
        self._in_flight = []
        self._correct(lacking)
        for task_id, token, error in exchange.malformed:
            _log.error("task %s cannot be read and becomes a dead letter: %s", task_id, error)
            first = encode_error(error, 0, datetime.now(UTC))
            self._outbox.add([Settlement(task_id, token, "invalid", first=first)])
        if exchange.due_in is not None:
            self._due = now + exchange.due_in
        if exchange.held is not None:
            self._reconcile(exchange)
        self._cancels.extend(decode(task_id) for task_id in exchange.cancels)
        self._start(exchange.claimed)
        self._pass_on_cancels()

    def _start(self, claimed: tuple[Task[Any], ...]) -> None:
        """Hand new claims to the slots; one that is held already came with a reply that was fetched twice."""
        new = [task for task in claimed if self._holdings.take(task)]
        if self._engine.bus.wants(TaskClaimed):
            for task in new:
                self._engine.bus.emit(claimed_event(task))
        self.slots.start(new)

    def _correct(self, lacking: set[str]) -> None:
        """Announce no longer what turned out to be missing here (in a child process, say), or it would come again."""
        if lacking.isdisjoint(self._functions):
            return
        _log.warning("this worker announced functions that it cannot run: %s", ", ".join(sorted(lacking)))
        self._functions = tuple(name for name in self._functions if name not in lacking) or NO_FUNCTIONS
        self.session.functions = self._functions
        self._next_announcement = 0.0

    def _reconcile(self, exchange: Exchange) -> None:
        difference = self._holdings.compare(exchange.held or ())
        _log.warning(
            "the server's idea of what this worker holds differs: %d delivered again, %d settled again, %d lost",
            len(difference.missed), len(difference.unsettled), len(difference.lost),
        )  # fmt: skip
        self._outbox.add(difference.unsettled)
        self._abandon(difference.lost)
        self._start(difference.missed)

    def _abandon(self, lost: tuple[Task[Any], ...]) -> None:
        """Claims that are this worker's no longer: what waits is dropped, what runs is asked to stop."""
        self.slots.withdraw(task.claim.token for task in lost if task.claim)
        for task in lost:
            self._executor.cancel(task.task_id, task.claim.token if task.claim else None)

    def _pass_on_cancels(self) -> None:
        while self._cancels:
            task_id = self._cancels.popleft()
            waiting = self.slots.withdraw_task(task_id)
            self._give_back(waiting)
            if not waiting:
                self._executor.cancel(task_id)

    def _send_progress(self) -> None:
        now = time.monotonic()
        if not self.slots.has_progress or now < self._next_progress:
            return
        self._next_progress = now + PROGRESS_SECONDS
        self._manager.run(
            tasks.set_progress(self._engine, self._queue.result_ttl_seconds or 60, self.slots.take_progress())
        )

    def _sleep(self) -> None:
        now = time.monotonic()
        until = min(self._next_beat, now + self._entry.poll_interval_seconds)
        if self._due is not None:
            until = min(until, self._due)
        if self.slots.has_progress:
            until = min(until, self._next_progress)
        if (late := self.slots.patience()) is not None:
            until = min(until, late)
        if self._limit is not None:
            until = min(until, max(self._limit, now + 0.01), now + DRAIN_LOOK_SECONDS)
        if self._outbox or self._poked or (self._full_claim and self._want() > 0):
            return
        if not self.slots.wait(until - now) and self._limit is None:
            # Nobody called: look for work all the same, and let time do what it brings.
            self._poked = True

    # -- leaving

    def _drain(self) -> bool:
        """Stop beginning; True once nothing runs, or time is up and the rest was given back."""
        if not self._drained:
            self._drained = True
            self._give_back(self.slots.drain())
        if self.slots.idle and not self._outbox and not self._in_flight:
            return True
        if (self._limit is not None and time.monotonic() >= self._limit) or self.slots.only_stuck():
            # A thread that runs on is a daemon; its claim is given back, so its late outcome is refused.
            late = self.slots.late()
            left_over = self._executor.stop(0)
            stuck = {task.task_id for task in left_over}
            held = [task for task in self._holdings.tasks() if task.task_id in stuck]
            self._outbox.add(giving_up(self._engine, task, late.get(task.task_id)) for task in held)
            self.slots.abandon()
            while self._outbox or self.slots.has_outcomes:
                self._exchange(0, beat=False)
            return True
        return False

    def leave(self) -> None:
        """Give the lease up, and back what it still holds."""
        try:
            self.released += self._manager.run(claims.leave(self._engine, self.session.incarnation))
        except FairQueueError as error:
            _log.warning("could not leave cleanly: %s", error)

    def _start_again(self, error: WorkerDeadError) -> None:
        """This incarnation was declared dead: drop everything, start as a new one."""
        _log.warning("%s", error)
        self.slots.clear()
        for task in self._holdings.clear():
            self._executor.cancel(task.task_id, task.claim.token if task.claim else None)
        self._in_flight = []
        self._outbox.clear()
        self.session = self._new_session()
        self._waker.set_key(self._engine.keys.wake(self.session.incarnation))
        self._full_claim = True
        try:
            self.join()
        except FairQueueError as again:
            _log.warning("could not join again yet: %s", again)
            time.sleep(AWAY_PAUSE_SECONDS)
