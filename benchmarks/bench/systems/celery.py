"""Celery: `celery worker -P threads`. It has no async functions and no bulk enqueue."""

from __future__ import annotations

from celery import Celery, chord
from kombu import Queue

from bench import systems
from bench.calls import Call

app = Celery("bench", broker=systems.URL.replace("unix://", "redis+socket://"))
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=1 if systems.QUEUES else 100,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"queue_order_strategy": "round_robin"},
    worker_hijack_root_logger=False,
)
if systems.QUEUES:
    app.conf.task_queues = [Queue("celery"), *(Queue(name) for name in systems.QUEUES)]
if systems.FANS_IN:
    app.conf.update(result_backend=systems.URL.replace("unix://", "redis+socket://"), result_expires=3600)
    # What a chord collects needs its result.
    part = app.task(systems.part, name="part", ignore_result=False)
    collect = app.task(systems.collect, name="collect", ignore_result=True)
TASKS = {fn.__name__: app.task(fn, name=fn.__name__) for fn in systems.SYNC_FUNCTIONS}


class SyncProducer:
    """`apply_async`, each over the same pooled producer."""

    def push(self, call: Call) -> None:
        TASKS[call.task].apply_async((call.number, call.data), queue=call.user)

    def push_many(self, calls: list[Call]) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for call in calls:
                TASKS[call.task].apply_async((call.number, call.data), queue=call.user, producer=producer)

    def fan_in(self, calls: list[Call], last: Call) -> None:
        chord([part.s(call.number, call.data) for call in calls])(collect.s(last.number, last.data))


systems.hold()
