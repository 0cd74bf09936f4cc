"""Policies: what is refused and how, rates as text, and what is sent to the scripts."""

from __future__ import annotations

import math
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairque
from fairque.core import exceptions
from fairque.core.config import QueueConfig, WorkerConfig
from fairque.core.exceptions import (
    ConfigError,
    FairQueueError,
    GroupInUseError,
    InvalidTaskError,
    QuotaExceededError,
    UnknownGroupError,
    UnknownLimiterError,
)
from fairque.core.policies import (
    MAX_RATE,
    MIN_RATE,
    AnyPolicy,
    GroupPolicy,
    LimiterPolicy,
    UserPolicy,
    default_burst,
    per_second,
    rate_text,
)
from fairque.queue.operations import assignment, policies
from fairque.queue.operations.base import Engine, Flow

NAN, INF = math.nan, math.inf
WAIT = "set paused"

SHARED: list[tuple[dict[str, Any], list[str]]] = [
    ({"weight": 0}, ["weight", "0.01 to 100", "not 0", WAIT]),
    ({"weight": -1}, ["weight", "0.01 to 100", "not -1"]),
    ({"weight": 100.5}, ["weight", "0.01 to 100", "not 100.5"]),
    ({"weight": NAN}, ["weight", "0.01 to 100", "not nan"]),
    ({"weight": INF}, ["weight", "0.01 to 100", "not inf"]),
    ({"weight": "2"}, ["weight", "number", "'2' (str)"]),
    ({"weight": True}, ["weight", "number", "True (bool)"]),
    ({"weight": None}, ["weight", "number", "None"]),
    ({"max_concurrency": 0}, ["max_concurrency", "1 to 1000000", "not 0", WAIT]),
    ({"max_concurrency": -3}, ["max_concurrency", "1 to 1000000", "not -3", "leave it out"]),
    ({"max_concurrency": 2.0}, ["max_concurrency", "whole number", "2.0 (float)"]),
    ({"max_queued": 0}, ["max_queued", "1 to 1000000000", "not 0", "leave it out"]),
    ({"max_queued": "9"}, ["max_queued", "whole number", "'9' (str)"]),
    ({"paused": 1}, ["paused", "true or false", "not 1"]),
]
RATES: list[tuple[dict[str, Any], list[str]]] = [
    ({"rate_limit": -1}, ["rate_limit", "0.00001 to 1,000,000", "not -1"]),
    ({"rate_limit": NAN}, ["rate_limit", "0.00001 to 1,000,000", "not nan"]),
    ({"rate_limit": INF}, ["rate_limit", "0.00001 to 1,000,000", "not inf"]),
    ({"rate_limit": 2e6}, ["rate_limit", "0.00001 to 1,000,000", "not 2000000.0"]),
    ({"rate_limit": "0/s"}, ["rate_limit", "0.00001 to 1,000,000", "not '0/s'"]),
    ({"rate_limit": "100/x"}, ["rate_limit", "'100/m'", "not '100/x'"]),
    ({"rate_limit": "fast"}, ["rate_limit", "'100/m'", "not 'fast'"]),
    ({"rate_limit": "-5/s"}, ["rate_limit", "'100/m'", "not '-5/s'"]),
    ({"rate_limit": ""}, ["rate_limit", "'100/m'", "not ''"]),
    ({"rate_limit": "50"}, ["rate_limit", "'50/s'", "without quotes"]),
    ({"rate_limit": True}, ["rate_limit", "True (bool)"]),
    ({"rate_limit": [5]}, ["rate_limit", "[5] (list)"]),
    ({"rate_limit": 1, "burst": 0}, ["burst", "1 to 1000000", "not 0", "leave it out"]),
    ({"rate_limit": 1, "burst": 1.5}, ["burst", "whole number", "1.5 (float)"]),
]
BUDGETS: list[tuple[dict[str, Any], list[str]]] = [
    ({"retry_budget": 1.5}, ["retry_budget", "0 to 1", "not 1.5", "0.2 is a fifth"]),
    ({"retry_budget": -0.1}, ["retry_budget", "0 to 1", "not -0.1"]),
    ({"retry_budget": NAN}, ["retry_budget", "0 to 1", "not nan"]),
    ({"retry_budget": "0.2"}, ["retry_budget", "number", "'0.2' (str)"]),
    ({"retry_budget": 0.2, "retry_minimum": 0}, ["retry_minimum", "0.00001", "not 0", "max_retries=0"]),
    ({"retry_budget": 0.2, "retry_minimum": "often"}, ["retry_minimum", "'100/m'", "not 'often'"]),
    ({"retry_minimum": 1}, ["retry_minimum is for a retry_budget", "give the retry_budget too"]),
]
WRONG: list[tuple[type[AnyPolicy], dict[str, Any], list[str]]] = [
    *((UserPolicy, options, words) for options, words in BUDGETS),
    *((kind, options, words) for kind in (UserPolicy, GroupPolicy) for options, words in [*SHARED, *RATES]),
    *((LimiterPolicy, options, words) for options, words in RATES),
    *((kind, {"rate_limit": 0}, ["rate_limit", "not 0", WAIT]) for kind in (UserPolicy, GroupPolicy)),
    *((kind, {"burst": 5}, ["burst", "rate_limit"]) for kind in (UserPolicy, GroupPolicy, LimiterPolicy)),
    (LimiterPolicy, {"rate_limit": 0}, ["rate_limit", "not 0", "pause its users"]),
    (LimiterPolicy, {"max_concurrency": 0}, ["max_concurrency", "not 0", "pause its users"]),
    (LimiterPolicy, {}, ["rate_limit", "max_concurrency"]),
    (UserPolicy, {"group": ""}, ["group", "empty", "leave it out"]),
    (UserPolicy, {"group": 3}, ["group", "string"]),
    (UserPolicy, {"group": "x" * 257}, ["group", "256"]),
    (UserPolicy, {"group": "\ud800"}, ["group", "surrogate"]),
]


