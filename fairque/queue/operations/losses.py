"""What the server tells of incarnations that are dead, and of the tasks that they held.

Whoever has them given back is told, six values for each (scripts/lib/sweep.lua), and nobody else: a reply that is lost
takes its news with it. What counts is in the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from fairque.core.keys import decode

_unpack = msgspec.msgpack.Decoder(strict=False).decode
WIDTH = 6


class Fate(Enum):
    """What became of a task whose worker died."""

    UNBEGUN = b"0"
    AGAIN = b"1"
    BURIED = b"2"
    CANCELED = b"3"


@dataclass(frozen=True, slots=True)
class Loss:
    """A task that a dead incarnation held."""

    incarnation: str
    task_id: str
    user_id: str
    function: str
    fate: Fate
    attempt: int


@dataclass(frozen=True, slots=True)
class Death:
    """An incarnation that is dead, and of whose tasks `recovered` were queued again."""

    incarnation: str
    worker_id: str
    recovered: int


def read_news(news: Sequence[bytes]) -> Iterator[Loss | Death]:
    """What the values say."""
    for start in range(0, len(news), WIDTH):
        incarnation, fields, task_id, user, function, rest = news[start : start + WIDTH]
        if task_id:
            yield Loss(
                incarnation.decode(), decode(task_id.decode()), decode(user.decode()), function.decode(),
                Fate(rest[:1]), int(rest[1:]),
            )  # fmt: skip
        else:
            told = _unpack(fields) if fields else {}
            yield Death(incarnation.decode(), str(told.get("worker_id") or ""), int(rest))
