"""Who serves whom: the users that worker entries name, published for the scheduler as one generation.

A generation replaces the one before as a whole, once all of it is there, so no claim ever sees half of a change.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fairque.core.config import WorkerConfig
from fairque.core.exceptions import FairQueueError
from fairque.core.keys import encode
from fairque.queue.operations.base import Argument, Engine, Flow, chunked

USERS_A_CALL = 500
ATTEMPTS = 10
_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Assignment:
    """Users with the entries that name them, and entries with what they serve besides; all encoded.

    The views of a user are words: `o` and the entry that it is assigned to, `t` and an entry that lists it among its
    steal targets. `digest` is the same for the same content.
    """

    views: dict[str, tuple[str, ...]]
    entries: dict[str, dict[str, str]]
    digest: str


def encode_entry(worker_id: str) -> str:
    """The form in which the id of a worker entry stands in a view: as in a key, and without spaces."""
    return encode(worker_id, "worker id").replace(" ", "%20")


def assignment(workers: Sequence[WorkerConfig]) -> Assignment:
    """What the entries of a configuration say."""
    views: defaultdict[str, list[str]] = defaultdict(list)
    entries: dict[str, dict[str, str]] = {}
    for worker in workers:
        entry = encode_entry(worker.id)
        own, steal = worker.assigned_users, worker.steal_targets
        entries[entry] = {
            "own": "*" if own == "*" else "list",
            "steal": "*" if steal == "*" else "list" if steal else "none",
        }
        for mark, users in (("o", own), ("t", steal)):
            for user in users if users != "*" else ():
                views[encode(user)].append(mark + entry)
    # Sorted, so that the order in a file makes no difference.
    sorted_views = {user: tuple(sorted(words)) for user, words in sorted(views.items())}
    sorted_entries = dict(sorted(entries.items()))
    digest = hashlib.sha1(_pack([sorted_views, sorted_entries]), usedforsecurity=False).hexdigest()
    return Assignment(sorted_views, sorted_entries, digest)


def publish(engine: Engine, wanted: Assignment) -> Flow[bool]:
    """Put `wanted` in force, and place the users anew whose place it changes; False: it was in force already.

    Several workers may do so at once, and what they send is told apart by its digest; the last to commit wins.
    """
    if not int((yield engine.call("assign", "begin", wanted.digest))):
        # What is in force may still be waited for, if its publisher died.
        yield from _reindex(engine)
        return False
    yield from _add(engine, wanted)
    for _ in range(ATTEMPTS):
        done = yield engine.call("assign", "commit", wanted.digest, _pack(wanted.entries))
        # Not done: the change before, of whoever made it, comes first.
        yield from _reindex(engine)
        if int(done):
            return True
    raise FairQueueError(
        "the assignment of users to worker entries is being changed all the time: something else publishes another "
        "again and again; give all workers of a queue the same configuration"
    )


def _reindex(engine: Engine) -> Flow[None]:
    """Place all users anew whose place a change has made doubtful."""
    while int((yield engine.call("assign", "reindex", USERS_A_CALL))) > 0:
        pass


def _add(engine: Engine, wanted: Assignment) -> Flow[None]:
    argv: list[Argument] = []
    for user, words in wanted.views.items():
        argv += [user, " ".join(words)]
    sizes = [len(argv[i + 1]) for i in range(0, len(argv), 2)]  # type: ignore[arg-type]
    for part in chunked(argv, 2, sizes, USERS_A_CALL):
        yield engine.call("assign", "add", wanted.digest, *part)
