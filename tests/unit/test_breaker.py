"""The circuit breaker's state machine, and what counts as a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fairque.core.breaker import PASS, PROBE_LIMIT_SECONDS, Change, Circuit, CircuitState
from fairque.core.exceptions import (
    CircuitOpenError,
    ConfigError,
    QueueUnavailableError,
    ServerNotFoundError,
)
from fairque.queue.backoff import FIRST_SECONDS, JITTER, LONGEST_SECONDS, Backoff
from fairque.queue.outages import is_outage

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def opened(now: float = 0.0) -> Circuit:
    """A circuit that has just opened."""
    circuit = Circuit(failure_threshold=1, failure_seconds=0, recovery_timeout_seconds=10)
    assert circuit.failed(PASS, now) == Change(CLOSED, OPEN)
    return circuit


def test_it_opens_after_enough_failures_in_a_row() -> None:
    circuit = Circuit(3, 0, 10)
    assert circuit.failed(PASS, 1) is None
    assert circuit.failed(PASS, 1) is None
    assert circuit.troubled
    assert circuit.answered(PASS) is None
    assert not circuit.troubled
    for _ in range(2):
        assert circuit.failed(PASS, 2) is None
    assert circuit.failed(PASS, 2) == Change(CLOSED, OPEN)
    assert circuit.retry_after(2) == 10


def test_it_opens_only_if_the_failures_went_on_for_long_enough() -> None:
    """A hundred connections that are reset at once are one moment's trouble."""
    circuit = Circuit(3, 2.0, 10)
    for _ in range(100):
        assert circuit.failed(PASS, 1.0) is None
    assert circuit.failed(PASS, 2.9) is None
    assert circuit.failed(PASS, 3.0) == Change(CLOSED, OPEN)


def test_nothing_passes_until_the_period_is_over_and_then_one_call() -> None:
    circuit = opened()
    assert circuit.enter(9.9) == (None, None)
    probe, change = circuit.enter(10.0)
    assert probe not in (None, PASS)
    assert change == Change(OPEN, HALF_OPEN)
    assert circuit.enter(11.0) == (None, None)
    assert circuit.enter(12.0) == (None, None)


def test_the_probe_decides() -> None:
    circuit = opened()
    probe, _ = circuit.enter(10)
    assert probe is not None
    assert circuit.failed(probe, 15) == Change(HALF_OPEN, OPEN)
    assert circuit.enter(24.9) == (None, None)
    probe, _ = circuit.enter(25)
    assert probe is not None
    assert circuit.answered(probe) == Change(HALF_OPEN, CLOSED)
    assert not circuit.troubled
    assert circuit.enter(25) == (PASS, None)


def test_what_earlier_calls_say_is_not_listened_to() -> None:
    circuit = opened()
    assert circuit.answered(PASS) is None
    assert circuit.failed(PASS, 9) is None
    assert circuit.retry_at == 10
    first, _ = circuit.enter(10)
    assert first is not None
    assert circuit.answered(PASS) is None
    circuit.failed(first, 11)
    second, _ = circuit.enter(21)
    assert second is not None
    assert circuit.answered(first) is None
    assert circuit.failed(first, 22) is None
    assert circuit.state is HALF_OPEN
    assert circuit.answered(second) == Change(HALF_OPEN, CLOSED)


def test_a_probe_that_is_given_up_makes_room_for_another_at_once() -> None:
    circuit = opened()
    probe, _ = circuit.enter(10)
    assert probe is not None
    assert circuit.dropped(PASS, 10.5) is None
    assert circuit.dropped(probe, 10.5) == Change(HALF_OPEN, OPEN)
    another, _ = circuit.enter(10.5)
    assert another not in (None, probe)


