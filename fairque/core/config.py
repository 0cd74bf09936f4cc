"""The configuration: `FairQueueConfig` and its sections, from YAML, the environment, dicts or Python.

Every field, its limits and its meaning stand here once; `docs/configuration.md` is checked against these
models. Instances do not change. Passwords show neither in `repr` nor in error messages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, GetPydanticSchema, ValidationError
from pydantic_core import core_schema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fairque.core import config_checks, config_server
from fairque.core.config_errors import Origin, Problem, Section, config_error, nearest, refusal
from fairque.core.config_loading import (
    DELIMITER,
    PREFIX,
    EnvironmentSource,
    origin_of,
    over_file,
    read_environment,
    read_yaml,
)
from fairque.core.config_outages import BreakerConfig, SpoolConfig
from fairque.core.config_writing import as_yaml, shown
from fairque.core.exceptions import ConfigError
from fairque.core.patterns import is_pattern
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.redis_url import RedisAddress, parse_redis_url
from fairque.core.schedules.models import ScheduledTask

if TYPE_CHECKING:
    from fairque.queue.connection import AsyncClient, SyncClient

_DAY = 86_400
_YEAR = 365 * _DAY
_MIB = 1024 * 1024
# One call to the server carries at most this much (see the batch limits), so no payload may be larger.
_LARGEST_PAYLOAD = 4 * _MIB


def _user_list_schema(_source: Any, handler: Any) -> core_schema.CoreSchema:
    """A list of ids, or "*": as a schema of its own, a mistake in a list is reported at its entry."""

    def validate(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if value in ("*", ["*"], ("*",)):
            return "*"
        return inner(list(value) if isinstance(value, tuple | set | frozenset) else value)

    return core_schema.no_info_wrap_validator_function(
        validate, handler(list[str]), serialization=core_schema.simple_ser_schema("any")
    )


def _policy_schema(source: Any, _handler: Any) -> core_schema.CoreSchema:
    return core_schema.no_info_plain_validator_function(partial(config_checks.policy, source))


def _schedules_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    return core_schema.no_info_plain_validator_function(config_checks.schedules)


def _path_schema(_source: Any, handler: Any) -> core_schema.CoreSchema:
    """Text; Python code may give a `Path`."""
    return core_schema.no_info_before_validator_function(
        lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value, handler(str)
    )


UserList: TypeAlias = Annotated[list[str] | Literal["*"], GetPydanticSchema(_user_list_schema)]
_POLICY = GetPydanticSchema(_policy_schema)
_SCHEDULES = GetPydanticSchema(_schedules_schema)
FileName: TypeAlias = Annotated[str, GetPydanticSchema(_path_schema)]


class RedisConfig(Section):
    """The server. With neither `url` nor `host`, an embedded server is started when it is first needed."""

    url: str | None = None
    """`redis://`, `rediss://` (TLS), `unix://`, `sentinel://`, `cluster://` or `embedded://`. Credentials
    in it move to `username` and `password`; parameters after `?` are other fields of this section."""
    host: str | None = Field(default=None, min_length=1)
    """Name or address of the server, instead of `url`."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """TCP port, with `host`; 6379 if left out."""
    db: int = Field(default=0, ge=0, le=1_000_000)
    """Number of the database; a cluster has only 0."""
    username: str | None = None
    """Who logs in (an ACL user)."""
    password: str | None = Field(default=None, repr=False)
    """The password of the server."""
    sentinel_username: str | None = None
    """Who logs in to the sentinels, with `sentinel://`."""
    sentinel_password: str | None = Field(default=None, repr=False)
    """The password of the sentinels."""
    ssl: bool = False
    """TLS. `rediss://` implies it; with `host`, `sentinel://` and `cluster://` it is set here."""
    ssl_cert_reqs: Literal["none", "optional", "required"] = "required"
    """Whether the server must show a valid certificate. `none` gives up all protection against impostors."""
    ssl_ca_certs: FileName | None = None
    """PEM file of the authorities to trust, beside the system's."""
    ssl_certfile: FileName | None = None
    """PEM file of the client's certificate."""
    ssl_keyfile: FileName | None = None
    """PEM file of the client's private key."""
    ssl_check_hostname: bool = True
    """Whether the server's certificate must bear its host name."""
    max_connections: int = Field(default=50, ge=1, le=10_000)
    """Connections of one client, for a cluster per node; who finds all of them busy waits."""

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        return config_server.prepared(data)

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        return config_server.server_contradictions(data)

    @property
    def address(self) -> RedisAddress:
        """Where the server is."""
        if self.url is not None:
            address = parse_redis_url(self.url).address
            return RedisAddress(address.kind, address.nodes, address.path, address.service, self.ssl)
        if self.host is not None:
            return RedisAddress("tcp", ((self.host, self.port or 6379),), tls=self.ssl)
        return RedisAddress("embedded")

    def create_redis_client(self) -> SyncClient:
        """A client for this server; see `fairque.queue.connection.create_client`."""
        from fairque.queue.connection import create_client

        return create_client(self)

    def create_async_redis_client(self) -> AsyncClient:
        """A client for asyncio; see `fairque.queue.connection.create_async_client`."""
        from fairque.queue.connection import create_async_client

        return create_async_client(self)


