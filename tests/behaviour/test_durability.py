"""`queue.durability`: a push returns when replicas, or the disk, have the task, or says that they may not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque import FairQueueConfig, Task, TaskHandler, Worker
from fairque.core.exceptions import (
    ConfigError,
    DuplicateTaskError,
    NotReplicatedError,
    QueueUnavailableError,
)
from tests.support.facades import MODES, Facades
from tests.support.failover import in_sync
from tests.support.proxy import FaultProxy
from tests.support.queues import wait_until
from tests.support.servers import ServerProcess

NewServer = Callable[..., ServerProcess]
AT_ONCE = {"repl-diskless-sync-delay": "0"}


@pytest.fixture(params=MODES)
def facades(request: pytest.FixtureRequest) -> Iterator[Facades]:
    facades = Facades(request.param)
    yield facades
    facades.close()


@pytest.fixture
def pair(new_server: NewServer) -> tuple[ServerProcess, ServerProcess]:
    """A primary and its replica."""
    primary = new_server(tcp=True, options=AT_ONCE)
    replica = new_server(options={**AT_ONCE, "replicaof": f"127.0.0.1 {primary.port}"})
    wait_until(lambda: in_sync(replica))
    return primary, replica


def config_of(url: str, durability: str = "replicated", **queue: Any) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url}, "queue": {"durability": durability, **queue}})


def calls(client: Any) -> dict[str, int]:
    return {
        name.removeprefix("cmdstat_"): told["calls"] for name, told in client.info("commandstats").items()
    }


def test_a_push_waits_for_a_replica_and_a_finish_too(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, replica = pair
    queue = facades.make(config_of(primary.url))
    for number in range(20):
        queue.push(Task.create(payload=number, task_id=f"t-{number}"))
        assert replica.client().exists(f"fq:task:t-{number}"), "it returned when the replica had it"
    task = queue.pop()
    queue.finish(task, "done")
    assert replica.client().zscore("fq:state:finished", task.task_id)
    queue.push_batch(Task.create(payload=1, task_id=f"b-{number}") for number in range(30))
    assert replica.client().exists("fq:task:b-29")


def test_without_a_replica_it_is_told_and_the_same_push_can_be_repeated(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, replica = pair
    queue = facades.make(config_of(primary.url, durability_timeout_seconds=0.2))
    queue.push(Task.create(payload=0))
    replica.freeze()
    task = Task.create(payload=1, user_id="alice", task_id="doubtful")
    for _ in range(2):  # repeating it while nothing has changed says the same
        with pytest.raises(
            NotReplicatedError, match=r"only 0 of 1 replicas confirmed it within 0\.2 s"
        ) as told:
            queue.push(task)
        assert (told.value.task_id, told.value.user_id) == ("doubtful", "alice")
        assert (told.value.confirmed, told.value.wanted) == (0, 1)
        assert "Push the same task again" in str(told.value)
    assert queue.get_task("doubtful") is not None, "it is there, on the primary"
    replica.thaw()
    assert queue.push(task).task_id == "doubtful"
    with pytest.raises(DuplicateTaskError):  # now it is certain, and another push is another push
        queue.push(task)
    assert queue.get_stats().states["queued"] == 2


def test_a_batch_tells_which_tasks_are_in_doubt(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, replica = pair
    queue = facades.make(config_of(primary.url, durability_timeout_seconds=0.2))
    queue.push(Task.create(payload=0, task_id="taken"))
    replica.freeze()
    tasks = [Task.create(payload=n, task_id=name) for n, name in enumerate(("one", "taken", "two"))]
    outcomes = queue.push_batch(tasks)
    assert [type(one.error) for one in outcomes] == [
        NotReplicatedError, DuplicateTaskError, NotReplicatedError,
    ]  # fmt: skip
    replica.thaw()
    again = queue.push_batch(tasks)
    assert [type(one.error) for one in again] == [type(None), DuplicateTaskError, type(None)]


def test_two_of_one_id_in_a_batch_are_still_told_apart(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    queue = facades.make(config_of(pair[0].url))
    task = Task.create(payload=1)
    assert [type(one.error) for one in queue.push_batch([task, task])] == [type(None), DuplicateTaskError]


def test_an_outcome_that_is_not_confirmed_is_recorded_all_the_same(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, replica = pair
    queue = facades.make(config_of(primary.url, durability_timeout_seconds=0.2))
    for number in range(2):
        queue.push(Task.create(payload=number))
    task = queue.pop()
    replica.freeze()
    with pytest.raises(NotReplicatedError, match="There is nothing to repeat") as told:
        queue.finish(task, "done")
    assert told.value.task_id == task.task_id
    # The next call is not troubled by it, nor does anything come twice.
    other = queue.pop()
    assert other.task_id != task.task_id
    assert queue.get_handle(task.task_id).result(timeout=1) == "done"
    replica.thaw()
    queue.finish(other)


def test_a_push_whose_reply_was_lost_can_be_repeated_too(facades: Facades, new_server: NewServer) -> None:
    server = new_server()
    with FaultProxy(server.url) as proxy:
        queue = facades.make(config_of(proxy.url, "local"))
        queue.push(Task.create(payload=0))
        task = Task.create(payload=1, task_id="lost")
        proxy.drop_replies(20, matching=b"_push")
        with pytest.raises(QueueUnavailableError):
            queue.push(task)
        proxy.heal()
        assert server.client().exists("fq:task:lost")
        assert queue.push(task).task_id == "lost"
        assert queue.get_stats().states["queued"] == 2


def test_local_durability_costs_nothing(facades: Facades, new_server: NewServer) -> None:
    server = new_server()
    queue = facades.make(config_of(server.url, "local"))
    for number in range(10):
        queue.push(Task.create(payload=number))
    found = calls(server.client())
    assert "wait" not in found
    assert "waitaof" not in found


def test_the_wait_goes_with_the_call_and_reads_do_not_wait(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, _replica = pair
    queue = facades.make(config_of(primary.url))
    queue.push(Task.create(payload=1, task_id="one"))
    before = calls(primary.client())["wait"]
    queue.get_task("one")
    queue.get_stats()
    assert queue.pop() is not None  # a claim that is undone is a task that is queued again
    assert calls(primary.client())["wait"] == before
    queue.push(Task.create(payload=2))
    assert calls(primary.client())["wait"] == before + 1


def test_a_failover_undoes_what_the_new_primary_had_not_confirmed(
    new_server: NewServer, facades: Facades
) -> None:
    """The window of min_replicas 1 with two replicas: one that confirms, and the other that is promoted."""
    primary = new_server(tcp=True, options=AT_ONCE)
    following = {**AT_ONCE, "replicaof": f"127.0.0.1 {primary.port}"}
    one, two = new_server(options=following), new_server(tcp=True, options=following)
    wait_until(lambda: in_sync(one) and in_sync(two))
    weak = facades.make(config_of(primary.tcp_url, durability_timeout_seconds=0.3))
    strong = facades.make(config_of(primary.tcp_url, min_replicas=2, durability_timeout_seconds=0.3))
    for queue in (weak, strong):
        queue.push(Task.create(payload=1))
    two.client().replicaof("NO", "ONE")  # promoted while the old primary lives on, with one replica
    weak.push(Task.create(payload=1, task_id="acknowledged"))
    with pytest.raises(NotReplicatedError, match="only 1 of 2"):
        strong.push(Task.create(payload=1, task_id="not acknowledged"))
    assert not two.client().exists("fq:task:acknowledged"), "which is why all replicas should be asked for"


def test_workers_go_on_without_replicas(
    pair: tuple[ServerProcess, ServerProcess], caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome that is undone runs again, so it is no reason to stand still."""
    primary, replica = pair
    replica.stop()

    class Handler(TaskHandler):
        def process_task(self, task: Task[Any]) -> str:
            return "done"

    worker = Worker(config_of(primary.url, durability_timeout_seconds=0.5), Handler())
    worker.start()
    queue = Facades("sync").make(config_of(primary.url, "local"))
    try:
        began = time.monotonic()
        for number in range(50):
            queue.push(Task.create(payload=number))
        wait_until(lambda: queue.get_stats().states["finished"] == 50, 20)
        assert time.monotonic() - began < 10
        assert sum("The worker goes on" in record.message for record in caplog.records) == 1
    finally:
        worker.stop(2)
        queue.close()


