"""Tenants: policies, groups, limiters and pauses, one line a method over operations that both queues share."""

from __future__ import annotations

from collections.abc import Mapping

from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.queue.claiming import ClaimingQueue
from fairque.queue.operations import policies
from fairque.queue.operations.policies import Kind, NamedPolicy
from fairque.queue.operations.tasks import Page


class PolicyQueue(ClaimingQueue):
    """The part of TaskQueue that says what tenants may use."""

    def set_user_policy(self, user_id: str, policy: UserPolicy | None) -> None:
        """What a tenant may use from now on, also its backlog; None: the rules, or the default again.

        Raises:
            UnknownGroupError: its group does not exist.
        """
        self.run(policies.set_user_policy(self.engine, user_id, policy))

    def get_user_policy(self, user_id: str) -> UserPolicy | None:
        """The tenant's own policy, or None."""
        return self.run(policies.get_user_policy(self.engine, user_id))

    def pause_user(self, user_id: str) -> None:
        """Keep a tenant's tasks waiting; running ones are not touched."""
        self.run(policies.pause_user(self.engine, user_id, True))

    def resume_user(self, user_id: str) -> None:
        """Let a paused tenant go on."""
        self.run(policies.pause_user(self.engine, user_id, False))

    def set_group_policy(self, name: str, policy: GroupPolicy | None) -> None:
        """What all members of a group may use together from now on; None: the group is no more.

        Raises:
            GroupInUseError: it shall go, but a member has tasks that wait or run.
        """
        self.run(policies.set_group_policy(self.engine, name, policy))

    def get_group_policy(self, name: str) -> GroupPolicy | None:
        """The group's policy; None: there is no such group."""
        return self.run(policies.get_group_policy(self.engine, name))

    def set_limiter(self, name: str, policy: LimiterPolicy | None) -> None:
        """What all tasks that name a limiter may use together from now on; None: the limiter is no more."""
        self.run(policies.set_limiter(self.engine, name, policy))

    def get_limiter(self, name: str) -> LimiterPolicy | None:
        """The limits of that name; None: there is no such limiter."""
        return self.run(policies.get_limiter(self.engine, name))

    def set_policy_rules(self, rules: Mapping[str, UserPolicy]) -> None:
        """Policies of users without one of their own, by pattern (`team-*`), the first that fits; `default`, wherever
        it stands, is tried last. They replace all rules before.

        Raises:
            ConfigError: a pattern cannot be one, or there are too many.
            UnknownGroupError: a group does not exist.
        """
        self.run(policies.set_policy_rules(self.engine, rules))

    def get_policy_rules(self) -> dict[str, UserPolicy]:
        """The rules by pattern, in the order in which they are tried."""
        return self.run(policies.get_policy_rules(self.engine))

    def list_policies(self, kind: Kind = "user", cursor: str | None = None) -> Page[NamedPolicy]:
        """One page of the policies that users, groups or limiters have, in no order; pass the page's `cursor` on for
        the next. One that is set meanwhile may come twice, or not at all.
        """
        return self.run(policies.list_policies(self.engine, kind, cursor))
