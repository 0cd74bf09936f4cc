"""The life of a claim: join, settle and claim, renew, leave.

A `Session` is one incarnation as its process knows it: its name, its call number, and the call whose reply it
has not got. Calls of one session go one after the other (the facades hold a lock); a call whose reply was
lost is sent again under its number and gets the answer that the server kept, so nothing is claimed and
forgotten.
"""

from __future__ import annotations

import hashlib
import os
import string
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import msgspec

from fairque.core.exceptions import (
    FairQueueError,
    InvalidTaskError,
    NotReplicatedError,
    QueueUnavailableError,
    SerializationError,
    StaleClaimError,
    WorkerDeadError,
)
from fairque.core.graph import is_mapped
from fairque.core.keys import encode
from fairque.core.models import Task
from fairque.core.record import INCARNATION_CHARS, token_in
from fairque.core.references import may_hold_references
from fairque.queue.operations import mapping
from fairque.queue.operations.base import Argument, Call, Engine, Flow
from fairque.queue.operations.outputs import fill_in
from fairque.queue.operations.records import to_task

_CHARS = bytes((string.digits + string.ascii_letters).encode()[byte % 62] for byte in range(256))
_pack = msgspec.msgpack.Encoder().encode
MAX_USERS = 1000


def new_incarnation() -> str:
    """A random name of a worker process, new at every start: 65 bits."""
    return os.urandom(INCARNATION_CHARS).translate(_CHARS).decode()


class Settled(IntEnum):
    """What the server did with an outcome (the codes of lib/settle.lua)."""

    STALE = 0
    FINISHED = 1
    RETRIED = 2
    FAILED = 3
    RELEASED = 4
    SNOOZED = 5
    CANCELED = 6
    PASSED_ON = 7


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """How a claim ends. What `first` and `second` say is the kind's (scripts/lib/settle.lua)."""

    task_id: str
    token: bytes
    kind: str
    seconds: float = 0.0
    first: bytes = b""
    second: int = 0


KINDS = ("finish", "fail", "invalid", "release", "snooze", "discard", "unknown", "crash")
"""The kinds of settlements; their numbers on the wire begin with 1, as in settle_and_claim.lua."""
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS, 1)}
_pack_outcome = struct.Struct(">BHIdd16s").pack
_SETTLED = tuple(Settled)


@dataclass(slots=True)
class Session:
    """One incarnation. `entry`: which worker entry it serves as (encoded), empty for everybody's. `lost` is the last
    call if its reply never came.
    """

    slots: int
    entry: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    functions: Sequence[str] = ()
    incarnation: str = field(default_factory=new_incarnation)
    joined: bool = False
    sequence: int = 0
    lost: Call | None = None
    news: list[bytes] = field(default_factory=list)
    """Of the dead (losses.py), as renewals brought them, until somebody tells them."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one settle and claim brought.

    `due_in`: seconds until the caller should call again, or None. `held`: with a digest that differed, what
    the server holds as this incarnation's, and `malformed` the claims whose records could not be read (id,
    token). `refers`: there may be tasks whose arguments name what others returned (`complete`). `news`: of the dead
    (losses.py).
    """

    codes: tuple[Settled, ...]
    claimed: tuple[Task[Any], ...]
    due_in: float | None
    cancels: tuple[str, ...]
    held: tuple[Task[Any], ...] | None
    malformed: tuple[tuple[str, bytes, FairQueueError], ...]
    refers: bool = False
    news: Sequence[bytes] = ()


def join(engine: Engine, session: Session) -> Flow[None]:
    """Take a lease for this incarnation."""
    yield engine.call(
        "join",
        session.incarnation,
        session.slots,
        session.entry,
        _pack(dict(session.fields)),
        _pack(list(session.functions)),
    )
    session.joined = True


def digest(tokens: Iterable[bytes]) -> str:
    """What a worker and the server compare to see that they mean the same claims."""
    return hashlib.sha1(b"".join(sorted(tokens)), usedforsecurity=False).hexdigest()


