"""`>>`, `<<` and `|`: what they build has the dependencies that a naive model has, at any size."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairque.core.compose import Node
from fairque.core.decorator import task
from fairque.core.exceptions import CycleError, GraphTooLargeError, InvalidTaskError
from fairque.core.graph import Graph
from fairque.core.models import Task
from fairque.core.pipeline import Group, Pipeline, as_node, to_graph
from fairque.core.references import EachRef, OutputRef
from fairque.core.states import TaskState

MANY = 10_000


@task
def step(value: int = 0) -> int:
    return value


@task
def total(values: list[int], factor: int = 1) -> int:
    return sum(values) * factor


@task
def numbers(count: int = 3) -> list[int]:
    return list(range(count))


def node(task_id: str, **options: Any) -> Task[int]:
    return step.with_options(task_id=task_id, **options)()


def edges(work: Any) -> set[str]:
    """Every dependency inside `work`, as ``first>then``."""
    graph = to_graph(work)
    return {f"{first}>{then}" for then, before in graph.upstream.items() for first in before}


@pytest.fixture
def abcd() -> tuple[Task[int], ...]:
    return tuple(node(task_id) for task_id in "abcd")


# What each expression means.


def test_one_after_the_other(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd

    assert edges(a >> b >> c >> d) == {"a>b", "b>c", "c>d"}
    assert edges(a << b << c << d) == {"b>a", "c>b", "d>c"}
    assert edges(a >> (b >> (c >> d))) == {"a>b", "b>c", "c>d"}
    assert edges((a >> b) << (c >> d)) == {"a>b", "c>d", "d>a"}


def test_side_by_side(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd

    assert edges(a | b | c | d) == set()
    assert edges(a >> (b | c) >> d) == {"a>b", "a>c", "b>d", "c>d"}
    assert edges((a | b) >> (c | d)) == {"a>c", "a>d", "b>c", "b>d"}
    # `>>` binds tighter than `|`.
    assert edges(a >> b | c >> d) == {"a>b", "c>d"}
    assert edges((a | b >> c) >> d) == {"b>c", "a>d", "c>d"}


def test_lists_and_tuples_are_groups_on_either_side(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd

    assert edges([a, b] >> c >> (d,)) == {"a>c", "b>c", "c>d"}
    assert edges(a >> [b, [c, d]]) == {"a>b", "a>c", "a>d"}  # type: ignore[list-item]
    assert edges([a, b] << c) == {"c>a", "c>b"}
    assert edges(c << [a, b]) == {"a>c", "b>c"}
    assert edges(([a, b] | c) >> d) == {"a>d", "b>d", "c>d"}
    assert edges((a | [b >> c]) >> d) == {"a>d", "b>c", "c>d"}
    assert edges([a >> b, c >> d]) == {"a>b", "c>d"}


def test_one_node_in_two_branches_is_one_task(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd
    work = (a >> b) | (a >> c)

    assert edges(work >> d) == {"a>b", "a>c", "b>d", "c>d"}
    assert [item.task_id for item in to_graph(work).nodes.values()] == ["a", "b", "c"]


def test_an_empty_group_lets_through_what_is_before_it(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd
    nobody = step.map([])

    assert edges(a >> nobody >> b) == {"a>b"}
    assert edges(a >> (nobody >> b)) == {"a>b"}
    assert edges((a >> [] >> []) >> [] >> b) == {"a>b"}
    assert edges((a | nobody) >> ([] >> c | d)) == {"a>c", "a>d"}
    assert edges(nobody >> []) == set()
    assert (nobody >> []).is_empty
    assert nobody.is_empty
    assert not (a >> []).is_empty


def test_composing_changes_no_operand(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, _ = abcd
    first = a >> b

    assert edges(first >> c) == {"a>b", "b>c"}
    assert edges(first | c) == {"a>b"}
    assert edges(first) == {"a>b"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.after = c  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        (a | b).name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "expression",
    [
        lambda a: a >> 3,
        lambda a: 3 >> a,
        lambda a: a << "x",
        lambda a: a | None,
        lambda a: {a} | a,
        lambda a: (a >> a) | 3,
        lambda a: (a | a) >> {"a": a},
        lambda a: a >> (item for item in [a]),
    ],
)
def test_what_is_no_task_is_no_operand(expression: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        expression(node("a"))


def test_a_task_function_and_a_wrong_item_are_named() -> None:
    with pytest.raises(InvalidTaskError, match=r"step is a task function.*call it"):
        node("a") >> step  # type: ignore[operator]
    with pytest.raises(InvalidTaskError, match=r"step is a task function.*call it"):
        [step] | node("a")  # type: ignore[operator]
    with pytest.raises(InvalidTaskError, match=r"\[1\] is 3"):
        node("a") >> [node("b"), 3]  # type: ignore[list-item]
    with pytest.raises(InvalidTaskError, match="a workflow is"):
        to_graph(3)


def test_names() -> None:
    work = node("a") >> node("b")
    named = work.with_options(name="nightly", workflow_id="nightly:1")

    assert (work.name, len(work.workflow_id)) == (None, 16)
    assert (named.name, named.workflow_id) == ("nightly", "nightly:1")
    assert named.with_options(name="x").workflow_id == "nightly:1"
    assert (named.graph().name, named.graph().workflow_id) == ("nightly", "nightly:1")
    assert edges(named) == {"a>b"}
    assert (node("a") | node("b")).with_options(name="pair").graph().name == "pair"
    # A name is that of a whole workflow: what is made of it is another one.
    assert (named >> node("c")).name is None
    assert repr(named) == "<Pipeline 'nightly' of 2 tasks>"
    assert repr(node("a") | node("b")) == "<Group of 2 tasks>"
    for wrong in ({"name": ""}, {"name": 3}, {"name": "x" * 256}, {"workflow_id": ""}, {"workflow_id": 7}):
        with pytest.raises(InvalidTaskError, match="workflow"):
            work.with_options(**wrong)  # type: ignore[arg-type]


# Outputs, and tasks by the list.


def test_outputs_in_order(abcd: tuple[Task[int], ...]) -> None:
    a, b, c, d = abcd
    ref = {task_id: OutputRef(task_id) for task_id in "abcd"}

    assert (a | (b | c)).outputs == [ref["a"], ref["b"], ref["c"]]
    assert (a >> b).output == ref["b"]
    assert (a >> (b | c)).output == [ref["b"], ref["c"]]
    assert ((a >> [b, c]) | d).outputs == [[ref["b"], ref["c"]], ref["d"]]
    assert (a >> step.map([])).output == []
    assert (a | b).outputs_or(None) == [OutputRef("a", default=None), OutputRef("b", default=None)]


def test_map_over_items_builds_a_task_for_each() -> None:
    group = total.with_options(user_id="alice").map(([number] for number in range(3)), factor=2)
    built = [item for item in group.members if isinstance(item, Task)]

    assert [(item.args, item.kwargs) for item in built] == [(([n],), {"factor": 2}) for n in range(3)]
    assert {item.user_id for item in built} == {"alice"}
    assert len({item.task_id for item in built}) == 3


def test_map_over_an_output_builds_one_mapped_task() -> None:
    source = numbers()
    group = step.map(source.output)
    (mapped,) = group.members

    assert isinstance(mapped, Task)
    assert mapped.args == (EachRef(OutputRef(source.task_id)),)
    assert group.outputs == OutputRef(mapped.task_id)
    assert group.outputs_or(0) == OutputRef(mapped.task_id, default=0, of_each=True)
    assert (source >> group).output == OutputRef(mapped.task_id)
    assert edges(source | group) == {f"{source.task_id}>{mapped.task_id}"}
    with pytest.raises(InvalidTaskError, match=f"{mapped.task_id} runs for each item"):
        _ = (group | node("a")).outputs


def test_reduce_hands_over_all_outputs_in_order() -> None:
    group = step.map(range(4))
    work = group.reduce(total, factor=2)
    *mapped, last = to_graph(work).nodes.values()

    assert last.args == ([OutputRef(item.task_id) for item in mapped],)
    assert last.kwargs == {"factor": 2}
    assert to_graph(work).upstream[last.task_id] == tuple(item.task_id for item in mapped)


@pytest.mark.parametrize("items", ["abc", b"abc", 3, None])
def test_map_takes_items(items: Any) -> None:
    with pytest.raises(InvalidTaskError, match="list of items"):
        step.map(items)


def test_map_refuses_what_no_task_of_it_could_be() -> None:
    with pytest.raises(InvalidTaskError, match="task_id"):
        step.with_options(task_id="one").map([1, 2])
    with pytest.raises(InvalidTaskError, match="value"):
        step.map([1, "two"])  # type: ignore[list-item]


# Against a model.


@dataclass(frozen=True)
class Model:
    """The meaning of an expression, computed the obvious way."""

    nodes: tuple[str, ...]
    edges: frozenset[tuple[str, str]]
    first: tuple[str, ...]
    last: tuple[str, ...]

    def __rshift__(self, other: Model) -> Model:
        new = {(one, two) for one in self.last for two in other.first}
        return Model(
            self.nodes + other.nodes,
            self.edges | other.edges | new,
            self.first or other.first,
            other.last or self.last,
        )

    def __or__(self, other: Model) -> Model:
        return Model(
            self.nodes + other.nodes,
            self.edges | other.edges,
            self.first + other.first,
            self.last + other.last,
        )


EMPTY = Model((), frozenset(), (), ())
IDS = [f"t{number}" for number in range(12)]


def model(task_id: str) -> Model:
    return Model((task_id,), frozenset(), (task_id,), (task_id,))


Pair: TypeAlias = tuple[Any, Model]


def some_tasks(chance: Random) -> tuple[dict[str, Task[Any]], set[tuple[str, str]]]:
    """A task of each id, and what they wait for: earlier ones, by their ids or their outputs."""
    tasks: dict[str, Task[Any]] = {}
    found: set[tuple[str, str]] = set()
    for number, task_id in enumerate(IDS):
        named, used = (
            chance.sample(IDS[:number], min(number, chance.choice([0, 0, 1, 2]))) for _ in range(2)
        )
        tasks[task_id] = total.with_options(task_id=task_id, depends_on=named)(
            [tasks[other].output for other in used]
        )
        found |= {(other, task_id) for other in (*named, *used)}
    return tasks, found


def composed(chance: Random, one: Pair, two: Pair, operator: str) -> Pair:
    """Both, by `operator`; side by side also as a list, and one after the other in both ways of writing it."""
    if not isinstance(one[0], Node) and not isinstance(two[0], Node):
        one = Group((as_node(one[0]),)), one[1]  # type: ignore[arg-type]
    if operator == "|":
        both = [one[0], two[0]] if chance.random() < 0.3 else one[0] | two[0]
        return both, one[1] | two[1]
    return (one[0] >> two[0] if chance.random() < 0.7 else two[0] << one[0]), one[1] >> two[1]


def any_expression(chance: Random, tasks: dict[str, Task[Any]]) -> Pair:
    """Whatever is composed of whatever there is, so that parts are used again, also in ways that make cycles."""
    pool: list[Pair] = [([], EMPTY), *((tasks[task_id], model(task_id)) for task_id in IDS)]
    for _ in range(chance.randrange(1, 25)):
        # One in three is composed of what was composed last.
        one = chance.choice(pool[-3:] if chance.random() < 0.33 else pool)
        pool.append(composed(chance, one, chance.choice(pool), chance.choice(["|", ">>"])))
    return pool[-1]


def ordered_expression(chance: Random, tasks: dict[str, Task[Any]], ids: list[str]) -> Pair:
    """An expression of some of `ids` in which none comes after a later one, so that there is no cycle."""
    if len(ids) < 2:
        return (tasks[ids[0]], model(ids[0])) if ids else ([], EMPTY)
    if chance.random() < 0.5:
        cut = chance.randrange(len(ids) + 1)
        parts, operator = (ids[:cut], ids[cut:]), ">>"
    else:
        # Side by side a node may be in both.
        parts, operator = tuple([item for item in ids if chance.random() < 0.7] for _ in range(2)), "|"
    one, two = (ordered_expression(chance, tasks, part) for part in parts)
    return composed(chance, one, two, operator)


def to_graph_and_model(pair: Pair, extra: set[tuple[str, str]]) -> tuple[Graph, Model]:
    """What is built, and the model with those of the tasks' own dependencies that are inside."""
    work, found = pair
    inside = {(one, two) for one, two in extra if one in found.nodes and two in found.nodes}
    return to_graph(work), dataclasses.replace(found, edges=found.edges | inside)


