"""The configuration models: defaults, what is refused and how, secrets, users and workers."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig, WorkerConfig
from fairque.core.exceptions import ConfigError, FairQueueError
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from tests.support.config import no_environment, refusal

__all__ = ["no_environment"]


pytestmark = pytest.mark.usefixtures("no_environment")


# Defaults and shape


def test_the_default_is_an_embedded_server_and_one_worker_for_everybody() -> None:
    config = FairQueueConfig.create_default()
    assert config == FairQueueConfig()
    assert config.redis.address.kind == "embedded"
    [worker] = config.workers
    assert (worker.id, worker.assigned_users, worker.steal_targets) == ("worker", "*", "*")
    assert (worker.max_concurrent_tasks, worker.executor, worker.task_timeout_seconds) == (10, "thread", None)
    assert (worker.shutdown_timeout_seconds, worker.poll_interval_seconds) == (30, 5)
    assert (worker.stall_limit_seconds, worker.max_tasks_per_process, worker.max_memory_mb) == (
        300,
        None,
        None,
    )
    assert worker.health_port is None
    queue = config.queue
    assert (queue.prefix, queue.fairness, queue.durability, queue.partitions) == (
        "fq",
        "round_robin",
        "local",
        1,
    )
    assert (queue.aging_seconds, queue.lease_seconds, queue.default_max_retries) == (60, 15, 3)
    assert (queue.max_payload_bytes, queue.max_result_bytes) == (1 << 20, 1 << 20)
    assert (queue.result_ttl_seconds, queue.xcom_ttl_seconds, queue.user_ttl_seconds) == (86400, 3600, 86400)
    assert (queue.max_user_share, queue.sparse_share) == (1, 0.1)
    assert (queue.steal_after_seconds, queue.prefetch_milliseconds) == (5, 5)
    assert queue.unknown_function_seconds == 60


def test_sections_from_python() -> None:
    config = FairQueueConfig(
        redis=RedisConfig(host="db", port=7000),
        workers=[
            WorkerConfig(id="a", assigned_users=["alice"]),
            WorkerConfig(id="b", steal_targets=["alice"]),
        ],
        queue=QueueConfig(fairness="worker_time", lease_seconds=5),
        users={"alice": UserPolicy(weight=2)},
        plugins={"metrics": {"port": 9000}},
    )
    assert config.redis.address.nodes == (("db", 7000),)
    assert config.worker("b").steal_targets == ["alice"]
    assert config.worker().id == "a"
    assert config.queue.lease_seconds == 5
    assert config.plugins["metrics"]["port"] == 9000


def test_instances_do_not_change() -> None:
    config = FairQueueConfig()
    with pytest.raises(ValidationError):
        config.queue.lease_seconds = 3


def test_instances_can_be_sent_to_another_process() -> None:
    config = FairQueueConfig(redis=RedisConfig(url="redis://:pw@h"), users={"a": UserPolicy(weight=3)})
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert copy == config
    assert copy.redis.password == "pw"


# Refusals


def test_a_refusal_is_of_both_trees_and_names_everything() -> None:
    with pytest.raises(ConfigError) as refused:
        FairQueueConfig.from_dict(
            {
                "redis": {"hots": "h"},
                "workers": [
                    {"id": "a", "assigned_users": ["alice", "bob"]},
                    {"id": "a", "assigned_users": ["bob", 3], "steal_targets": ["carol", "bob"]},
                ],
                "queue": {"lease_seconds": 0.5, "default_max_retries": "3", "max_connections": 3},
                "users": {"alice": {"wieght": 1, "max_concurrency": 0}},
                "plugin": {},
            }
        )
    assert isinstance(refused.value, FairQueueError)
    assert isinstance(refused.value, ValueError)
    assert str(refused.value).splitlines() == [
        "11 problems in the configuration:",
        "  redis.hots: unknown key; did you mean 'host'?",
        "  workers[1].assigned_users[1]: must be text, not 3: quote it",
        "  workers[1].steal_targets[1]: 'bob' is also in assigned_users of this worker: "
        "one cannot steal from oneself",
        "  queue.lease_seconds: must be at least 1, not 0.5",
        "  queue.default_max_retries: must be a whole number, not '3' as text: remove the quotes",
        "  queue.max_connections: unknown key here; 'max_connections' belongs to 'redis'",
        "  users.alice.wieght: unknown key; did you mean 'weight'?",
        "  users.alice.max_concurrency: max_concurrency must be from 1 to 1000000, not 0; "
        "to keep its tasks waiting, set paused",
        "  plugin: unknown key; did you mean 'plugins'?",
        "  workers[1].id: 'a' is already the id of workers[0]; ids must be unique",
        "  workers[1].assigned_users[0]: 'bob' is already assigned by workers[0].assigned_users[1]; "
        "at most one entry may name a user",
    ]


@pytest.mark.parametrize(
    ("section", "field", "value", "limit"),
    [
        ("redis", "port", 0, "at least 1"),
        ("redis", "port", 65_536, "at most 65535"),
        ("redis", "db", -1, "at least 0"),
        ("redis", "max_connections", 0, "at least 1"),
        ("workers", "max_concurrent_tasks", 0, "at least 1"),
        ("workers", "max_concurrent_tasks", 10_001, "at most 10000"),
        ("workers", "task_timeout_seconds", 0, "more than 0"),
        ("workers", "shutdown_timeout_seconds", -1, "at least 0"),
        ("workers", "poll_interval_seconds", 0, "at least 0.05"),
        ("workers", "stall_limit_seconds", 0.9, "at least 1"),
        ("workers", "max_tasks_per_process", 0, "at least 1"),
        ("workers", "max_memory_mb", 1, "at least 16"),
        ("workers", "health_port", 65_536, "at most 65535"),
        ("queue", "aging_seconds", -0.1, "at least 0"),
        ("queue", "lease_seconds", 0.99, "at least 1"),
        ("queue", "default_max_retries", 65_536, "at most 65535"),
        ("queue", "max_payload_bytes", 0, "at least 1"),
        ("queue", "max_payload_bytes", (4 << 20) + 1, "at most 4194304"),
        ("queue", "max_result_bytes", 0, "at least 1"),
        ("queue", "result_ttl_seconds", -1, "at least 0"),
        ("queue", "xcom_ttl_seconds", 0, "at least 1"),
        ("queue", "user_ttl_seconds", 0, "at least 1"),
        ("queue", "max_user_share", 1.01, "at most 1"),
        ("queue", "sparse_share", -0.01, "at least 0"),
        ("queue", "steal_after_seconds", -1, "at least 0"),
        ("queue", "prefetch_milliseconds", -1, "at least 0"),
        ("queue", "unknown_function_seconds", -1, "at least 0"),
        ("queue", "partitions", 0, "at least 1"),
    ],
)
def test_every_number_has_limits(section: str, field: str, value: float, limit: str) -> None:
    given: dict[str, Any] = {field: value}
    data = {section: [given] if section == "workers" else given}
    if field == "port":
        given["host"] = "h"
    path = "workers[0]" if section == "workers" else section
    assert refusal(data) == [f"{path}.{field}: must be {limit}, not {value}"]


def test_every_number_is_finite() -> None:
    models: tuple[type[BaseModel], ...] = (RedisConfig, WorkerConfig, QueueConfig)
    for model in models:
        for name, field in model.model_fields.items():
            for value in (math.nan, math.inf, -math.inf):
                with pytest.raises(ValidationError, match=name):
                    model.model_validate({name: value})
            assert field.description, f"{model.__name__}.{name} is not described"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"queue": {"lease_seconds": "10"}},
            "queue.lease_seconds: must be a number, not '10' as text: remove the quotes",
        ),
        (
            {"queue": {"lease_seconds": "1e3"}},
            "queue.lease_seconds: must be a number, not '1e3' as text: write it out, without an exponent",
        ),
        ({"queue": {"lease_seconds": True}}, "queue.lease_seconds: must be a number, not True"),
        (
            {"queue": {"default_max_retries": 2.0}},
            "queue.default_max_retries: must be a whole number, not 2.0",
        ),
        ({"queue": {"prefix": 7}}, "queue.prefix: must be text, not 7: quote it"),
        ({"redis": {"host": "h", "ssl": "yes"}}, "redis.ssl: must be true or false, not 'yes'"),
        (
            {"queue": {"fairness": "round robin"}},
            "queue.fairness: must be 'round_robin' or 'worker_time', not 'round robin'; "
            "did you mean 'round_robin'?",
        ),
        (
            {"workers": [{"executor": "fork"}]},
            "workers[0].executor: must be 'thread' or 'process', not 'fork'",
        ),
        ({"queue": []}, "queue: must be a mapping of names to values, not a list"),
        ({"workers": {"id": "a"}}, "workers: must be a list, not a mapping"),
        ({"workers": []}, "workers: must have at least 1 entry, not a list"),
        ({"workers": ["a"]}, "workers[0]: must be a mapping of names to values, not 'a'"),
        ({"plugins": {"metrics": True}}, "plugins.metrics: must be a mapping of names to values, not True"),
        ({"users": {7: {}}}, 'users["7"]: the key 7 must be text: quote it'),
        (
            {"users": {"team-*": {"weight": 0}}},
            'users["team-*"].weight: weight must be from 0.01 to 100, not 0; to keep its tasks waiting, set paused',
        ),
        ({"users": {"a": {"burst": 3}}}, "users.a: burst is for a rate_limit: give the rate_limit too"),
        (
            {"users": {"a": 3}},
            "users.a: must be a mapping of weight, max_concurrency, rate_limit, burst, max_queued, paused, "
            "group, retry_budget, retry_minimum, not 3",
        ),
        (
            {"users": {"a": {"retry_budget": 20, "retry_minimum": "5/m"}}},
            "users.a.retry_budget: retry_budget must be from 0 to 1, not 20; it is a part of all starts: 0.2 is a "
            "fifth; leave it out for no budget",
        ),
        (
            {"users": {"a": {"retry_minimum": 5}}},
            "users.a: retry_minimum is for a retry_budget: give the retry_budget too",
        ),
        (
            {"queue": {"partitions": 2}},
            "queue.partitions: must be 1, not 2: several partitions are not supported yet",
        ),
        (
            {"queue": {"prefix": "a b"}},
            "queue.prefix: must hold only letters, digits and _ . : - (and one hash tag in braces, "
            "as in '{fq}'), not 'a b'",
        ),
        ({1: {}}, "the key 1 must be text"),
    ],
)
def test_wrong_types_and_values(data: dict[str, Any], problem: str) -> None:
    assert refusal(data) == [problem]


def test_not_even_a_mapping() -> None:
    with pytest.raises(ConfigError, match="must be a mapping with sections such as 'redis', not list"):
        FairQueueConfig.from_dict([])  # type: ignore[arg-type]


def test_sections_are_refused_by_themselves_too() -> None:
    with pytest.raises(ConfigError, match=r"^max_concurrent_tasks: must be at least 1, not 0$"):
        WorkerConfig(max_concurrent_tasks=0)
    with pytest.raises(ConfigError, match=r"^lease: unknown key; did you mean 'lease_seconds'"):
        QueueConfig(lease=3)  # type: ignore[call-arg]


# Workers and users


@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        ({"assigned_users": "alice"}, 'assigned_users: must be "*" or a list: write [alice]'),
        (
            {"assigned_users": ["*", "a"]},
            'assigned_users[0]: must not stand among ids: write "*" alone, or the ids alone',
        ),
        ({"steal_targets": ["a", "a"]}, "steal_targets[1]: 'a' stands in this list already, at [0]"),
        ({"assigned_users": [""]}, "assigned_users[0]: user id must not be empty"),
        ({"id": ""}, "id: worker id must not be empty"),
        ({"id": "\ud800"}, "id: worker id '\\ud800' holds a lone surrogate: use valid Unicode text"),
        (
            {"assigned_users": [], "steal_targets": []},
            "assigned_users: is empty, and so is steal_targets: this worker would serve nobody; "
            'write "*" in one of them',
        ),
    ],
)
def test_users_of_a_worker(worker: dict[str, Any], problem: str) -> None:
    assert f"workers[0].{problem}" in refusal({"workers": [worker]})


def test_lists_of_users_are_bounded() -> None:
    ids = [str(number) for number in range(10_001)]
    assert WorkerConfig(assigned_users=ids[:-1]).assigned_users == ids[:-1]
    [problem] = refusal({"workers": [{"assigned_users": ids}]})
    assert problem.startswith("workers[0].assigned_users: must name at most 10000 users, not 10001")


def test_everybody_never_conflicts() -> None:
    workers = [
        {"id": "a"},
        {"id": "b", "assigned_users": ["*"]},
        {"id": "c", "assigned_users": ["alice"], "steal_targets": "*"},
        {"id": "d", "assigned_users": [], "steal_targets": ["alice"]},
    ]
    config = FairQueueConfig.from_dict({"workers": workers})
    assert [entry.assigned_users for entry in config.workers] == ["*", "*", ["alice"], []]


def test_contradictions_are_found_between_instances_too() -> None:
    entry = WorkerConfig(id="a", assigned_users=("alice",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'alice' is already assigned"):
        FairQueueConfig(workers=[entry, WorkerConfig(id="b", assigned_users=["alice"])])
    with pytest.raises(ConfigError, match="'worker' is already the id"):
        FairQueueConfig(workers=[WorkerConfig(), WorkerConfig()])


def test_a_worker_that_is_not_there() -> None:
    config = FairQueueConfig(workers=[WorkerConfig(id="mail"), WorkerConfig(id="images")])
    with pytest.raises(ConfigError, match=r"there is no worker entry 'maill'; did you mean mail\?"):
        config.worker("maill")


def test_policies_by_id_pattern_and_default() -> None:
    users: dict[str, Any] = {
        "team-*": {"weight": 2},
        "team-a": {"weight": 3},
        "t*": {"weight": 4},
        "default": {"max_concurrency": 10},
    }
    config = FairQueueConfig.from_dict({"users": users})
    for user, weight in (("team-a", 3), ("team-b", 2), ("tom", 4), ("ann", 1)):
        policy = config.policy_for(user)
        assert policy is not None
        assert policy.weight == weight
    assert FairQueueConfig().policy_for("ann") is None


def test_groups_and_limiters() -> None:
    config = FairQueueConfig.from_dict(
        {
            "users": {"ann": {"group": "acme"}, "t-*": {"group": "a: b"}, "default": {"rate_limit": "100/m"}},
            "groups": {"acme": {"weight": 3}, "a: b": None},
            "limiters": {"stripe": {"rate_limit": "25/s"}, "gpu": {"max_concurrency": 2}},
        }
    )
    assert config.groups == {"acme": GroupPolicy(weight=3), "a: b": GroupPolicy()}
    assert config.limiters["stripe"] == LimiterPolicy(rate_limit=25)
    assert config.users["default"].rate_limit == pytest.approx(100 / 60)
    again = FairQueueConfig(
        users={"ann": UserPolicy(group="acme")}, groups={"acme": GroupPolicy()}, limiters=config.limiters
    )
    assert again.limiters == config.limiters


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"users": {"ann": {"group": "acne"}}, "groups": {"acme": {}}},
            "users.ann.group: 'acne' is not one of `groups`; did you mean 'acme'?",
        ),
        (
            {"users": {"t-*": UserPolicy(group="acme")}},
            "users[\"t-*\"].group: 'acme' is not one of `groups`; add it there: `acme: {}`",
        ),
        (
            {"groups": {"acme": {"wieght": 1}}},
            "groups.acme.wieght: unknown key; did you mean 'weight'?",
        ),
        (
            {"groups": {"acme": {"group": "b"}}},
            "groups.acme.group: unknown key; valid are weight, max_concurrency, rate_limit, burst, max_queued, paused",
        ),
        (
            {"groups": {"acme": UserPolicy()}},
            "groups.acme: must be a mapping of weight, max_concurrency, rate_limit, burst, max_queued, paused, "
            "not UserPolicy",
        ),
        ({"groups": {"": {}}}, 'groups[""]: group name must not be empty'),
        ({"groups": {7: {}}}, 'groups["7"]: the key 7 must be text: quote it'),
        (
            {"limiters": {"api": {}}},
            "limiters.api: a limiter limits something: give it a rate_limit, a max_concurrency, or both",
        ),
        (
            {"limiters": {"api": {"max_concurrency": None}}},
            "limiters.api: a limiter limits something: give it a rate_limit, a max_concurrency, or both",
        ),
        (
            {"limiters": {"api": {"rate_limit": "5/y"}}},
            "limiters.api.rate_limit: rate_limit must be a number per second, or text such as '50/s', '100/m', "
            "'1000/h' or '5000/d', not '5/y'",
        ),
        (
            {"limiters": {"x" * 257: {"max_concurrency": 1}}},
            f"limiters.{'x' * 257}: limiter name '{'x' * 40}'...",
        ),
        ({"limiter": {}}, "limiter: unknown key; did you mean 'limiters'?"),
        ({"users": {"[aü]": {}}}, "users[\"[aü]\"]: pattern '[aü]' has 'ü' in brackets, where only ASCII"),
        ({"users": {"*a*b*c": {}}}, "users[\"*a*b*c\"]: pattern '*a*b*c' has 3 `*` with text after them"),
        (
            {"users": {f"{number}-*": {} for number in range(1001)}},
            "users: must hold at most 1000 patterns, not 1001: put users into groups instead",
        ),
    ],
)
def test_what_is_wrong_with_groups_limiters_and_patterns(data: dict[str, Any], problem: str) -> None:
    [found] = refusal(data)
    assert found.startswith(problem)


# Secrets


def test_secrets_show_nowhere() -> None:
    config = FairQueueConfig(
        redis=RedisConfig(url="sentinel://u:s3cret@h/m", sentinel_password="s3cret"),
        groups={"token": GroupPolicy(weight=2)},  # a name is no secret
        plugins={"encryption": {"key": "s3cret", "keys": ["s3cret"], "rotate_days": 3}},
    )
    for text in (repr(config), str(config), repr(config.redis), str(config.redis), f"{config.redis}"):
        assert "s3cret" not in text
    assert "plugins=['encryption']" in repr(config)
    written = config.to_yaml()
    assert "s3cret" not in written
    assert "token:\n    weight: 2" in written
    for name in (
        "redis.password",
        "redis.sentinel_password",
        "plugins.encryption.key",
        "plugins.encryption.keys",
    ):
        assert f"# {name} is left out: it is secret\n" in written
    assert config.to_yaml(include_secrets=True).count("s3cret") == 4
