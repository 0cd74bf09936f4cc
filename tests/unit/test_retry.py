"""Delays of retry policies, which errors they retry, and the exceptions by which a task decides itself."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.retry import (
    DEFAULT_RETRY,
    Discard,
    RetryAfter,
    RetryPolicy,
    Snooze,
    exponential,
    fixed,
    linear,
    type_name,
)


def delays(policy: RetryPolicy, count: int = 5, random: float = 0.0) -> list[float]:
    return [policy.delay(number, random) for number in range(1, count + 1)]


def test_fixed_waits_the_same_each_time() -> None:
    assert delays(fixed(3)) == [3, 3, 3, 3, 3]


def test_linear_grows_by_its_base_up_to_the_cap() -> None:
    assert delays(linear(base=2, cap=7)) == [2, 4, 6, 7, 7]


def test_exponential_multiplies_up_to_the_cap() -> None:
    assert delays(exponential(base=1, cap=10, jitter=False)) == [1, 2, 4, 8, 10]
    assert delays(exponential(base=1, cap=100, factor=3, jitter=False)) == [1, 3, 9, 27, 81]


def test_jitter_waits_between_half_and_all() -> None:
    policy = exponential(base=8, cap=8, jitter=True)

    assert policy.delay(1, 0.0) == 4
    assert policy.delay(1, 0.5) == 6
    assert policy.delay(1, 0.999_999) < 8


def test_the_default_is_exponential_to_a_minute_with_jitter() -> None:
    assert exponential(base=1, cap=60, jitter=True) == DEFAULT_RETRY


@given(
    st.sampled_from([fixed(5, jitter=True), linear(2, 50), exponential(1, 60), exponential(0, 60)]),
    st.integers(1, 65_535),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_negative_nor_over_the_cap(policy: RetryPolicy, number: int, random: float) -> None:
    assert 0 <= policy.delay(number, random) <= policy.cap


def test_a_policy_travels_as_data() -> None:
    policy = exponential(2, 30, retry_on=(OSError, "app.errors.Busy"), give_up_on=FileNotFoundError)

    data = msgspec.msgpack.encode(policy)

    assert msgspec.msgpack.decode(data, type=RetryPolicy) == policy
    assert policy.retry_on == ("OSError", "app.errors.Busy")


class BusyError(Exception):
    pass


class VeryBusyError(BusyError):
    pass


def test_without_lists_everything_is_retried() -> None:
    assert fixed(1).wants_retry(ValueError())


def test_retry_on_names_what_is_retried_with_its_subclasses() -> None:
    policy = fixed(1, retry_on=BusyError)

    assert policy.wants_retry(VeryBusyError())
    assert not policy.wants_retry(ValueError())


def test_give_up_on_names_what_is_not_retried() -> None:
    policy = fixed(1, give_up_on=(BusyError, "ValueError"))

    assert not policy.wants_retry(VeryBusyError())
    assert not policy.wants_retry(UnicodeDecodeError("utf-8", b"", 0, 1, ""))
    assert policy.wants_retry(KeyError())


def test_the_nearest_type_decides() -> None:
    assert not fixed(1, retry_on=OSError, give_up_on=FileNotFoundError).wants_retry(FileNotFoundError())
    assert fixed(1, retry_on=OSError, give_up_on=FileNotFoundError).wants_retry(PermissionError())
    assert fixed(1, retry_on=ConnectionError, give_up_on=OSError).wants_retry(ConnectionResetError())


def test_a_type_is_matched_by_its_qualified_name() -> None:
    assert type_name(BusyError) == f"{__name__}.BusyError"
    assert fixed(1, retry_on=f"{__name__}.BusyError").wants_retry(VeryBusyError())
    assert fixed(1, retry_on="builtins.KeyError").wants_retry(KeyError())


@pytest.mark.parametrize(
    "build",
    [
        lambda: fixed(-1),
        lambda: fixed(float("nan")),
        lambda: exponential(factor=0.5),
        lambda: exponential(cap=float("inf")),
        lambda: linear(base="1"),  # type: ignore[arg-type]
    ],
)
def test_numbers_out_of_range_are_refused(build: Any) -> None:
    with pytest.raises(InvalidTaskError):
        build()


@pytest.mark.parametrize("types", [int, [1], "", (BusyError, object())])
def test_what_is_no_exception_type_is_refused(types: Any) -> None:
    with pytest.raises(ConfigError, match="retry_on"):
        fixed(1, retry_on=types)


def test_one_type_in_both_lists_is_refused() -> None:
    with pytest.raises(ConfigError, match="ValueError"):
        fixed(1, retry_on=ValueError, give_up_on=(KeyError, ValueError))


def test_control_flow_exceptions_carry_what_they_ask_for() -> None:
    assert RetryAfter(2.5).seconds == 2.5
    assert str(RetryAfter(2.5)) == "retry after 2.5 s"
    assert Snooze(60, "no slot").reason == "no slot"
    assert Discard("obsolete").reason == "obsolete"
    for kind in (RetryAfter, Snooze):
        with pytest.raises(InvalidTaskError, match=kind.__name__):
            kind(-1)


@pytest.mark.parametrize("error", [RetryAfter(1, "busy"), Snooze(2), Discard("late")])
def test_control_flow_exceptions_survive_pickle(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
