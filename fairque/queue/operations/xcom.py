"""XCom: small values that the tasks of a user leave for each other, by namespace and key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from fairque.core.checks import check_seconds
from fairque.core.codec import decode_value, encode_value
from fairque.core.exceptions import InvalidTaskError, PayloadTooLargeError, XComNotFoundError
from fairque.core.keys import decode, encode
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.results import WATCH_SECONDS
from fairque.queue.operations.tasks import Page

DEFAULT_USER = "default"
DEFAULT_NAMESPACE = "default"
PAGE = 1000
CHUNK = 500


def place(user_id: str, namespace: str, key: str) -> tuple[str, str, str]:
    """The encoded parts of a value's name.

    Raises:
        InvalidTaskError: one of them is empty or too long.
    """
    return encode(user_id, "user_id"), encode(namespace, "namespace"), encode(key, "key")


def push(
    engine: Engine,
    key: str,
    value: Any,
    user_id: str = DEFAULT_USER,
    namespace: str = DEFAULT_NAMESPACE,
    ttl: float | timedelta | None = None,
) -> Flow[None]:
    """Leave a value, in the place of one that is there. `ttl` in seconds; None: `xcom_ttl_seconds`.

    Raises:
        PayloadTooLargeError: it is over `max_result_bytes`.
        SerializationError: it is no data.
        QueueFullError: the server has no memory for it.
    """
    yield from push_encoded(engine, key, encode_value(value, f"XCom {key!r}"), user_id, namespace, ttl)


def push_encoded(
    engine: Engine, key: str, data: bytes, user_id: str, namespace: str, ttl: float | timedelta | None
) -> Flow[None]:
    """As `push`, of a value that is encoded."""
    limit = engine.config.max_result_bytes
    if len(data) > limit:
        raise PayloadTooLargeError(
            f"XCom {key!r} of user {user_id!r} takes {len(data):,} bytes encoded; the limit is {limit:,} "
            "(queue.max_result_bytes): store the data elsewhere and push where",
            user_id=user_id,
        )
    seconds = engine.config.xcom_ttl_seconds if ttl is None else check_seconds(ttl, "ttl", zero=False)
    yield engine.call("xcom_push", *place(user_id, namespace, key), data, max(1, round(seconds * 1e3)))


def pull_encoded(engine: Engine, key: str, user_id: str, namespace: str) -> Flow[bytes | None]:
    """The encoded value, or None."""
    data: bytes | None = yield engine.call("xcom_pull", *place(user_id, namespace, key))
    return data


def watch(engine: Engine, key: str, user_id: str, namespace: str, client: str) -> Flow[bytes | None]:
    """As `pull_encoded`; news of a push is put on the client's list from now on."""
    ttl = round(WATCH_SECONDS * 1e3)
    data: bytes | None = yield engine.call("xcom_watch", *place(user_id, namespace, key), client, ttl)
    return data


def subject(key: str, user_id: str, namespace: str) -> str:
    """Under what a listener hears of a value."""
    return ":".join(("x", *place(user_id, namespace, key)))


def list_keys(
    engine: Engine,
    user_id: str = DEFAULT_USER,
    namespace: str = DEFAULT_NAMESPACE,
    cursor: str | None = None,
    limit: int = 100,
) -> Flow[Page[str]]:
    """One page of the keys of a namespace, those that expire first before the others.

    Raises:
        InvalidTaskError: the cursor or the limit is wrong.
    """
    if not 1 <= limit <= PAGE:
        raise InvalidTaskError(f"a page has 1 to {PAGE} keys, not {limit}")
    if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
        raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
    start = int(cursor or 0)
    user, space, _ = place(user_id, namespace, "-")
    names = yield engine.call("xcom_list", user, space, start, limit)
    keys = tuple(decode(name.decode()) for name in names)
    return Page(keys, str(start + limit) if len(keys) == limit else None)


def delete(
    engine: Engine, keys: Sequence[str], user_id: str = DEFAULT_USER, namespace: str = DEFAULT_NAMESPACE
) -> Flow[int]:
    """Remove values; returns how many there were."""
    user, space, _ = place(user_id, namespace, "-")
    total = 0
    for start in range(0, len(keys), CHUNK):
        names = [encode(key, "key") for key in keys[start : start + CHUNK]]
        gone, _left = yield engine.call("xcom_delete", user, space, *names)
        total += gone
    return total


def delete_namespace(
    engine: Engine, user_id: str = DEFAULT_USER, namespace: str = DEFAULT_NAMESPACE
) -> Flow[int]:
    """Remove all values of a namespace; returns how many there were."""
    user, space, _ = place(user_id, namespace, "-")
    total = 0
    left = 1
    while left:
        gone, left = yield engine.call("xcom_delete", user, space)
        total += gone
    return total


def missing(key: str, user_id: str, namespace: str) -> XComNotFoundError:
    """The error for a value that is not there."""
    return XComNotFoundError(user_id=user_id, namespace=namespace, key=key)


def value_of(data: bytes) -> Any:
    return decode_value(data)
