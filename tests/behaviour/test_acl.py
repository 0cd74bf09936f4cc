"""A user with exactly the rights that docs/connections.md and `fairque acl` print: everything works, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from fairque import (
    FairQueueConfig,
    ScheduledTask,
    Task,
    TaskHandler,
    TaskScheduler,
    UserPolicy,
    Worker,
)
from fairque.core.exceptions import QueueUnavailableError
from fairque.core.policies import GroupPolicy, LimiterPolicy
from fairque.core.rights import ALL_COMMANDS, CLIENT_COMMANDS, SCRIPT_COMMANDS, acl_line, acl_rules
from fairque.scripts import load
from tests.support.facades import MODES, Facades
from tests.support.queues import empty, wait_until
from tests.support.servers import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "connections.md"
NewServer = Callable[..., ServerProcess]


@pytest.fixture(params=MODES)
def facades(request: pytest.FixtureRequest) -> Iterator[Facades]:
    facades = Facades(request.param)
    yield facades
    facades.close()


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, new_server: NewServer) -> ServerProcess:
    """One where the user `fairque` has the published rights, and nobody else may do anything without a password."""
    server = new_server(binary=request.getfixturevalue(f"{request.param}_path"), tcp=True)
    server.client().execute_command(*acl_line().replace("<password>", "pw").split())
    return server


def config_of(server: ServerProcess) -> FairQueueConfig:
    return FairQueueConfig.from_dict(
        {"redis": {"url": server.tcp_url.replace("127", "fairque:pw@127")}, "queue": {"lease_seconds": 3}}
    )


def denied(server: ServerProcess) -> list[str]:
    """What the server has refused since the last look."""
    client: Any = server.client()
    found = [str(entry["object"]) for entry in client.acl_log()]
    client.acl_log_reset()
    return found


def test_the_page_has_the_line() -> None:
    lines = re.findall(r"^ACL SETUSER .*$", PAGE.read_text(), re.MULTILINE)
    assert acl_line() in lines


def test_the_rights_are_what_the_scripts_call(server: ServerProcess) -> None:
    """Of all words in capitals in the library, those that the server knows as commands."""
    client: Any = server.client(protocol=2)
    connection = client.connection_pool.get_connection()
    connection.send_command("COMMAND", "LIST")  # as it comes, not as the client library would read it
    names = {name.decode() for name in connection.read_response()}
    client.connection_pool.release(connection)
    words = {word.lower() for word in re.findall(r"'([A-Z]{3,})'", load().text.decode())}
    assert words & names == set(SCRIPT_COMMANDS) | {
        "info"
    }  # which a client may lack, and its script then goes without
    assert len(set(ALL_COMMANDS)) == len(ALL_COMMANDS)


def test_everything_works_with_exactly_these_rights(server: ServerProcess, facades: Facades) -> None:
    config = config_of(server)
    queue = facades.make(config)
    # Tasks: at once, many, delayed, with an expiry, deduplicated, under a limiter, of an organisation.
    queue.set_group_policy("acme", GroupPolicy(weight=2))
    queue.set_limiter("api", LimiterPolicy(max_concurrency=1))
    queue.set_user_policy("alice", UserPolicy(group="acme", max_concurrency=5, rate_limit=1000))
    queue.set_policy_rules({"team-*": UserPolicy(weight=2)})
    queue.push(Task.create(payload=1, user_id="alice", priority=6, task_id="critical"))
    queue.push_batch(
        Task.create(payload=n, user_id="team-1", limiter="api" if n % 2 else None, priority=n % 6 + 1)
        for n in range(12)
    )
    queue.push(Task.create(payload=1, task_id="later", delay=60, dedup_key="key", dedup_window=10))
    queue.push(Task.create(payload=1, task_id="old", expires_at=datetime(2000, 1, 1, tzinfo=UTC)))
    for policies in ("user", "group", "limiter"):
        assert queue.list_policies(policies) is not None
    assert queue.get_user_policy("alice").group == "acme"
    assert queue.get_group_policy("acme").weight == 2
    assert queue.get_limiter("api").max_concurrency == 1
    # Claims: finished, failed, snoozed, given back, renewed, cancelled.
    first = queue.pop()
    assert queue.renew(first) == []
    queue.finish(first, {"value": 1})
    assert queue.get_handle(first.task_id).result(timeout=5) == {"value": 1}
    for task in queue.pop(3):
        queue.fail(task, ValueError("no"))
    held = queue.pop()
    queue.cancel(held.task_id)
    assert [task.task_id for task in queue.renew([held])] == [held.task_id]
    queue.release(held)
    assert queue.pop(wait=0.2) is not None
    # Looking.
    assert queue.explain("later") is not None
    assert queue.list_users().items
    assert queue.get_user_stats("alice")
    assert queue.get_queue_sizes("alice")
    for state in ("queued", "started", "scheduled", "finished", "failed"):
        queue.list_tasks(state)
    assert queue.get_health().healthy
    # Administration.
    queue.pause_user("alice")
    queue.resume_user("alice")
    queue.pause()
    queue.resume()
    queue.move_to_dlq("later", "tested")
    assert queue.dlq.requeue("later")
    queue.cleanup_expired_tasks()
    queue.reconcile()
    queue.reconcile(dry_run=True)
    # Schedules, and who decides and runs them.
    queue.schedules.add(ScheduledTask("tick", payload=1, every=0.1, options={"user_id": "bob"}))
    seen: list[str] = []

    class Handler(TaskHandler):
        def process_task(self, task: Task[Any]) -> None:
            seen.append(task.user_id)

    scheduler, worker = TaskScheduler(config), Worker(config, Handler())
    scheduler.start()
    worker.start()
    try:
        wait_until(lambda: seen.count("bob") > 2, 20)
        assert queue.push(Task.create(payload=1)).result(timeout=10) is None
        assert queue.schedules.list().items
    finally:
        worker.stop(5)
        scheduler.stop()
    empty(queue)
    assert denied(server) == []


def test_nothing_else_is_allowed(server: ServerProcess) -> None:
    client = config_of(server).redis.create_redis_client()
    for command in (
        ("GET", "other:key"), ("SET", "other:key", "1"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "SET", "save", ""),
        ("EVAL", "return 1", "0"), ("ACL", "LIST"), ("FUNCTION", "FLUSH"), ("SUBSCRIBE", "channel"),
    ):  # fmt: skip
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    client.close()


@pytest.mark.parametrize("name", [CLIENT_COMMANDS[0], "client|setname"])
def test_a_client_that_lacks_a_right_is_told_which(
    server: ServerProcess, facades: Facades, name: str
) -> None:
    server.client().execute_command("ACL", "SETUSER", "fairque", f"-{name}")
    with pytest.raises(QueueUnavailableError, match=re.escape(f"+{name}")):
        facades.make(config_of(server)).push(Task.create(payload=1))


@pytest.mark.parametrize("name", ["zadd", "hget", "set", "get", "hset", "setrange"])
def test_a_script_that_lacks_a_right_is_told_which(
    server: ServerProcess, facades: Facades, name: str
) -> None:
    """Redis 7.0 says only that it may not run this command, not which."""
    queue = facades.make(config_of(server))
    queue.push(Task.create(payload=0))
    server.client().execute_command("ACL", "SETUSER", "fairque", f"-{name}")

    def work() -> None:
        queue.push(Task.create(payload=1))
        queue.finish(queue.pop(), "done")
        facades.make(config_of(server)).push(Task.create(payload=1))

    with pytest.raises(QueueUnavailableError, match=rf"may not use .*{name.upper()}\b.*\+{name}\b"):
        work()


def test_a_user_of_other_keys_is_told_so(server: ServerProcess, facades: Facades) -> None:
    server.client().execute_command("ACL", "SETUSER", "fairque", "resetkeys", "~other:*")
    with pytest.raises(QueueUnavailableError, match=r"keys of the queue.*~<queue\.prefix>:\*"):
        facades.make(config_of(server)).push(Task.create(payload=1))


def test_rules_fit_the_prefix() -> None:
    assert acl_rules("jobs").startswith("resetkeys ~jobs:* resetchannels -@all ")
    assert acl_rules(fsync=True).endswith(" +waitaof")
    assert "waitaof" not in acl_rules()
