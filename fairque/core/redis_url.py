"""What a server's URL says: which kind of server, where, and who logs in. Pure text work."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

Kind: TypeAlias = Literal["tcp", "unix", "sentinel", "cluster", "embedded"]
Node: TypeAlias = tuple[str, int]

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
_KINDS: dict[str, Kind] = {
    "redis": "tcp",
    "rediss": "tcp",
    "unix": "unix",
    "sentinel": "sentinel",
    "cluster": "cluster",
    "embedded": "embedded",
}
SCHEMES = tuple(f"{scheme}://" for scheme in _KINDS)
TLS_KINDS: frozenset[Kind] = frozenset({"tcp", "sentinel", "cluster"})
"""Kinds of server that can be reached over TLS."""
_NODE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\[\]:\s]*))(?::(?P<port>[0-9]*))?")
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a server is.

    `nodes` holds host and port: of the server (tcp), of the sentinels (sentinel), or of some nodes (cluster).
    `path` is the socket (unix) or the data directory (embedded, "" for the default one); `service` names the
    primary that sentinels watch.
    """

    kind: Kind
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    tls: bool = False

    def __str__(self) -> str:
        """A name for logs and error messages; it holds no credentials."""
        if self.kind in ("unix", "embedded"):
            return f"{self.kind}://{self.path}"
        nodes = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        scheme = self.kind if self.kind != "tcp" else "rediss" if self.tls else "redis"
        return f"{scheme}://{nodes}" + (f"/{self.service}" if self.service else "")


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A URL taken apart. `public` is the URL without credentials and options, which the other fields hold."""

    address: RedisAddress
    public: str
    username: str | None
    password: str | None
    db: int | None
    options: dict[str, str]


def parse_redis_url(url: str) -> ParsedUrl:
    """Take `url` apart.

    ``redis://`` and ``rediss://`` (TLS) ``[user:password@]host[:port][/db]``, ``unix:///socket``,
    ``sentinel://[user:password@]host[:port],.../service[/db]``, ``cluster://[user:password@]host[:port],...``,
    ``embedded://`` and ``embedded:///data/directory``; parameters after ``?`` are fields of the section.

    Raises:
        ValueError: with what is wrong, and without the credentials in the URL.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _KINDS:
        close = difflib.get_close_matches(scheme.lower().replace("valkey", "redis"), _KINDS, n=1)
        hint = f"; did you mean {close[0]}://?" if close else ""
        raise ValueError(f"must begin with one of {', '.join(SCHEMES)}{hint}")
    if re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("must not hold spaces or line breaks: percent-encode them")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote the password
        raise ValueError("is no URL: percent-encode special characters in the password") from None
    if parts.fragment or "#" in url:
        raise ValueError("must not hold '#': in a password, write it as %23 (/ as %2F, @ as %40, ? as %3F)")
    kind = _KINDS[scheme]
    if kind in TLS_KINDS and "@" not in parts.netloc and "@" in url:
        raise ValueError("holds '/' or '?' before '@': in a password, write them as %2F and %3F")
    user_info, _, location = parts.netloc.rpartition("@")
    if "@" in user_info:
        raise ValueError("holds more than one '@': in a password, write it as %40")
    username, _, password = user_info.partition(":")
    address, db = _locate(kind, scheme, location, unquote(parts.path))
    return ParsedUrl(
        address=address,
        public=f"{scheme}://{location}{parts.path}",
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=db,
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def _locate(kind: Kind, scheme: str, location: str, path: str) -> tuple[RedisAddress, int | None]:
    if kind == "unix":
        if location or not path.strip("/"):
            raise ValueError("must name a socket by its full path, as in unix:///run/redis.sock")
        return RedisAddress(kind, path=path), None
    if kind == "embedded":
        if location:
            raise ValueError("must be embedded:// or give a full path, as in embedded:///var/lib/fairque")
        return RedisAddress(kind, path=path if path.strip("/") else ""), None
    nodes = tuple(_node(text, kind) for text in location.split(","))
    steps = [step for step in path.split("/") if step]
    if kind == "tcp":
        if len(nodes) > 1:
            raise ValueError("names several servers: use sentinel://host,host/service or cluster://host,host")
        return RedisAddress(kind, nodes, tls=scheme == "rediss"), _database(steps)
    if kind == "cluster":
        if _database(steps):
            raise ValueError("names a database, but a cluster has only database 0")
        return RedisAddress(kind, nodes), None
    if not steps:
        raise ValueError("must name the service, as in sentinel://host1,host2/mymaster")
    return RedisAddress(kind, nodes, service=steps[0]), _database(steps[1:])


def _node(text: str, kind: Kind) -> Node:
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"holds {text!r}, which is not host or host:port (IPv6 addresses stand in brackets)")
    port = int(match["port"] or (SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT))
    if not 1 <= port <= _HIGHEST_PORT:
        raise ValueError(f"holds the port {port}; a port is from 1 to {_HIGHEST_PORT}")
    return match["v6"] or match["name"] or "localhost", port


def _database(steps: list[str]) -> int | None:
    if not steps:
        return None
    if len(steps) > 1 or not steps[0].isascii() or not steps[0].isdigit():
        raise ValueError(f"ends in {'/'.join(steps)!r}, where only the number of a database may stand")
    return int(steps[0])