def test_fsync_waits_for_the_disk(facades: Facades, valkey_path: Path, new_server: NewServer) -> None:
    server = new_server(append_only=True, options={"appendfsync": "everysec"})
    queue = facades.make(config_of(server.url, "fsync"))
    for number in range(3):
        queue.push(Task.create(payload=number, task_id=f"t-{number}"))
    server.kill()
    server.start()
    assert all(server.client().exists(f"fq:task:t-{number}") for number in range(3))
    assert calls(server.client()).keys().isdisjoint({"wait"})


def test_fsync_is_refused_before_anything_is_stored(
    facades: Facades, new_server: NewServer, redis_path: Path
) -> None:
    old, without = new_server(binary=redis_path), new_server()
    version = old.client().info("server")["redis_version"]
    if tuple(map(int, version.split(".")[:2])) < (7, 2):
        with pytest.raises(ConfigError, match="WAITAOF, which this server does not have"):
            facades.make(config_of(old.url, "fsync")).push(Task.create(payload=1))
        assert not old.client().keys("fq:task:*")
    with pytest.raises(ConfigError, match="appendonly yes"):
        facades.make(config_of(without.url, "fsync")).push(Task.create(payload=1))
    assert not without.client().keys("fq:task:*")


@pytest.mark.parametrize(
    ("url", "queue", "words"),
    [
        (None, {"durability": "replicated"}, "the embedded server has none"),
        ("embedded://", {"durability": "replicated"}, "the embedded server has none"),
        ("cluster://a", {"durability": "replicated"}, r"not possible with cluster://"),
        ("cluster://a", {"durability": "fsync"}, r"not possible with cluster://"),
        ("redis://a", {"min_replicas": 2}, "no effect without `durability: replicated`"),
        ("redis://a", {"durability": "disk"}, "durability"),
        ("redis://a", {"durability": "replicated", "min_replicas": 0}, "min_replicas"),
        ("redis://a", {"durability_timeout_seconds": 5}, "durability_timeout_seconds"),
    ],
)
def test_what_cannot_work_is_refused(url: str | None, queue: dict[str, Any], words: str) -> None:
    section = {} if url is None else {"redis": {"url": url}}
    with pytest.raises(ConfigError, match=words):
        FairQueueConfig.from_dict({**section, "queue": queue})


