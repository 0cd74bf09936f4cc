"""What a forked process does with the queue objects that it finds in its memory: each begins anew.

Sockets, threads, the lease and whatever is under way are the parent's. Two processes on one socket read each other's
replies, and a lock that a thread of the parent held is never released in the child. So the child's objects get
connections, locks, a session and a name on the server of their own, when they are first used there. It costs nothing
until somebody forks.
"""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something with connections."""

    def _begin_anew(self) -> list[Any]: ...


_known: WeakSet[Any] = WeakSet()
# Never closed here: to say goodbye on a parent's socket, or to take it out of an event loop that both processes watch,
# would be noticed by the parent.
_inherited: list[Any] = []


def begins_anew(one: Forkable) -> None:
    """From now on, a forked child calls `_begin_anew` of it first, and keeps what that returns as long as it lives."""
    _known.add(one)


def _after_fork() -> None:
    _inherited.extend([one._begin_anew() for one in list(_known)])


os.register_at_fork(after_in_child=_after_fork)
