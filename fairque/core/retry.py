"""When a failed task is tried again, and what a task may raise to decide that itself.

A policy is data that travels with the task. Exception types stand in it by name, because the process that
runs a task need not be able to import what the process that pushed it named.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal, TypeAlias

import msgspec

from fairque.core.checks import MAX_SECONDS, check_number, check_seconds
from fairque.core.exceptions import ConfigError

Kind: TypeAlias = Literal["fixed", "linear", "exponential", "never"]
ErrorTypes: TypeAlias = type[BaseException] | str | Iterable[type[BaseException] | str]
"""Exception types, or their names: ``module.qualname``, or the bare name of a builtin."""


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True):
    """How long to wait before each retry, and which exceptions deserve one. `base` and `cap` are seconds.

    Build one with `fixed`, `linear` or `exponential`; `never` retries nothing. How many retries there are is the
    task's `max_retries`.
    """

    kind: Kind
    base: float
    factor: float = 2.0
    cap: float = MAX_SECONDS
    jitter: bool = False
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_seconds(self.base, "the retry delay")
        check_seconds(self.cap, "cap")
        check_number(self.factor, "factor", 1.0, 1000.0)
        if both := set(self.retry_on) & set(self.give_up_on):
            raise ConfigError(f"{min(both)} is in retry_on and in give_up_on: keep one of the two")

    def delay(self, retry_number: int, random: float) -> float:
        """Seconds to wait before retry `retry_number` (the first is 1); never more than `cap`.

        `random` is a number in [0, 1). With jitter the wait lies between half of the full delay and all of
        it, so that tasks that failed together do not come back together.
        """
        if self.kind == "fixed":
            full = self.base
        elif self.kind == "linear":
            full = self.base * retry_number
        else:
            try:
                full = self.base * self.factor ** (retry_number - 1)
            except OverflowError:
                full = self.cap
        full = min(full, self.cap)
        return full * (0.5 + random / 2) if self.jitter else full

    def wants_retry(self, error: BaseException) -> bool:
        """Whether this exception deserves a retry.

        The nearest type among the exception's own and its bases that either list names decides; if none is
        named, it is retried unless `retry_on` lists something.
        """
        if not self.retry_on and not self.give_up_on:
            return self.kind != "never"
        for kind in type(error).__mro__:
            name = type_name(kind)
            if name in self.give_up_on:
                return False
            if name in self.retry_on:
                return True
        return not self.retry_on


def exponential(
    base: float | timedelta = 1.0,
    cap: float | timedelta = 60.0,
    factor: float = 2.0,
    jitter: bool = True,
    *,
    retry_on: ErrorTypes = (),
    give_up_on: ErrorTypes = (),
) -> RetryPolicy:
    """Wait `base` seconds, then each time `factor` times as long, never more than `cap` seconds.

    Raises:
        InvalidTaskError: a number is negative, NaN or out of range.
        ConfigError: something in `retry_on` or `give_up_on` is no exception type, or is in both.
    """
    return RetryPolicy(
        "exponential",
        check_seconds(base, "base"),
        check_number(factor, "factor", 1.0, 1000.0),
        check_seconds(cap, "cap"),
        jitter,
        named_types(retry_on, "retry_on"),
        named_types(give_up_on, "give_up_on"),
    )


def linear(
    base: float | timedelta = 1.0,
    cap: float | timedelta = 3600.0,
    jitter: bool = False,
    *,
    retry_on: ErrorTypes = (),
    give_up_on: ErrorTypes = (),
) -> RetryPolicy:
    """Wait `base` seconds, then twice, three times ... `base` seconds, never more than `cap` seconds.

    Raises:
        InvalidTaskError: a number is negative, NaN or out of range.
        ConfigError: something in `retry_on` or `give_up_on` is no exception type, or is in both.
    """
    return RetryPolicy(
        kind="linear",
        base=check_seconds(base, "base"),
        cap=check_seconds(cap, "cap"),
        jitter=jitter,
        retry_on=named_types(retry_on, "retry_on"),
        give_up_on=named_types(give_up_on, "give_up_on"),
    )


def fixed(
    delay: float | timedelta,
    jitter: bool = False,
    *,
    retry_on: ErrorTypes = (),
    give_up_on: ErrorTypes = (),
) -> RetryPolicy:
    """Wait `delay` seconds before each retry; 0 retries at once.

    Raises:
        InvalidTaskError: the delay is negative, NaN or out of range.
        ConfigError: something in `retry_on` or `give_up_on` is no exception type, or is in both.
    """
    return RetryPolicy(
        kind="fixed",
        base=check_seconds(delay, "delay"),
        jitter=jitter,
        retry_on=named_types(retry_on, "retry_on"),
        give_up_on=named_types(give_up_on, "give_up_on"),
    )


never = RetryPolicy("never", 0.0)
"""No retry: the first failure is the last."""


class RetryAfter(Exception):
    """Raised by a task: this attempt failed, try again in `seconds`. It uses up a retry like any failure.

    Raises:
        InvalidTaskError: `seconds` is negative, NaN, or over 100 years.
    """

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = check_seconds(seconds, "RetryAfter")
        self.reason = reason
        super().__init__(self.seconds, reason)

    def __str__(self) -> str:
        return self.reason or f"retry after {self.seconds:g} s"


class Snooze(Exception):
    """Raised by a task: nothing failed, run this again in `seconds`. No retry is used up.

    Raises:
        InvalidTaskError: `seconds` is negative, NaN, or over 100 years.
    """

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = check_seconds(seconds, "Snooze")
        self.reason = reason
        super().__init__(self.seconds, reason)

    def __str__(self) -> str:
        return self.reason or f"snooze for {self.seconds:g} s"


class Discard(Exception):
    """Raised by a task: its work is no longer wanted. It is canceled for `reason`; nothing is retried."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


def type_name(kind: type) -> str:
    """How policies and stored errors call an exception type: ``module.qualname``, a builtin bare."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def named_types(types: ErrorTypes, what: str) -> tuple[str, ...]:
    """The names of exception types, as `type_name` gives them.

    Raises:
        ConfigError: something is neither an exception type nor the name of one.
    """
    if isinstance(types, str | type) or not isinstance(types, Iterable):
        types = (types,)
    names: list[str] = []
    for kind in types:
        if isinstance(kind, str) and kind:
            names.append(kind.removeprefix("builtins."))
        elif isinstance(kind, type) and issubclass(kind, BaseException):
            names.append(type_name(kind))
        else:
            raise ConfigError(f"{what} takes exception types or their names, not {kind!r}")
    return tuple(names)


DEFAULT_RETRY = exponential(base=1, cap=60, jitter=True)
"""For tasks that bring no policy of their own: 1 s, 2 s, 4 s ... 60 s, with jitter."""
