"""Read by type checkers, never run: what composes has the right types, and marked lines are refused.

After the mark ``# E:`` stands what is wrong in the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from fairque.core.decorator import task
from fairque.core.models import Task
from fairque.core.pipeline import Group, Pipeline


@dataclass
class Row:
    name: str


@task
def extract(path: str) -> list[Row]:
    return [Row(path)]


@task
def clean(row: Row, strict: bool = False, *, limit: int = 10) -> str:
    return row.name


@task
async def measure(text: str) -> int:
    return len(text)


@task
def load(lengths: list[int], table: str = "t") -> None: ...


@task
def total(lengths: Sequence[int | None]) -> int:
    return sum(length or 0 for length in lengths)


@task
def settings() -> dict[str, int]:
    return {}


@task
def start() -> None: ...


rows = extract("a.csv")

# An output has the type of the result, and is accepted where that is.
assert_type(rows.output, list[Row])
assert_type(clean(rows.output[0]), Task[str])
assert_type(measure(clean(rows.output[0]).output).output, int)
assert_type(clean(rows.output[0], limit=settings().output["limit"]), Task[str])
assert_type(measure("a").output_or(None), int | None)
total([measure("a").output, measure("b").output_or(None)])

# A pipeline has the type of its last part; of a group, the list.
assert_type(start() >> rows, Pipeline[list[Row]])
assert_type(start() >> rows >> measure("a"), Pipeline[int])
assert_type((start() >> measure("a")).output, int)
assert_type(measure("a") << rows << start(), Pipeline[int])
assert_type(measure("a") | measure("b"), Group[int])
assert_type(measure("a") | clean(Row("b")), Group[int | str])
assert_type((measure("a") | clean(Row("b"))).outputs, list[int | str])
assert_type(start() >> (measure("a") | measure("b")), Pipeline[list[int]])
assert_type((start() >> (measure("a") | measure("b"))).output, list[int])
assert_type((start() >> measure("a")) | measure("b") | [measure("c")], Group[int])

# Lists stand for groups on either side.
assert_type([start(), start()] >> measure("a"), Pipeline[int])
assert_type((start(), rows) >> measure("a"), Pipeline[int])
assert_type(start() >> [measure("a"), measure("b")], Pipeline[list[int]])
assert_type(measure("a") << [start(), start()], Pipeline[int])
assert_type([measure("a"), measure("b")] << start(), Pipeline[list[int]])
assert_type([measure("a")] | measure("b"), Group[int])
mixed_after = start() >> [rows, measure("a"), start() >> rows, measure("a") | measure("b")]
mixed_before = [rows, measure("a"), start() >> rows] >> start()

# A task for each item, now or at run time, and all of their results.
assert_type(clean.map(rows.output), Group[str])
assert_type(clean.map([Row("a")], True, limit=3), Group[str])
assert_type(measure.map(clean.map(rows.output).outputs), Group[int])
assert_type(measure.map(["a", "b"]).outputs, list[int])
assert_type(measure.map(["a", "b"]).outputs_or(None), list[int | None])
assert_type(measure.map({"a": 1}).reduce(total), Pipeline[int])
assert_type(measure.map(["a"]).reduce(load, "table"), Pipeline[None])
lengths = measure.with_options(user_id="alice").map(clean.map(rows.output).outputs)
assert_type(rows >> lengths >> load(lengths.outputs), Pipeline[None])
total(lengths.outputs_or(None))

# Names change no type, and a pipeline of anything can be asked for.
assert_type((start() >> rows).with_options(name="nightly"), Pipeline[list[Row]])
assert_type((rows | rows).with_options(workflow_id="w"), Group[list[Row]])
anything: Pipeline = start() >> rows
members: tuple[object, ...] = (rows | start()).members


def compose(parts: Iterable[Task[Any]]) -> Pipeline[None]:
    return [*parts] >> start()


# Wrong operands.
wrong_0 = rows >> 3  # E: no task
wrong_1 = rows >> "abc"  # E: no task
wrong_2 = rows >> None  # E: no task
wrong_3 = rows << 3  # E: no task
wrong_4 = rows | None  # E: no task
wrong_5 = 3 >> rows  # E: no task
wrong_6 = rows >> [rows, 3]  # E: no list of tasks
wrong_7 = ["a"] >> rows  # E: no list of tasks
wrong_8 = {rows} >> rows  # E: a set has no order
wrong_9 = rows >> start  # E: the function is not called
wrong_10 = start >> rows  # E: the function is not called
wrong_11 = (rows >> rows) >> 3  # E: no task
wrong_12 = (rows | rows) | 3  # E: no task

# Wrong outputs.
clean(rows.output)  # E: a list of rows is no row
measure(rows.output[0])  # E: a row is no str
clean(rows)  # E: a task is not its output
load((measure("a") | clean(Row("b"))).outputs)  # E: a str is no int
load(measure.map(["a"]).outputs_or(None))  # E: None is no int
load(measure("a").output)  # E: one is no list
load((start() >> measure("a")).output)  # E: one is no list
clean(rows.output_or(None)[0])  # E: None has no items

# Wrong items.
measure.map([1])  # E: an int is no str
measure.map(rows.output)  # E: a row is no str
measure.map(3)  # E: no items
clean.map(rows.output, limit="x")  # E: limit is an int
clean.map(rows.output, colour="red")  # E: no such parameter
start.map([1])  # E: takes no argument
measure.map(["a"]).reduce(clean)  # E: a list of ints is no row
measure.map(["a"]).reduce(measure)  # E: a list of ints is no str
(rows >> rows).with_options(user_id="alice")  # E: no such option
wrong: Pipeline[str] = rows >> measure("a")  # E: it is a Pipeline[int]
