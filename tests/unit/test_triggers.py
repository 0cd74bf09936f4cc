"""Trigger rules: every combination of up to three dependencies, against what the rules say in words."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from fairque.core.exceptions import InvalidTaskError
from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.states import TaskState
from fairque.core.triggers import RUN, WAIT, Decision, decide

CONDITIONS = ("succeeded", "failed", "canceled", "pending")
ENDED = CONDITIONS[:3]
COMBINATIONS = [some for count in range(4) for some in product(CONDITIONS, repeat=count)]


def decided(rule: TriggerRule, some: tuple[str, ...]) -> Decision:
    return decide(rule, **{name: some.count(name) for name in CONDITIONS})


def outcomes(some: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every way in which those that are pending can end."""
    return list(product(*(ENDED if item == "pending" else (item,) for item in some)))


# The rules in words, for dependencies that have all ended. A task without any runs.
IN_THE_END: dict[TriggerRule, Any] = {
    "all_success": lambda some: all(item == "succeeded" for item in some),
    "all_done": lambda some: True,
    "one_success": lambda some: not some or "succeeded" in some,
    "one_failed": lambda some: not some or "failed" in some,
    "none_failed": lambda some: "failed" not in some,
}


@pytest.mark.parametrize("rule", TRIGGER_RULES)
def test_every_combination(rule: TriggerRule) -> None:
    for some in COMBINATIONS:
        verdicts = {IN_THE_END[rule](end) for end in outcomes(some)}
        # These two wait for the end of all, though it may be certain before that it will run.
        patient = rule in ("all_done", "none_failed") and "pending" in some and verdicts != {False}
        if len(verdicts) == 2 or patient:
            assert decided(rule, some) == WAIT, some
        else:
            # As soon as it is certain, it is decided.
            assert decided(rule, some).action == ("run" if verdicts == {True} else "never"), some


@pytest.mark.parametrize("rule", TRIGGER_RULES)
def test_a_task_that_never_runs_ends_failed_if_one_failed_and_canceled_otherwise(rule: TriggerRule) -> None:
    for some in COMBINATIONS:
        decision = decided(rule, some)
        if decision.action == "never":
            assert decision.state == (TaskState.FAILED if "failed" in some else TaskState.CANCELED), some
            assert "dependency" in decision.reason
        else:
            assert decision in (RUN, WAIT), some


@pytest.mark.parametrize("rule", TRIGGER_RULES)
def test_what_was_decided_stays_decided(rule: TriggerRule) -> None:
    for some in COMBINATIONS:
        early = decided(rule, some)
        for end in outcomes(some):
            late = decided(rule, end)
            assert late != WAIT
            if early != WAIT:
                assert late.action == early.action, (some, end)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InvalidTaskError, match=r"'one_failed', 'none_failed', not 'sometimes'"):
        decide("sometimes", succeeded=1, failed=0, canceled=0, pending=0)  # type: ignore[arg-type]
    assert get_args(TriggerRule) == TRIGGER_RULES
