"""The library on the server: what it keeps between calls concerns nobody else, and who may load it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque.core.config import FairQueueConfig, QueueConfig
from fairque.core.exceptions import FairQueueError, QueueUnavailableError, StaleCallError, TaskNotFoundError
from fairque.core.models import Task
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import admin, push
from fairque.queue.operations.base import Call, Engine
from fairque.queue.operations.claims import Settlement, pack_outcomes
from fairque.scripts import load
from tests.support.bench import Bench
from tests.support.clients import until
from tests.support.facades import MODES, Clock, Facades
from tests.support.servers import ServerProcess
from tests.support.topologies import cluster_options

RANDOM = b"12345678"
NO_LOAD = "-function|load"


@pytest.fixture(params=MODES)
def facades(request: pytest.FixtureRequest) -> Iterator[Facades]:
    facades = Facades(request.param)
    yield facades
    facades.close()


def config(url: str, **options: Any) -> FairQueueConfig:
    return FairQueueConfig.from_dict({"redis": {"url": url, **options}})


def life(queue: Any) -> None:
    handle = queue.push(Task.create(payload=1))
    queue.finish(queue.pop(), "done")
    assert handle.result(5) == "done"


def libraries(client: redis.Redis) -> list[str]:
    return [item[1].decode() for item in client.function_list()]


# -- what stays between calls


Step = Callable[[Engine], Call]


def steps(prefix: str, users: list[str]) -> list[Step]:
    """A queue's life as calls that are the same each time, some of them refused."""
    engine = Engine(QueueConfig(), prefix)
    items = [
        push.pack(
            engine, Task.create(task_id=f"t{number}", user_id=users[number % len(users)], payload=number)
        )
        for number in range(6)
    ]

    def call(script: str, *argv: Any) -> Step:
        return lambda engine: engine.call(script, *argv)

    def claim(number: int, want: int, *outcomes: Settlement) -> Step:
        return call(
            "settle_and_claim", "incarnation", number, RANDOM, want, 0, "", "", pack_outcomes(outcomes)
        )

    def finish(number: int, task_id: str) -> Settlement:
        return Settlement(task_id, struct.pack(">Q", number) + RANDOM, "finish", 0.25, b"result", 60_000)

    return [
        call("open", "1", "1"),
        call("join", "incarnation", 4, "", b"\x80", b"\x90"),
        call("push"),
        *(call("push", *item) for item in items[:4]),
        call("push", *items[4], *items[5], *items[0]),
        call("set_policy", users[0], b"\x82\xa6weight\xcd\x07\xd0\xa6paused\xc2"),
        claim(1, 3),
        call("bury_task", "nothing", ""),
        claim(2, 1, finish(1, "t0"), finish(2, "t1")),
        claim(1, 1),
        call("get_stats"),
        call("cancel", "t5"),
        call("renew", "nobody", ""),
        claim(3, 6, finish(3, "t2")),
        call("leave", "incarnation", 1),
        call("requeue", "t5", "t9"),
        call("get_policies", "user", users[0]),
        call("get_task", "t5"),
        call("sweep", "", 0, 0, "finished", "0"),
    ]


class Player:
    """Makes these calls, each at its own time, and writes down what it was told."""

    def __init__(self, client: redis.Redis, prefix: str, steps: list[Step], options: dict[str, Any]) -> None:
        self.clock = Clock()
        self.engine = Engine(QueueConfig(**options), prefix, now=self.clock)
        self.manager = LuaScriptManager(client, clock="argument")
        self.steps = steps
        self.told: list[Any] = []

    def play(self) -> Iterator[None]:
        for step in self.steps:
            self.clock.advance(0.5)
            try:
                self.told.append(self.manager.execute(step(self.engine)))
            except FairQueueError as error:
                self.told.append(str(error))
            yield


def values(client: redis.Redis) -> dict[str | bytes, Any]:
    """All that is stored, and which of it expires."""
    return {key: (client.dump(key), client.pttl(key) > 0) for key in client.keys("*")}


