"""Retry policies by the type of the exception."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairque.core.codec import decode_task_body, encode_task_body
from fairque.core.decorator import task
from fairque.core.exceptions import ConfigError, InvalidTaskError, SerializationError
from fairque.core.models import Task
from fairque.core.registry import Registry
from fairque.core.retry import (
    DEFAULT_RETRY,
    Discard,
    RetryAfter,
    RetryPolicy,
    Snooze,
    exponential,
    fixed,
    linear,
    never,
)
from fairque.core.retry_rules import RetryRules, next_delay, on, read_retry


class RateLimitedError(ConnectionError):
    """A subclass of the user's own."""


RULES = (
    on(ConnectionError, fixed(1))
    | on(RateLimitedError, fixed(60))
    | on((ValueError, KeyError), never)
    | fixed(5)
)


def delay(retry: Any, error: BaseException, number: int = 1) -> float | None:
    return next_delay(retry, DEFAULT_RETRY, error, number, 0.0)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ConnectionError(), 1),
        (ConnectionResetError(), 1),
        (RateLimitedError(), 60),
        (ValueError(), None),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), None),
        (KeyError(), None),
        (LookupError(), 5),
        (SystemExit(), 5),
    ],
)
def test_the_most_specific_rule_decides_wherever_it_stands(
    error: BaseException, seconds: float | None
) -> None:
    assert delay(RULES, error) == seconds
    turned = (
        on(RateLimitedError, fixed(60)) | on((KeyError, ValueError), never) | on(ConnectionError, fixed(1))
    )
    assert delay(turned | fixed(5), error) == seconds


def test_what_no_rule_names_gets_the_default() -> None:
    rules = on(ValueError, never)
    assert delay(rules, KeyError()) == DEFAULT_RETRY.delay(1, 0.0)
    assert next_delay(None, fixed(9), KeyError(), 1, 0.0) == 9
    assert delay(never, KeyError()) is None


def test_types_may_be_named_by_text() -> None:
    rules = on("builtins.ConnectionError", never) | on(f"{__name__}.RateLimitedError", fixed(3))
    assert delay(rules, ConnectionAbortedError()) is None
    assert delay(rules, RateLimitedError()) == 3


def test_a_policy_in_a_rule_keeps_its_own_exceptions() -> None:
    rules = on(OSError, linear(2, give_up_on=FileNotFoundError))
    assert delay(rules, PermissionError(), 3) == 6
    assert delay(rules, FileNotFoundError()) is None


KINDS = [OSError, ConnectionError, ConnectionResetError, RateLimitedError, ValueError, LookupError, Exception]


@given(
    st.dictionaries(st.sampled_from(KINDS), st.integers(1, 100), min_size=1),
    st.sampled_from(KINDS),
    st.integers(101, 200),
)
def test_the_nearest_named_type_decides(
    named: dict[type[Exception], int], kind: type[Exception], otherwise: int
) -> None:
    rules: RetryRules | None = None
    for one, seconds in named.items():
        rules = on(one, fixed(seconds)) if rules is None else rules | on(one, fixed(seconds))
    assert rules is not None
    nearest = next((named[base] for base in kind.__mro__ if base in named), otherwise)
    assert delay(rules | fixed(otherwise), kind()) == nearest


# -- how they travel


@pytest.mark.parametrize(
    "retry", [RULES, on(ValueError, exponential()), on("m.E", never) | linear(3), never, fixed(2)]
)
def test_rules_travel_as_data(retry: Any) -> None:
    body = encode_task_body(Task.create(payload=1, retry=retry))
    assert b"RateLimitedError" in body or retry is not RULES
    assert decode_task_body(body)["retry"] == retry
    assert read_retry(msgspec.to_builtins(retry)) == retry


@pytest.mark.parametrize("stored", [["rules"], ["rules", [["a"]]], ["sometimes", 1], 5, [], {}, None])
def test_what_stands_for_neither_is_malformed(stored: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec says what is wrong
        read_retry(stored)
    body = encode_task_body(Task.create(payload=1, retry=never))
    options = msgspec.msgpack.encode({2: stored})
    damaged = body[: -len(msgspec.msgpack.encode({2: never}))] + options
    with pytest.raises(SerializationError, match="the task's option retry is malformed"):
        decode_task_body(damaged)


# -- what is refused, when a function is decorated


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: on(5, never), "on() takes exception types or their names, not 5"),  # type: ignore[arg-type]
        (lambda: on(int, never), "on() takes exception types or their names, not <class 'int'>"),  # type: ignore[arg-type]
        (lambda: on((), never), "on() names no exception type"),
        (
            lambda: on(ValueError, 5),
            "on(ValueError, ...) takes a policy made by fixed(), linear() or exponential()",
        ),  # type: ignore[arg-type]
        (lambda: on(RetryAfter, never), "fairque.core.retry.RetryAfter says by itself"),
        (lambda: on((ValueError, Snooze), never), "fairque.core.retry.Snooze says by itself"),
        (lambda: on(Discard, never), "fairque.core.retry.Discard says by itself"),
        (lambda: on(ValueError, never) | on((KeyError, ValueError), fixed(1)), "two rules name ValueError"),
        (lambda: on(ValueError, never) | fixed(1) | fixed(2), "stands last, and there is one at most"),
        (
            lambda: on(ValueError, never) | fixed(1) | on(KeyError, never),
            "stands last, and there is one at most",
        ),
        (lambda: fixed(1) | on(ValueError, never), "stands last: on(...) | fixed(5)"),  # type: ignore[operator]
    ],
)
def test_bad_rules_are_refused_where_they_are_written(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("retry", "said"),
    [
        (5, "how many retries there are is max_retries"),
        ({ValueError: None}, "by exception type it is written on(ConnectionError, exponential()) |"),
        (ValueError, "or rules made by on()"),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_at_the_decorator(retry: Any, said: str) -> None:
    with pytest.raises(InvalidTaskError) as refused:
        task(registry=Registry(), retry=retry)
    assert said in str(refused.value)


@pytest.mark.parametrize("other", [5, None, "x"])
def test_rules_join_with_rules_and_policies_only(other: Any) -> None:
    with pytest.raises(TypeError):
        on(ValueError, never) | other


def test_rules_are_values() -> None:
    assert on(ValueError, fixed(1)) | fixed(2) == RetryRules(on(ValueError, fixed(1)).rules, fixed(2))
    assert len({RULES, RULES, on(ValueError, never)}) == 2
    assert isinstance(never, RetryPolicy)
