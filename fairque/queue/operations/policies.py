"""What tenants may use: policies of users, by id and by rule, of groups, and limiters.

A policy travels as a packed map of what it limits; the weight in it is in thousandths, and a burst that was left
out is filled in, so that scripts know no defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.keys import decode, encode
from fairque.core.patterns import EVERYBODY, lua_pattern
from fairque.core.policies import (
    DEFAULT_RETRY_MINIMUM,
    AnyPolicy,
    GroupPolicy,
    LimiterPolicy,
    UserPolicy,
    default_burst,
)
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.tasks import Page

Kind: TypeAlias = Literal["user", "group", "limiter"]
PolicyT = TypeVar("PolicyT", bound=AnyPolicy)

DEFAULT = "default"
"""The name among rules that stands for everybody else."""
MAX_RULES = 1001
"""1,000 patterns and `default`: a script looks at one after the other."""
_INHERITS = "inherits"
"""In what is kept of a user that was paused and has no policy of its own: the rest is as the rules say."""
_KINDS: dict[str, type[AnyPolicy]] = {"user": UserPolicy, "group": GroupPolicy, "limiter": LimiterPolicy}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(strict=False).decode
_unpack_rules = msgspec.msgpack.Decoder(list[tuple[msgspec.Raw, dict[str, Any], str]], strict=False).decode


@dataclass(frozen=True, slots=True)
class InEffect:
    """What a tenant may use, and what says so: a policy of its `own`, else a `rule`, else nothing (the defaults)."""

    policy: UserPolicy
    own: bool = False
    rule: str | None = None


class NamedPolicy(NamedTuple):
    """A policy, and the user, group or limiter whose it is."""

    name: str
    policy: AnyPolicy


def set_user_policy(engine: Engine, user_id: str, policy: UserPolicy | None) -> Flow[None]:
    """What the tenant may use from now on, also its backlog; None: the rules, or the default again.

    Raises:
        UnknownGroupError: its group does not exist.
    """
    yield engine.call("set_policy", encode(user_id), packed(policy, UserPolicy))


def get_user_policy(engine: Engine, user_id: str) -> Flow[UserPolicy | None]:
    """The tenant's own policy, or None. One that was only paused has a policy of which that is all."""
    fields = yield from stored(engine, "user", encode(user_id))
    return _made(fields, UserPolicy) if fields else None


def policy_in_effect(engine: Engine, user_id: str) -> Flow[InEffect]:
    """What the tenant may use now, and what says so."""
    own = yield from stored(engine, "user", encode(user_id))
    if own and not own.get(_INHERITS):
        return InEffect(_made(own, UserPolicy), own=True)
    rules = yield from get_policy_rules(engine)
    rule = rule_for(rules, user_id)
    policy = rules[rule] if rule is not None else UserPolicy()
    if own:
        policy = replace(policy, paused=policy.paused or own["paused"])
    return InEffect(policy, rule=rule)


def pause_user(engine: Engine, user_id: str, paused: bool) -> Flow[None]:
    """Keep the tenant's tasks waiting, or let them go on; running ones are not touched."""
    yield engine.call("pause_user", encode(user_id), int(paused))


def set_group_policy(engine: Engine, group: str, policy: GroupPolicy | None) -> Flow[None]:
    """What the group may use from now on, with the backlog of its members; None: it is no more.

    Raises:
        GroupInUseError: it shall go, but a member of it has tasks that wait or run.
    """
    yield engine.call("set_group", encode(group, "group name"), packed(policy, GroupPolicy))


def get_group_policy(engine: Engine, group: str) -> Flow[GroupPolicy | None]:
    """The group's policy; None: there is no such group."""
    fields = yield from stored(engine, "group", encode(group, "group name"))
    return _made(fields, GroupPolicy) if fields else None


def set_limiter(engine: Engine, limiter: str, policy: LimiterPolicy | None) -> Flow[None]:
    """What all tasks that name the limiter may use from now on; None: it is no more."""
    yield engine.call("set_limiter", encode(limiter, "limiter name"), packed(policy, LimiterPolicy))


def get_limiter(engine: Engine, limiter: str) -> Flow[LimiterPolicy | None]:
    """The limits of that name; None: there is no such limiter."""
    fields = yield from stored(engine, "limiter", encode(limiter, "limiter name"))
    return _made(fields, LimiterPolicy) if fields else None


def set_policy_rules(engine: Engine, rules: Mapping[str, UserPolicy]) -> Flow[None]:
    """The policies of users that have none of their own, in place of the rules before.

    Raises:
        ConfigError: a pattern cannot be one, or there are too many.
        UnknownGroupError: a group does not exist.
    """
    yield engine.call("set_rules", packed_rules(rules))


