"""Connecting, and claiming tasks by hand: the half of TaskQueue that holds a lease."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from redis.exceptions import RedisError

from fairque.core.config import FairQueueConfig
from fairque.core.events import EventBus
from fairque.core.exceptions import (
    FairQueueError,
    InvalidTaskError,
    NotReplicatedError,
    QueueUnavailableError,
    WorkerDeadError,
)
from fairque.core.middleware import Middleware
from fairque.core.models import Task
from fairque.queue.base import BaseTaskQueue
from fairque.queue.connection import create_blocking_client
from fairque.queue.consumer import check_settled, failing, finishing, releasing, unsure_outcome
from fairque.queue.listener import Listener
from fairque.queue.losses import tell_losses, tell_renewed
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, claims
from fairque.queue.operations.base import Flow
from fairque.queue.operations.claims import Exchange, Settlement, exchange_in

R = TypeVar("R")
T = TypeVar("T")
MAX_POP_SECONDS = 5.0
SOME_USERS_SECONDS = 0.1


class ClaimingQueue(BaseTaskQueue):
    """The half of TaskQueue that connects, and that claims tasks by hand."""

    def __init__(
        self,
        config: FairQueueConfig | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        events: EventBus | None = None,
    ) -> None:
        super().__init__(config, middleware=middleware, events=events)
        self._begin_connections()

    # -- connections

    def _begin_connections(self) -> None:
        self._lock = threading.RLock()
        self._calls = threading.Lock()
        self._manager: LuaScriptManager | None = None
        self._blocking: Any = None
        self._listener = Listener(self._blocking_client, self.engine.keys.wake(self.client_id), self.breaker)

    def _begin_anew(self) -> list[Any]:
        parents = [self._manager, self._blocking, self._listener, self._lock, self._calls]
        super()._begin_anew()
        self._begin_connections()
        return parents

    def _blocking_client(self, seconds: float) -> Any:
        return create_blocking_client(self.config.redis, seconds)

    def _open(self) -> LuaScriptManager:
        with self._lock:
            if self._manager is None:
                self._manager = LuaScriptManager(
                    self.config.redis.create_redis_client(), breaker=self.breaker
                )
            if not self._opened:
                self.spool.join(self)
                self._manager.run(admin.open_queue(self.engine))
                self._opened = True
            return self._manager

    def run(self, flow: Flow[T]) -> T:
        """Drive an operation (see queue/operations) to its end."""
        manager = self._manager if self._opened else None
        return (manager or self._open()).run(flow)

    def close(self) -> None:
        """Give back what pop() claimed but did not hand out, and close all connections."""
        with self._lock:
            if self._consumer.session.joined and self._manager is not None:
                try:
                    self._manager.run(claims.leave(self.engine, self._consumer.session.incarnation))
                except QueueUnavailableError:
                    pass  # its lease will bring them back
                self._consumer.renew_session()
            self._listener.close()
            self._listener = Listener(
                self._blocking_client, self.engine.keys.wake(self.client_id), self.breaker
            )
            for client in (self._blocking, self._manager.client if self._manager else None):
                if client is not None:
                    client.close()
            self._manager = self._blocking = None
            self._opened = False
            self.spool.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # -- claim and settle, for custom consumers

    @overload
    def pop(
        self, count: None = None, *, wait: float = 0, users: Sequence[str] = (), worker_id: str | None = None
    ) -> Task[Any] | None: ...

    @overload
    def pop(
        self, count: int, *, wait: float = 0, users: Sequence[str] = (), worker_id: str | None = None
    ) -> list[Task[Any]]: ...

    def pop(
        self,
        count: int | None = None,
        *,
        wait: float = 0,
        users: Sequence[str] = (),
        worker_id: str | None = None,
    ) -> Task[Any] | list[Task[Any]] | None:
        """Claim the next task, fairly (None: there is none), or with `count` a list of up to so many,
        and up to 300.

        `wait`: seconds to wait for the first. `users`: only from these. `worker_id`: as a worker of that entry
        would, its own users first. The claim is held for one lease (`lease_seconds`) from this object's last
        call: call `renew` in between if the work takes longer.
        """
        wanted = 1 if count is None else count
        if wanted < 1:
            raise InvalidTaskError(f"count must be at least 1, not {count}")
        try:
            found = self._pop(wanted, wait, users, worker_id)
        except Exception:
            raise
        except BaseException:  # a signal's, as of Ctrl-C
            self._stop_waiting()
            raise
        return found if count is not None else found[0] if found else None

    def _pop(self, wanted: int, wait: float, users: Sequence[str], worker_id: str | None) -> list[Task[Any]]:
        deadline = time.monotonic() + wait
        consumer = self._consumer
        while True:
            left = deadline - time.monotonic()
            parks = left > 0 and not users
            with self._calls:
                if worker_id is not None:
                    consumer.serve_as(worker_id)
                found = consumer.hand_out(wanted, users)
                due = None
                if not found:
                    consumer.session.slots = max(consumer.session.slots, wanted)
                    due = self._claim(want=wanted, park=parks, users=users).due_in
                    found = consumer.hand_out(wanted, users)
                # What came could not be read: it is a dead letter with the next call, and others may wait.
                again = not found and bool(consumer.invalid)
                blocks = parks and not (found or again)
                consumer.blocked += blocks
            if again:
                continue
            if found or left <= 0:
                return found
            pause = min(left, MAX_POP_SECONDS, self.config.queue.lease_seconds / 3, due or MAX_POP_SECONDS)
            if not blocks:
                # Nobody is woken for some tenants only.
                time.sleep(min(pause, SOME_USERS_SECONDS))
                continue
            try:
                self._block(pause)
            finally:
                with self._calls:
                    consumer.blocked -= 1

    def _stop_waiting(self) -> None:
        """After a pop that was interrupted: it waits no more, so a wake-up that it got goes on to somebody else, and
        what an answer that never came may have brought goes back."""
        consumer = self._consumer
        with self._calls:
            if not consumer.session.joined:
                return
            with contextlib.suppress(FairQueueError):  # its lease, or this object's next call, does the same
                consumer.take(self.run(claims.fetch_lost(self.engine, consumer.session)))
                self._claim(settlements=consumer.give_back())

    def _block(self, seconds: float) -> None:
        with self._lock:
            if self._blocking is None:
                self._blocking = self._blocking_client(MAX_POP_SECONDS)
            client = self._blocking
        key = self.engine.keys.wake(self._consumer.session.incarnation)
        try:
            client.execute_command("BLPOP", key, max(0.001, seconds))
        except (RedisError, OSError):
            time.sleep(min(seconds, 0.05))  # the next call will say so if the server is away

    def _claim(
        self,
        *,
        want: int = 0,
        settlements: Sequence[Settlement] = (),
        park: bool = False,
        users: Sequence[str] = (),
    ) -> Exchange:
        """One exchange of this object's session (the caller holds the lock); an answer that was lost comes first."""
        consumer, engine = self._consumer, self.engine
        for again in (True, False):
            try:
                if not consumer.session.joined:
                    self.run(claims.join(engine, consumer.session))
                consumer.take(self.run(claims.fetch_lost(self.engine, consumer.session)))
                want = max(0, want - consumer.count(users))
                exchange = self.run(
                    claims.settle_and_claim(
                        engine,
                        consumer.session,
                        want=want,
                        settlements=[*settlements, *consumer.pending()],
                        park=park,
                        only_if_none=True,
                        others_block=consumer.blocked > 0,
                        users=users,
                    )
                )
            except WorkerDeadError:
                if not again:
                    raise
                consumer.renew_session()
            except NotReplicatedError as error:
                consumer.take(exchange_in(error.reply))
                raise
            else:
                consumer.take(exchange)
                tell_losses(engine.bus, exchange.news)
                return exchange
        raise AssertionError("unreachable")

    def _settle(self, task: Task[Any], settlement: Settlement) -> claims.Settled:
        with self._calls:
            try:
                exchange = self._claim(settlements=[settlement])
            except NotReplicatedError as error:
                raise unsure_outcome(task, error) from None
            return check_settled(task, exchange.codes[0])

    def finish(self, task: Task[Any], result: Any = None, *, seconds: float = 0.0) -> None:
        """A claimed task has succeeded, after `seconds` of run time.

        Raises:
            StaleClaimError: the claim was lost; nothing is recorded.
            SerializationError, PayloadTooLargeError: the result cannot be stored.
            NotReplicatedError: it is recorded, but not as durable as it should be.
        """
        self._settle(task, finishing(self.engine, task, result, seconds))

    def fail(self, task: Task[Any], error: BaseException, *, seconds: float = 0.0) -> claims.Settled:
        """A claimed task has failed: it is tried again, or becomes a dead letter, as its policy says.

        Raises:
            StaleClaimError: the claim was lost; nothing is recorded.
        """
        return self._settle(task, failing(self.engine, task, error, seconds))

    def release(self, task: Task[Any]) -> None:
        """Give a claimed task back unstarted: it is its user's next again, and nothing is used up.

        Raises:
            StaleClaimError: the claim was lost.
        """
        self._settle(task, releasing(task))

    def renew(self, claimed: Task[Any] | Sequence[Task[Any]]) -> list[Task[Any]]:
        """Renew the lease; returns those of the tasks that somebody asked to cancel.

        Raises:
            StaleClaimError: a claim was lost: stop working on it.
        """
        items = [claimed] if isinstance(claimed, Task) else list(claimed)
        asked = self.run(claims.renew_claims(self.engine, self._consumer.session, items))
        tell_renewed(self.engine.bus, self._consumer.session)
        return asked