def has_cycle(found: Model) -> bool:
    left = set(found.nodes)
    while ready := {
        item for item in left if not any(two == item and one in left for one, two in found.edges)
    }:
        left -= ready
    return bool(left)


@settings(max_examples=300)
@given(st.randoms(use_true_random=True))
def test_random_expressions_have_the_dependencies_of_the_model(chance: Random) -> None:
    tasks, extra = some_tasks(chance)
    graph, expected = to_graph_and_model(any_expression(chance, tasks), extra)

    assert list(graph.nodes) == list(dict.fromkeys(expected.nodes))
    found = {(one, two) for two, before in graph.upstream.items() for one in before}
    assert found == expected.edges
    assert graph.edge_count == len(found)
    for task_id, item in tasks.items():
        if task_id in graph.nodes:
            waits_for = set(graph.dependencies(task_id))
            assert waits_for >= set(item.depends_on) | {ref.task_id for ref in item.args[0]}
            assert waits_for - set(graph.nodes) == set(graph.outside.get(task_id, ()))
    if has_cycle(expected):
        with pytest.raises(CycleError) as caught:
            graph.order()
        cycle = caught.value.cycle
        assert all(pair in found for pair in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        assert len(set(cycle)) == len(cycle)
    else:
        check_order(graph)


@settings(max_examples=300)
@given(st.randoms(use_true_random=True))
def test_random_acyclic_expressions_have_an_order(chance: Random) -> None:
    tasks, extra = some_tasks(chance)
    graph, expected = to_graph_and_model(ordered_expression(chance, tasks, IDS), extra)

    assert {(one, two) for two, before in graph.upstream.items() for one in before} == expected.edges
    check_order(graph)
    assert {item.task_id for item in graph.sources} == {
        item for item in expected.nodes if not any(two == item for _, two in expected.edges)
    }
    assert {item.task_id for item in graph.sinks} == {
        item for item in expected.nodes if not any(one == item for one, _ in expected.edges)
    }


def check_order(graph: Graph) -> None:
    position = {item.task_id: index for index, item in enumerate(graph.order())}
    assert sorted(position) == sorted(graph.nodes)
    for task_id, before in graph.upstream.items():
        assert all(position[other] < position[task_id] for other in before)
    for item in graph.tasks():
        assert item.depends_on == graph.dependencies(item.task_id)
        assert item.args is graph.nodes[item.task_id].args


# At size.


def chain_from_left() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY - 1):
        work = work >> step()
    return work  # type: ignore[no-any-return]


