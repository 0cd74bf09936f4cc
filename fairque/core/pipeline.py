"""Groups and pipelines: the values that `>>`, `<<` and `|` build, and how they become a graph.

A value holds its two operands and no more, so composing takes constant time and shares what it composes; a
chain of 10,000 tasks is a chain of 10,000 values. They are laid out once, at the end, without recursion and in
a time that is linear in what was written and in the dependencies that come of it.

The rule: of ``a >> b``, the last tasks of a are what the first tasks of b wait for. The first and last tasks of
a group are those of all its members, and an empty group lets through what is before it to what comes after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from fairque.core.checks import check_text
from fairque.core.compose import Node, R_co
from fairque.core.exceptions import GraphTooLargeError, InvalidTaskError
from fairque.core.graph import Graph, is_mapped
from fairque.core.keys import encode
from fairque.core.mermaid import flowchart
from fairque.core.models import Task, new_task_id
from fairque.core.references import EachRef, OutputRef

if TYPE_CHECKING:
    from fairque.core.decorator import TaskFunction

D = TypeVar("D")
S = TypeVar("S")
Q = ParamSpec("Q")

MAX_EDGES = 1_000_000
MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Composite(Node[R_co]):
    """What groups and pipelines share: as a workflow, they have an id and a name.

    Raises:
        InvalidTaskError: the name or the id is empty, too long, or no text.
    """

    name: str | None = None
    workflow_id: str = field(default_factory=new_task_id)

    def with_options(self, *, name: str | None = None, workflow_id: str | None = None) -> Self:
        """The same tasks as a workflow of this name and this id; what is not given stays.

        Raises:
            InvalidTaskError: the name or the id is empty, too long, or no text.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = check_text(name, "the name of a workflow", MAX_NAME_BYTES)
        if workflow_id is not None:
            encode(workflow_id, "workflow_id")
            changes["workflow_id"] = workflow_id
        return dataclasses.replace(self, **changes)

    def graph(self) -> Graph:
        """The tasks and what each waits for, checked.

        Raises:
            CycleError: tasks wait for each other; the error names them.
            GraphTooLargeError: there are more than a million dependencies.
            InvalidTaskError: two tasks have one id, or a task came from the server.
        """
        graph = to_graph(self)
        graph.order()
        return graph

    def visualize(self) -> str:
        """A picture of it, as a Mermaid flowchart. A cycle is drawn, not refused.

        Raises:
            GraphTooLargeError: there are more than a million dependencies.
            InvalidTaskError: two tasks have one id, or a task came from the server.
        """
        return flowchart(to_graph(self))

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__}{name} of {len(_Layout(self).tasks)} tasks>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Group(Composite[R_co]):
    """Tasks, and pipelines, side by side: none waits for another."""

    parts: tuple[Node[Any], ...]
    is_empty: bool = field(init=False)
    """Whether there is no task in it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_empty", all(map(_is_empty, self.parts)))

    @property
    def members(self) -> tuple[Node[R_co], ...]:
        """The tasks and pipelines in it, in order. A group within the group is its members."""
        found: list[Node[Any]] = []
        stack: list[Node[Any]] = [self]
        while stack:
            node = stack.pop()
            if isinstance(node, Group):
                stack.extend(reversed(node.parts))
            else:
                found.append(node)
        return tuple(found)

    @property
    def outputs(self) -> list[R_co]:
        """What its members will return, in order, for use as an argument: `Task.output` of each.

        Raises:
            InvalidTaskError: it has other members beside a `map()` over an output, whose number of items is
            not known yet.
        """
        return cast(list[R_co], self._outputs({}))

    def outputs_or(self, default: D) -> list[R_co | D]:
        """As `outputs`, with `default` in the place of each member that fails or is canceled.

        Raises:
            InvalidTaskError: it has other members beside a `map()` over an output.
        """
        return cast(list[R_co | D], self._outputs({"default": default}))

    def _outputs(self, options: dict[str, Any]) -> Any:
        members: tuple[Node[Any], ...] = self.members
        mapped = [node for node in members if isinstance(node, Task) and is_mapped(node)]
        if not mapped:
            return [_output(node, options) for node in members]
        if len(members) > 1:
            raise InvalidTaskError(
                f"task {mapped[0].task_id} runs for each item of an output, so how many outputs this group has is not "
                "known yet: pass the outputs of that map(), and those of the others, as arguments of their own",
                task_id=mapped[0].task_id,
            )
        return OutputRef(mapped[0].task_id, of_each=bool(options), **options)

    def reduce(
        self,
        function: Callable[Concatenate[list[R_co], Q], Task[S]],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> Pipeline[S]:
        """This group, then a task of `function` with the list of all outputs as its first argument."""
        return self >> function(self.outputs, *args, **kwargs)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pipeline(Composite[R_co]):
    """`before`, then `after`."""

    before: Node[Any]
    after: Node[Any]
    # The task or group whose first (last) tasks are those of the whole, and the one whose output is.
    _first: Node[Any] = field(init=False)
    _last: Node[Any] = field(init=False)
    _end: Node[Any] = field(init=False)

    def __post_init__(self) -> None:
        first = self.after if _is_empty(self.before) else self.before
        last = self.before if _is_empty(self.after) else self.after
        object.__setattr__(self, "_first", first._first if isinstance(first, Pipeline) else first)
        object.__setattr__(self, "_last", last._last if isinstance(last, Pipeline) else last)
        object.__setattr__(self, "_end", self.after._end if isinstance(self.after, Pipeline) else self.after)

    @property
    def is_empty(self) -> bool:
        """Whether there is no task in it."""
        return _is_empty(self._first)

    @property
    def output(self) -> R_co:
        """What its last part will return, for use as an argument: of a group, the list of its outputs.

        Raises:
            InvalidTaskError: the last part is a group that has other members beside a `map()` over an output.
        """
        return cast(R_co, _output(self, {}))


def _is_empty(node: Node[Any]) -> bool:
    return isinstance(node, Group | Pipeline) and node.is_empty


def _output(node: Node[Any], options: dict[str, Any]) -> Any:
    end = node._end if isinstance(node, Pipeline) else node
    return (
        end._outputs(options)
        if isinstance(end, Group)
        else OutputRef(cast(Task[Any], end).task_id, **options)
    )


def as_node(value: Any) -> Node[Any] | None:
    """An operand as a node: a list or a tuple is a group. None if it is nothing that can be composed.

    Raises:
        InvalidTaskError: it is a task function, or a list that holds something else than tasks.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, list | tuple):
        parts = [as_node(item) for item in value]
        for index, part in enumerate(parts):
            if part is None:
                raise InvalidTaskError(
                    f"a list that is composed holds tasks, groups and pipelines; [{index}] is {value[index]!r}"
                )
        return Group(cast(tuple[Node[Any], ...], tuple(parts)))
    from fairque.core.decorator import TaskFunction

    if isinstance(value, TaskFunction):
        raise InvalidTaskError(
            f"{value.name} is a task function, not a task: call it with its arguments to build one"
        )
    return None


