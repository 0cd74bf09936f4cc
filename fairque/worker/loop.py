"""The control loop: one call settles what ended and claims what fits, so a busy worker makes one round trip a
batch.

Executors answer into `Slots`; the loop collects the answers, tells the server, and claims as many tasks as
there are free slots, plus at most `prefetch_milliseconds` of expected work. An idle loop sleeps until the
waker, a due time or its heartbeat calls. The waker's thread, which knows first that there is work, takes the loop's
turn itself while the loop sleeps: that saves a change of threads before the task starts.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
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
from fairque.queue.backoff import Backoff
from fairque.queue.losses import tell_losses, tell_renewed
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import claims, tasks, xcom
from fairque.queue.operations.assignment import encode_entry
from fairque.queue.operations.base import Engine
from fairque.queue.operations.claims import Exchange, Session, Settlement
from fairque.worker.executors.base import Executor, XComRequest
from fairque.worker.lease import Holdings
from fairque.worker.outbox import Ended, Outbox
from fairque.worker.page import Page
from fairque.worker.settlements import claimed_event, giving_up, release_of, settled, settlement_of
from fairque.worker.slots import Slots
from fairque.worker.waker import Waker

_log = logging.getLogger(__name__)

AWAY_PAUSE_SECONDS = 0.25
PROGRESS_SECONDS = 0.1
DRAIN_LOOK_SECONDS = 0.1
NO_FUNCTIONS = ("-",)
"""What a worker without any announces: an empty list would mean that it takes everything."""
MIN_BEAT_SECONDS = 0.25
PLENTY = 32
"""Claims that are worth reading while the server works on the next call."""


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
        self.slots = Slots(executor, entry, engine.bus, page, self._xcom)
        self._cancels: deque[str] = deque()
        self._outbox = Outbox()
        self._in_flight: list[Ended] = []
        self._unread: tuple[Any, list[Ended]] | None = None
        self._poked = False
        self._due: float | None = None
        self._next_beat = self._next_announcement = self._next_progress = 0.0
        self._limit: float | None = None
        self._drained = False
        self._full_claim = True
        self._turning = threading.Lock()  # whoever holds it is the loop
        self._awake_at = 0.0  # when the loop's own thread wakes by itself
        self._error: Exception | None = None  # what ended a turn in the waker's thread
        self.last_good = 0.0
        self.completed = 0
        self.released = 0

    def _new_session(self) -> Session:
        return Session(
            slots=self._entry.max_concurrent_tasks,
            entry=encode_entry(self._entry.id),
            fields={
                "kind": "worker",
                "worker_id": self._entry.id,
                "executor": self._entry.executor,
                "host": socket.gethostname(),
                "pid": os.getpid(),
            },
            functions=self._functions,
        )

    # -- called by tasks, in their threads

    def _xcom(self, task: Task[Any], request: XComRequest) -> bytes | None:
        """Leave a value, or look for one."""
        namespace, key, data, ttl = request
        if data is None:
            return self._manager.run(xcom.pull_encoded(self._engine, key, task.user_id, namespace))
        self._manager.run(xcom.push_encoded(self._engine, key, data, task.user_id, namespace, ttl))
        return None

    # -- called by the waker

    def on_message(self, message: bytes) -> None:
        """There is work, or a task that this worker holds is to be cancelled."""
        if message[:1] == b"c":
            self._cancels.append(decode(message[1:].decode()))
        else:
            self._poked = True
            if self._limit is None and self._turning.acquire(blocking=False):
                try:
                    self._turn()
                    if not self._must_turn() and self._awake_at <= self._next_look():
                        return  # the loop's own thread has nothing to do, and wakes soon enough
                except Exception as error:  # noqa: BLE001 - it is raised in the loop's own thread
                    self._error = error
                finally:
                    self._turning.release()
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
        backoff = Backoff()
        while True:
            try:
                with self._turning:
                    if self._error is not None:
                        error, self._error = self._error, None
                        raise error
                    if self._limit is not None and self._drain():
                        break
                    self._turn()
                    must_turn = self._must_turn()
                    self._awake_at = self._next_look()
                if not (must_turn or self.slots.wait(self._awake_at - time.monotonic()) or self.stopping):
                    self._poked = True  # nobody called: look for work all the same
                if backoff.away:
                    _log.info("the server answers again")
                backoff.succeeded()
            except WorkerDeadError as error:
                with self._turning:
                    self._start_again(error)
            except QueueUnavailableError as error:
                if not backoff.away:
                    _log.warning("%s; the worker keeps its tasks and tries again", error)
                if not self._rest(backoff.failed(error)):
                    _log.warning("the server is away: what could not be settled is given back by its lease")
                    return
            except FairQueueError:
                _log.exception("the control loop goes on")
                time.sleep(AWAY_PAUSE_SECONDS)
        self.leave()

    def _rest(self, seconds: float) -> bool:
        """Wait while the server is away; False if the worker stops and has no time left for that."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            if self._limit is not None and now > self._limit:
                return False
            time.sleep(min(AWAY_PAUSE_SECONDS, until - now))
        return self._limit is None or now <= self._limit

    def _turn(self) -> None:
        """One call if there is a reason for it."""
        now = time.monotonic()
        self._pass_on_cancels()
        self._give_back(self.slots.withdraw_late(now))
        beat = now >= self._next_beat
        due = self._due is not None and now >= self._due
        if self._unread is not None and not self.slots.has_outcomes and self._want() == 0:
            self._read()  # nothing to say yet
        if self.slots.has_outcomes or self.session.lost or beat or due or self._must_turn():
            self._poked = False
            if due:
                self._due = None
            self._exchange(self._want(), beat)
        if now >= self._next_announcement:
            self._manager.run(claims.renew(self._engine, self.session, announce=True))
            tell_renewed(self._engine.bus, self.session)
            self._next_announcement = now + self._announce_seconds
        self._send_progress()

    def _want(self) -> int:
        """Free slots, and room for prefetched work."""
        if self._limit is not None:
            return 0
        return self.slots.want(self._prefetch(), self._unread_claims())

    def _prefetch(self) -> int:
        """How many tasks may be claimed beyond the free slots."""
        return self.slots.allowance(self._queue.prefetch_milliseconds / 1000)

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
        """One call. While the server works on it, what the call before it brought is read and started; that waits here
        as it came if it was plenty, and the slots have enough to do meanwhile."""
        session = self.session
        if beat or session.lost or self._limit is not None:
            self._read()
        if self._fetch_lost():
            want = min(want, self._want())
        now = time.monotonic()
        in_flight = self._in_flight = self._collect()
        settlements = [ended.settlement for ended in in_flight]
        self._holdings.settle(settlements, now)
        holding = self._holdings.tokens() if beat else None
        call = claims.exchange_call(self._engine, session, want, settlements, int(want > 0), holding)
        receive = self._manager.begin(call)
        try:
            self._read()
        finally:
            self._in_flight = in_flight
            reply = receive()
        session.lost = None
        if beat:
            self._next_beat = time.monotonic() + self._beat
        came = claims.claimed_in(reply)
        self._full_claim = want > 0 and came >= want
        self._unread, self._in_flight = (reply, in_flight), []
        if not (self._full_claim and came >= PLENTY and self.slots.has_backlog and claims.only_claims(reply)):
            self._read()

    def _read(self) -> None:
        """Read and start what the last call brought, if that was put off."""
        if self._unread is not None:
            reply, in_flight = self._unread
            exchange = claims.exchange_in(reply)
            if exchange.refers:
                exchange = self._manager.run(claims.complete(self._engine, exchange))
            self._unread = None  # only now: should the server be away, it is read again
            self._take(exchange, in_flight)

    def _unread_claims(self) -> int:
        return claims.claimed_in(self._unread[0]) if self._unread is not None else 0

    def _fetch_lost(self) -> bool:
        """The answer to a call whose reply never came, before anything new is said; whether there was one."""
        if self.session.lost is None:
            return False
        try:
            lost = self._manager.run(claims.fetch_lost(self._engine, self.session))
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
        tally = settled(self._engine.bus, in_flight, exchange.codes)
        tell_losses(self._engine.bus, exchange.news)
        self.completed += tally.completed
        self.released += tally.released
        self._in_flight = []
        self._correct(tally.lacking)
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
        new = self._holdings.take(claimed)
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
        if self._cancels:
            self._read()
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

    def _must_turn(self) -> bool:
        """Whether there is a reason for another call already."""
        if self._outbox or self._poked or self._unread is not None:
            return True
        return self._full_claim and self.slots.worth_a_call(self._want(), self._prefetch())

    def _next_look(self) -> float:
        """When (monotonic seconds) the loop must look again, if nobody calls it before."""
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
        return until

    # -- leaving

    def _drain(self) -> bool:
        """Stop beginning; True once nothing runs, or time is up and the rest was given back."""
        if not self._drained:
            self._read()
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
        self._in_flight, self._unread = [], None
        self._outbox.clear()
        self.session = self._new_session()
        self._waker.set_key(self._engine.keys.wake(self.session.incarnation))
        self._full_claim = True
        try:
            self.join()
        except FairQueueError as again:
            _log.warning("could not join again yet: %s", again)
            time.sleep(AWAY_PAUSE_SECONDS)