def settle_and_claim(
    engine: Engine,
    session: Session,
    *,
    want: int = 0,
    settlements: Sequence[Settlement] = (),
    park: bool = False,
    only_if_none: bool = False,
    others_block: bool = False,
    holding: Iterable[bytes] | None = None,
    users: Sequence[str] = (),
) -> Flow[Exchange]:
    """Settle what ended, then claim up to `want` tasks, in one call.

    `park`: the caller will block on its wake list if it gets less (`only_if_none`: if it gets none).
    `others_block`: others of its incarnation do so already, and stay. `holding`: tokens that it holds after
    these settlements, to be compared; also renews the lease.

    Raises:
        WorkerDeadError: this incarnation was declared dead, or has never joined.
        NotReplicatedError: it is done, but not as durable as it should be; the error has the reply.
        InvalidTaskError: a user id is none, or there are over 1,000.
    """
    call = exchange_call(
        engine, session, want, settlements, int(park) + 2 * others_block + 4 * only_if_none, holding, users
    )
    return (yield from _answer(engine, session, call))


def _answer(engine: Engine, session: Session, call: Call) -> Flow[Exchange]:
    """What the reply says. Once it was read, the call is not lost, also if it is not as durable as it should be."""
    try:
        reply = yield call
    except NotReplicatedError:
        session.lost = None
        raise
    exchange = yield from complete(engine, exchange_in(reply))
    session.lost = None
    return exchange


def exchange_call(
    engine: Engine,
    session: Session,
    want: int,
    settlements: Sequence[Settlement],
    parking: int,
    holding: Iterable[bytes] | None,
    users: Sequence[str] = (),
) -> Call:
    """The call of `settle_and_claim`; `exchange_in` reads its reply. `parking`: as the script takes it."""
    if len(users) > MAX_USERS:
        raise InvalidTaskError(
            f"pop takes up to {MAX_USERS} users, not {len(users)}: leave users out for all"
        )
    only = _pack([encode(user) for user in users]) if users else b""
    session.sequence += 1
    call = engine.call(
        "settle_and_claim",
        session.incarnation,
        session.sequence,
        os.urandom(8),
        want,
        parking,
        "" if holding is None else digest(holding),
        only,
        pack_outcomes(settlements),
    )
    session.lost = call
    return call


def claimed_in(reply: Any) -> int:
    """How many tasks a reply brings."""
    return len(reply[2]) // 2


def only_claims(reply: Any) -> bool:
    """Whether a reply brings tasks, and nothing that must be looked at at once."""
    return not reply[4] and not reply[5]


def pack_outcomes(settlements: Sequence[Settlement]) -> bytes:
    """One argument for all: hundreds of arguments take longer to send and to read than what they say."""
    parts: list[bytes] = []
    for one in settlements:
        name = one.task_id.encode()
        parts += (
            _pack_outcome(
                _KIND_NUMBERS[one.kind], len(name), len(one.first), one.seconds, one.second, one.token
            ),
            name,
            one.first,
        )
    return b"".join(parts)


def fetch_lost(engine: Engine, session: Session) -> Flow[Exchange | None]:
    """The answer to the call whose reply was lost (a cancelled await, a broken connection), or None."""
    if session.lost is None:
        return None
    return (yield from _answer(engine, session, session.lost))


def exchange_in(reply: Any) -> Exchange:
    """What a reply says; `complete` fetches what it only names."""
    _replayed, codes, deliveries, due, cancels, held, news = reply
    malformed: list[tuple[str, bytes, FairQueueError]] = []
    due_micros = float(due)
    refers = any(map(may_hold_references, deliveries[1::2])) or any(map(may_hold_references, held[1::2]))
    return Exchange(
        codes=tuple([_SETTLED[code] for code in codes]),
        claimed=_tasks(deliveries, malformed),
        due_in=due_micros / 1e6 if due_micros else None,
        cancels=tuple([task_id.decode() for task_id in cancels]),
        held=_tasks(held[:-1], malformed) if held else None,
        malformed=tuple(malformed),
        refers=refers,
        news=news,
    )


def _tasks(flat: list[bytes], malformed: list[tuple[str, bytes, FairQueueError]]) -> tuple[Task[Any], ...]:
    tasks: list[Task[Any]] = []
    for task_id, data in zip(flat[::2], flat[1::2], strict=True):
        try:
            tasks.append(to_task(task_id, data))
        except SerializationError as error:
            malformed.append((task_id.decode(), token_in(data), error))
    return tuple(tasks)