@pytest.mark.parametrize(("kind", "options", "words"), WRONG)
def test_what_is_wrong_is_told_with_the_value_the_limit_and_the_way_out(
    kind: type[AnyPolicy], options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(**options)
    for word in words:
        assert word in str(refused.value)


def test_good_policies() -> None:
    policy = UserPolicy(weight=2, max_concurrency=10, rate_limit="100/m", burst=100, max_queued=100_000)
    assert (policy.weight, policy.paused, policy.group) == (2, False, None)
    assert policy.rate_limit == pytest.approx(100 / 60)
    assert GroupPolicy(rate_limit=50).rate_limit == 50.0
    assert LimiterPolicy(max_concurrency=1).rate_limit is None
    assert not hasattr(GroupPolicy(), "group")
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301
    with pytest.raises(TypeError):
        GroupPolicy(group="a")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        policy.weight = 3  # type: ignore[misc]
    assert fairque.UserPolicy is UserPolicy
    assert fairque.GroupPolicy is GroupPolicy
    assert fairque.LimiterPolicy is LimiterPolicy


# -- rates


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(50, 50), (0.5, 0.5), ("50/s", 50), ("100/m", 100 / 60), (" 1000 / h ", 1000 / 3600), ("5000/d", 5000 / 86400),
     ("1.5/s", 1.5), ("1/d", 1 / 86400), (MIN_RATE, MIN_RATE), (MAX_RATE, MAX_RATE)],
)  # fmt: skip
def test_rates(rate: float | str, wanted: float) -> None:
    assert per_second(rate) == wanted
    assert type(per_second(rate)) is float


@pytest.mark.parametrize("text", ["100/m", "7/h", "5000/d", "1/m", "1/d", "101/h"])
def test_a_rate_is_shown_as_it_was_written(text: str) -> None:
    assert rate_text(per_second(text)) == text


@given(st.one_of(st.floats(MIN_RATE, MAX_RATE), st.integers(1, 10**6).map(float)))
def test_what_is_shown_of_a_rate_is_that_rate(rate: float) -> None:
    assert per_second(rate_text(rate)) == rate


@pytest.mark.parametrize(("rate", "burst"), [(0.01, 2), (1, 2), (20, 2), (21, 3), (25, 3), (1000, 100)])
def test_a_burst_that_is_left_out(rate: float, burst: int) -> None:
    assert default_burst(rate) == burst
    assert policies.fields_of(UserPolicy(rate_limit=rate))["burst"] == burst
    assert policies.fields_of(UserPolicy(rate_limit=rate, burst=7))["burst"] == 7


# -- what is sent


def test_what_is_sent_of_a_policy() -> None:
    everything = UserPolicy(
        weight=0.0105, max_concurrency=3, rate_limit=5, burst=4, max_queued=9, paused=True, group="a: b",
        retry_budget=1, retry_minimum="30/m",
    )  # fmt: skip
    assert policies.fields_of(everything) == {
        "weight": 10, "max_concurrency": 3, "rate_limit": 5.0, "burst": 4, "max_queued": 9, "paused": True,
        "group": "a%3A b", "retry_budget": 1.0, "retry_minimum": 0.5,
    }  # fmt: skip
    assert policies.fields_of(UserPolicy(retry_budget=0.2))["retry_minimum"] == 1
    assert policies.fields_of(UserPolicy()) == {"weight": 1000, "paused": False}
    assert policies.fields_of(LimiterPolicy(max_concurrency=2)) == {"max_concurrency": 2}
    assert policies.packed(None, UserPolicy) == b""


