"""What tenants may use: policies of users and of groups of users, and limiters that tasks share by name.

All are immutable and checked where they are made; an error names the field, the value, the limit and the way
out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fairque.core.checks import check_number, check_whole
from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.keys import encode

Rate: TypeAlias = float | str
"""How many per second, or text such as `50/s`, `100/m`, `1000/h`, `5000/d`."""

MAX_COUNT = 1_000_000
MAX_QUEUED = 1_000_000_000
DEFAULT_RETRY_MINIMUM = 1.0
MIN_RATE, MAX_RATE = 0.000_01, 1_000_000.0
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_STOP = "to keep its tasks waiting, set paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    """What users and groups have in common."""

    weight: float = 1.0
    max_concurrency: int | None = None
    rate_limit: float | None = None
    burst: int | None = None
    max_queued: int | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        try:
            check_number(self.weight, "weight", 0.01, 100)
        except InvalidTaskError as error:
            _refuse(error, _STOP if self.weight == 0 else "")
        _check_limit(self.max_concurrency, "max_concurrency", MAX_COUNT, _STOP)
        _check_rate(self, _STOP)
        _check_limit(self.max_queued, "max_queued", MAX_QUEUED, "leave it out for no limit")
        if not isinstance(self.paused, bool):
            raise ConfigError(f"paused must be true or false, not {self.paused!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPolicy(_Policy):
    """What one tenant gets. `weight` is its share (0.01 to 100, against the others' weights).

    `max_concurrency` is how many of its tasks may run at once. `rate_limit` is how many may start per second,
    or text: `50/s`, `100/m`, `1000/h`, `5000/d`; a task of cost 5 counts as five. `burst` is how many may start
    at once after a quiet time; left out, a tenth of a second's worth, at least 2. `max_queued` is how many tasks
    may wait (queued, scheduled or deferred) before pushes are refused. `group` is the organisation that it
    belongs to, one of `groups`. None is no limit. `paused` keeps its tasks waiting.

    `retry_budget` is how large a part of its starts may be retries (0 to 1): those beyond it are put off, so that
    failures do not take the place of new tasks. `retry_minimum` is how many retries may start all the same (as
    `rate_limit`; left out, 1 per second).

    Raises:
        ConfigError: a value is of the wrong type or out of range; the error names it and the limit.
    """

    group: str | None = None
    retry_budget: float | None = None
    retry_minimum: float | None = None

    if TYPE_CHECKING:  # rates may be given as text, and are numbers afterwards

        def __init__(
            self,
            *,
            weight: float = 1.0,
            max_concurrency: int | None = None,
            rate_limit: Rate | None = None,
            burst: int | None = None,
            max_queued: int | None = None,
            paused: bool = False,
            group: str | None = None,
            retry_budget: float | None = None,
            retry_minimum: Rate | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _Policy.__post_init__(self)
        if self.group is not None:
            try:
                encode(self.group, "group")
            except InvalidTaskError as error:
                _refuse(error, "leave it out for a user of no group" if self.group == "" else "")
        _check_retries(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPolicy(_Policy):
    """What a group of users gets together: an organisation counts as one tenant among the others, whatever its
    number of users, and shares fairly between them.

    The fields are those of a user's policy, and hold for all members together.

    Raises:
        ConfigError: a value is of the wrong type or out of range; the error names it and the limit.
    """

    if TYPE_CHECKING:  # as above

        def __init__(
            self,
            *,
            weight: float = 1.0,
            max_concurrency: int | None = None,
            rate_limit: Rate | None = None,
            burst: int | None = None,
            max_queued: int | None = None,
            paused: bool = False,
        ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterPolicy:
    """What all tasks that name a limiter (`limiter="stripe-api"`) may use together, of whichever user or function.

    `rate_limit` is how many may start per second, or text: `50/s`, `100/m`, `1000/h`, `5000/d`; a task of cost 5
    counts as five. `burst` is how many may start at once after a quiet time; left out, a tenth of a second's
    worth, at least 2. `max_concurrency` is how many may run at once. At least one of the two limits is needed.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or there is no limit at all.
    """

    rate_limit: float | None = None
    burst: int | None = None
    max_concurrency: int | None = None

    if TYPE_CHECKING:  # as above

        def __init__(
            self,
            *,
            rate_limit: Rate | None = None,
            burst: int | None = None,
            max_concurrency: int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        stop = "to stop what it holds, pause its users"
        _check_rate(self, stop)
        _check_limit(self.max_concurrency, "max_concurrency", MAX_COUNT, stop)
        if self.rate_limit is None and self.max_concurrency is None:
            raise ConfigError("a limiter limits something: give it a rate_limit, a max_concurrency, or both")


AnyPolicy: TypeAlias = UserPolicy | GroupPolicy | LimiterPolicy


def per_second(rate: Any, what: str = "rate_limit") -> float:
    """A rate (a number per second, or text such as `100/m`) per second.

    Raises:
        ConfigError: it is neither, or out of range.
    """
    value = rate
    if isinstance(rate, str):
        found = _RATE.fullmatch(rate.strip())
        if found is None:
            close = f"{rate.strip()}/s" if _RATE.fullmatch(f"{rate.strip()}/s") else None
            hint = f": write {rate.strip()} without quotes, or {close!r}" if close else ""
            raise ConfigError(f"{what} {_RATE_FORMS}, not {rate!r}{hint}")
        value = float(found[1]) / _UNITS[found[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{what} {_RATE_FORMS}, not {rate!r} ({type(rate).__name__})")
    # Written so that NaN, which compares false with everything, is refused.
    if not MIN_RATE <= value <= MAX_RATE:
        raise ConfigError(f"{what} must be from 0.00001 to 1,000,000 per second, not {rate!r}")
    return float(value)


_RATE_FORMS = "must be a number per second, or text such as '50/s', '100/m', '1000/h' or '5000/d'"


def rate_text(rate: float) -> float | str:
    """A rate as people write it: the number per second, or `100/m` where the number would be a long fraction."""
    if rate.is_integer():
        return int(rate)
    if len(repr(rate)) > 6:
        for unit, size in _UNITS.items():
            count = round(rate * size)
            if count and count / size == rate:
                return f"{count}/{unit}"
    return rate


def default_burst(rate: float) -> int:
    """The burst of a rate that is given without one."""
    return max(2, math.ceil(rate / 10))


def _check_rate(policy: _Policy | LimiterPolicy, stop: str) -> None:
    """`rate_limit` as a number per second, and the burst that belongs to it."""
    if policy.rate_limit is not None:
        try:
            rate = per_second(policy.rate_limit)
        except ConfigError as error:
            _refuse(error, stop if policy.rate_limit == 0 else "")
        object.__setattr__(policy, "rate_limit", rate)
    _check_limit(policy.burst, "burst", MAX_COUNT, "leave it out for the default")
    if policy.burst is not None and policy.rate_limit is None:
        raise ConfigError("burst is for a rate_limit: give the rate_limit too")


def _check_retries(policy: UserPolicy) -> None:
    if policy.retry_budget is not None:
        try:
            share = check_number(policy.retry_budget, "retry_budget", 0, 1)
        except InvalidTaskError as error:
            _refuse(error, "it is a part of all starts: 0.2 is a fifth; leave it out for no budget")
        object.__setattr__(policy, "retry_budget", share)
    if policy.retry_minimum is not None:
        try:
            rate = per_second(policy.retry_minimum, "retry_minimum")
        except ConfigError as error:
            _refuse(
                error,
                "to retry nothing, set max_retries=0 for the tasks" if policy.retry_minimum == 0 else "",
            )
        object.__setattr__(policy, "retry_minimum", rate)
        if policy.retry_budget is None:
            raise ConfigError("retry_minimum is for a retry_budget: give the retry_budget too")


def _check_limit(value: Any, what: str, most: int, at_zero: str) -> None:
    if value is None:
        return
    try:
        check_whole(value, what, 1, most)
    except InvalidTaskError as error:
        _refuse(error, at_zero if value == 0 else "leave it out for no limit")


def _refuse(error: Exception, way_out: str) -> NoReturn:
    # The checks are shared with tasks; what is wrong here is a policy.
    raise ConfigError(f"{error}; {way_out}" if way_out else str(error)) from None
