"""Graphs: what they refuse, how they name a cycle, what a task waits for, and their picture."""

from __future__ import annotations

import pickle

import pytest

from fairque.core.decorator import task
from fairque.core.exceptions import CycleError, InvalidTaskError, SerializationError
from fairque.core.graph import Graph, dependencies_of, is_mapped, task_name
from fairque.core.mermaid import escape, flowchart
from fairque.core.models import Task
from fairque.core.pipeline import to_graph


@task
def step(value: int = 0) -> int:
    return value


@task
def listed(values: list[int | None]) -> list[int]:
    return [value or 0 for value in values]


def node(task_id: str, *depends_on: str) -> Task[int]:
    return step.with_options(task_id=task_id, depends_on=depends_on)()


def test_a_task_waits_for_what_it_names_and_for_what_it_is_given() -> None:
    given = listed.with_options(depends_on=["x", "a"])(
        [node("a").output, node("b").output_or(node("c").output)]
    )

    assert dependencies_of(given) == ("x", "a", "b", "c")
    assert dependencies_of(node("a", "y")) == ("y",)
    assert dependencies_of(Task.create(payload={"data": [node("a").output]})) == ("a",)
    (mapped,) = step.map(listed.with_options(task_id="l")([]).output).members
    assert isinstance(mapped, Task)
    assert dependencies_of(mapped) == ("l",)
    assert is_mapped(mapped)
    assert not is_mapped(given)


def test_dependencies_inside_come_before_those_outside() -> None:
    graph = Graph.build([node("a"), node("b"), node("c", "z", "b", "y")], [("a", "c")])

    assert graph.upstream["c"] == ("a", "b")
    assert graph.outside == {"c": ("z", "y")}
    assert graph.dependencies("c") == ("a", "b", "z", "y")
    assert [item.task_id for item in graph.sources] == ["a", "b"]
    assert [item.task_id for item in graph.sinks] == ["c"]
    assert graph.tasks()[2].depends_on == ("a", "b", "z", "y")
    assert graph.tasks()[2].task_id == "c"
    assert graph.nodes["c"].depends_on == ("z", "b", "y")


def test_the_order_is_that_of_naming_where_it_is_free() -> None:
    a, b, c, d, e = (node(task_id) for task_id in "abcde")

    assert [item.task_id for item in to_graph((e >> a) | (d >> b) | c).order()] == ["e", "d", "c", "a", "b"]


def test_a_graph_cannot_be_changed() -> None:
    graph = to_graph(node("a") >> node("b"))

    with pytest.raises(TypeError):
        graph.nodes["c"] = node("c")  # type: ignore[index]
    with pytest.raises(TypeError):
        graph.upstream["a"] = ("b",)  # type: ignore[index]


def test_a_cycle_is_named_from_its_first_task_on() -> None:
    a, b, c, d = (node(task_id) for task_id in "abcd")
    work = a >> b >> c >> d >> (b | node("e"))

    with pytest.raises(CycleError) as caught:
        work.graph()
    assert caught.value.cycle == ("b", "c", "d")
    assert str(caught.value).endswith(": step (b) -> step (c) -> step (d) -> step (b)")
    assert pickle.loads(pickle.dumps(caught.value)).cycle == ("b", "c", "d")  # noqa: S301 - our own bytes


def test_a_cycle_by_ids_and_by_outputs() -> None:
    with pytest.raises(CycleError, match=r"step \(a\) -> step \(b\) -> step \(a\)"):
        (node("a", "b") >> node("b")).graph()
    given = listed.with_options(task_id="l")([node("a").output])
    with pytest.raises(CycleError, match=r"step \(a\) -> listed \(l\) -> step \(a\)"):
        (node("a", "l") | given).graph()


def test_a_long_cycle_is_named_in_full_by_the_exception_and_shortly_by_its_text() -> None:
    tasks = [node(f"t{number}") for number in range(1_000)]
    edges = [(f"t{number}", f"t{(number + 1) % 1_000}") for number in range(1_000)]

    with pytest.raises(CycleError) as caught:
        Graph.build(tasks, edges).order()
    assert len(caught.value.cycle) == 1_000
    assert "step (t8) -> ... 990 more ... -> step (t999) -> step (t0)" in str(caught.value)


def test_arguments_that_contain_themselves_are_refused() -> None:
    loop: list[object] = []
    loop.append(loop)

    with pytest.raises(SerializationError, match="contain themselves"):
        Graph.build([Task(function="f", args=(loop,))])


def test_the_error_of_a_duplicate_names_both() -> None:
    with pytest.raises(InvalidTaskError, match="two tasks have the id a: step and payload"):
        Graph.build([node("a"), Task.create(payload=1, task_id="a")])


def test_a_task_is_called_by_its_function() -> None:
    assert task_name(node("a")) == "step"
    assert task_name(Task(function="billing:Invoice.send")) == "Invoice.send"
    assert task_name(Task.create(payload=1)) == "payload"


# The picture.


def test_a_picture_shows_tasks_data_rules_and_what_is_outside() -> None:
    a = listed.with_options(task_id="a")([])
    b = step.map(a.output)
    c = listed.with_options(task_id="c", trigger_rule="all_done", depends_on="elsewhere")(b.outputs_or(None))
    d = Task.create(payload=1, task_id="d")
    (mapped,) = b.members
    assert isinstance(mapped, Task)
    work = (a >> b >> c >> d).with_options(name='nightly "load"')

    assert work.visualize() == (
        "---\n"
        'title: "nightly \\"load\\""\n'
        "---\n"
        "flowchart TD\n"
        '    n0["listed<br/>a"]\n'
        f'    n1[["step<br/>{mapped.task_id}"]]\n'
        '    n2["listed<br/>c<br/>all_done"]\n'
        '    n3["payload<br/>d"]\n'
        '    outside0(["elsewhere"])\n'
        "    n0 ==> n1\n"
        "    n1 ==> n2\n"
        "    outside0 -.-> n2\n"
        "    n2 --> n3\n"
    )


def test_a_cycle_is_drawn() -> None:
    a, b = node("a"), node("b")

    assert (a >> b >> a).visualize().splitlines()[-2:] == ["    n1 --> n0", "    n0 --> n1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('say "hi"', "say #34;hi#34;"),
        ("<b>&amp;</b>", "#60;b#62;#38;amp#59;#60;/b#62;"),
        ("#quot; %%{init}%%", "#35;quot#59; #37;#37;#123;init#125;#37;#37;"),
        ("two\nlines\u2028and\x07a bell", "two lines and a bell"),
        ("`code` \\n style:x", "#96;code#96; #92;n style#58;x"),
        ("plain_name.of[a](b) é ☃", "plain_name.of[a](b) é ☃"),
        ("x" * 61, "x" * 57 + "..."),
    ],
)
def test_labels_are_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_an_id_cannot_break_out_of_its_label() -> None:
    picture = flowchart(to_graph(node('"]\n    n9["x')))

    assert picture == 'flowchart TD\n    n0["step<br/>#34;]     n9[#34;x"]\n'
