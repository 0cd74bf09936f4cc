"""Which errors mean that the server is away, or cannot serve now."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fairque.core.exceptions import FairQueueError, QueueUnavailableError, ServerNotFoundError

# Replies of a server that is there but cannot serve now: nothing has run.
_NOT_NOW = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "BUSY", "TRYAGAIN", "NOREPLICAS")
# redis-py takes the code off the text of some.
_NOT_NOW_KINDS = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
# They say something of this client, or of its configuration.
_OWN_FAULTS = (AuthenticationError, AuthorizationError, MaxConnectionsError, ServerNotFoundError)


def cannot_serve(error: ResponseError) -> bool:
    """Whether the reply is that of a server that is there, but takes no calls now."""
    return isinstance(error, _NOT_NOW_KINDS) or str(error).partition(" ")[0] in _NOT_NOW


def is_outage(error: BaseException) -> bool | None:
    """Whether what came instead of a reply means that the server is away; None: it says nothing of the server."""
    match error:
        case _ if isinstance(error, _OWN_FAULTS):
            return None
        case ResponseError():
            return cannot_serve(error)
        case _ if "[SSL: CERTIFICATE" in str(error):
            return None
        case QueueUnavailableError() | RedisConnectionError() | RedisTimeoutError():
            return True
        case OSError() if not isinstance(error, FairQueueError):
            return True
        case _:
            return None
