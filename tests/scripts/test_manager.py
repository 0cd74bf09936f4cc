"""Where scripts meet connections: a library that the server forgot, its errors, and a server that is full or away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import (
    FairQueueError,
    InvalidStateError,
    QueueFullError,
    QueueUnavailableError,
    StaleCallError,
    TaskNotFoundError,
    WorkerDeadError,
)
from fairque.core.models import Priority, Task, UserPolicy
from fairque.core.retry import Discard, Snooze
from fairque.core.states import TaskState
from fairque.queue.lua_manager import RESEND_PAUSES
from fairque.queue.replies import map_error
from fairque.scripts import load
from tests.support.facades import MODES, Facades
from tests.support.invariants import assert_consistent
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess


@pytest.fixture
def proxy(flushed: redis.Redis, server: ServerProcess) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.fixture(params=MODES)
def facades(request: pytest.FixtureRequest) -> Iterator[Facades]:
    facades = Facades(request.param)
    yield facades
    facades.close()


def config(url: str, **queue: Any) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url}, "queue": queue})


def life(queue: Any) -> None:
    """A task's whole life, through most of the scripts."""
    handle = queue.push(Task.create(payload=1))
    task = queue.pop()
    assert task.task_id == handle.task_id
    queue.renew(task)
    queue.finish(task, "done")
    assert handle.result(5) == "done"
    assert queue.list_tasks(TaskState.FINISHED).items[-1].task_id == task.task_id


def test_a_library_that_the_server_forgot_is_sent_again(
    flushed: redis.Redis, server: ServerProcess, facades: Facades
) -> None:
    queue = facades.make(config(server.url))
    for _ in range(3):
        flushed.function_flush()
        life(queue)


def test_nothing_fails_while_functions_and_scripts_are_flushed(
    flushed: redis.Redis, server: ServerProcess, facades: Facades
) -> None:
    queue = facades.make(config(server.url))
    for _ in range(100):
        flushed.function_flush("SYNC")
        queue.push(Task.create(payload=1))
        flushed.script_flush("SYNC")
        flushed.function_flush("SYNC")
        queue.finish(queue.pop())
    assert queue.get_stats().counters == {"pushed": 100, "claimed": 100, "finished": 100}


def test_what_is_not_repeated_is_sent_again_all_the_same_if_the_server_does_not_know_it(
    flushed: redis.Redis, server: ServerProcess, facades: Facades
) -> None:
    """Nothing has run then."""
    queue = facades.make(config(server.url))
    task = queue.push(Task.create(payload=1))
    queue.move_to_dlq(task.task_id)
    flushed.function_flush()
    assert queue.dlq.requeue(task.task_id) == 1
    assert task.task().run == 1
    queue.cancel(task.task_id)


def test_a_restarted_server_still_knows_the_library(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server(append_only=True, options={"appendfsync": "always"})
    queue = facades.make(config(server.url))
    life(queue)
    handle = queue.push(Task.create(payload=2))
    server.restart()
    assert [item[1].decode() for item in server.client().function_list()] == [load().name]
    assert handle.state() is TaskState.QUEUED
    life_of_two = queue.pop()
    assert life_of_two.payload == 2
    queue.finish(life_of_two)
    life(queue)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ResponseError("FQ_DEAD abc script: on @user_function:3."), WorkerDeadError, "incarnation abc is not alive"),
        (ResponseError("FQ_CALL 3 7"), StaleCallError, "call number 3 is lower than the last one seen (7)"),
        (ResponseError("FQ_NOT_FOUND a%3Ab c script: fairque_1f_cancel, on @user_function:3."), TaskNotFoundError,
         "no task a:b c:"),
        (ResponseError("FQ_STATE a b queued failed"), InvalidStateError, "task a b is queued and cannot be failed"),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), QueueFullError, "maxmemory"),
        (ResponseError("OOM allow-oom flag is not set on the script"), QueueFullError, "maxmemory"),
        (AuthenticationError("WRONGPASS invalid username-password pair"), QueueUnavailableError, "redis.password"),
        (NoPermissionError("NOPERM no permissions to run FCALL"), QueueUnavailableError, "redis.username"),
        (NoPermissionError("User u has no permissions to run the 'fcall' command"), QueueUnavailableError, "username"),
        (NoPermissionError("this user has no permissions to run the 'function|load' command"), QueueUnavailableError,
         "ACL SETUSER <user> +function|load"),
        (ResponseError("unknown command 'FCALL', with args beginning with: "), QueueUnavailableError, "Redis 7.0"),
        (ResponseError("unknown command `FUNCTION`, with args beginning with: "), QueueUnavailableError, "Valkey 7.2"),
        (ReadOnlyError("You can't write against a read only replica."), QueueUnavailableError, "cannot serve now"),
        (ResponseError("BUSY Redis is busy running a script"), QueueUnavailableError, "cannot serve now"),
        (ResponseError("READONLY You can't write against a read only replica."), QueueUnavailableError, "cannot serve"),
        (ResponseError("MASTERDOWN Link with MASTER is down"), QueueUnavailableError, "cannot serve now"),
        (ResponseError("CLUSTERDOWN The cluster is down"), QueueUnavailableError, "cannot serve now"),
        (ResponseError("ERR something else"), FairQueueError, "script pop failed: ERR something else"),
    ],
)  # fmt: skip
def test_an_error_reply_has_a_name(error: ResponseError, kind: type[FairQueueError], words: str) -> None:
    mapped = map_error(error, "pop")
    assert type(mapped) is kind
    assert words in str(mapped)


