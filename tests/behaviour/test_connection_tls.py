"""TLS for real: an authority made by openssl, servers that check and are checked, sync and async."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from fairque.core.config import FairQueueConfig, RedisConfig
from fairque.core.exceptions import ConfigError, QueueUnavailableError
from fairque.core.models import Task
from tests.support.clients import Client, connect, mode, until
from tests.support.facades import Facades
from tests.support.require import require_program
from tests.support.servers import ServerProcess, free_port
from tests.support.topologies import cluster_options, form_cluster, sentinel_process

__all__ = ["connect", "mode"]


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: an authority, certificates it signed (and their keys, named .key), and a stranger."""

    directory: Path

    def __call__(self, name: str) -> str:
        return str(self.directory / name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    openssl = str(require_program("openssl", "apt-get install openssl"))
    made = Certificates(tmp_path_factory.mktemp("tls"))

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=made.directory)

    def authority(name: str) -> None:
        run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"),
            # Python verifies strictly from 3.13 on.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def signed(name: str, alternative_names: str) -> None:
        (made.directory / f"{name}.ext").write_text(
            f"subjectAltName={alternative_names}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        run(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )

    authority("ca")
    authority("stranger")
    signed("server", "DNS:localhost,IP:127.0.0.1")
    signed("elsewhere", "DNS:elsewhere.example")
    signed("client", "DNS:client.example")
    return made


def tls_options(certificates: Certificates, name: str, *, clients: str = "no") -> dict[str, str]:
    return {
        "tls-port": str(free_port()),
        "tls-cert-file": certificates(f"{name}.crt"),
        "tls-key-file": certificates(f"{name}.key"),
        "tls-ca-cert-file": certificates("ca.crt"),
        "tls-auth-clients": clients,
    }


@contextlib.contextmanager
def tls_server(redis_path: Path, options: dict[str, str]) -> Generator[int]:
    with ServerProcess(redis_path, options=options):
        yield int(options["tls-port"])


@pytest.fixture(scope="module")
def mutual(redis_path: Path, certificates: Certificates) -> Iterator[int]:
    """The port of a server for localhost that wants a certificate from its clients too."""
    with tls_server(redis_path, tls_options(certificates, "server", clients="yes")) as port:
        yield port


@pytest.fixture(scope="module")
def elsewhere(redis_path: Path, certificates: Certificates) -> Iterator[int]:
    """The port of a server whose certificate is for another host."""
    with tls_server(redis_path, tls_options(certificates, "elsewhere")) as port:
        yield port


def test_tls_with_certificates_on_both_sides(
    connect: Callable[..., Client], mutual: int, certificates: Certificates
) -> None:
    fields = {
        "ssl_ca_certs": certificates("ca.crt"),
        "ssl_certfile": certificates("client.crt"),
        "ssl_keyfile": certificates("client.key"),
    }
    assert connect(url=f"rediss://localhost:{mutual}", **fields)("PING")
    assert connect(url=f"rediss://127.0.0.1:{mutual}/0", **fields)("PING")
    assert connect(host="localhost", port=mutual, ssl=True, **fields)("PING")
    in_url = "&".join(f"{name}={value}" for name, value in fields.items())
    assert connect(url=f"rediss://localhost:{mutual}?{in_url}")("PING")


def test_tls_without_the_clients_certificate(
    connect: Callable[..., Client], mutual: int, certificates: Certificates
) -> None:
    client = connect(url=f"rediss://localhost:{mutual}", ssl_ca_certs=certificates("ca.crt"))
    with pytest.raises(exceptions.ConnectionError):
        client("PING")


@pytest.mark.parametrize("form", ["url", "host"])
def test_tls_with_a_wrong_authority(
    connect: Callable[..., Client], elsewhere: int, certificates: Certificates, form: str
) -> None:
    place: dict[str, Any] = {"url": f"rediss://localhost:{elsewhere}"}
    if form == "host":
        place = {"host": "localhost", "port": elsewhere, "ssl": True}
    for wrong in ({"ssl_ca_certs": certificates("stranger.crt")}, {}):
        with pytest.raises(exceptions.ConnectionError, match="certificate verify failed"):
            connect(**place, **wrong)("PING")
    assert connect(**place, ssl_cert_reqs="none")("PING")


@pytest.mark.parametrize("form", ["url", "host"])
def test_tls_with_a_wrong_host_name(
    connect: Callable[..., Client], elsewhere: int, certificates: Certificates, form: str
) -> None:
    place: dict[str, Any] = {"url": f"rediss://localhost:{elsewhere}"}
    if form == "host":
        place = {"host": "localhost", "port": elsewhere, "ssl": True}
    trusted = {"ssl_ca_certs": certificates("ca.crt")}
    with pytest.raises(exceptions.ConnectionError, match="Hostname mismatch"):
        connect(**place, **trusted)("PING")
    assert connect(**place, **trusted, ssl_check_hostname=False)("PING")


@pytest.mark.parametrize(
    ("ca", "client", "server", "words"),
    [
        ("ca", "client", "mutual", None),
        ("ca", None, "mutual", r"a certificate of its clients: redis\.ssl_certfile and redis\.ssl_keyfile"),
        ("ca", "stranger", "mutual", r"tls-ca-cert-file"),
        ("stranger", None, "elsewhere", r"redis\.ssl_ca_certs"),
        (None, None, "elsewhere", r"redis\.ssl_ca_certs"),
        ("ca", None, "elsewhere", r"another name.*redis\.url"),
    ],
)
def test_a_queue_over_tls_says_what_to_change(
    request: pytest.FixtureRequest,
    mode: str,
    certificates: Certificates,
    ca: str | None,
    client: str | None,
    server: str,
    words: str | None,
) -> None:
    section: dict[str, Any] = {"url": f"rediss://localhost:{request.getfixturevalue(server)}"}
    if ca is not None:
        section["ssl_ca_certs"] = certificates(f"{ca}.crt")
    if client is not None:
        section |= {
            "ssl_certfile": certificates(f"{client}.crt"),
            "ssl_keyfile": certificates(f"{client}.key"),
        }
    facades = Facades(mode)
    try:
        queue = facades.make(FairQueueConfig.from_dict({"redis": section}))
        if words is None:
            queue.push(Task.create(payload=1))
            queue.finish(queue.pop(), "done")
        else:
            with pytest.raises(QueueUnavailableError, match=words):
                queue.push(Task.create(payload=1))
    finally:
        facades.close()


def test_tls_and_no_tls_do_not_meet(connect: Callable[..., Client], elsewhere: int) -> None:
    with pytest.raises(exceptions.ConnectionError):
        connect(url=f"redis://localhost:{elsewhere}")("PING")


def test_a_missing_tls_file_is_named(mode: str, certificates: Certificates) -> None:
    config = RedisConfig(url="rediss://localhost", ssl_ca_certs=certificates("none.crt"))
    with pytest.raises(ConfigError, match=r"redis\.ssl_ca_certs: there is no file '.*none\.crt'"):
        Client(mode, config)


def test_tls_in_a_cluster(
    connect: Callable[..., Client], redis_path: Path, certificates: Certificates
) -> None:
    options = tls_options(certificates, "server", clients="yes")
    options |= cluster_options() | {"tls-cluster": "yes"}
    with ServerProcess(redis_path, options=options) as server:
        form_cluster(server)
        client = connect(
            url=f"cluster://localhost:{options['tls-port']}",
            ssl=True,
            ssl_ca_certs=certificates("ca.crt"),
            ssl_certfile=certificates("client.crt"),
            ssl_keyfile=certificates("client.key"),
            ssl_check_hostname=False,  # a node announces no name, only an address
        )
        client("SET", "key", "value")
        assert client("GET", "key") == b"value"


def test_tls_with_sentinels(
    connect: Callable[..., Client], redis_path: Path, certificates: Certificates
) -> None:
    options = tls_options(certificates, "server", clients="yes")
    tls = [f"{name} {value}" for name, value in options.items() if name != "tls-port"]
    tls_port = free_port()
    watch = [
        *tls,
        f"tls-port {tls_port}",
        "tls-replication yes",
        f"sentinel monitor mine 127.0.0.1 {options['tls-port']} 1",
    ]
    with tls_server(redis_path, options), sentinel_process(redis_path, watch):
        client = connect(
            url=f"sentinel://localhost:{tls_port}/mine",
            ssl=True,
            ssl_ca_certs=certificates("ca.crt"),
            ssl_certfile=certificates("client.crt"),
            ssl_keyfile=certificates("client.key"),
        )
        until(lambda: _set(client, "key", "value"))
        assert client("GET", "key") == b"value"


def _set(client: Client, key: str, value: str) -> bool:
    try:
        client("SET", key, value)
    except (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.TimeoutError):
        return False
    return True