def test_a_probe_that_never_says_anything_is_replaced() -> None:
    circuit = opened()
    lost, _ = circuit.enter(10)
    assert circuit.enter(10 + PROBE_LIMIT_SECONDS - 0.1) == (None, None)
    another, change = circuit.enter(10 + PROBE_LIMIT_SECONDS)
    assert another not in (None, lost)
    assert change is None


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # seconds since the step before
        st.sampled_from(["enter", "answered", "failed", "dropped"]),
        st.integers(0, 5),  # which of the calls that are out
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 4), st.integers(0, 3), st.integers(1, 4))
def test_whatever_happens_its_promises_hold(
    steps: list[tuple[int, str, int]], threshold: int, seconds: int, period: int
) -> None:
    circuit = Circuit(threshold, seconds, period)
    now, row, since, opened_at = 0, 0, 0, 0
    out: list[int] = []
    probe: int | None = None
    for passed, what, which in steps:
        now += passed
        before = circuit.state
        if what == "enter":
            permit, change = circuit.enter(now)
            if permit is None:
                assert before is not CLOSED
                assert change is None
                # A whole period since it opened, or since the probe went out, was not over.
                assert probe is not None or now < opened_at + period
            elif before is CLOSED:
                assert permit == PASS
            else:
                # One probe, after the period, and no other while it is out.
                assert before is OPEN
                assert now >= opened_at + period
                assert probe is None
                probe = permit
            if permit is not None:
                out.append(permit)
            continue
        if not out:
            continue
        permit = out.pop(which % len(out))
        decides = before is CLOSED or permit == probe
        if what == "answered":
            change = circuit.answered(permit)
            if decides:
                assert circuit.state is CLOSED
                assert not circuit.troubled
                row, probe = 0, None
        elif what == "failed":
            change = circuit.failed(permit, now)
            if before is CLOSED:
                since = now if row == 0 else since
                row += 1
                assert (circuit.state is OPEN) == (row >= threshold and now - since >= seconds)
            if decides and circuit.state is OPEN:
                opened_at, probe = now, None
        else:
            change = circuit.dropped(permit, now)
            if permit == probe and before is HALF_OPEN:
                assert circuit.state is OPEN
                opened_at, probe = now - period, None
        if not decides:
            assert change is None
            assert circuit.state is before
        assert (change is None) == (before is circuit.state)
        assert circuit.troubled or circuit.state is CLOSED
        assert circuit.retry_after(now) <= period


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (RedisConnectionError("Connection refused"), True),
        (RedisTimeoutError("Timeout reading"), True),
        (ConnectionResetError(), True),
        (BusyLoadingError("Redis is loading"), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (ClusterDownError("The cluster is down"), True),
        (ResponseError("CLUSTERDOWN Hash slot not served"), True),
        (ResponseError("MASTERDOWN Link with MASTER is down"), True),
        (ResponseError("BUSY Redis is busy running a script"), True),
        (QueueUnavailableError("the embedded server ended at once"), True),
        (ResponseError("FQ_STATE x finished canceled"), False),
        (ResponseError("OOM command not allowed"), False),
        (ResponseError("Function not found"), False),
        (AuthenticationError("WRONGPASS"), None),
        (MaxConnectionsError("all 50 connections are busy"), None),
        (ServerNotFoundError("no server program"), None),
        (ConfigError("redis.ssl_ca_certs: there is no file"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_what_counts_as_a_failure(error: BaseException, outage: bool | None) -> None:
    assert is_outage(error) is outage


def test_a_worker_waits_longer_each_time_and_not_at_the_same_time_as_others() -> None:
    error = QueueUnavailableError("away")
    shortest, longest = Backoff(lambda: 0.0), Backoff(lambda: 1.0)
    for factor in (1, 2, 4, 8, 8, 8):
        assert shortest.failed(error) == pytest.approx(FIRST_SECONDS * factor * (1 - JITTER))
        assert longest.failed(error) == pytest.approx(FIRST_SECONDS * factor * (1 + JITTER))
    assert shortest.away
    shortest.succeeded()
    assert not shortest.away
    assert shortest.failed(error) < FIRST_SECONDS


def test_a_worker_waits_until_the_breaker_lets_something_through() -> None:
    backoff = Backoff(lambda: 0.0)
    pause = backoff.failed(CircuitOpenError("open", retry_after_seconds=30))
    assert 30 < pause < 30 + LONGEST_SECONDS
