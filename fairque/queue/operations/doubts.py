"""Pushes of which nobody knows whether they were carried out, or whether that will last.

Each push has an operation id, by which the server tells a repetition from a second task of the same id. The caller who
pushes the same task once more means the same push, so it gets the same operation id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from fairque.core.exceptions import QueueUnavailableError

MOST = 10_000


class Doubts:
    """Of one queue object: operation ids by task id, the oldest forgotten beyond `MOST`."""

    def __init__(self, new: Callable[[], bytes]) -> None:
        self._new = new
        self._under_way: OrderedDict[str, bytes] = OrderedDict()
        self._doubtful: OrderedDict[str, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._doubtful)

    def op_for(self, task_id: str) -> bytes:
        """The operation id for a push of this task: that of the push in doubt, if there was one."""
        op = (self._doubtful.pop(task_id, None) if self._doubtful else None) or self._new()
        self._under_way.setdefault(task_id, op)  # of two in one batch, the first is stored
        _trim(self._under_way)
        return op

    @contextmanager
    def about(self, task_ids: Iterable[str]) -> Generator[None]:
        """Around a push: it leaves no doubt, unless nobody answers, or nobody waits for the answer any more."""
        try:
            yield
        except (QueueUnavailableError, GeneratorExit):
            for task_id in task_ids:
                if (op := self._under_way.pop(task_id, None)) is not None:
                    self._doubtful[task_id] = op
            _trim(self._doubtful)
            raise
        except BaseException:
            self._settle(task_ids)
            raise
        self._settle(task_ids)

    def _settle(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._under_way.pop(task_id, None)


def _trim(ops: OrderedDict[str, bytes]) -> None:
    while len(ops) > MOST:
        ops.popitem(last=False)
