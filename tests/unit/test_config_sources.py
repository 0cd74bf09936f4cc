"""Where settings come from: files, the environment, and which wins."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig, WorkerConfig
from fairque.core.exceptions import ConfigError
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from tests.support.config import no_environment, problems

__all__ = ["no_environment"]
pytestmark = pytest.mark.usefixtures("no_environment")

Write = Callable[[str | bytes], Path]
Environment = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes) -> Path:
        file = tmp_path / "fairque.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, no_environment: None) -> Environment:
    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def refused(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as error:
        load()
    return str(error.value)


# Files

WHOLE = """\
redis:
  url: rediss://bob:s3cret@db.example:7000/2
  ssl_ca_certs: /etc/ca.crt
workers:
  - id: mail
    assigned_users: [alice, "b o b"]
    steal_targets: []
    max_concurrent_tasks: 20
  - id: rest
    task_timeout_seconds: 30
    executor: process
queue:
  fairness: worker_time
  lease_seconds: 2.5
users:
  alice: {weight: 2, paused: true}
  "team-*":
    max_concurrency: 5
  default:
groups:
  acme: {rate_limit: 100/m, burst: 7}
limiters:
  stripe-api: {rate_limit: 25/s}
plugins:
  metrics: {port: 9000}
"""


def test_a_file(write: Write) -> None:
    config = FairQueueConfig.from_yaml(write(WHOLE))
    assert config.redis.url == "rediss://db.example:7000/2"
    assert (config.redis.username, config.redis.password, config.redis.db) == ("bob", "s3cret", 2)
    assert [worker.id for worker in config.workers] == ["mail", "rest"]
    assert config.workers[0].assigned_users == ["alice", "b o b"]
    assert config.workers[1].assigned_users == "*"
    assert config.users == {
        "alice": UserPolicy(weight=2, paused=True),
        "team-*": UserPolicy(max_concurrency=5),
        "default": UserPolicy(),
    }
    assert config.groups == {"acme": GroupPolicy(rate_limit="100/m", burst=7)}
    assert config.limiters == {"stripe-api": LimiterPolicy(rate_limit=25)}
    assert config.plugins == {"metrics": {"port": 9000}}
    assert FairQueueConfig.from_yaml(str(write(WHOLE))) == config


def test_what_is_written_reads_back_the_same(write: Write, tmp_path: Path) -> None:
    config = FairQueueConfig.from_yaml(write(WHOLE))
    for original in (
        config,
        FairQueueConfig(),
        FairQueueConfig(redis=RedisConfig(host="h", port=1, password="s3cret")),
        FairQueueConfig(redis=RedisConfig(url="redis://h/3")),
        FairQueueConfig(redis=RedisConfig(url="rediss://h?ssl_cert_reqs=none")),
        FairQueueConfig(redis=RedisConfig(url="sentinel://u:p@a,b/m/2", ssl=True, sentinel_password="q")),
        FairQueueConfig(redis=RedisConfig(url="cluster://a,[::1]:7")),
        FairQueueConfig(redis=RedisConfig(url="unix:///s?db=2")),
        FairQueueConfig(
            users={
                "a": UserPolicy(rate_limit=0.5, burst=3, group="g", max_queued=5),
                "b*": UserPolicy(retry_budget=0.2, retry_minimum="10/m"),
            },
            groups={"g": GroupPolicy(weight=2, rate_limit="100/m", paused=True), "token": GroupPolicy()},
            limiters={"api": LimiterPolicy(rate_limit="7/h"), "b": LimiterPolicy(max_concurrency=3)},
        ),
    ):
        file = tmp_path / "written.yaml"
        original.to_yaml(file, include_secrets=True)
        assert FairQueueConfig.from_yaml(file) == original
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = config.to_yaml(file)
    assert file.read_text() == text
    assert "rate_limit: 100/m" in text
    assert "s3cret" not in text
    assert FairQueueConfig.from_yaml(file).redis.password is None
    assert list(tmp_path.glob(".*")) == []


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    message = refused(lambda: FairQueueConfig().to_yaml(tmp_path / "no" / "file.yaml"))
    assert "cannot be written: No such file or directory" in message


def test_sections_that_are_commented_out_have_their_defaults(write: Write) -> None:
    assert (
        FairQueueConfig.from_yaml(write("redis:\nworkers:\nqueue:\nusers:\ngroups:\nlimiters:\nplugins:\n"))
        == FairQueueConfig()
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", ": is empty"),
        ("# nothing\n", ": is empty"),
        ("- a\n", ": must be a mapping with sections such as `redis:`, not a list"),
        ("redis\n", ": must be a mapping with sections such as `redis:`, not a text"),
        ("redis:\n  url: [\n", ":3: is not valid YAML: "),
        ("queue: {}\n\tredis: {}\n", ":2: is not valid YAML: "),
        ("queue: {}\n---\nqueue: {}\n", ":2: is not valid YAML: "),
        ("queue: &a {}\nredis: *b\n", ":2: is not valid YAML: found undefined alias 'b'"),
        (
            "queue: {}\nredis: {}\nqueue: {}\n",
            ":3: is not valid YAML: the key 'queue' stands here for the second",
        ),
        (
            "redis: !!python/object/apply:os.system [ls]\n",
            ":1: is not valid YAML: could not determine a constr",
        ),
        (b"redis: \xff\xfe\n", ": is not valid YAML: it is not UTF-8 text"),
    ],
)
def test_files_that_are_none(write: Write, content: str | bytes, problem: str) -> None:
    file = write(content)
    assert refused(lambda: FairQueueConfig.from_yaml(file)).startswith(f"{file}{problem}")


def test_a_syntax_error_quotes_nothing(write: Write) -> None:
    assert "s3cret" not in refused(lambda: FairQueueConfig.from_yaml(write("redis: {password: s3cret: x}\n")))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refused(lambda: FairQueueConfig.from_yaml(missing)) == (
        f"{missing}: cannot be read: No such file or directory"
    )
    assert refused(lambda: FairQueueConfig.from_yaml(tmp_path)).endswith("cannot be read: Is a directory")


def test_problems_come_with_their_lines(write: Write) -> None:
    file = write(
        "redis:\n  url: redis://h\n  host: h\n"
        "workers:\n- id: a\n  assigned_users:\n  - alice\n- id: b\n  assigned_users:\n  - bob\n  - alice\n"
        'queue:\n  lease: 3\n  sparse_share: "0.1"\n'
        "users:\n  on: {}\n  alice:\n    weight: heavy\n"
    )
    assert refused(lambda: FairQueueConfig.from_yaml(file)).splitlines() == [
        f"{file}: 6 problems in the configuration:",
        "  redis.host: contradicts url: give either url or host and port, not host as well (line 3)",
        "  queue.sparse_share: must be a number, not '0.1' as text: remove the quotes (line 14)",
        "  queue.lease: unknown key; did you mean 'lease_seconds'? (line 13)",
        "  users.True: the key True must be text: quote it (line 15)",
        "  users.alice.weight: weight must be a number from 0.01 to 100, not 'heavy' (str) (line 18)",
        "  workers[1].assigned_users[1]: 'alice' is already assigned by workers[0].assigned_users[0]; "
        "at most one entry may name a user (line 11)",
    ]


# The environment


def test_every_section_from_the_environment(environment: Environment) -> None:
    environment(
        FAIRQUE_REDIS__URL="redis://h/1",
        FAIRQUE_REDIS__PASSWORD="0123",
        FAIRQUE_QUEUE__LEASE_SECONDS="2.5",
        FAIRQUE_QUEUE__DEFAULT_MAX_RETRIES="7",
        FAIRQUE_QUEUE__FAIRNESS="worker_time",
        FAIRQUE_WORKERS__0__ID="mail",
        FAIRQUE_WORKERS__0__ASSIGNED_USERS="alice, bob",
        FAIRQUE_WORKERS__0__TASK_TIMEOUT_SECONDS="null",
        FAIRQUE_WORKERS__1__ID="rest",
        FAIRQUE_WORKERS__1__STEAL_TARGETS='["x,y", "z"]',
        FAIRQUE_WORKERS__1__ASSIGNED_USERS="*",
        FAIRQUE_USERS__Alice__WEIGHT="3",
        FAIRQUE_USERS__Alice__PAUSED="true",
        FAIRQUE_USERS__Alice__GROUP="Acme",
        FAIRQUE_GROUPS__Acme__RATE_LIMIT="100/m",
        FAIRQUE_LIMITERS__API__MAX_CONCURRENCY="4",
        FAIRQUE_PLUGINS__METRICS__PORT="9000",
        FAIRQUE_PLUGINS__TRACING='{"endpoint": "http://x"}',
    )
    config = FairQueueConfig()
    assert (config.redis.url, config.redis.password, config.redis.db) == ("redis://h/1", "0123", 1)
    assert (config.queue.lease_seconds, config.queue.default_max_retries) == (2.5, 7)
    assert config.queue.fairness == "worker_time"
    assert [worker.id for worker in config.workers] == ["mail", "rest"]
    assert config.workers[0].assigned_users == ["alice", "bob"]
    assert config.workers[0].task_timeout_seconds is None
    assert config.workers[1].steal_targets == ["x,y", "z"]
    assert config.workers[1].assigned_users == "*"
    assert config.users == {"Alice": UserPolicy(weight=3, paused=True, group="Acme")}
    assert config.groups == {"Acme": GroupPolicy(rate_limit="100/m")}
    assert config.limiters == {"API": LimiterPolicy(max_concurrency=4)}
    assert config.plugins == {"metrics": {"port": 9000}, "tracing": {"endpoint": "http://x"}}
    assert FairQueueConfig.create_default() == FairQueueConfig.from_dict({}) == config


def test_a_whole_section_as_json(environment: Environment) -> None:
    environment(
        FAIRQUE_WORKERS=json.dumps([{"id": "a"}, {"id": "b"}]), FAIRQUE_WORKERS__1__HEALTH_PORT="8080"
    )
    assert [(worker.id, worker.health_port) for worker in FairQueueConfig().workers] == [
        ("a", None),
        ("b", 8080),
    ]


def test_names_in_any_case_and_empty_values(environment: Environment) -> None:
    environment(fairque_queue__Prefix="x", FAIRQUE_REDIS__URL="")
    config = FairQueueConfig()
    assert config.queue.prefix == "x"
    assert config.redis.url is None


def test_true_and_false(environment: Environment) -> None:
    for text, value in (
        ("true", True),
        ("1", True),
        ("YES", True),
        ("false", False),
        ("0", False),
        ("off", False),
    ):
        environment(FAIRQUE_REDIS__HOST="h", FAIRQUE_REDIS__SSL=text)
        assert FairQueueConfig().redis.ssl is value


def test_variables_of_others_are_left_alone(environment: Environment) -> None:
    environment(
        FAIRQUE_CONFIG="/etc/fairque.yaml",
        FAIRQUE_PORT="tcp://10.0.0.1:80",
        FAIRQUE_SERVICE_HOST="10.0.0.1",
        FAIRQUE_REDIS_PORT="tcp://10.0.0.1:6379",
        FAIRQUE_REDIS_PORT_6379_TCP_ADDR="10.0.0.1",
    )
    assert FairQueueConfig().redis == RedisConfig()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"FAIRQUE_QUEUE__LEASE_SECONDS": "soon"},
            "queue.lease_seconds: must be a number, not 'soon' (from FAIRQUE_QUEUE__LEASE_SECONDS)",
        ),
        (
            {"FAIRQUE_QUEUE__LEASE_SECONDS": "0"},
            "queue.lease_seconds: must be at least 1, not 0.0 (from FAIRQUE_QUEUE__LEASE_SECONDS)",
        ),
        (
            {"FAIRQUE_QUEUE__LEASE": "5"},
            "queue.lease: unknown key; did you mean 'lease_seconds'? (from FAIRQUE_QUEUE__LEASE)",
        ),
        (
            {"FAIRQUE_REDDIS__URL": "redis://h"},
            "reddis: unknown key; did you mean 'redis'?",
        ),
        (
            {"FAIRQUE_REDIS_URL": "redis://h"},
            "FAIRQUE_REDIS_URL would not be read: write FAIRQUE_REDIS__URL (two underscores)",
        ),
        (
            {"FAIRQUE_WORKERS__2__ID": "c"},
            "FAIRQUE_WORKERS__2__ID sets entry 2, but there are only 0 (the first is 0)",
        ),
        (
            {"FAIRQUE_QUEUE": "5", "FAIRQUE_QUEUE__PREFIX": "x"},
            "FAIRQUE_QUEUE__PREFIX sets a part of something that is no mapping",
        ),
        (
            {"FAIRQUE_REDIS": "redis://:s3cret@h"},
            "redis: must be a mapping of names to values, not 'redis://***@h' (from FAIRQUE_REDIS)",
        ),
    ],
)
def test_variables_that_are_wrong(environment: Environment, variables: dict[str, str], problem: str) -> None:
    environment(**variables)
    with pytest.raises(ConfigError) as error:
        FairQueueConfig()
    assert problems(error.value) == [problem]


# Which wins


def test_the_environment_wins_over_the_file_and_python_over_both(
    write: Write, environment: Environment
) -> None:
    file = write("queue: {lease_seconds: 3, aging_seconds: 4, prefix: file}\nworkers: [{id: a}, {id: b}]\n")
    environment(
        FAIRQUE_QUEUE__LEASE_SECONDS="5",
        FAIRQUE_WORKERS__1__MAX_CONCURRENT_TASKS="20",
        FAIRQUE_WORKERS__2__ID="c",
    )
    config = FairQueueConfig.from_yaml(file)
    assert (config.queue.lease_seconds, config.queue.aging_seconds, config.queue.prefix) == (5, 4, "file")
    assert [(worker.id, worker.max_concurrent_tasks) for worker in config.workers] == [
        ("a", 10),
        ("b", 20),
        ("c", 10),
    ]
    config = FairQueueConfig.from_dict({"queue": {"lease_seconds": 7}, "workers": [{"id": "mine"}]})
    assert config.queue.lease_seconds == 7
    assert [worker.id for worker in config.workers] == ["mine"]
    config = FairQueueConfig(queue=QueueConfig(prefix="python"), workers=[WorkerConfig(id="mine")])
    assert (config.queue.prefix, config.queue.lease_seconds) == ("python", 15)


@pytest.mark.parametrize(
    ("lower", "higher", "expected"),
    [
        ({"host": "h", "port": 1}, {"URL": "redis://new"}, {"url": "redis://new"}),
        ({"url": "redis://h"}, {"HOST": "new"}, {"host": "new"}),
        ({"url": "redis://h"}, {"PASSWORD": "p"}, {"url": "redis://h", "password": "p"}),
        (
            {"url": "redis://u:old@h"},
            {"PASSWORD": "p"},
            {"url": "redis://h", "username": "u", "password": "p"},
        ),
        ({"url": "redis://h/1"}, {"DB": "2"}, {"url": "redis://h:6379", "db": 2}),
        ({"url": "redis://h", "db": 1}, {"URL": "redis://new/3"}, {"url": "redis://new/3", "db": 3}),
        ({"url": "redis://u:p@h"}, {"URL": "redis://v:q@new"}, {"url": "redis://v:q@new"}),
        ({"url": "redis://u:p@h"}, {"URL": "redis://new"}, {"url": "redis://new"}),
        ({"url": "rediss://h"}, {"HOST": "new"}, {"host": "new"}),
        (
            {"url": "redis://h", "password": "p"},
            {"URL": "redis://new"},
            {"url": "redis://new", "password": "p"},
        ),
        ({"url": "rediss://h", "ssl_ca_certs": "f"}, {"URL": "redis://new"}, {"url": "redis://new"}),
        (
            {"url": "rediss://h", "ssl_ca_certs": "f"},
            {"URL": "rediss://new"},
            {"url": "rediss://new", "ssl_ca_certs": "f"},
        ),
        ({"host": "h", "ssl": True}, {"URL": "unix:///s"}, {"url": "unix:///s"}),
        (
            {"url": "redis://:p@h/3", "max_connections": 9},
            {"URL": "embedded://"},
            {"url": "embedded://", "max_connections": 9},
        ),
        ({"url": "sentinel://h/m", "sentinel_password": "p"}, {"URL": "cluster://h"}, {"url": "cluster://h"}),
    ],
)
def test_another_server_replaces_the_one_below(
    write: Write,
    environment: Environment,
    lower: dict[str, Any],
    higher: dict[str, str],
    expected: dict[str, Any],
) -> None:
    environment(**{f"FAIRQUE_REDIS__{name}": value for name, value in higher.items()})
    assert FairQueueConfig.from_yaml(write(json.dumps({"redis": lower}))).redis == RedisConfig(**expected)


def test_a_server_in_python_replaces_the_one_in_the_environment(environment: Environment) -> None:
    environment(
        FAIRQUE_REDIS__URL="rediss://u:p@h/3", FAIRQUE_REDIS__DB="3", FAIRQUE_REDIS__MAX_CONNECTIONS="7"
    )
    config = FairQueueConfig.from_dict({"redis": {"host": "mine"}})
    assert config.redis == RedisConfig(host="mine", db=3, max_connections=7)
    assert FairQueueConfig(redis=RedisConfig()).redis.address.kind == "embedded"