@pytest.mark.no_leak_check
def test_two_queues_on_one_server_do_not_see_each_other(flushed: redis.Redis) -> None:
    """Call by call in turn, each gets and leaves what it would if it were alone."""
    queues: list[tuple[str, list[Step], dict[str, Any]]] = [
        ("fq:one", steps("fq:one", ["alice", "bob"]), {"lease_seconds": 15.0, "result_ttl_seconds": 3600}),
        ("fq:two", steps("fq:two", ["bob", "carol"]), {"fairness": "worker_time", "lease_seconds": 2.0}),
    ]
    alone: list[list[Any]] = []
    stored: dict[str | bytes, Any] = {}
    for queue in queues:
        flushed.flushall()
        flushed.function_flush()
        player = Player(flushed, *queue)
        for _ in player.play():
            pass
        alone.append(player.told)
        stored |= values(flushed)
    assert sum(isinstance(reply, str) for told in alone for reply in told) >= 6  # refusals are among them
    assert alone[0] != alone[1]
    flushed.flushall()
    players = [Player(flushed, *queue) for queue in queues]
    for _ in zip(*(player.play() for player in players), strict=True):
        pass
    assert [player.told for player in players] == alone
    assert values(flushed) == stored


def test_a_call_that_failed_half_way_leaves_nothing_to_the_next(bench: Bench) -> None:
    bench.push("t1", user_id="alice")
    bench.push("t2", user_id="bob")
    before = {user: bench.client.get(bench.keys.user(user)) for user in ("alice", "bob")}
    bench.client.rename(bench.keys.task("t2"), "fq:aside")
    bench.client.rpush(bench.keys.task("t2"), "no string")
    with pytest.raises(FairQueueError, match="wrong kind of value"):
        bench.call("delete", "t1", "t2")
    assert not bench.client.exists(bench.keys.task("t1"))  # it had begun
    bench.client.rename("fq:aside", bench.keys.task("t2"))
    bench.push("t3", user_id="carol")
    counters = bench.client.hgetall(bench.keys.stats)
    assert counters == {}  # and not what the failed call had counted
    assert {user: bench.client.get(bench.keys.user(user)) for user in ("alice", "bob")} == before
    assert bench.claim().user_id == "bob"


def test_a_refused_call_leaves_nothing_to_the_next(bench: Bench) -> None:
    bench.push("t1")
    stored = values(bench.client)
    for _ in range(2):
        with pytest.raises(TaskNotFoundError):
            bench.call("bury_task", "nothing", "")
        assert values(bench.client) == stored
    bench.call("settle_and_claim", bench.worker.incarnation, 7, RANDOM, 1, 0, "", "", "")
    with pytest.raises(StaleCallError):
        bench.call("settle_and_claim", bench.worker.incarnation, 6, RANDOM, 1, 0, "", "", "")
    bench.push("t2")
    counters = bench.run(admin.get_stats(bench.engine)).counters
    assert counters == {"pushed": 2, "claimed": 1}


def test_calls_leave_no_memory_behind(bench: Bench) -> None:
    def used(calls: int) -> int:
        for number in range(calls):
            bench.call("pause_user", f"{calls}-{number}", 0)
            bench.call("get_policies", "user", f"{calls}-{number}")
        return int(bench.client.info("memory")["used_memory_vm_functions"])

    first = used(2000)
    # A tenant alone is over 1 KB in Lua.
    assert used(4000) - first < 500_000


# -- who may load it


def restrict(client: redis.Redis, *rules: str) -> None:
    client.acl_setuser(
        "limited", enabled=True, passwords=["+word"], categories=["+@all"], commands=rules, keys=["*"]
    )


