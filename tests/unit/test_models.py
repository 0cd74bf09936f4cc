"""What a Task accepts, what it refuses and how it says so, and the small records around it."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairque.core.exceptions import InvalidTaskError, UnknownFunctionError
from fairque.core.models import Claim, Priority, Task, new_task_id
from fairque.core.retry import exponential, fixed
from fairque.core.states import TaskState

SOON = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_task_by_its_defaults() -> None:
    task = Task.create(payload={"to": "bob"})

    assert task.user_id == "default"
    assert task.priority is Priority.NORMAL
    assert task.payload == {"to": "bob"}
    assert (task.state, task.attempt, task.claim) == (None, 0, None)


def test_generated_ids_are_16_safe_characters_and_never_meet() -> None:
    ids = {new_task_id() for _ in range(10_000)}

    assert len(ids) == 10_000
    assert all(len(task_id) == 16 and task_id.isalnum() and task_id.isascii() for task_id in ids)
    # Every character of the alphabet is used.
    assert len(set("".join(ids))) == 62


def test_options_are_normalised() -> None:
    first = Task.create(payload=1)
    task = Task.create(
        payload=2,
        priority=6,
        delay=timedelta(minutes=1),
        timeout=30,
        depends_on=[first, "other", first.task_id],
        labels={"team": "a"},
    )

    assert task.priority is Priority.CRITICAL
    assert (task.delay, task.timeout) == (60.0, 30.0)
    assert task.depends_on == (first.task_id, "other")
    assert task.labels == {"team": "a"}


def test_a_task_is_immutable_and_hashes_by_its_id() -> None:
    task = Task.create(payload={"unhashable": []})

    with pytest.raises(AttributeError):
        task.user_id = "bob"  # type: ignore[misc]
    assert task in {task}


def test_tasks_share_no_mutable_state() -> None:
    one, other = Task(), Task()

    one.kwargs["x"] = 1
    assert other.kwargs == {}


def test_a_task_survives_pickle() -> None:
    task = Task(args=(1,), retry=fixed(1), state=TaskState.STARTED, claim=Claim(b"t" * 16, "i"))

    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user_id": ""}, ("user_id", "empty")),
        ({"user_id": "x" * 257}, ("user_id", "256")),
        ({"user_id": "%" * 86}, ("user_id", "258", "256")),
        ({"user_id": 7}, ("user_id", "int")),
        ({"task_id": "\ud800"}, ("task_id", "surrogate")),
        ({"priority": 0}, ("priority", "1 to 6", "0")),
        ({"priority": 7}, ("priority", "1 to 6", "7")),
        ({"priority": True}, ("priority", "True")),
        ({"priority": "high"}, ("priority", "'high'")),
        ({"delay": -1}, ("delay", "at least 0", "-1")),
        ({"delay": float("nan")}, ("delay", "nan")),
        ({"delay": float("inf")}, ("delay", "100 years", "inf")),
        ({"delay": "5"}, ("delay", "'5'", "str")),
        ({"timeout": 0}, ("timeout", "more than 0")),
        ({"result_ttl": 0}, ("result_ttl", "more than 0")),
        ({"execute_after": datetime(2030, 1, 1)}, ("execute_after", "time zone", "UTC")),  # noqa: DTZ001
        ({"expires_at": 5}, ("expires_at", "datetime", "5")),
        ({"expires_at": datetime(9999, 1, 1, tzinfo=UTC)}, ("expires_at", "2199")),
        ({"max_retries": -1}, ("max_retries", "0 to 65535")),
        ({"max_retries": 65_536}, ("max_retries", "0 to 65535")),
        ({"max_retries": 1.5}, ("max_retries", "1.5")),
        ({"retry": 3}, ("retry", "exponential()", "max_retries")),
        ({"cost": 0}, ("cost", "0.01 to 10000")),
        ({"cost": float("nan")}, ("cost", "nan")),
        ({"depends_on": 5}, ("depends_on", "5")),
        ({"depends_on": [5]}, ("depends_on", "int")),
        ({"trigger_rule": "sometimes"}, ("trigger_rule", "'all_success'", "'sometimes'")),
        ({"on_duplicate": "ignore"}, ("on_duplicate", "'return'", "'ignore'")),
        ({"dedup_key": ""}, ("dedup_key", "255")),
        ({"dedup_key": "é" * 128}, ("dedup_key", "255", "256")),
        ({"correlation_id": 1}, ("correlation_id", "string")),
        ({"labels": {"a": 1}}, ("labels", "'a'", "1")),
        ({"labels": ["a"]}, ("labels", "map")),
    ],
)
def test_a_bad_option_is_refused_by_name_value_and_limit(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    for build in (Task.create, Task, Task().with_options):
        with pytest.raises(InvalidTaskError) as caught:
            build(**options)
        for word in words:
            assert word in str(caught.value)


def test_options_that_contradict_each_other_are_refused() -> None:
    for build in (Task.create, Task):
        with pytest.raises(InvalidTaskError, match="delay and execute_after"):
            build(delay=1, execute_after=SOON)
        with pytest.raises(InvalidTaskError, match="dedup_key"):
            build(dedup_window=5)
    with pytest.raises(InvalidTaskError, match="not both"):
        Task(function="m:f", payload=1)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(InvalidTaskError, match=r"'prioriti'.*'priority'"):
        Task.create(prioriti=3)  # type: ignore[call-arg]


def test_with_options_is_a_fresh_copy_with_a_new_id() -> None:
    popped = Task._restore(
        task_id="a", user_id="alice", payload=[1], state=TaskState.STARTED, attempt=2, claim=Claim(b"", "")
    )

    copy = popped.with_options(priority=5, timeout=3)

    assert copy.task_id not in ("a", "")
    assert (copy.user_id, copy.payload, copy.priority, copy.timeout) == ("alice", [1], 5, 3.0)
    assert (copy.state, copy.attempt, copy.claim) == (None, 0, None)
    assert popped.with_options(task_id="b").task_id == "b"


def test_with_options_swaps_delay_and_execute_after() -> None:
    delayed = Task.create(delay=5)

    assert delayed.with_options(execute_after=SOON).delay is None
    assert delayed.with_options(execute_after=SOON).with_options(delay=1).execute_after is None
    with pytest.raises(InvalidTaskError, match="delay and execute_after"):
        delayed.with_options(delay=1, execute_after=SOON)


def test_calling_a_task_without_a_known_function() -> None:
    with pytest.raises(InvalidTaskError, match="payload"):
        Task.create(payload=1)()
    with pytest.raises(UnknownFunctionError, match="no_such_module:f"):
        Task(function="no_such_module:f")()


def test_a_task_shows_what_it_is() -> None:
    task = Task._restore(
        task_id="abc", user_id="alice", function="m:f", args=(1, "x" * 500), kwargs={"k": 2},
        state=TaskState.STARTED, claim=Claim(b"secret", "inc"),
    )  # fmt: skip

    assert repr(task).startswith("<Task 'abc' user_id='alice' m:f(1, 'xxx")
    assert len(repr(task)) < 200
    assert "secret" not in repr(task)


def test_restore_checks_nothing() -> None:
    # What the server holds was checked when it was pushed, perhaps by a version with other limits.
    assert Task._restore(cost=1e9).cost == 1e9


def test_options_of_every_kind_are_accepted() -> None:
    Task.create(
        user_id="a:b/ü", task_id="t", priority=Priority.LOW, delay=0, expires_at=SOON, timeout=1,
        max_retries=0, retry=exponential(), depends_on="x", trigger_rule="all_done",
        dedup_key="k", dedup_window=5, on_duplicate="return", cost=0.01, limiter="api",
        result_ttl=1, correlation_id="c", labels={},
    )  # fmt: skip