class WorkerConfig(Section):
    """One worker entry. Several processes may run the same entry; they then share its users."""

    id: str = "worker"
    """Name of the entry; unique in a configuration."""
    assigned_users: UserList = "*"
    """Users served first: a list of ids, or `"*"` for all that no entry names."""
    steal_targets: UserList = "*"
    """Users served when the assigned ones leave slots free: a list of ids, or `"*"` for all others."""
    max_concurrent_tasks: int = Field(default=10, ge=1, le=10_000)
    """Tasks that run at the same time in one process."""
    executor: Literal["thread", "process"] = "thread"
    """Where functions run. `async def` tasks run on an event loop in either case."""
    task_timeout_seconds: float | None = Field(default=None, gt=0, le=_YEAR)
    """Time limit of tasks that set none themselves; `null` for no limit."""
    shutdown_timeout_seconds: float = Field(default=30, ge=0, le=_DAY)
    """How long a stopping worker lets its tasks finish before it gives them back."""
    poll_interval_seconds: float = Field(default=5, ge=0.05, le=3600)
    """How often an idle worker looks for work without being woken: a safety net."""
    stall_limit_seconds: float = Field(default=300, ge=1, le=_YEAR)
    """How long a process whose oldest task has no time limit may block everything before it is replaced."""
    max_tasks_per_process: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """A process is replaced after this many tasks; `null` for never."""
    max_memory_mb: int | None = Field(default=None, ge=16, le=16 * _MIB)
    """A process that holds more memory (MiB, resident) is replaced after its tasks; `null` for no limit."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of `/healthz` and `/readyz`; 0 takes any free one, `null` none."""

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        return config_checks.worker_contradictions(data)


