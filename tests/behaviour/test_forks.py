"""A process forks while it has an open queue: parent and child go on, each with connections of its own."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairque import AsyncTaskQueue, Task, TaskQueue
from tests.support.queues import config_for, tidy, wait_until
from tests.support.servers import ServerProcess

__all__ = ["tidy"]
pytestmark = pytest.mark.usefixtures("tidy")

SECONDS = 20.0


def forked(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child, while the parent waits."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks while threads run: that is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read_end)
            with os.fdopen(write_end, "w") as out:
                json.dump(work(), out)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        text = told.read()
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return json.loads(text)


def addresses(client: redis.Redis) -> set[str]:
    """The connections of FairQueue's clients, by their ids on the server."""
    return {str(one["id"]) for one in client.client_list() if one["name"] == "fairque"}


def test_a_child_has_connections_and_a_session_of_its_own(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    queue = TaskQueue(config_for(server.url))
    queue.push(Task.create(payload="before", user_id="a"))
    queue.push(Task.create(payload="for the child", user_id="b"))
    mine = queue.pop()
    assert mine is not None
    before = addresses(flushed)

    def work() -> Any:
        handle = queue.push(Task.create(payload="child", user_id="c"))
        claimed = queue.pop()
        assert claimed is not None
        queue.finish(claimed, "done")
        seen = sorted(addresses(flushed) - before)
        queue.close()
        return {"id": handle.task_id, "claimed": claimed.task_id, "client": queue.client_id, "new": seen}

    client_id = queue.client_id
    told = forked(work)
    assert told["client"] != client_id
    assert told["new"], "the child must have connected anew"
    assert queue.client_id == client_id
    # The parent's lease, claim and connections are as they were.
    queue.finish(mine, "done")
    assert before <= addresses(flushed)
    assert queue.get_task(told["id"]) is not None
    assert told["claimed"] != mine.task_id
    queue.close()


def test_parent_and_child_at_once_get_their_own_replies(server: ServerProcess, flushed: redis.Redis) -> None:
    queue = TaskQueue(config_for(server.url))

    def pushes(name: str) -> list[str]:
        wrong = []
        for number in range(300):
            task_id = f"{name}-{number}"
            queue.push(Task.create(payload=task_id, task_id=task_id))
            found = queue.get_task(task_id)
            if found is None or found.payload != task_id:
                wrong.append(task_id)
        return wrong

    queue.push(Task.create(payload=0, task_id="first"))
    wrong: list[str] = []
    thread = threading.Thread(target=lambda: wrong.extend(pushes("parent")))
    thread.start()  # it holds a connection, and maybe a lock, in the middle of a call when the process forks
    wait_until(lambda: queue.get_task("parent-5") is not None)
    assert forked(lambda: pushes("child")) == []
    thread.join(SECONDS)
    assert wrong == []
    queue.close()


def test_a_child_waits_for_a_result_by_itself(server: ServerProcess, flushed: redis.Redis) -> None:
    """The parent's listener is a thread, which the child does not have."""
    queue, worker = TaskQueue(config_for(server.url)), TaskQueue(config_for(server.url))
    handle = queue.push(Task.create(payload=1))
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.05)

    def settle() -> None:
        task = worker.pop(wait=SECONDS)
        assert task is not None
        worker.finish(task, "result")

    settler = threading.Thread(target=settle)
    settler.start()
    assert forked(lambda: handle.result(timeout=SECONDS)) == "result"
    settler.join(SECONDS)
    worker.close()
    queue.close()


def test_an_async_queue_in_a_child_uses_no_socket_of_the_parents(
    server: ServerProcess, flushed: redis.Redis
) -> None:
    async def run() -> None:
        queue = AsyncTaskQueue(config_for(server.url))
        await queue.push(Task.create(payload=0, task_id="one"))

        def work() -> Any:
            async def push() -> str:
                handle = await queue.push(Task.create(payload=1, task_id="two"))
                await queue.close()
                return handle.task_id

            # The parent's loop runs in this very thread: the child needs one of its own, in another.
            found: list[str] = []
            thread = threading.Thread(target=lambda: found.append(asyncio.run(push())))
            thread.start()
            thread.join()
            return found

        assert await asyncio.to_thread(forked, work) == ["two"]
        # The parent's loop still hears its socket.
        for number in range(50):
            assert (await queue.get_task("one")).payload == 0, number  # type: ignore[union-attr]
        await queue.close()

    asyncio.run(run())