def complete(engine: Engine, exchange: Exchange) -> Flow[Exchange]:
    """Put what others returned into the arguments that name it, and go on with maps; most need nothing.

    A claim that cannot be completed joins the `malformed` ones.
    """
    if not exchange.refers:
        return exchange
    malformed = list(exchange.malformed)
    claimed = yield from _completed(engine, exchange.claimed, malformed)
    held = exchange.held
    if held is not None:
        held = yield from _completed(engine, held, malformed)
    return replace(exchange, claimed=claimed, held=held, malformed=tuple(malformed), refers=False)


def _completed(
    engine: Engine, tasks: tuple[Task[Any], ...], malformed: list[tuple[str, bytes, FairQueueError]]
) -> Flow[tuple[Task[Any], ...]]:
    plain: list[Task[Any]] = []
    for task in tasks:
        if not is_mapped(task):
            plain.append(task)
            continue
        try:
            yield from mapping.advance(engine, task)
        except QueueUnavailableError:
            raise  # this very call is made again
        except FairQueueError as error:
            malformed.append((encode(task.task_id), token_of(task), error))
    filled, failed = yield from fill_in(engine, plain)
    malformed.extend(
        (encode(task.task_id), token_of(task), failed[task.task_id])
        for task in plain
        if task.task_id in failed
    )
    return tuple(filled[task.task_id] for task in plain if task.task_id in filled)


def renew(
    engine: Engine, session: Session, tasks: Sequence[Task[Any]] = (), announce: bool = False
) -> Flow[list[int]]:
    """Renew the lease. For each task: 1 held, 0 lost, 2 a cancel was asked for.

    Raises:
        WorkerDeadError: this incarnation was declared dead.
    """
    functions = _pack(list(session.functions)) if announce and session.functions else b""
    argv: list[Argument] = []
    for task in tasks:
        argv += [encode(task.task_id, "task_id"), token_of(task)]
    reply: list[Any] = yield engine.call("renew", session.incarnation, functions, *argv)
    session.news += reply[len(tasks) :]
    return reply[: len(tasks)]


def renew_claims(engine: Engine, session: Session, tasks: Sequence[Task[Any]]) -> Flow[list[Task[Any]]]:
    """Renew the lease; returns those of the tasks that somebody asked to cancel.

    Raises:
        StaleClaimError: a claim was lost, or is another session's.
    """
    try:
        codes = yield from renew(engine, session, tasks)
    except WorkerDeadError:
        codes = [0] * len(tasks)
    for task, code in zip(tasks, codes, strict=True):
        if code == 0:
            raise StaleClaimError(
                f"the claim of task {task.task_id} is lost: stop working on it",
                task_id=task.task_id,
                user_id=task.user_id,
            )
    return [task for task, code in zip(tasks, codes, strict=True) if code == 2]


def leave(engine: Engine, incarnation: str, begun: Iterable[bytes] | None = ()) -> Flow[int]:
    """The incarnation is out: its tasks go back at once; returns how many.

    `begun`: tokens of claims whose tasks had begun, which are counted as crashed; None: all had; empty: none.
    """
    total, _news = yield from give_back(engine, incarnation, begun)
    return total


def give_back(
    engine: Engine, incarnation: str, begun: Iterable[bytes] | None = ()
) -> Flow[tuple[int, list[bytes]]]:
    """As `leave`, with the news of what was given back (losses.py)."""
    tokens = None if begun is None else list(begun)
    mode = 1 if tokens is None else 2 if tokens else 0
    total = 0
    news: list[bytes] = []
    while True:
        done: int
        done, finished, more = yield engine.call("leave", incarnation, mode, *(tokens or ()))
        total += done
        news += more
        if finished:
            return total, news


def token_of(task: Task[Any]) -> bytes:
    """The claim's token.

    Raises:
        StaleClaimError: the task was not claimed.
    """
    if task.claim is None:
        raise StaleClaimError(
            f"task {task.task_id} carries no claim: only a task that pop() returned can be settled",
            task_id=task.task_id,
            user_id=task.user_id,
        )
    return task.claim.token
