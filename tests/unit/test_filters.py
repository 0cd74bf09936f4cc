"""TaskFilter: what it refuses, and what it looks at in the client."""

from __future__ import annotations

from typing import Any

import pytest

from fairque.core.exceptions import InvalidFilterError
from fairque.core.filters import TaskFilter
from fairque.core.models import Task, TaskError
from fairque.core.options import Priority
from fairque.core.states import TaskState
from fairque.queue.operations.records import at


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"function": ""}, "function must be a name or a pattern"),
        ({"function": "a*b*c*d"}, "the limit is 2"),
        ({"user": 3}, "user must be a name or a pattern"),
        ({"user": "x" * 300}, "the limit is 256"),
        ({"state": "dead"}, "there is no state 'dead': the states are queued"),
        ({"state": []}, "state must name at least one"),
        ({"error": ""}, "error must be text"),
        ({"labels": {"a": 1}}, "labels are text"),
        ({"labels": "a=b"}, "labels must map"),
        ({"older_than": -1}, "older_than must be 0 to"),
        ({"younger_than": "1h"}, "younger_than must be 0 to"),
        ({"older_than": 60, "younger_than": 60}, "no task fits both"),
        ({"priority": 9}, "priority must be 1 to 6"),
        ({"priority": []}, "priority must name at least one"),
    ],
)
def test_a_condition_that_cannot_be_one_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFilterError, match=told.replace("*", r"\*")):
        TaskFilter(**given)


def test_states_and_priorities_may_be_one_or_several() -> None:
    assert TaskFilter(state="failed").states == (TaskState.FAILED,)
    assert TaskFilter(state=[TaskState.QUEUED, "failed", "queued"]).states == (
        TaskState.QUEUED,
        TaskState.FAILED,
    )
    assert TaskFilter(priority=Priority.HIGH).priorities == (int(Priority.HIGH),)
    assert TaskFilter(priority=(1, 6)).priorities == (1, 6)
    assert TaskFilter().states == TaskFilter().priorities == ()


def test_a_filter_is_bound_to_a_user_whatever_its_name() -> None:
    bound = TaskFilter(function="f").of_user("team[1]*")
    assert bound.exact_user == "team[1]*"
    assert TaskFilter(user="team-*").exact_user is None
    assert TaskFilter(user="alice").exact_user == "alice"
    assert TaskFilter(user="team-*").of_user("team-7").exact_user == "team-7"
    with pytest.raises(InvalidFilterError, match="about user 'alice', and the call about 'bob'"):
        TaskFilter(user="alice").of_user("bob")


def test_a_filter_names_the_states_that_make_no_sense() -> None:
    failed = (TaskState.FAILED,)
    assert TaskFilter().in_states(failed, failed, "a retry").states == failed
    with pytest.raises(InvalidFilterError, match="a retry is for tasks that are failed, not for queued ones"):
        TaskFilter(state=["queued", "failed"]).in_states(failed, failed, "a retry")


def error(kind: str, message: str) -> TaskError:
    return TaskError(attempt=1, type=kind, message=message, traceback="", at=at(0))


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        (TaskFilter(), True),
        (TaskFilter(error="TIMED OUT"), True),
        (TaskFilter(error="httpx.readtimeout"), True),
        (TaskFilter(error="first"), False),
        (TaskFilter(error="no retries"), True),
        (TaskFilter(labels={"env": "prod"}), True),
        (TaskFilter(labels={"env": "p*", "team": "*"}), True),
        (TaskFilter(labels={"env": "dev"}), False),
        (TaskFilter(labels={"other": "*"}), False),
        (TaskFilter(labels={"env": "prod"}, error="nothing like it"), False),
    ],
)
def test_labels_and_the_last_error_are_looked_at_here(where: TaskFilter, fits: bool) -> None:
    task = Task.create(labels={"env": "prod", "team": "a"})._restore(
        labels={"env": "prod", "team": "a"}, reason="no retries left"
    )
    errors = (error("ValueError", "the first"), error("httpx.ReadTimeout", "it timed out"))
    assert where.fits_inside(task, errors) is fits


def test_a_filter_is_told_in_words() -> None:
    where = TaskFilter(
        function="m:*",
        user="a",
        state="failed",
        error="no",
        labels={"x": "y"},
        older_than=60,
        priority=[1, 2],
    )
    assert where.described() == (
        "failed, function m:*, user a, priority 1 or 2, error 'no', label x=y, older than 60 s"
    )
    assert TaskFilter().described() == "all"
    assert TaskFilter().is_empty
    assert not where.is_empty