def test_a_replica_is_no_reason_for_a_storm(facades: Facades, new_server: NewServer) -> None:
    """Whoever finds a replica where the primary was looks again, with pauses, and goes on when it is back."""
    server = new_server(tcp=True)
    queue = facades.make(config_of(server.url, "local"))
    queue.push(Task.create(payload=0))
    client = server.client()
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    client.config_resetstat()
    with pytest.raises(QueueUnavailableError, match="replica"):
        queue.push(Task.create(payload=1))
    assert calls(client).get("fcall", 0) <= 8
    assert client.info("stats")["total_connections_received"] >= 4, (
        "it connected anew: another may be there now"
    )
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(queue.push(Task.create(payload=2))))
    thread.start()
    client.execute_command("REPLICAOF", "NO", "ONE")
    thread.join(20)
    assert outcome, "the push that was under way has succeeded"


def test_a_missing_right_to_wait_is_named(
    facades: Facades, pair: tuple[ServerProcess, ServerProcess]
) -> None:
    primary, _replica = pair
    client: redis.Redis = primary.client()
    client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-wait")
    queue = facades.make(config_of(primary.tcp_url.replace("127", "weak:pw@127")))
    with pytest.raises(QueueUnavailableError, match=r"needs the command WAIT, .* \+wait"):
        queue.push(Task.create(payload=1))
    assert not client.keys("fq:task:*")
