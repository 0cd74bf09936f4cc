"""Policies of users, groups, limiters and rules: how they are kept, what they do, and how workers publish them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fairque.core.config import FairQueueConfig
from fairque.core.exceptions import (
    ConfigError,
    GroupInUseError,
    InvalidTaskError,
    QuotaExceededError,
    UnknownGroupError,
    UnknownLimiterError,
)
from fairque.core.models import Task
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations import assignment
from fairque.queue.operations.base import Call, Flow
from fairque.worker.policies import apply_policies, without_effect
from tests.support.facades import Clock, Facades
from tests.support.queues import config_for
from tests.support.servers import ServerProcess


def push(queue: Any, user: str, count: int = 1, **options: Any) -> None:
    outcomes = queue.push_batch(
        Task.create(payload=number, user_id=user, **options) for number in range(count)
    )
    assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes if outcome.error]


def users_of(tasks: list[Task[Any]]) -> list[str]:
    return [task.user_id for task in tasks]


def everything(queue: Any, kind: str) -> dict[str, Any]:
    """All pages of a list."""
    found: dict[str, Any] = {}
    cursor = None
    while True:
        page = queue.list_policies(kind, cursor)
        found.update(page.items)
        cursor = page.cursor
        if cursor is None:
            return found


# -- kept as they were given


def test_groups_are_kept_as_they_were_given(queue: Any, other: Any) -> None:
    assert queue.get_group_policy("a: b") is None
    for policy in (
        GroupPolicy(),
        GroupPolicy(weight=0.01, paused=True),
        GroupPolicy(weight=100, max_concurrency=7, rate_limit="100/m", burst=3, max_queued=10),
    ):
        queue.set_group_policy("a: b", policy)
        assert other.get_group_policy("a: b") == policy
    queue.set_group_policy("a: b", None)
    assert other.get_group_policy("a: b") is None
    queue.set_group_policy("a: b", None)


def test_limiters_are_kept_as_they_were_given(queue: Any, other: Any) -> None:
    assert queue.get_limiter("stripe: api") is None
    for policy in (
        LimiterPolicy(rate_limit=0.5),
        LimiterPolicy(max_concurrency=2),
        LimiterPolicy(rate_limit="1000/h", burst=9, max_concurrency=3),
    ):
        queue.set_limiter("stripe: api", policy)
        assert other.get_limiter("stripe: api") == policy
    queue.set_limiter("stripe: api", None)
    assert other.get_limiter("stripe: api") is None
    queue.set_limiter("stripe: api", None)


def test_rules_are_kept_in_order_and_replaced_as_a_whole(queue: Any, other: Any) -> None:
    assert queue.get_policy_rules() == {}
    rules = {
        "default": UserPolicy(max_concurrency=50),
        "trial-*": UserPolicy(rate_limit="100/m"),
        "t?": UserPolicy(weight=2, paused=True),
        "[!ab]*ü": UserPolicy(max_queued=5, burst=9, rate_limit=3),
    }
    queue.set_policy_rules(rules)
    assert other.get_policy_rules() == rules
    assert list(other.get_policy_rules()) == ["trial-*", "t?", "[!ab]*ü", "default"]
    queue.set_policy_rules({"x*": UserPolicy()})
    assert other.get_policy_rules() == {"x*": UserPolicy()}
    queue.set_policy_rules({})
    assert other.get_policy_rules() == {}


def test_policies_are_listed_by_kind(queue: Any) -> None:
    assert [everything(queue, kind) for kind in ("user", "group", "limiter")] == [{}, {}, {}]
    groups = {"g": GroupPolicy(weight=2), "h: i": GroupPolicy(rate_limit=5)}
    for name, group in groups.items():
        queue.set_group_policy(name, group)
    limiters = {"l": LimiterPolicy(max_concurrency=2)}
    queue.set_limiter("l", limiters["l"])
    users = {f"u{number}": UserPolicy(weight=(1000 + number) / 1000, group="g") for number in range(1200)}
    for name, user in users.items():
        queue.set_user_policy(name, user)
    assert everything(queue, "user") == users
    assert everything(queue, "group") == groups
    assert everything(queue, "limiter") == limiters
    assert queue.list_policies("user").cursor is not None
    [(name, policy)] = queue.list_policies("limiter")
    assert (name, policy) == ("l", limiters["l"])
    for name in users:
        queue.set_user_policy(name, None)


def test_what_cannot_be_is_refused_before_anything_is_sent(queue: Any) -> None:
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: queue.set_user_policy("a", GroupPolicy()), ConfigError, "must be a UserPolicy"),
        (lambda: queue.set_group_policy("a", UserPolicy()), ConfigError, "must be a GroupPolicy"),
        (lambda: queue.set_limiter("a", {"rate_limit": 3}), ConfigError, "must be a LimiterPolicy"),
        (lambda: queue.set_policy_rules({"a*": None}), ConfigError, "must be a UserPolicy"),
        (lambda: queue.set_policy_rules({"[ü]": UserPolicy()}), ConfigError, "ASCII"),
        (lambda: queue.set_group_policy("", GroupPolicy()), InvalidTaskError, "group name must not be empty"),
        (lambda: queue.get_limiter("x" * 300), InvalidTaskError, "limiter name"),
        (lambda: queue.list_policies("users"), InvalidTaskError, "there are user, group, limiter"),
        (lambda: queue.list_policies("user", "next"), InvalidTaskError, "no cursor"),
    ]
    for act, kind, words in wrong:
        with pytest.raises(kind, match=words):
            act()


def test_policies_survive_a_restart(new_server: Callable[..., ServerProcess], facades: Facades) -> None:
    server = new_server(append_only=True, options={"appendfsync": "always"})
    queue = facades.make(config_for(server.url))
    queue.set_group_policy("g", GroupPolicy(weight=2))
    queue.set_limiter("l", LimiterPolicy(max_concurrency=1))
    queue.set_policy_rules({"a*": UserPolicy(group="g", max_concurrency=1)})
    queue.push_batch([Task.create(payload=1, user_id="a1") for _ in range(3)])
    server.restart()
    assert queue.get_group_policy("g") == GroupPolicy(weight=2)
    assert queue.get_limiter("l") == LimiterPolicy(max_concurrency=1)
    assert queue.get_policy_rules() == {"a*": UserPolicy(group="g", max_concurrency=1)}
    assert len(queue.pop(count=3)) == 1


# -- groups that are not there, or still needed


def test_a_group_that_does_not_exist_is_refused_by_name(queue: Any) -> None:
    for act in (
        lambda: queue.set_user_policy("ann", UserPolicy(group="a: b")),
        lambda: queue.set_policy_rules({"t*": UserPolicy(), "default": UserPolicy(group="a: b")}),
    ):
        with pytest.raises(UnknownGroupError, match="'a: b'") as refused:
            act()
        assert refused.value.group == "a: b"
    assert queue.get_user_policy("ann") is None
    assert queue.get_policy_rules() == {}


def test_a_group_goes_when_its_members_have_no_work(queue: Any) -> None:
    queue.set_group_policy("g: 1", GroupPolicy())
    for user in ("ann", "bob", "cid"):
        queue.set_user_policy(user, UserPolicy(group="g: 1"))
    push(queue, "ann")
    push(queue, "bob")
    running = queue.pop()
    with pytest.raises(GroupInUseError, match="'g: 1'") as refused:
        queue.set_group_policy("g: 1", None)
    assert (refused.value.group, refused.value.tasks) == ("g: 1", 2)
    queue.finish(running)
    queue.finish(queue.pop())
    for user in ("ann", "bob", "cid"):
        queue.set_user_policy(user, None)
    queue.set_group_policy("g: 1", None)
    assert queue.get_group_policy("g: 1") is None


# -- what they do


def test_a_rule_holds_for_whom_it_fits_and_an_own_policy_wins(queue: Any) -> None:
    queue.set_policy_rules({"t-*": UserPolicy(max_concurrency=1), "default": UserPolicy(max_concurrency=2)})
    queue.set_user_policy("t-own", UserPolicy())
    for user in ("t-ü", "t-own", "zoe"):
        push(queue, user, 4)
    claimed = users_of(queue.pop(count=20))
    assert {user: claimed.count(user) for user in set(claimed)} == {"t-ü": 1, "t-own": 4, "zoe": 2}


def test_rules_act_on_the_backlog_that_is_there(queue: Any) -> None:
    push(queue, "t-1", 6)
    queue.set_policy_rules({"t-*": UserPolicy(max_concurrency=2)})
    assert len(queue.pop(count=6)) == 2
    queue.set_policy_rules({"t-*": UserPolicy(max_concurrency=3)})
    assert len(queue.pop(count=6)) == 1
    queue.set_policy_rules({})
    assert len(queue.pop(count=6)) == 3


def test_a_rate_parks_a_user_and_nobody_else(timed: Any, clock: Clock) -> None:
    timed.set_user_policy("ann", UserPolicy(rate_limit=10, burst=3))
    push(timed, "ann", 30)
    push(timed, "bob", 5)
    claimed = users_of(timed.pop(count=30))
    assert (claimed.count("ann"), claimed.count("bob")) == (3, 5)
    got = 0
    # Each call takes a microsecond of its own, so the tokens come a few later than the round times.
    clock.advance(0.01)
    for _ in range(20):
        clock.advance(0.1)
        got += len(timed.pop(count=30))
    assert got == 20


def test_a_task_takes_as_many_tokens_as_it_costs(timed: Any, clock: Clock) -> None:
    timed.set_user_policy("ann", UserPolicy(rate_limit="60/m", burst=4))
    push(timed, "ann", 10, cost=2)
    assert len(timed.pop(count=10)) == 2
    # One may start as soon as there is a token, and owes the other.
    for seconds, count in ((0.9, 0), (0.2, 1), (1.8, 0), (0.2, 1)):
        clock.advance(seconds)
        assert len(timed.pop(count=10)) == count


def test_a_full_user_is_told_what_to_do_and_others_go_on(queue: Any) -> None:
    queue.set_user_policy("ann", UserPolicy(max_queued=3))
    push(queue, "ann", 2)
    push(queue, "ann", 1, delay=60)
    with pytest.raises(QuotaExceededError, match="max_queued") as refused:
        queue.push(Task.create(payload=1, user_id="ann"))
    assert (refused.value.user_id, refused.value.queued, refused.value.limit) == ("ann", 3, 3)
    outcomes = queue.push_batch([Task.create(payload=1, user_id=user) for user in ("ann", "bob")])
    assert [outcome.ok for outcome in outcomes] == [False, True]
    assert isinstance(outcomes[0].error, QuotaExceededError)
    while (task := queue.pop()) is not None and task.user_id != "ann":
        pass
    queue.push(Task.create(payload=1, user_id="ann"))


def test_an_organisation_counts_as_one(queue: Any) -> None:
    """30 users of one against 3 of another: half each."""
    for name, count in (("big", 30), ("small", 3)):
        queue.set_group_policy(name, GroupPolicy())
        for number in range(count):
            queue.set_user_policy(f"{name}-{number}", UserPolicy(group=name))
            push(queue, f"{name}-{number}", 40)
    claimed = users_of([task for _ in range(6) for task in queue.pop(count=20)])
    assert 58 <= sum(user.startswith("big") for user in claimed) <= 62


def test_the_limits_of_a_group_hold_for_its_members_together(queue: Any) -> None:
    queue.set_group_policy("acme", GroupPolicy(max_concurrency=3, max_queued=10))
    for user in ("ann", "bob"):
        queue.set_user_policy(user, UserPolicy(group="acme"))
        push(queue, user, 5)
    with pytest.raises(QuotaExceededError) as refused:
        queue.push(Task.create(payload=1, user_id="bob"))
    assert (refused.value.queued, refused.value.limit) == (10, 10)
    claimed = queue.pop(count=10)
    assert len(claimed) == 3
    queue.finish(claimed[0])
    assert len(queue.pop(count=10)) == 1
    queue.set_group_policy("acme", GroupPolicy(paused=True))
    queue.finish(claimed[1])
    assert queue.pop(count=10) == []
    queue.set_group_policy("acme", GroupPolicy())
    assert len(queue.pop(count=10)) == 6


def test_a_limiter_holds_across_users(queue: Any) -> None:
    queue.set_limiter("gpu", LimiterPolicy(max_concurrency=2))
    for user in ("ann", "bob"):
        push(queue, user, 3, limiter="gpu")
        push(queue, user, 1)
    claimed = queue.pop(count=8)
    assert sum(task.limiter == "gpu" for task in claimed) == 2
    queue.finish(next(task for task in claimed if task.limiter == "gpu"))
    assert sum(task.limiter == "gpu" for task in queue.pop(count=8)) == 1


def test_a_limiter_that_does_not_exist_is_refused_at_the_push(queue: Any) -> None:
    with pytest.raises(UnknownLimiterError, match="'gp: u'") as refused:
        queue.push(Task.create(payload=1, limiter="gp: u"))
    assert refused.value.limiter == "gp: u"


# -- published by workers


@pytest.fixture
def manager(server: ServerProcess, flushed: redis.Redis) -> Iterator[LuaScriptManager]:
    """What a starting worker has of the server."""
    client = config_for(server.url).redis.create_redis_client()
    yield LuaScriptManager(client)
    client.close()


FILE: dict[str, Any] = {
    "users": {
        "ann": {"weight": 2, "group": "acme"},
        "t-*": {"max_concurrency": 1, "group": "acme"},
        "default": {"rate_limit": "100/m"},
    },
    "groups": {"acme": {"weight": 3, "rate_limit": 7}},
    "limiters": {"api": {"rate_limit": "25/s"}},
    "workers": [{"id": "mail", "assigned_users": ["ann"]}, {"id": "rest", "steal_targets": []}],
}


def apply(queue: Any, manager: LuaScriptManager, **changes: Any) -> int:
    return apply_policies(manager, queue.engine, FairQueueConfig.from_dict({**FILE, **changes}))


def test_a_configuration_is_published_once(queue: Any, manager: LuaScriptManager) -> None:
    assert apply(queue, manager) == 5
    assert queue.get_group_policy("acme") == GroupPolicy(weight=3, rate_limit=7)
    assert queue.get_limiter("api") == LimiterPolicy(rate_limit=25)
    assert queue.get_user_policy("ann") == UserPolicy(weight=2, group="acme")
    assert queue.get_policy_rules() == {
        "t-*": UserPolicy(max_concurrency=1, group="acme"),
        "default": UserPolicy(rate_limit="100/m"),
    }
    assert apply(queue, manager) == 0
    assert apply(queue, manager, limiters={"api": {"rate_limit": "26/s"}}) == 1
    assert apply(queue, manager, workers=[{"id": "mail"}]) == 2
    assert apply(queue, manager, workers=[{"id": "mail"}], limiters={}) == 0


def test_the_file_wins_but_a_pause_and_what_it_does_not_name_stay(
    queue: Any, manager: LuaScriptManager
) -> None:
    apply(queue, manager)
    queue.pause_user("ann")
    queue.set_group_policy("acme", GroupPolicy(weight=9, paused=True))
    queue.set_group_policy("other", GroupPolicy(weight=5))
    queue.set_user_policy("zoe", UserPolicy(weight=5))
    queue.set_limiter("api", LimiterPolicy(max_concurrency=1))
    queue.set_policy_rules({"x*": UserPolicy()})
    assert apply(queue, manager) == 3
    assert queue.get_user_policy("ann") == UserPolicy(weight=2, group="acme", paused=True)
    assert queue.get_group_policy("acme") == GroupPolicy(weight=3, rate_limit=7, paused=True)
    assert queue.get_limiter("api") == LimiterPolicy(rate_limit=25)
    assert list(queue.get_policy_rules()) == ["t-*", "default"]
    assert queue.get_group_policy("other") == GroupPolicy(weight=5)
    assert queue.get_user_policy("zoe") == UserPolicy(weight=5)
    queue.set_policy_rules({"x*": UserPolicy()})
    assert apply(queue, manager, users={"ann": FILE["users"]["ann"]}) == 0
    assert list(queue.get_policy_rules()) == ["x*"]


def test_an_assignment_is_in_force_once_it_is_published(queue: Any) -> None:
    users = [f"u{number}" for number in range(1300)]
    first = FairQueueConfig.from_dict({"workers": [{"id": "a b", "assigned_users": users}, {"id": "c"}]})
    second = FairQueueConfig.from_dict({"workers": [{"id": "a b"}]})
    for config, changed in ((first, True), (first, False), (second, True), (first, True)):
        wanted = assignment.assignment(config.workers)
        assert queue.run(assignment.publish(queue.engine, wanted)) is changed


def test_workers_that_publish_at_the_same_time_mix_nothing(queue: Any, flushed: redis.Redis) -> None:
    """Call by call in turn, the same assignment or others: what is in force in the end is one of them, whole."""
    users = [f"u{number}" for number in range(1700)]
    one, two = (
        assignment.assignment(
            FairQueueConfig.from_dict({"workers": [{"assigned_users": part}, {"id": "rest"}]}).workers
        )
        for part in (users, users[1000:])
    )

    def answered(call: Call) -> Flow[Any]:
        return (yield call)

    for publishers in ([one, one], [one, two], [two, one, two, one]):
        flows = [assignment.publish(queue.engine, wanted) for wanted in publishers]
        pending: list[tuple[Flow[bool], Any]] = [(flow, None) for flow in flows]
        while pending:
            flow, reply = pending.pop(0)
            try:
                call = flow.send(reply)
            except StopIteration:
                continue
            pending.append((flow, queue.run(answered(call))))
        found = flushed.hgetall("fq:assign")
        current = flushed.hgetall(f"fq:assigned:{found[b'number'].decode()}")
        [wanted] = [wanted for wanted in (one, two) if wanted.digest.encode() == found[b"digest"]]
        assert current == {user.encode(): " ".join(words).encode() for user, words in wanted.views.items()}


def test_what_has_no_effect_yet_is_told() -> None:
    config = FairQueueConfig.from_dict({**FILE, "queue": {"max_user_share": 0.5, "steal_after_seconds": 1}})
    assert without_effect(config) == []
    config = FairQueueConfig.from_dict({"plugins": {"metrics": {}}})
    assert without_effect(config) == ["plugins.metrics"]