def test_a_read_only_server_is_unavailable(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server()
    queue = facades.make(config(server.url))
    life(queue)
    with server.configured(**{"min-replicas-to-write": "1"}), pytest.raises(QueueUnavailableError):
        queue.push(Task.create(payload=1))
    life(queue)
    assert map_error(ReadOnlyError("x"), "push") is not None


def test_a_full_server_refuses_pushes_and_still_drains(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server()
    client = server.client()
    queue = facades.make(config(server.url))
    handles = [queue.push(Task.create(payload=number, task_id=f"t{number}")) for number in range(12)]
    queue.push(Task.create(payload="urgent", priority=Priority.CRITICAL, task_id="urgent"))
    queue.push(Task.create(payload="later", delay=3600, task_id="later"))
    claimed = queue.pop(count=8)
    [retried, given_up, finished, released, kept, canceled, snoozed, discarded] = claimed

    with server.configured(maxmemory="1mb"):
        with pytest.raises(QueueFullError, match="maxmemory"):
            queue.push(Task.create(payload=1))
        [outcome] = queue.push_batch([Task.create(payload=1)])
        assert isinstance(outcome.error, QueueFullError)
        with pytest.raises(QueueFullError):
            queue.set_user_policy("u", UserPolicy(weight=2))
        # All that ends work, or looks at it, goes on; also for a client that comes only now.
        late = facades.make(config(server.url))
        assert late.get_health().healthy
        another = late.pop()
        assert another is not None
        late.finish(another, 1)
        queue.renew(claimed)
        queue.finish(finished, "done")
        assert late.get_handle(finished.task_id).result(5) == "done"
        queue.fail(retried, ValueError("again"))
        queue.release(released)
        queue.fail(snoozed, Snooze(3600))
        queue.fail(discarded, Discard("enough"))
        queue.fail(given_up, ValueError("no"))
        assert queue.cancel(canceled)
        queue.finish(canceled)
        assert queue.cancel("later")
        assert queue.delete_task("later")
        queue.move_to_dlq(kept, "by hand")
        assert queue.dlq.requeue(kept) == 1
        waiting = handles[-1]
        assert queue.cancel(waiting.task_id)
        assert set(queue.cleanup_expired_tasks().values()) == {0}
        queue.pause()
        queue.resume()
        assert client.info("memory")["used_memory"] > 1_000_000
    life_again = queue.push(Task.create(payload="room"))
    assert life_again.state() is TaskState.QUEUED
    assert_consistent(client)


def test_an_absent_server_is_said_after_the_repetitions(facades: Facades) -> None:
    queue = facades.make(config(f"unix:///nonexistent/{facades.mode}.sock"))
    with pytest.raises(QueueUnavailableError, match="no answer from the server to open"):
        queue.push(Task.create(payload=1))
    health = queue.get_health()
    assert not health.healthy
    assert "QueueUnavailableError" in health.problems[0]
    assert health.breaker.is_open


def test_a_lost_reply_is_asked_for_again(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url))
    queue.delete_task(queue.push(Task.create(payload=0)).task_id)  # the server knows the library now
    proxy.drop_replies(len(RESEND_PAUSES), matching=b"FCALL")
    handle = queue.push(Task.create(payload=1))
    assert proxy.replies_dropped == len(RESEND_PAUSES)
    assert [task.task_id for task in queue.list_tasks()] == [handle.task_id]
    queue.cancel(handle.task_id)


def test_what_cannot_be_told_from_a_repetition_is_not_repeated(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url))
    task = queue.push(Task.create(payload=1))
    queue.move_to_dlq(task.task_id)
    queue.dlq.requeue(task.task_id)
    queue.move_to_dlq(task.task_id)
    proxy.drop_replies(1, matching=b"FCALL")
    with pytest.raises(QueueUnavailableError, match="no answer from the server to requeue"):
        queue.dlq.requeue(task.task_id)
    assert task.task().run == 2
    queue.cancel(task.task_id)


def test_a_connection_that_was_reset_is_replaced(proxy: FaultProxy, facades: Facades) -> None:
    queue = facades.make(config(proxy.url))
    for _ in range(20):
        life(queue)
        proxy.reset()