class QueueConfig(Section):
    """What all processes of one queue must agree on."""

    prefix: str = Field(default="fq", min_length=1, max_length=64)
    """What every key name begins with: letters, digits and `_ . : -`, for a cluster a hash tag in braces."""
    fairness: Literal["round_robin", "worker_time"] = "round_robin"
    """What tenants get equal shares of: tasks (by `cost`), or seconds of worker time."""
    aging_seconds: float = Field(default=60, ge=0, le=_YEAR)
    """How much waiting one level of priority is worth, within a user; 0 turns priorities 1 to 5 off."""
    lease_seconds: float = Field(default=15, ge=1, le=3600)
    """A worker that is silent for this long is dead. It renews three times as often."""
    default_max_retries: int = Field(default=3, ge=0, le=65_535)
    """Retries of tasks that set none themselves."""
    max_payload_bytes: int = Field(default=_MIB, ge=1, le=_LARGEST_PAYLOAD)
    """Largest encoded task."""
    max_result_bytes: int = Field(default=_MIB, ge=1, le=_LARGEST_PAYLOAD)
    """Largest encoded result."""
    result_ttl_seconds: float = Field(default=_DAY, ge=0, le=10 * _YEAR)
    """How long results are kept; 0 for not at all."""
    xcom_ttl_seconds: float = Field(default=3600, ge=1, le=10 * _YEAR)
    """How long values passed between tasks are kept."""
    user_ttl_seconds: float = Field(default=_DAY, ge=1, le=10 * _YEAR)
    """How long the counters of a user without tasks are kept."""
    max_user_share: float = Field(default=1.0, ge=0, le=1)
    """Largest part of all live slots that one user may hold; at least one slot."""
    sparse_share: float = Field(default=0.1, ge=0, le=1)
    """Part of the slots on which users who come back may start their first task at once."""
    steal_after_seconds: float = Field(default=5, ge=0, le=_DAY)
    """A user who waits longer is served by thieves like their own."""
    prefetch_milliseconds: float = Field(default=5, ge=0, le=10_000)
    """Expected work that a worker may claim beyond its free slots."""
    unknown_function_seconds: float = Field(default=60, ge=0, le=_YEAR)
    """How long a task waits for a worker that has its function before it becomes a dead letter."""
    dead_letter_ttl_seconds: float | None = Field(default=None, ge=1, le=10 * _YEAR)
    """How long dead letters are kept; `null` until somebody requeues or purges them."""
    max_dead_letters: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Most dead letters that a user may have: the oldest go first. `null` for no limit."""
    dead_letter_alert: int | None = Field(default=100, ge=1, le=1_000_000_000)
    """When a user gets so many dead letters (or `max_dead_letters`, if less), observers of `DeadLettersPassed` are
    told; `null` for never."""
    cleanup_interval_seconds: float = Field(default=60, ge=0, le=_DAY)
    """How often some worker removes what is past its time; 0 for never. Left-overs are looked for once an hour."""
    durability: Literal["local", "replicated", "fsync"] = "local"
    """When a push returns: once the primary has it, once replicas have it too, or once it is on the primary's disk
    (Redis 7.2, Valkey); see [connections](connections.md)."""
    min_replicas: int = Field(default=1, ge=1, le=10)
    """How many replicas must have it, with `durability: replicated`."""
    durability_timeout_seconds: float = Field(default=2, ge=0.001, le=4)
    """How long a push waits for that before it raises NotReplicatedError."""
    partitions: int = Field(default=1, ge=1)
    """Independent parts of the queue in a cluster. Only 1 is supported so far."""

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        return config_checks.queue_contradictions(data)


class SchedulerConfig(Section):
    """What decides ticks: `fairque scheduler`, `fairque worker --scheduler`, or a TaskScheduler."""

    lease_seconds: float = Field(default=5, ge=1, le=3600)
    """A leading scheduler that is silent for this long is replaced. It renews three times as often."""
    source: str = Field(default="config", min_length=1, max_length=256)
    """Whose `schedules` these are: those that a file of the same source declared before, and this one does not, are
    removed. Two files for one queue need two names."""

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        return config_checks.scheduler_contradictions(data)


class FairQueueConfig(Section, BaseSettings):
    """The whole configuration.

    Arguments win over environment variables (`FAIRQUE_REDIS__URL`), which win over a file (`from_yaml`),
    which wins over the defaults.

    Raises:
        ConfigError: listing every problem with its path, the value and the limit.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER)
    sections: ClassVar[tuple[str, ...]] = (
        "redis", "workers", "queue", "scheduler", "breaker", "spool",
        "users", "groups", "limiters", "schedules", "plugins",
    )  # fmt: skip

    redis: RedisConfig = Field(default_factory=RedisConfig)
    """The server."""
    workers: list[WorkerConfig] = Field(default_factory=lambda: [WorkerConfig()], min_length=1)
    """Worker entries; one that serves everybody if left out."""
    queue: QueueConfig = Field(default_factory=QueueConfig)
    """The queue."""
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    """What decides ticks."""
    breaker: BreakerConfig = Field(default_factory=BreakerConfig)
    """The [circuit breaker](circuit_breaker.md): how calls fail while the server is away."""
    spool: SpoolConfig = Field(default_factory=SpoolConfig)
    """The [local spool](circuit_breaker.md#the-spool): where tasks wait that are pushed while the server is away."""
    users: dict[str, Annotated[UserPolicy, _POLICY]] = Field(default_factory=dict)
    """Policies by user id, by pattern (`team-*`), or for everybody else (`default`)."""
    groups: dict[str, Annotated[GroupPolicy, _POLICY]] = Field(default_factory=dict)
    """Organisations by name: what their users, whose policies name them, get together."""
    limiters: dict[str, Annotated[LimiterPolicy, _POLICY]] = Field(default_factory=dict)
    """Limits by name, for all tasks together that name them."""
    schedules: Annotated[dict[str, ScheduledTask], _SCHEDULES] = Field(default_factory=dict)
    """Schedules by name; see [schedules](schedules.md)."""
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options by name of the plugin."""

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """The configuration in the file at `path`, under what the environment sets.

        Raises:
            ConfigError: the file cannot be read, or anything in it or in the environment is wrong.
        """
        document, settings = read_yaml(path), read_environment(cls)
        merged = over_file(document.data, settings)
        try:
            return cls.model_validate(merged)  # __init__ would put the environment below the file
        except ValidationError as exc:
            origin = origin_of(settings, document)
            raise config_error(exc, cls, source=os.fspath(path), origin=origin) from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration in `data`, nested as in a file; it wins over the environment.

        Raises:
            ConfigError: anything is wrong.
        """
        given: object = data
        if not isinstance(given, Mapping):
            kind = type(given).__name__
            raise ConfigError(f"a configuration must be a mapping with sections such as 'redis', not {kind}")
        wrong = [f"the key {key!r} must be text" for key in given if not isinstance(key, str)]
        if wrong:
            raise refusal(wrong)
        return cls(**data)

    @classmethod
    def create_default(cls) -> Self:
        """The defaults, under what the environment sets: an embedded server and one worker for everybody."""
        return cls()

    def to_yaml(self, path: str | os.PathLike[str] | None = None, *, include_secrets: bool = False) -> str:
        """The configuration as YAML with every field, also written to `path` if given.

        Without `include_secrets`, passwords are left out, and comments say which; with it, a file that is
        written is readable by its owner only.

        Raises:
            ConfigError: the file cannot be written.
        """
        return as_yaml(self, Path(path) if path is not None else None, include_secrets=include_secrets)

    @property
    def key_prefix(self) -> str:
        """What key names begin with: `queue.prefix`, in a cluster with a hash tag, as in `{fq}`."""
        prefix = self.queue.prefix
        return f"{{{prefix}}}" if self.redis.address.kind == "cluster" and "{" not in prefix else prefix

    def worker(self, worker_id: str | None = None) -> WorkerConfig:
        """The worker entry with this id; without an id, the first.

        Raises:
            ConfigError: there is none.
        """
        if worker_id is None:
            return self.workers[0]
        for entry in self.workers:
            if entry.id == worker_id:
                return entry
        ids = [entry.id for entry in self.workers]
        close = nearest(worker_id, ids) or ", ".join(ids)
        raise ConfigError(f"there is no worker entry {worker_id!r}; did you mean {close}?")

    def policy_for(self, user_id: str) -> UserPolicy | None:
        """The policy under `users` for this user: by id, else the first pattern that fits, else `default`."""
        if user_id in self.users:
            return self.users[user_id]
        for pattern, policy in self.users.items():
            if is_pattern(pattern) and fnmatchcase(user_id, pattern):
                return policy
        return self.users.get("default")

    @property
    def declares_schedules(self) -> bool:
        """Whether there is a section `schedules`, be it an empty one: without, a deploy changes none."""
        return "schedules" in self.model_fields_set

    @classmethod
    def origins(cls) -> Origin:
        return origin_of(read_environment(cls))

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        # A section whose lines are all commented out is null in YAML: it has its defaults.
        return {key: value for key, value in data.items() if value is not None or key not in cls.sections}, []

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        yield from config_checks.entry_contradictions(data.get("workers"))
        yield from config_checks.policy_problems(data)
        yield from config_server.durability_contradictions(data)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvironmentSource(settings_cls)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return shown(self)
