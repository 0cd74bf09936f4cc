"""The `redis` section: where the server is, what a URL says, what does not fit, and no password shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairque.core.config import FairQueueConfig, QueueConfig, RedisConfig
from fairque.core.exceptions import ConfigError
from tests.support.config import no_environment, refusal

__all__ = ["no_environment"]
pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "embedded://"),
        ({"url": "embedded://"}, "embedded://"),
        ({"url": "embedded:///var/lib/fq"}, "embedded:///var/lib/fq"),
        ({"url": "redis://h"}, "redis://h:6379"),
        ({"url": "redis:///3"}, "redis://localhost:6379"),
        ({"url": "rediss://h:1/2"}, "rediss://h:1"),
        ({"url": "redis://[::1]:7"}, "redis://[::1]:7"),
        ({"url": "unix:///run/r.sock?db=2"}, "unix:///run/r.sock"),
        ({"url": "sentinel://u:p@a,b:7/mine/4"}, "sentinel://a:26379,b:7/mine"),
        ({"url": "cluster://a,b:7"}, "cluster://a:6379,b:7"),
        ({"host": "h"}, "redis://h:6379"),
        ({"host": "h", "port": 1, "ssl": True}, "rediss://h:1"),
    ],
)
def test_where_the_server_is(fields: dict[str, Any], where: str) -> None:
    assert str(RedisConfig(**fields).address) == where


def test_a_url_is_taken_apart() -> None:
    config = RedisConfig(url="rediss://al%40ice:p%2Fw@h:1/2?ssl_check_hostname=false&max_connections=7")
    assert config.url == "rediss://h:1/2"
    assert (config.username, config.password, config.db) == ("al@ice", "p/w", 2)
    assert (config.ssl, config.ssl_check_hostname, config.max_connections) == (True, False, 7)
    sentinel = RedisConfig(url="sentinel://:pw@a/mine/4", ssl=True, sentinel_password="other")
    assert (sentinel.password, sentinel.db, sentinel.address.tls) == ("pw", 4, True)


def test_a_url_that_needs_no_change_stays_as_it_is() -> None:
    for url in ("redis://localhost:6379/0", "unix:///run/r.sock", "cluster://a,b", "embedded://"):
        assert RedisConfig(url=url).url == url


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"url": "redis://h", "host": "x"}, "host: contradicts url"),
        ({"url": "redis://h", "port": 1}, "port: contradicts url"),
        ({"url": "redis://h/1", "db": 2}, "db: contradicts url"),
        ({"url": "redis://:s3cret@h", "password": "0ther"}, "password: contradicts url"),
        ({"url": "redis://h", "ssl": True}, "ssl: has no effect without TLS: write the url with rediss://"),
        ({"url": "rediss://h", "ssl": False}, "ssl: contradicts url"),
        ({"url": "redis://h", "ssl_ca_certs": "f"}, "ssl_ca_certs: has no effect without TLS"),
        ({"url": "redis://h?ssl_cert_reqs=none"}, "ssl_cert_reqs: has no effect without TLS"),
        ({"url": "unix:///s", "ssl_certfile": "f"}, "ssl_certfile: has no effect without TLS: a unix socket"),
        (
            {"url": "sentinel://h/m", "ssl_ca_certs": "f"},
            "ssl_ca_certs: has no effect without TLS: add `ssl: true`",
        ),
        ({"host": "h", "ssl_check_hostname": True}, "ssl_check_hostname: has no effect without TLS: add"),
        ({"ssl": True}, "ssl: has no effect without TLS: the embedded server has no TLS"),
        ({"url": "rediss://h", "ssl_keyfile": "f"}, "ssl_keyfile: needs ssl_certfile"),
        (
            {"url": "rediss://h", "ssl_cert_reqs": "none", "ssl_check_hostname": True},
            "ssl_check_hostname: cannot be true with ssl_cert_reqs none",
        ),
        ({"port": 6379}, "port: needs a host beside it"),
        ({"password": "s3cret"}, "password: needs a server to log in to"),
        ({"url": "embedded://", "username": "u"}, "username: needs a server to log in to"),
        (
            {"url": "redis://h", "sentinel_password": "s3cret"},
            "sentinel_password: is for sentinel:// urls only",
        ),
        ({"url": "cluster://h", "db": 1}, "db: must be 0 in a cluster, not 1"),
        ({"url": "cluster://h/1"}, "url: names a database, but a cluster has only database 0"),
        ({"url": "http://h"}, "url: must begin with one of redis://"),
        ({"url": "valkeys://h"}, "did you mean rediss://?"),
        ({"url": "localhost:6379"}, "url: must begin with one of redis://"),
        ({"url": "redis://h:99999"}, "url: holds the port 99999"),
        ({"url": "redis://a,b"}, "url: names several servers"),
        ({"url": "redis://h/one"}, "url: ends in 'one'"),
        ({"url": "redis://h/1/2"}, "url: ends in '1/2'"),
        ({"url": "redis://::1"}, "url: holds '::1', which is not host or host:port"),
        ({"url": "redis://h x"}, "url: must not hold spaces"),
        ({"url": "unix://r.sock"}, "url: must name a socket by its full path"),
        ({"url": "embedded://data"}, "url: must be embedded:// or give a full path"),
        ({"url": "sentinel://a,b"}, "url: must name the service"),
        ({"url": "redis://h?timeout=3"}, "url: has the unknown parameter 'timeout'"),
        ({"url": "redis://h?dbs=3"}, "url: has the unknown parameter 'dbs'; did you mean 'db'?"),
        ({"url": "redis://h/1?db=1"}, "url: gives 'db' twice"),
        ({"url": "redis://h?db=x"}, "db: must be a whole number, not 'x'"),
        ({"url": "redis://:s3#cret@h"}, "url: must not hold '#'"),
        ({"url": "redis://:s3/cret@h"}, "url: holds '/' or '?' before '@'"),
        ({"url": "redis://:s3?cret@h"}, "url: holds '/' or '?' before '@'"),
        ({"url": "redis://:s3@cret@h"}, "url: holds more than one '@'"),
        ({"url": "redis://:s3[cret@h"}, "url: is no URL"),
        ({"url": ["redis://:s3cret@h"]}, "url: must be text, not a list"),
        ({"url": "redis://h", "pasword": "s3cret"}, "pasword: unknown key; did you mean 'password'?"),
        ({"host": "h", "password": ["s3cret"]}, "password: must be text, not the value (not shown)"),
        ({"host": "redis://:s3cret@h", "port": "x"}, "port: must be a whole number, not 'x'"),
    ],
)
def test_servers_that_cannot_be(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RedisConfig(**fields)
    assert problem in str(refused.value)
    for secret in ("s3", "cret", "0ther"):
        assert secret not in str(refused.value).replace("is secret", "")


def test_a_url_where_a_section_should_be_hides_its_password() -> None:
    [problem] = refusal({"redis": "redis://u:s3cret@h"})
    assert problem == "redis: must be a mapping of names to values, not 'redis://***@h'"


def test_the_prefix_carries_a_hash_tag_in_a_cluster() -> None:
    assert FairQueueConfig().key_prefix == "fq"
    cluster = RedisConfig(url="cluster://h")
    assert FairQueueConfig(redis=cluster).key_prefix == "{fq}"
    assert FairQueueConfig(redis=cluster, queue=QueueConfig(prefix="a:{b}")).key_prefix == "a:{b}"


def test_paths_may_be_paths() -> None:
    config = RedisConfig(url="rediss://h", ssl_ca_certs=Path("/etc/ca.crt"))  # type: ignore[arg-type]
    assert config.ssl_ca_certs == "/etc/ca.crt"