def get_policy_rules(engine: Engine) -> Flow[dict[str, UserPolicy]]:
    """The rules by pattern, in the order in which they are tried."""
    data = yield engine.call("get_policies", "rules", "")
    return {glob: _made(fields, UserPolicy) for _pattern, fields, glob in _unpack_rules(data)} if data else {}


def list_policies(engine: Engine, kind: Kind = "user", cursor: str | None = None) -> Flow[Page[NamedPolicy]]:
    """One page of policies, in no order; one that is set meanwhile may come twice, or not at all.

    Raises:
        InvalidTaskError: there is no such kind, or the cursor is wrong.
    """
    if kind not in _KINDS:
        raise InvalidTaskError(f"there is no kind {kind!r} of policy: there are {', '.join(_KINDS)}")
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise InvalidTaskError(f"{cursor!r} is no cursor: pass the one that the page before came with")
    following, *rest = yield engine.call("list_policies", kind, cursor or "0")
    items = tuple(
        NamedPolicy(decode(name.decode()), _made(_unpack(data), _KINDS[kind]))
        for name, data in zip(rest[::2], rest[1::2], strict=True)
    )
    following = following.decode() if isinstance(following, bytes) else str(following)
    return Page(items, None if following == "0" else following)


def stored(engine: Engine, kind: Kind, name: str) -> Flow[dict[str, Any]]:
    """What is kept under an encoded name, as it was sent (see `fields_of`); empty: nothing."""
    data = yield engine.call("get_policies", kind, name)
    return _unpack(data) if data else {}


def rule_for(rules: Mapping[str, UserPolicy], user_id: str) -> str | None:
    """The pattern whose policy a user without one of its own gets."""
    for glob in rules:
        if glob != DEFAULT and fnmatchcase(user_id, glob):
            return glob
    return DEFAULT if DEFAULT in rules else None


def packed(policy: AnyPolicy | None, kind: type[AnyPolicy]) -> bytes:
    """The policy as scripts take it; None: empty.

    Raises:
        ConfigError: it is no policy of that kind.
    """
    return b"" if policy is None else _pack(fields_of(_checked(policy, kind)))


def packed_rules(rules: Mapping[str, UserPolicy]) -> bytes:
    """Rules as scripts take them: `[Lua pattern, policy, pattern as given]` of each, `default` last; none: empty.

    Raises:
        ConfigError: a pattern cannot be one, a policy is none, or there are too many.
    """
    if len(rules) > MAX_RULES:
        raise ConfigError(
            f"there are {len(rules)} rules; at most {MAX_RULES} are tried one after the other: put users into groups "
            "instead, or give them policies of their own"
        )
    found = [
        (
            _text(EVERYBODY if glob == DEFAULT else lua_pattern(glob)),
            fields_of(_checked(policy, UserPolicy)),
            glob,
        )
        for glob, policy in sorted(rules.items(), key=lambda rule: rule[0] == DEFAULT)
    ]
    return _pack(found) if found else b""


def _text(data: bytes) -> msgspec.Raw:
    """Bytes that need not be UTF-8, packed as text: the server's msgpack knows no other kind."""
    size = len(data)
    head = (
        bytes([0xA0 | size])
        if size < 32
        else bytes([0xD9, size])
        if size < 256
        else b"\xda%c%c" % divmod(size, 256)
    )
    return msgspec.Raw(head + data)


def _checked(policy: Any, kind: type[PolicyT]) -> PolicyT:
    if not isinstance(policy, kind):
        raise ConfigError(f"the policy must be a {kind.__name__}, not {policy!r}")
    return policy


def fields_of(policy: AnyPolicy) -> dict[str, Any]:
    """What is sent of a policy."""
    fields = {name: value for name, value in asdict(policy).items() if value is not None}
    if policy.rate_limit is not None:
        fields["burst"] = policy.burst or default_burst(policy.rate_limit)
    if "retry_budget" in fields:
        fields.setdefault("retry_minimum", DEFAULT_RETRY_MINIMUM)
    if "weight" in fields:
        fields["weight"] = round(fields["weight"] * 1000)
    if "group" in fields:
        fields["group"] = encode(fields["group"], "group")
    return fields


def _made(fields: dict[str, Any], kind: type[PolicyT]) -> PolicyT:
    """The policy of which these fields were sent."""
    fields = {name: value for name, value in fields.items() if name != _INHERITS}
    if fields.get("rate_limit") is not None and fields.get("burst") == default_burst(fields["rate_limit"]):
        del fields["burst"]
    if fields.get("retry_minimum") == DEFAULT_RETRY_MINIMUM:
        del fields["retry_minimum"]
    if "weight" in fields:
        fields["weight"] /= 1000
    if "group" in fields:
        fields["group"] = decode(fields["group"])
    return kind(**fields)
