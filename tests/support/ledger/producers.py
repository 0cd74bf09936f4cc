"""Those who push: sync and async, one by one and in batches, through a network that loses answers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import (
    FairQueueError,
    QueueUnavailableError,
    ResultTimeoutError,
    TaskCanceledError,
    TaskFailedError,
    TaskNotFoundError,
)
from fairque.core.models import Priority, Task, new_task_id
from fairque.queue.async_queue import AsyncTaskQueue
from fairque.queue.queue import TaskQueue
from tests.support.ledger import work
from tests.support.ledger.book import Book, Sent

USERS = 8
LENGTHS = ((0.0, 40), (0.005, 30), (0.05, 20), (0.4, 8), (1.2, 2))
"""Seconds that a task takes, and how often."""
CANCELED, DELAYED, FAILING, ASYNC, CRITICAL = 0.03, 0.06, 0.1, 0.25, 0.1
AGAIN = 0.5
"""The part of unanswered pushes that is said again until an answer comes."""
BATCH = (2, 8)
SAY_AGAIN_SECONDS = 0.2


class Author:
    """Draws tasks, each with its entry in the book."""

    def __init__(self, seed: str, book: Book, path: str, rate: float) -> None:
        self.chance = random.Random(seed)
        self.book, self._path, self.rate = book, path, rate

    def next(self) -> tuple[Task[Any], Sent]:
        chance = self.chance
        [seconds] = chance.choices([length for length, _ in LENGTHS], [weight for _, weight in LENGTHS])
        failures = chance.randint(1, 2) if chance.random() < FAILING else 0
        sent = Sent(new_task_id(), f"user{chance.randrange(USERS)}", failures)
        options: dict[str, Any] = {
            "task_id": sent.task_id,
            "user_id": sent.user_id,
            # Somebody who says a push again takes what is there for an answer.
            "on_duplicate": "return",
            "priority": Priority.CRITICAL if chance.random() < CRITICAL else Priority(chance.randint(1, 5)),
        }
        if chance.random() < DELAYED:
            options["delay"] = chance.uniform(0.05, 1.5)
        function = work.step_async if chance.random() < ASYNC else work.step
        self.book.enter(sent)
        return function.with_options(**options)(self._path, seconds, failures), sent

    def batch(self) -> list[tuple[Task[Any], Sent]]:
        """One task, or some."""
        return [self.next() for _ in range(self.chance.randint(*BATCH) if self.chance.random() < 0.2 else 1)]

    def pause(self, tasks: int) -> float:
        return self.chance.uniform(0.5, 1.5) * tasks / self.rate


def _again(task: Task[Any]) -> Task[Any]:
    """The same task, as somebody sends it who does not know what became of the first one."""
    return task.with_options(task_id=task.task_id)


class Producers:
    """`threads` sync ones and one event loop with as many tasks, until `stop`; `rate`: tasks a second, of all."""

    def __init__(
        self, config: FairQueueConfig, near: FairQueueConfig, book: Book, path: str, seed: int, rate: float
    ) -> None:
        self._config, self._near, self._book = config, near, book
        self._over = threading.Event()
        self._settle_until = float("inf")
        count = 4
        authors = [Author(f"{seed}/{number}", book, path, rate / count) for number in range(count)]
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), daemon=True)
            for body in (
                *(lambda author=author: self._push(author) for author in authors[: count // 2]),
                lambda: asyncio.run(self._push_all(authors[count // 2 :])),
                lambda: self._read(random.Random(f"{seed}/reader")),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 30.0) -> None:
        """Push nothing new; those that are being said again are, until an answer comes."""
        self._settle_until = time.monotonic() + seconds
        self._over.set()
        for thread in self._threads:
            thread.join(seconds + 20)
            assert not thread.is_alive(), "a producer does not come to its end"

    def _guarded(self, body: Callable[[], object]) -> None:
        try:
            body()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self._book.wrong(error)

    # -- sync

    def _push(self, author: Author) -> None:
        with TaskQueue(self._config) as queue:
            while not self._over.is_set():
                batch = author.batch()
                if not self._push_once(queue, batch):
                    self._book.lost_answer()
                    while author.chance.random() < AGAIN and time.monotonic() < self._settle_until:
                        if self._push_once(queue, [(_again(task), sent) for task, sent in batch]):
                            break
                        self._book.lost_answer()
                        time.sleep(SAY_AGAIN_SECONDS)
                self._cancel(queue, author, [sent for _, sent in batch])
                self._over.wait(author.pause(len(batch)))

    def _push_once(self, queue: TaskQueue, batch: Sequence[tuple[Task[Any], Sent]]) -> bool:
        """Whether an answer came."""
        try:
            if len(batch) == 1:
                queue.push(batch[0][0])
                batch[0][1].acknowledged = True
            else:
                for outcome, (_, sent) in zip(
                    queue.push_batch(task for task, _ in batch), batch, strict=True
                ):
                    outcome.unwrap()
                    sent.acknowledged = True
        except QueueUnavailableError:
            return False
        except FairQueueError as error:
            self._book.wrong(error)
        return True

    def _cancel(self, queue: TaskQueue, author: Author, sent: Sequence[Sent]) -> None:
        for one in sent:
            if one.acknowledged and author.chance.random() < CANCELED:
                try:
                    one.canceled = queue.cancel(one.task_id) or None
                except QueueUnavailableError:
                    one.canceled = None
                except FairQueueError as error:
                    self._book.wrong(error)

    # -- async

    async def _push_all(self, authors: Sequence[Author]) -> None:
        async with AsyncTaskQueue(self._config) as queue:
            await asyncio.gather(*(self._push_async(queue, author) for author in authors))

    async def _push_async(self, queue: AsyncTaskQueue, author: Author) -> None:
        while not self._over.is_set():
            batch = author.batch()
            if not await self._push_once_async(queue, batch):
                self._book.lost_answer()
                while author.chance.random() < AGAIN and time.monotonic() < self._settle_until:
                    if await self._push_once_async(queue, [(_again(task), sent) for task, sent in batch]):
                        break
                    self._book.lost_answer()
                    await asyncio.sleep(SAY_AGAIN_SECONDS)
            for one in (sent for _, sent in batch):
                if one.acknowledged and author.chance.random() < CANCELED:
                    try:
                        one.canceled = await queue.cancel(one.task_id) or None
                    except QueueUnavailableError:
                        one.canceled = None
                    except FairQueueError as error:
                        self._book.wrong(error)
            await asyncio.sleep(author.pause(len(batch)))

    async def _push_once_async(self, queue: AsyncTaskQueue, batch: Sequence[tuple[Task[Any], Sent]]) -> bool:
        try:
            if len(batch) == 1:
                await queue.push(batch[0][0])
                batch[0][1].acknowledged = True
            else:
                outcomes = await queue.push_batch(task for task, _ in batch)
                for outcome, (_, sent) in zip(outcomes, batch, strict=True):
                    outcome.unwrap()
                    sent.acknowledged = True
        except QueueUnavailableError:
            return False
        except FairQueueError as error:
            self._book.wrong(error)
        return True

    # -- reading

    def _read(self, chance: random.Random) -> None:
        """Look at results while the run goes on: what was recorded once must stay."""
        with TaskQueue(self._near) as queue:
            while not self._over.wait(0.1):
                sent = [one for one in self._book.all()[-200:] if one.acknowledged and one.seen is None]
                for one in chance.sample(sent, min(3, len(sent))):
                    try:
                        one.seen = queue.get_handle(one.task_id).result(0.01)
                    except (ResultTimeoutError, TaskFailedError, TaskCanceledError):
                        pass
                    except TaskNotFoundError as error:
                        self._book.wrong(error)
                    except QueueUnavailableError:
                        self._over.wait(0.5)
