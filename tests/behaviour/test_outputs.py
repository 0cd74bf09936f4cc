"""What one task returned is another one's argument."""

from __future__ import annotations

from typing import Any

import pytest

from fairque.core.exceptions import TaskFailedError
from fairque.core.models import Task
from fairque.core.pipeline import Group
from fairque.worker.worker import Worker
from tests.support import flow_tasks
from tests.support.flow_tasks import Total, add, double, double_async, fail, numbers, ok, pick, show
from tests.support.workers import Workshop

MODULES = (flow_tasks.__name__,)


def test_outputs_reach_those_that_wait_for_them(workshop: Workshop) -> None:
    workshop.worker()
    listed = numbers(4)
    one, two = double(listed.output[3]), double_async(listed.output[2])
    extra = ok(100)
    total = add([one.output, two.output], more=extra.output)
    handle = workshop.queue.enqueue((listed >> (one | two) >> total) | extra)
    assert handle.result(10) == [{"sum": 110, "parts": [6, 4]}, 100]
    assert workshop.queue.get_handle(total.task_id).result(5) == {"sum": 110, "parts": [6, 4]}
    workshop.assert_settled()


def test_map_and_reduce_over_a_list(workshop: Workshop) -> None:
    workshop.worker()
    handle = workshop.queue.enqueue(double.map([3, 1, 2]).reduce(add, 4))
    assert handle.result(10) == Total(16, [6, 2, 4])


def test_processes_get_outputs_too(workshop: Workshop) -> None:
    worker = Worker(workshop.config(executor="process", max_concurrent_tasks=1), modules=list(MODULES))
    worker.start()
    try:
        listed = numbers(3)
        assert workshop.queue.enqueue(listed >> add(listed.output)).result(20) == Total(3, [0, 1, 2])
    finally:
        assert worker.stop(5)


def test_a_default_stands_in_for_what_failed(workshop: Workshop) -> None:
    workshop.worker()
    bad, good = fail(), ok(2)
    handle = workshop.queue.enqueue(
        Group((bad, good)) >> add.with_options(trigger_rule="all_done")([bad.output_or(5), good.output])
    )
    assert handle.result(10) == Total(7, [5, 2])
    assert handle.state() == "failed"


def test_an_output_that_is_missing_is_a_clear_failure(workshop: Workshop) -> None:
    workshop.worker()
    bad = fail()
    wants = show.with_options(trigger_rule="all_done")(bad.output)
    workshop.queue.enqueue(bad >> wants)
    with pytest.raises(TaskFailedError, match=r"argument is <output of .*output_or\(default\)"):
        workshop.queue.get_handle(wants.task_id).result(10)


def test_a_reference_to_what_nobody_knows_is_refused(workshop: Workshop) -> None:
    with pytest.raises(LookupError, match="is given the output of task"):
        workshop.queue.push(show(ok(1).output))


def test_a_pushed_task_gets_the_output_of_one_that_has_finished(queue: Any) -> None:
    first: Task[Any] = ok(7)
    queue.push(first)
    queue.finish(queue.pop(), {"a": [7]})
    queue.push(show([first.output["a"][0], "x"]))
    assert queue.pop().args == ([7, "x"],)
    queue.push(show(first.output["b"]))
    assert queue.pop() is None
    assert queue.pop() is None
    queue.get_stats()
    assert len(queue.dlq.list()) == 1


# -- a task for each item of an output


def test_map_over_an_output(workshop: Workshop) -> None:
    workshop.worker()
    listed = numbers(7)
    each = double.map(listed.output)
    handle = workshop.queue.enqueue(listed >> each >> add(each.outputs))
    assert handle.result(10) == Total(42, [0, 2, 4, 6, 8, 10, 12])
    info = handle.info()
    assert (info.state, info.total, info.finished) == ("finished", 10, 10)
    workshop.assert_settled()


def test_map_over_nothing(workshop: Workshop) -> None:
    workshop.worker()
    listed = numbers(0)
    each = double.map(listed.output)
    assert workshop.queue.enqueue(listed >> each >> add(each.outputs, 1)).result(10) == Total(1, [])


def test_a_long_list_comes_in_pieces(workshop: Workshop) -> None:
    workshop.worker()
    listed = numbers(1200)
    each = double.map(listed.output)
    handle = workshop.queue.enqueue(listed >> each.reduce(add))
    assert handle.result(30).sum == 1199 * 1200
    workshop.assert_settled()


def test_some_items_fail(workshop: Workshop) -> None:
    workshop.worker()
    listed = numbers(4)
    each = pick.map(listed.output)
    rest = add.with_options(trigger_rule="all_done")(each.outputs_or(100))
    strict = show(each.outputs)
    handle = workshop.queue.enqueue(listed >> each >> (rest | strict))
    with pytest.raises(TaskFailedError, match="odd"):
        handle.result(10)
    assert workshop.queue.get_handle(rest.task_id).result(5) == {"sum": 202, "parts": [0, 100, 2, 100]}
    with pytest.raises(TaskFailedError, match="waits for task"):
        workshop.queue.get_handle(strict.task_id).result(5)
    assert handle.state() == "failed"


def test_what_is_no_list_cannot_be_mapped(workshop: Workshop) -> None:
    workshop.worker()
    one = ok(5)
    each = double.map(one.output)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    handle = workshop.queue.enqueue(one >> each)
    with pytest.raises(TaskFailedError, match="for each item of a list"):
        handle.result(10)
