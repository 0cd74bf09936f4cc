"""The onion: order on the way in and out, what a layer may change, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from fairque.core.exceptions import ConfigError
from fairque.core.middleware import Middleware, check_middleware, compose, compose_async
from fairque.core.models import Task

T = TypeVar("T")
TASK = Task.create(payload=20)


class Noting(Middleware):
    """Notes when it is entered and left, and with what."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def execute(self, task: Task[Any], call_next: Callable[[Task[Any]], T]) -> T:
        self.notes.append(f"> {self.name}")
        try:
            return call_next(task)
        except ZeroDivisionError:
            self.notes.append(f"! {self.name}")
            raise
        finally:
            self.notes.append(f"< {self.name}")

    async def execute_async(self, task: Task[Any], call_next: Callable[[Task[Any]], Awaitable[T]]) -> T:
        self.notes.append(f"> {self.name}")
        try:
            return await call_next(task)
        finally:
            self.notes.append(f"< {self.name}")


class Doubling(Middleware):
    """Changes the task on the way in."""

    def push(self, task: Task[Any], call_next: Callable[[Task[Any]], T]) -> T:
        return call_next(Task.create(payload=task.payload * 2))

    async def push_async(self, task: Task[Any], call_next: Callable[[Task[Any]], Awaitable[T]]) -> T:
        return await call_next(Task.create(payload=task.payload * 2))


def payload(task: Task[Any]) -> Any:
    return task.payload


async def payload_later(task: Task[Any]) -> Any:
    return task.payload


def test_the_first_is_the_outermost() -> None:
    notes: list[str] = []
    run = compose([Noting("a", notes), Noting("b", notes)], payload)

    assert run(TASK) == 20
    assert notes == ["> a", "> b", "< b", "< a"]


async def test_the_same_for_coroutines() -> None:
    notes: list[str] = []
    run = compose_async([Noting("a", notes), Noting("b", notes)], payload_later)

    assert await run(TASK) == 20
    assert notes == ["> a", "> b", "< b", "< a"]


def test_an_exception_passes_through_every_layer() -> None:
    notes: list[str] = []

    def broken(_: Task[Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compose([Noting("a", notes), Noting("b", notes)], broken)(TASK)
    assert notes == ["> a", "> b", "! b", "< b", "! a", "< a"]


async def test_a_layer_may_change_the_task() -> None:
    assert compose([Doubling(), Doubling()], payload, "push")(TASK) == 80
    assert await compose_async([Doubling(), Doubling()], payload_later, "push")(TASK) == 80


def test_a_layer_may_answer_in_place_of_the_rest() -> None:
    class Cached(Middleware):
        def execute(self, task: Task[Any], call_next: Callable[[Task[Any]], Any]) -> Any:
            return "cached"

    assert compose([Cached()], payload)(TASK) == "cached"


def test_no_middleware_costs_nothing() -> None:
    assert compose([], payload) is payload
    assert compose([Middleware()], payload) is payload
    # It overrides push only, so execute does not know of it.
    assert compose([Doubling()], payload) is payload
    assert compose_async([Doubling()], payload_later) is payload_later


def test_one_composition_serves_many_tasks() -> None:
    run = compose([Doubling()], payload, "push")

    assert [run(Task.create(payload=number)) for number in (1, 2, 3)] == [2, 4, 6]


def test_half_a_middleware_is_refused() -> None:
    class PlainOnly(Middleware):
        def execute(self, task: Task[Any], call_next: Callable[[Task[Any]], T]) -> T:
            return call_next(task)

    class AsyncOnly(Middleware):
        async def push_async(self, task: Task[Any], call_next: Callable[[Task[Any]], Awaitable[T]]) -> T:
            return await call_next(task)

    with pytest.raises(ConfigError, match=r"PlainOnly overrides execute\(\) but not execute_async\(\)"):
        check_middleware([PlainOnly()])
    with pytest.raises(ConfigError, match=r"AsyncOnly overrides push_async\(\) but not push\(\)"):
        check_middleware([AsyncOnly()])
    check_middleware([Noting("a", []), Doubling(), Middleware()])


def test_what_is_no_middleware_is_refused() -> None:
    with pytest.raises(ConfigError, match="Middleware"):
        check_middleware([print])  # type: ignore[list-item]


async def test_the_base_class_passes_everything_on() -> None:
    base = Middleware()

    assert base.push(TASK, payload) == base.execute(TASK, payload) == 20
    assert await base.push_async(TASK, payload_later) == await base.execute_async(TASK, payload_later) == 20
