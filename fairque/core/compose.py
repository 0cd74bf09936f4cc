"""What tasks, groups and pipelines have in common: the operators that compose them.

``a >> b`` runs b after a, ``a << b`` the other way round, and ``a | b`` puts both side by side. A list or a
tuple of tasks is a group wherever the other operand is a task, a group or a pipeline. Nothing is changed by
composing: each operator makes a new value, in constant time, that shares its operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

if TYPE_CHECKING:
    # To type checkers, `Task` alone is `Task[Any]`. Python itself knows such defaults from 3.13 on.
    from typing_extensions import TypeVar

    from fairque.core.models import Task
    from fairque.core.pipeline import Group, Pipeline

    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)

S = TypeVar("S")


class Node(Generic[R_co]):
    """A task, a group or a pipeline. `R_co` is what a task or a pipeline gives, and each member of a group.

    The operators refuse what is no node: with `TypeError` as Python does, and with `InvalidTaskError` where a
    list holds something else, or a task function was not called.
    """

    __slots__ = ()

    @overload
    def __rshift__(self, other: Task[S] | Pipeline[S], /) -> Pipeline[S]: ...
    @overload
    def __rshift__(self, other: Group[S] | Sequence[Node[S]], /) -> Pipeline[list[S]]: ...
    def __rshift__(self, other: Any, /) -> Any:
        from fairque.core.pipeline import chain

        return chain(self, other)

    def __rrshift__(self, other: Sequence[Node[object]], /) -> Pipeline[R_co]:
        from fairque.core.pipeline import chain

        return chain(other, self)

    def __lshift__(self, other: Node[object] | Sequence[Node[object]], /) -> Pipeline[R_co]:
        from fairque.core.pipeline import chain

        return chain(other, self)

    def __rlshift__(self, other: Sequence[Node[S]], /) -> Pipeline[list[S]]:
        from fairque.core.pipeline import chain

        return chain(self, other)

    def __or__(self, other: Node[S] | Sequence[Node[S]], /) -> Group[R_co | S]:
        from fairque.core.pipeline import beside

        return beside(self, other)

    def __ror__(self, other: Sequence[Node[S]], /) -> Group[S | R_co]:
        from fairque.core.pipeline import beside

        return beside(other, self)