def test_who_may_not_load_the_library_can_use_it(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server()
    restrict(server.client(), NO_LOAD)
    limited = config(server.url, username="limited", password="word")
    with pytest.raises(QueueUnavailableError, match=r"may not load it.*\+function\|load"):
        facades.make(limited).push(Task.create(payload=1))
    life(facades.make(config(server.url)))
    life(facades.make(limited))


def test_who_may_not_call_functions_is_told_so(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server()
    restrict(server.client(), "-fcall")
    queue = facades.make(config(server.url, username="limited", password="word"))
    with pytest.raises(
        QueueUnavailableError, match=r"no permissions to run the 'fcall' command.*redis\.username"
    ):
        queue.push(Task.create(payload=1))


@pytest.mark.parametrize("command", ["FCALL", "FUNCTION"])
def test_a_server_without_functions_is_told_so(
    new_server: Callable[..., ServerProcess], facades: Facades, tmp_path: Path, command: str
) -> None:
    (tmp_path / "extra.conf").write_text(f'rename-command {command} ""\n')
    server = new_server(options={"include": str(tmp_path / "extra.conf")})
    queue = facades.make(config(server.url))
    with pytest.raises(
        QueueUnavailableError, match=r"no functions.*Redis 7\.0 or newer, or Valkey 7\.2 or newer"
    ):
        queue.push(Task.create(payload=1))


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_both_servers_take_it(request: pytest.FixtureRequest, facades: Facades, kind: str) -> None:
    server: ServerProcess = request.getfixturevalue(f"{kind}_server")
    client = server.client()
    client.flushall()
    client.function_flush()
    queue = facades.make(config(server.url))
    life(queue)
    with pytest.raises(TaskNotFoundError, match="no task a b:c: "):
        queue.move_to_dlq("a b:c")
    assert libraries(client) == [load().name]
    client.flushall()


# -- versions and other servers


def test_versions_live_side_by_side(flushed: redis.Redis, server: ServerProcess, facades: Facades) -> None:
    flushed.function_flush()
    name = load().name
    other = "fairque_0123456789"
    flushed.function_load(load().text.decode().replace(name, other))
    life(facades.make(config(server.url)))
    assert set(libraries(flushed)) == {name, other}
    settings: Any = Engine(QueueConfig()).settings
    assert flushed.fcall(f"{other}_get_policies", 1, "fq:clock", "fq", settings, "user", "nobody") == b""


def test_a_replica_that_takes_over_knows_the_library(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    primary = new_server(tcp=True, options={"repl-diskless-sync-delay": "0"})
    replica = new_server(tcp=True, options={"replicaof": f"127.0.0.1 {primary.port}"})
    client: Any = replica.client()
    until(lambda: client.info("replication")["master_link_status"] == "up")
    life(facades.make(config(primary.url)))
    until(lambda: libraries(client) == [load().name])
    restrict(client, NO_LOAD)
    with pytest.raises(QueueUnavailableError, match="cannot serve now"):
        facades.make(config(replica.url, username="limited", password="word")).push(Task.create(payload=1))
    primary.kill()
    client.execute_command("REPLICAOF", "NO", "ONE")
    life(facades.make(config(replica.url, username="limited", password="word")))


@pytest.fixture
def primaries(new_server: Callable[..., ServerProcess]) -> list[ServerProcess]:
    """A cluster of two, each with half of the slots."""
    lost_half = {"cluster-require-full-coverage": "no"}
    servers = [new_server(tcp=True, options=cluster_options() | lost_half) for _ in range(2)]
    clients: list[Any] = [server.client(decode_responses=True) for server in servers]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192 * number, 8192 * number + 8191)
    bus = servers[1]._options["cluster-port"]
    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", servers[1].port, bus)

    def joined(client: Any) -> bool:
        told = client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True).decode()
        return "cluster_state:ok" in told and "cluster_slots_assigned:16384" in told

    until(lambda: all(joined(client) for client in clients))
    return servers


def test_every_primary_of_a_cluster_is_told_the_library(
    primaries: list[ServerProcess], facades: Facades
) -> None:
    url = f"cluster://127.0.0.1:{primaries[0].port}"
    queue = facades.make(config(url))
    life(queue)
    assert [libraries(server.client()) for server in primaries] == [[load().name]] * 2
    for server in primaries:
        server.client().function_flush()
        life(queue)
    holder = next(server for server in primaries if server.client().keys("{fq}:clock"))
    [other] = [server for server in primaries if server is not holder]
    for server in primaries:
        server.client().function_flush()
        restrict(server.client(), NO_LOAD if server is other else "+@all")
    life(facades.make(config(url, username="limited", password="word")))
    assert [libraries(server.client()) for server in (other, holder)] == [[], [load().name]]
    for server in primaries:
        server.client().function_flush()
        restrict(server.client(), NO_LOAD)
    with pytest.raises(QueueUnavailableError, match=r"\+function\|load"):
        facades.make(config(url, username="limited", password="word")).get_stats()
    other.kill()
    holder.client().function_flush()
    life(queue)  # which does not need the one that is away
    assert libraries(holder.client()) == [load().name]


def test_a_server_that_takes_no_writes_now_is_unavailable(
    new_server: Callable[..., ServerProcess], facades: Facades
) -> None:
    server = new_server()
    with (
        server.configured(min_replicas_to_write="1"),
        pytest.raises(QueueUnavailableError, match="NOREPLICAS"),
    ):
        facades.make(config(server.url)).push(Task.create(payload=1))
    life(facades.make(config(server.url)))


def test_a_library_that_the_server_does_not_take_says_why(
    flushed: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = LuaScriptManager(flushed)
    monkeypatch.setattr(manager, "_loading", ("FUNCTION", "LOAD", "REPLACE", b"#!lua name=x\nnonsense"))
    flushed.function_flush()
    with pytest.raises(FairQueueError, match="script open failed: Error compiling function"):
        manager.execute(Engine(QueueConfig()).call("open", "1", "0"))