WEIGHTS = st.integers(10, 100_000).map(lambda thousandths: thousandths / 1000)
COUNTS = st.none() | st.integers(1, 10**6)
TENANTS: dict[str, Any] = {
    "weight": WEIGHTS, "max_concurrency": COUNTS, "max_queued": COUNTS, "paused": st.booleans(),
    "rate_limit": st.none() | st.floats(MIN_RATE, MAX_RATE),
}  # fmt: skip
NAMES = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
POLICIES = st.one_of(
    st.builds(UserPolicy, group=st.none() | NAMES, **TENANTS),
    st.builds(UserPolicy, retry_budget=st.floats(0, 1), retry_minimum=st.floats(MIN_RATE, MAX_RATE)),
    st.builds(UserPolicy, retry_budget=st.floats(0, 1)),
    st.builds(GroupPolicy, **TENANTS),
    st.builds(LimiterPolicy, rate_limit=st.floats(MIN_RATE, MAX_RATE), max_concurrency=COUNTS),
    st.builds(UserPolicy, rate_limit=st.floats(MIN_RATE, MAX_RATE), burst=st.integers(1, 10**6)),
)


@given(POLICIES)
def test_what_is_sent_reads_back_the_same(policy: AnyPolicy) -> None:
    back: Any = policies._made(msgspec.msgpack.decode(policies.packed(policy, type(policy))), type(policy))
    assert policies.fields_of(back) == policies.fields_of(policy)
    if policy.burst is None or policy.burst != default_burst(policy.rate_limit or 1):
        assert back == policy