def chain_from_right() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY - 1):
        work = step() >> work
    return work  # type: ignore[no-any-return]


def chain_backwards() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY - 1):
        work = work << step()
    return work  # type: ignore[no-any-return]


def chain_of_outputs() -> Pipeline[int]:
    work: Any = (last := step())
    for _ in range(MANY - 1):
        last = step(last.output)
        work = work >> last
    return work  # type: ignore[no-any-return]


def fan_of_operators() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY - 2):
        work = work | step()
    return work >> step()  # type: ignore[no-any-return]


def fan_of_operators_from_right() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY - 2):
        work = step() | work
    return work >> step()  # type: ignore[no-any-return]


def fan_of_a_list() -> Pipeline[int]:
    return [step() for _ in range(MANY - 1)] >> step()


def fan_of_outputs() -> Pipeline[int]:
    return step.map(range(MANY - 1)).reduce(total)


def deep_and_wide() -> Pipeline[int]:
    work: Any = step()
    for _ in range(MANY // 2 - 1):
        work = (work | step()) >> step()
    return work >> step()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "build",
    [
        chain_from_left, chain_from_right, chain_backwards, chain_of_outputs,
        fan_of_operators, fan_of_operators_from_right, fan_of_a_list, fan_of_outputs, deep_and_wide,
    ],
)  # fmt: skip
def test_ten_thousand_nodes_are_built_and_checked_within_a_second(build: Callable[[], Pipeline[int]]) -> None:
    # Processor time, since another process may have the processor meanwhile.
    began = time.process_time()
    work = build()
    graph = work.graph()
    took = time.process_time() - began

    assert len(graph.nodes) == MANY
    assert graph.edge_count == MANY - 1 or build is deep_and_wide
    assert took < 1, f"{took:.2f} s"
    assert work.visualize().count("\n") == 1 + len(graph.nodes) + graph.edge_count
    assert f"{MANY} tasks" in repr(work)


