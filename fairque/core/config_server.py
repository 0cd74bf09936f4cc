"""The `redis` section: what its URL says, how one server replaces another, and what does not fit together.

All functions take the data as it was written, whose values may still be of any type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairque.core.config_errors import Problem, nearest, value_text
from fairque.core.config_values import parsed_text
from fairque.core.redis_url import TLS_KINDS, parse_redis_url

TLS_DETAILS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
TLS_FIELDS = ("ssl", *TLS_DETAILS)
_URL_OPTIONS: dict[str, Any] = {
    "db": int,
    "username": str,
    "password": str,
    "ssl_cert_reqs": str,
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_check_hostname": bool,
    "max_connections": int,
}


def prepared(data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The `redis` section in its one form, and what is wrong with its URL."""
    data, problems = split_url(data)
    if (
        data.get("ssl") is True
        and data.get("ssl_cert_reqs") == "none"
        and data.get("ssl_check_hostname") is None
    ):
        data = dict(data, ssl_check_hostname=False)  # the default would claim a check that nobody does
    return data, problems


def split_url(data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The `redis` section with what its URL says about other fields moved to these fields.

    So the URL can be shown to anybody, and there is one place for each setting.
    """
    url = data.get("url")
    if not isinstance(url, str):
        return data, []
    try:
        parsed = parse_redis_url(url)
    except ValueError as exc:
        return data, [Problem(("url",), None, str(exc))]
    problems: list[Problem] = []
    said: dict[str, Any] = {"username": parsed.username, "password": parsed.password, "db": parsed.db}
    for name, text in parsed.options.items():
        if name not in _URL_OPTIONS:
            close = nearest(name, _URL_OPTIONS)
            hint = f"did you mean {close!r}?" if close else f"valid are {', '.join(_URL_OPTIONS)}"
            problems.append(Problem(("url",), None, f"has the unknown parameter {name!r}; {hint}"))
        elif said.get(name) is not None:
            problems.append(Problem(("url",), None, f"gives {name!r} twice"))
        else:
            said[name] = parsed_text(text, _URL_OPTIONS[name]) if text else None
    if parsed.address.tls:
        said["ssl"] = True
    moved = dict(data, url=parsed.public)
    for name, value in said.items():
        given = data.get(name)
        if value is None or given == value:
            continue
        if given is None:
            moved[name] = value
        elif name == "ssl":
            problems.append(Problem((name,), given, "contradicts url: rediss:// is TLS; redis:// is without"))
        else:
            text = f"contradicts url, which has another {name}: leave one of them out"
            problems.append(Problem((name,), None, text))
    return moved, problems


def yield_address(lower: Mapping[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """`lower`, a `redis` section, without what the server that `higher` names makes obsolete.

    A URL in the environment replaces the host and port of the file, instead of contradicting them. What a URL
    says of credentials goes with it; fields of their own stay where they can still apply.
    """
    url, host = higher.get("url"), higher.get("host")
    if url is None and host is None:
        return _without_overridden(lower, higher)
    dropped: set[str] = set()
    if isinstance(host, str):
        dropped = {"url", "sentinel_username", "sentinel_password"}
    if isinstance(url, str):
        dropped = {"host", "port"}
        try:
            parsed = parse_redis_url(url)
        except ValueError:  # the validation will say so
            return {key: value for key, value in lower.items() if key not in dropped}
        kind = parsed.address.kind
        if parsed.username or parsed.password or kind == "embedded":
            dropped |= {"username", "password"}
        if parsed.db is not None or kind in ("cluster", "embedded"):
            dropped.add("db")
        if kind != "sentinel":
            dropped |= {"sentinel_username", "sentinel_password"}
        if kind not in TLS_KINDS or (kind == "tcp" and not parsed.address.tls):
            dropped |= set(TLS_FIELDS)
        if parsed.address.tls:
            dropped.add("ssl")
    return {key: value for key, value in lower.items() if key not in dropped}


def _without_overridden(lower: Mapping[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """`lower` with its URL saying nothing that `higher` sets by a field of its own."""
    split, problems = split_url(dict(lower))
    if problems or not isinstance(split.get("url"), str):
        return dict(lower)
    if higher.get("db") is not None:
        split["url"] = str(parse_redis_url(split["url"]).address)
    return split


def server_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the `redis` section after `split_url`."""
    given = {name for name, value in data.items() if value is not None}
    url = data.get("url")
    kind = "embedded"
    tls_possible = False
    if isinstance(url, str):
        for name in sorted(given & {"host", "port"}):
            text = f"contradicts url: give either url or host and port, not {name} as well"
            yield Problem((name,), data[name], text)
        try:
            address = parse_redis_url(url).address
        except ValueError:
            return
        kind = address.kind
        tls_possible = kind in TLS_KINDS and (kind != "tcp" or address.tls)
    elif "host" in given:
        kind, tls_possible = "tcp", True
    elif "port" in given:
        yield Problem(("port",), data["port"], "needs a host beside it")
        return
    if kind == "embedded":
        for name in ("username", "password"):
            if name in given:
                text = "needs a server to log in to: give url or host (the embedded server has no passwords)"
                yield Problem((name,), None, text)
    if kind == "cluster" and data.get("db"):
        yield Problem(("db",), data["db"], f"must be 0 in a cluster, not {value_text(data['db'])}")
    if kind != "sentinel":
        for name in sorted(given & {"sentinel_username", "sentinel_password"}):
            yield Problem((name,), None, "is for sentinel:// urls only")
    yield from _tls_contradictions(data, given, kind, tls_possible)


def _tls_contradictions(
    data: Mapping[str, Any], given: set[str], kind: str, possible: bool
) -> Iterator[Problem]:
    if not possible:
        how = {
            "tcp": "write the url with rediss://",
            "unix": "a unix socket has no TLS",
            "embedded": "the embedded server has no TLS; give the url or host of another",
        }[kind]
        for name in TLS_FIELDS:
            if name in given and not (name == "ssl" and data[name] is False):
                yield Problem((name,), data[name], f"has no effect without TLS: {how}")
        return
    if data.get("ssl") is not True:
        for name in TLS_DETAILS:
            if name in given:
                yield Problem((name,), data[name], "has no effect without TLS: add `ssl: true`")
        return
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        yield Problem(("ssl_keyfile",), None, "needs ssl_certfile beside it: the key of which certificate?")
    if data.get("ssl_cert_reqs") == "none":
        if data.get("ssl_check_hostname") is True:
            text = "cannot be true with ssl_cert_reqs none: a certificate that is not checked proves no name"
            yield Problem(("ssl_check_hostname",), True, text)
        if "ssl_ca_certs" in given:
            yield Problem(("ssl_ca_certs",), None, "has no effect with ssl_cert_reqs none")


def durability_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Between `queue.durability` and the server, of the whole configuration."""
    queue, redis = data.get("queue"), data.get("redis")
    durability = _field(queue, "durability")
    if durability not in ("replicated", "fsync"):
        return
    url = _field(redis, "url")
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    embedded = scheme == "embedded" or (not scheme and _field(redis, "host") is None)
    if embedded and durability == "replicated":
        text = "needs a server with replicas, and the embedded server has none: give redis.url, or use fsync"
        yield Problem(("queue", "durability"), durability, text)
    if scheme == "cluster":
        text = "is not possible with cluster://: use redis:// or sentinel://"
        yield Problem(("queue", "durability"), durability, text)


def _field(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)