@pytest.mark.parametrize("wrong", [GroupPolicy(), {"weight": 2}, 3, UserPolicy])
def test_only_a_policy_of_the_kind_is_sent(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must be a UserPolicy, not"):
        policies.packed(wrong, UserPolicy)
    with pytest.raises(ConfigError, match="must be a UserPolicy, not"):
        policies.packed_rules({"a*": wrong})


def test_rules_are_sent_in_order_and_default_is_last() -> None:
    rules = {"default": UserPolicy(), "b*": UserPolicy(weight=2), "a?": UserPolicy(group="g:")}
    sent = policies.packed_rules(rules)
    decoded = msgspec.msgpack.decode(sent, type=list[tuple[msgspec.Raw, dict[str, Any], str]])
    assert [(fields, glob) for _, fields, glob in decoded] == [
        ({"weight": 2000, "paused": False}, "b*"),
        ({"weight": 1000, "paused": False, "group": "g%3A"}, "a?"),
        ({"weight": 1000, "paused": False}, "default"),
    ]
    patterns = [bytes(pattern) for pattern, _, _ in decoded]
    # As msgpack's text, which need not be UTF-8: its other kind is unknown to the server.
    assert patterns == [b"\xa2^b", b"\xaf^a[^\x80-\xbf][\x80-\xbf]*$", b"\xa1^"]
    assert policies.packed_rules({}) == b""
    with pytest.raises(ConfigError, match=r"1002 rules.*1001"):
        policies.packed_rules({f"{number}-*": UserPolicy() for number in range(1002)})
    with pytest.raises(ConfigError, match="ASCII"):
        policies.packed_rules({"[ü]": UserPolicy()})


def test_which_rule_is_a_users() -> None:
    rules = {"a-*": UserPolicy(), "a*": UserPolicy(), "default": UserPolicy()}
    assert [policies.rule_for(rules, user) for user in ("a-1", "ab", "zoe", "default")] == [
        "a-*", "a*", "default", "default",
    ]  # fmt: skip
    assert policies.rule_for({"a*": UserPolicy()}, "zoe") is None


# -- who serves whom


def entries(*given: tuple[str, Any, Any]) -> list[WorkerConfig]:
    return [WorkerConfig(id=name, assigned_users=own, steal_targets=steal) for name, own, steal in given]


def test_an_assignment_is_told_user_by_user() -> None:
    found = assignment.assignment(
        entries(
            ("a b", ["ann", "x:y"], ["bob"]), ("b", ["bob"], []), ("c", "*", "*"), ("d", [], ["bob", "ann"])
        )
    )
    assert found.views == {"ann": ("oa%20b", "td"), "bob": ("ob", "ta%20b", "td"), "x%3Ay": ("oa%20b",)}
    assert found.entries == {
        "a%20b": {"own": "list", "steal": "list"},
        "b": {"own": "list", "steal": "none"},
        "c": {"own": "*", "steal": "*"},
        "d": {"own": "list", "steal": "list"},
    }


def test_the_same_assignment_has_the_same_digest() -> None:
    one = assignment.assignment(entries(("a", ["x", "y"], "*"), ("b", "*", ["x"])))
    assert one == assignment.assignment(entries(("b", "*", ["x"]), ("a", ["y", "x"], "*")))
    assert len(one.digest) == 40
    others = [
        entries(("a", ["x", "y"], "*"), ("b", "*", ["y"])),
        entries(("a", ["x", "y"], "*"), ("b", "*", [])),
        entries(("a", ["x"], "*"), ("b", "*", ["x"])),
        entries(("a", ["x", "y"], "*"), ("c", "*", ["x"])),
    ]
    assert len({one.digest, *(assignment.assignment(other).digest for other in others)}) == 5


def calls(flow: Flow[bool], replies: dict[str, list[int]]) -> tuple[bool, list[tuple[Any, ...]]]:
    """Drive a flow of `assign` calls; what it gave, and what it called."""
    made: list[tuple[Any, ...]] = []
    reply: Any = None
    while True:
        try:
            call = flow.send(reply)
        except StopIteration as stop:
            return stop.value, made
        assert call.script == "assign"
        made.append(tuple(call.argv[2:]))
        following = replies.get(str(call.argv[2]), [])
        reply = following.pop(0) if following else 1 if call.argv[2] != "reindex" else 0


def test_publishing_goes_in_bounded_calls() -> None:
    users = [f"u{number}" for number in range(1201)]
    wanted = assignment.assignment(entries(("a", users, "*")))
    changed, made = calls(assignment.publish(Engine(QueueConfig()), wanted), {"reindex": [1, 1]})
    assert changed
    assert [call[0] for call in made] == [
        "begin",
        "add",
        "add",
        "add",
        "commit",
        "reindex",
        "reindex",
        "reindex",
    ]
    assert [len(call) for call in made[1:4]] == [1002, 1002, 404]
    assert {call[1] for call in made[:5]} == {wanted.digest}
    assert made[1][2:4] == ("u0", "oa")
    assert msgspec.msgpack.decode(made[4][2]) == {"a": {"own": "list", "steal": "*"}}


def test_what_is_published_already_is_not_published_again() -> None:
    wanted = assignment.assignment([WorkerConfig()])
    changed, made = calls(assignment.publish(Engine(QueueConfig()), wanted), {"begin": [0], "reindex": [1]})
    assert not changed
    assert [call[0] for call in made] == ["begin", "reindex", "reindex"]


def test_the_change_before_is_finished_first() -> None:
    wanted = assignment.assignment(entries(("a", ["x"], "*")))
    changed, made = calls(
        assignment.publish(Engine(QueueConfig()), wanted), {"commit": [0], "reindex": [1, 0]}
    )
    assert changed
    assert [call[0] for call in made] == ["begin", "add", "commit", "reindex", "reindex", "commit", "reindex"]
    with pytest.raises(FairQueueError, match="same configuration"):
        calls(assignment.publish(Engine(QueueConfig()), wanted), {"commit": [0] * 100})


# -- errors


def test_errors_know_what_they_are_about() -> None:
    quota = QuotaExceededError(task_id="t", user_id="alice", queued=10, limit=10, room_in_seconds=2.5)
    assert str(quota) == (
        "user alice has 10 tasks waiting, and max_queued allows 10: there is likely room in 2.5 s, or raise the limit"
    )
    assert (quota.task_id, quota.user_id, quota.queued, quota.limit) == ("t", "alice", 10, 10)
    assert "push again later" in str(QuotaExceededError(user_id="a", queued=3, limit=3))
    of_group = QuotaExceededError(user_id="a", group="acme", queued=3, limit=3)
    assert "group acme of user a" in str(of_group)
    used = GroupInUseError(group="acme", tasks=7)
    assert "7 tasks that wait or run" in str(used)
    for error in (
        quota,
        of_group,
        used,
        UnknownGroupError(group="acme"),
        UnknownLimiterError(task_id="t", user_id="alice", limiter="api"),
    ):
        assert isinstance(error, FairQueueError)
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (str(copy), vars(copy)) == (str(error), vars(error))
    assert "`groups`" in str(UnknownGroupError(group="acme"))
    assert "set_limiter('api'" in str(UnknownLimiterError(limiter="api"))
    assert issubclass(UnknownGroupError, ConfigError)
    assert issubclass(UnknownLimiterError, InvalidTaskError)
    assert exceptions.QuotaExceededError.__bases__ == exceptions.QueueFullError.__bases__ == (FairQueueError,)