def test_the_time_is_linear() -> None:
    def took(count: int) -> float:
        def once() -> float:
            began = time.process_time()
            work: Any = step()
            for number in range(count):
                work = (work | step()) >> step() if number % 2 else work >> step()
            work.graph()
            return time.process_time() - began

        return min(once() for _ in range(3))

    # Four times as many nodes take about four times as long; sixteen times would be quadratic.
    assert took(8_000) < 8 * took(2_000)


def test_shared_parts_are_laid_out_once() -> None:
    work: Any = step() | step()
    for _ in range(100):  # written out, 2 ** 101 tasks
        work = work | work
    graph = (work >> step()).graph()

    assert (len(graph.nodes), graph.edge_count) == (3, 2)


def test_two_large_groups_in_a_row_are_refused_before_memory_is_full() -> None:
    wide = step.map(range(2_000))
    other = step.map(range(2_000))

    with pytest.raises(GraphTooLargeError, match=r"2,000 tasks before 2,000 others.*put one task in between"):
        (wide >> other).graph()
    assert (wide >> step() >> other).graph().edge_count == 4_000


def test_nodes_from_the_server_and_duplicate_ids_are_refused() -> None:
    claimed = Task._restore(task_id="old", function=step.name, state=TaskState.FINISHED)

    with pytest.raises(InvalidTaskError, match=r"old came from the server.*depends_on") as caught:
        (claimed >> node("b")).graph()
    assert caught.value.task_id == "old"
    with pytest.raises(InvalidTaskError, match="two tasks have the id a: step and step"):
        (node("a") >> node("a")).graph()
    a = node("a")
    with pytest.raises(CycleError, match=r"step \(a\) -> step \(a\)$"):
        (a >> a).graph()


def test_a_group_is_a_value_of_its_parts() -> None:
    a, b = node("a"), node("b")

    assert Group((a, b)).members == (a, b)
    assert ((a | b) | [a >> b]).members[:2] == (a, b)
