"""Retry policies by the type of the exception: ``on(OSError, exponential()) | on(ValueError, never) | fixed(5)``.

Rules are data, like the policies in them, and name exception types as those do: the process that pushes a task need
not be able to import what its worker raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.retry import (
    Discard,
    ErrorTypes,
    RetryAfter,
    RetryPolicy,
    Snooze,
    named_types,
    type_name,
)

CONTROL = (RetryAfter, Snooze, Discard)
"""What a task raises to say itself what shall become of it: no policy is asked."""
_CONTROL_NAMES = frozenset(type_name(kind) for kind in CONTROL)
_TAG = "rules"


class RetryRule(msgspec.Struct, frozen=True, array_like=True):
    """One part of rules: the policy for the exceptions that `errors` names, and for their subclasses."""

    errors: tuple[str, ...]
    policy: RetryPolicy


class RetryRules(msgspec.Struct, frozen=True, array_like=True, tag=_TAG):
    """Which policy an exception gets. Build them with `on`, and join them with ``|``.

    The most specific rule decides, wherever it stands: of the exception's own type and its bases, in their order
    (``__mro__``), the first that some rule names. `otherwise` is for exceptions that none names; None: the queue's
    default policy.
    """

    rules: tuple[RetryRule, ...]
    otherwise: RetryPolicy | None = None

    def __or__(self, other: RetryRules | RetryPolicy) -> RetryRules:
        """These rules and more; a policy alone is for all other exceptions, and stands last.

        Raises:
            ConfigError: two rules name one exception type, two policies are for all others, or one of them does not
                stand last.
        """
        if not isinstance(other, RetryRules | RetryPolicy):
            return NotImplemented
        if self.otherwise is not None:
            raise ConfigError(
                "the policy for all other exceptions stands last, and there is one at most: "
                "on(...) | on(...) | fixed(5)"
            )
        if isinstance(other, RetryPolicy):
            return RetryRules(self.rules, other)
        named = {name for rule in self.rules for name in rule.errors}
        if both := [name for rule in other.rules for name in rule.errors if name in named]:
            raise ConfigError(f"two rules name {both[0]}: keep one of them")
        return RetryRules(self.rules + other.rules, other.otherwise)

    if not TYPE_CHECKING:

        def __ror__(self, other: Any) -> RetryRules:
            # Type checkers see that a policy has no such operator; others shall be told what to write.
            if isinstance(other, RetryPolicy):
                raise ConfigError("the policy for all other exceptions stands last: on(...) | fixed(5)")
            return NotImplemented

    def policy_for(self, error: BaseException) -> RetryPolicy | None:
        """The policy of the most specific rule, else `otherwise`."""
        for kind in type(error).__mro__:
            name = type_name(kind)
            for rule in self.rules:
                if name in rule.errors:
                    return rule.policy
        return self.otherwise


Retry: TypeAlias = RetryPolicy | RetryRules
"""What the option `retry` takes."""


def on(errors: ErrorTypes, policy: RetryPolicy) -> RetryRules:
    """The policy for these exceptions (a type, a name, or several) and their subclasses.

    ``retry=on(ConnectionError, exponential()) | on((ValueError, KeyError), never) | fixed(5)``

    Raises:
        ConfigError: something in `errors` is no exception type, none is there, `policy` is no policy, or it is
            RetryAfter, Snooze or Discard, which decide by themselves.
    """
    if not isinstance(policy, RetryPolicy):
        raise ConfigError(
            f"on({_shown(errors)}, ...) takes a policy made by fixed(), linear() or exponential(), or never, "
            f"not {policy!r}"
        )
    names = tuple(dict.fromkeys(named_types(errors, "on()")))
    if not names:
        raise ConfigError("on() names no exception type: give one, or several in a tuple")
    if control := _CONTROL_NAMES.intersection(names):
        raise ConfigError(f"{min(control)} says by itself what becomes of the task: no policy is asked")
    return RetryRules((RetryRule(names, policy),))


def _shown(errors: object) -> str:
    return errors.__name__ if isinstance(errors, type) else repr(errors)


def check_retry(value: object, what: str = "retry") -> Retry:
    """`value`, a retry policy, or rules that name some.

    Raises:
        InvalidTaskError: it is something else.
    """
    if isinstance(value, RetryPolicy | RetryRules):
        return value
    hint = "how many retries there are is max_retries"
    if isinstance(value, dict):
        hint = "by exception type it is written on(ConnectionError, exponential()) | on(ValueError, never) | fixed(5)"
    raise InvalidTaskError(
        f"{what} must be a policy made by fixed(), linear() or exponential(), or never, or rules made by on(), "
        f"not {value!r}; {hint}"
    )


def next_delay(
    retry: Retry | None, default: RetryPolicy, error: BaseException, retry_number: int, random: float
) -> float | None:
    """Seconds until retry `retry_number` after this exception, or None: none is wanted. `random`: in [0, 1)."""
    policy = retry.policy_for(error) if isinstance(retry, RetryRules) else retry
    if policy is None:
        policy = default
    return policy.delay(retry_number, random) if policy.wants_retry(error) else None


def read_retry(value: Any) -> Retry:
    """The policy or rules that stored plain data stands for.

    Raises:
        ValueError: it stands for neither.
    """
    if isinstance(value, list | tuple) and value and value[0] == _TAG:
        return msgspec.convert(value, RetryRules)
    return msgspec.convert(value, RetryPolicy)
