"""dramatiq: the `dramatiq` command with one process; a tenant's own queue is a queue of the message."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

from bench import systems
from bench.calls import Call

broker = RedisBroker(url=systems.URL)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)
ACTORS = {fn.__name__: dramatiq.actor(fn, max_retries=0) for fn in systems.FUNCTIONS}
for queue in systems.QUEUES:
    broker.declare_queue(queue)  # workers consume every queue that is declared


class SyncProducer:
    """`send`, or `enqueue` of a message with another queue; there is no bulk enqueue."""

    def push(self, call: Call) -> None:
        message = ACTORS[call.task].message(call.number, call.data)
        if call.user is not None:
            message = message.copy(queue_name=call.user)
        broker.enqueue(message)

    def push_many(self, calls: list[Call]) -> None:
        for call in calls:
            self.push(call)


systems.hold()