def chain(before: Any, after: Any) -> Pipeline[Any]:
    """``before >> after``; NotImplemented if one of them cannot be composed."""
    first, then = as_node(before), as_node(after)
    return cast(Any, NotImplemented) if first is None or then is None else Pipeline(first, then)


def beside(one: Any, other: Any) -> Group[Any]:
    """``one | other``; NotImplemented if one of them cannot be composed."""
    left, right = as_node(one), as_node(other)
    return cast(Any, NotImplemented) if left is None or right is None else Group((left, right))


def fan_out(
    function: TaskFunction[..., Any], items: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Group[Any]:
    """The group of a task for each item, or of one mapped task if the items are the output of another.

    Raises:
        InvalidTaskError: the items are text or nothing that can be iterated, the function's options give all
            tasks one id, or an item does not fit the function.
    """
    if "task_id" in function.options:
        raise InvalidTaskError(
            f"{function.name} has a task_id, which would be that of each task: leave it out"
        )
    if isinstance(items, OutputRef):
        return Group((function(EachRef(items), *args, **kwargs),))
    if isinstance(items, str | bytes | bytearray) or not isinstance(items, Iterable):
        raise InvalidTaskError(f"map() takes a list of items, or the output of a task, not {items!r}")
    return Group(tuple(function(item, *args, **kwargs) for item in items))


def to_graph(work: Any) -> Graph:
    """The graph of a task, a group, a pipeline, or a list of them. Cycles are found by `Graph.order`.

    Raises:
        GraphTooLargeError: there are more than a million dependencies.
        InvalidTaskError: it is nothing of these, two tasks have one id, or a task came from the server.
    """
    node = as_node(work)
    if node is None:
        raise InvalidTaskError(f"a workflow is a task, a group, a pipeline or a list of them, not {work!r}")
    layout = _Layout(node)
    graph = Graph.build(layout.tasks, layout.edges())
    if isinstance(node, Composite):
        graph = dataclasses.replace(graph, name=node.name, workflow_id=node.workflow_id)
    return graph


def output_of(work: Any) -> Any:
    """What a workflow gives, as references: the output of its last part; of a group, the list of outputs.

    None for a group of a `map()` over an output with other members, whose number of outputs is not known yet.
    """
    node = as_node(work)
    try:
        return None if node is None else _output(node, {})
    except InvalidTaskError:
        return None


class _Layout:
    """The tasks of a node in the order in which they are written, and what was put before what."""

    def __init__(self, root: Node[Any]) -> None:
        self.tasks: list[Task[Any]] = []
        self._joints: list[Pipeline[Any]] = []
        self._ends: dict[tuple[int, bool], tuple[str, ...]] = {}
        # By identity: parts may be shared, and are looked at once. `root` keeps all of them alive.
        seen: set[int] = set()
        stack = [root]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Pipeline):
                self._joints.append(node)
                stack += (node.after, node.before)
            elif isinstance(node, Group):
                stack.extend(reversed(node.parts))
            else:
                self.tasks.append(cast(Task[Any], node))

    def edges(self) -> list[tuple[str, str]]:
        """Which task id is before which."""
        found: list[tuple[str, str]] = []
        for joint in self._joints:
            if _is_empty(joint.before) or _is_empty(joint.after):
                continue
            before, after = self._end_tasks(joint.before, last=True), self._end_tasks(joint.after, last=False)
            if len(found) + len(before) * len(after) > MAX_EDGES:
                raise GraphTooLargeError(
                    f"{len(before):,} tasks before {len(after):,} others, each waiting for all of them, with "
                    f"{len(found):,} dependencies elsewhere, are over {MAX_EDGES:,}: put one task in between"
                )
            found += [(first, then) for then in after for first in before]
        return found

    def _end_tasks(self, node: Node[Any], *, last: bool) -> tuple[str, ...]:
        """The ids of the last, or else the first, tasks of a node."""
        if isinstance(node, Pipeline):
            node = node._last if last else node._first
        if not isinstance(node, Group):
            return (cast(Task[Any], node).task_id,)
        key = id(node), last
        if key not in self._ends:
            found: dict[str, None] = {}
            seen: set[int] = set()
            stack: list[Node[Any]] = [node]
            while stack:
                part = stack.pop()
                if isinstance(part, Pipeline):
                    part = part._last if last else part._first
                if not isinstance(part, Group):
                    found[cast(Task[Any], part).task_id] = None
                elif id(part) not in seen:
                    seen.add(id(part))
                    stack.extend(reversed(part.parts))
            self._ends[key] = tuple(found)
        return self._ends[key]
