"""When a task is likely to start, from the pace of late. The latest of three answers counts.

*Its turn.* p tasks of its user start before it, so that its user's tag will stand at T = tag + p × charge ÷ weight (or,
for who is not ready, from virtual time on). Until then each rival starts what it has queued, but at most (T - its
tag) × its weight ÷ its charge tasks; this is added up over the first 100 that are ready. With an organisation it is
done twice: among its members, and then among the tenants of the root, where the charges of all its tasks before this
one move its tag. Together these are N tasks, and with the mean run time of each tenant W seconds of work. The task
starts after (W + one mean run time) × (1 - free slots ÷ (N + 1)) ÷ S. S is how much work is done in a second: one for
each slot, or if tasks are so short that claiming takes as long as running, mean run time × how many end in a second
(in the last 1, 4, 16, 64 or 256 seconds, whichever pace is highest among those in which at least 16 have ended).

*Caps.* With q tasks of the same tenant before it and r running, (q + 1 - (cap - r)) of them must end first, at
cap ÷ mean run time; the same for its share of the slots, its organisation and its limiter.

*Rates.* With q tasks before it, its token comes at max(full, now) + q × cost × interval - tau (lib/limits.lua).

It is meant for queues that drain steadily, and is then good to a factor of two. It knows neither what is yet to be
pushed, nor that entries of workers serve different users other than by counting the slots of those that serve its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fairque.core.limiter import LimiterRecord
from fairque.core.tenant import TenantRecord
from fairque.queue.operations.waiting import ENDED_SECONDS, Facts, LevelFacts

ENOUGH = 16
"""Tasks that must have ended in a window before its pace is believed."""
SHORT_SECONDS = 0.05
"""Tasks that run for less do not keep a slot busy all the time."""
_SECOND = 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds until the task starts; None: `why` says why. `before`: tasks of all users that start first."""

    seconds: float | None
    why: str = ""
    before: int = 0


def estimate(facts: Facts, *, by_time: bool, share: float) -> Estimate:
    """For a task that is queued and that nothing but its turn and limits keeps from starting."""
    user = facts.user
    if user is None:
        return Estimate(None, "nothing is known of its user")
    # In a very long list of CRITICAL tasks it is taken to be the last.
    own = user.critical if facts.before.total is None else facts.before.total
    serving = facts.serving()
    slots = sum(worker.slots for worker in serving)
    free = max(0, slots - sum(worker.running for worker in serving))
    mean = _mean_of_all(facts)
    turn = _Turn(facts, user, by_time, own, mean)
    before = math.ceil(turn.tasks)
    waits = [*_caps(facts, own, turn.in_group, _mean_run(user) or mean, share), *_rates(facts, own)]
    if before + 1 > free:
        power = _power(facts, slots, mean)
        if not power:
            return Estimate(None, "no task has ended lately, so nobody knows how fast they do", before)
        waits.append((turn.work + mean) * (1 - free / (before + 1)) / power)
    return Estimate(max(waits, default=0.0), before=before)


class _Turn:
    """What starts before the task's turn, `own` tasks of its own user among it.

    `tasks` and `work` (seconds) are of all users, `in_group` are the tasks of its organisation. `mean`: run time of
    those of whom none is known.
    """

    def __init__(self, facts: Facts, user: TenantRecord, by_time: bool, own: int, mean: float) -> None:
        self._facts, self._by_time, self._mean = facts, by_time, mean
        clock = facts.clock
        self.tasks = float(own)
        self.work = own * (_mean_run(user) or mean)
        self.in_group = 0.0
        if facts.group is None or facts.group.level is None:
            tag = _tag(user, clock.generation, clock.virtual) + own * self._charge(user) / _weight(user)
            self._add_rivals(facts.root, tag, facts.rec.user)
            return
        group, level = facts.group, facts.group.level
        tag = _tag(user, level.generation, level.virtual) + own * self._charge(user) / _weight(user)
        self._add_rivals(facts.inner, tag, facts.rec.user)
        self.in_group = self.tasks
        charges = self.tasks * self._charge(group)
        tag = _tag(group, clock.generation, clock.virtual) + charges / _weight(group)
        self._add_rivals(facts.root, tag, user.group)

    def _charge(self, tenant: TenantRecord | None) -> float:
        """What a task of the tenant is charged, on average."""
        if tenant is not None:
            claims = tenant.claims_now + tenant.claims_before
            service = tenant.service_now + tenant.service_before
            if claims and service:
                return service / claims
        return self._mean or 1.0 if self._by_time else self._facts.rec.cost / 1000

    def _add_rivals(self, level: LevelFacts, tag: float, me: str) -> None:
        """What the others of a level start before one whose tag stands at `tag`."""
        seen = 0
        for rival in level.rivals:
            if rival.name == me or rival.rec is None:
                continue
            seen += rival.rec.queued
            ahead = max(0.0, tag - rival.tag) * _weight(rival.rec) / self._charge(rival.rec)
            tasks = min(rival.rec.queued, math.ceil(ahead - 1e-9))
            self.tasks += tasks
            self.work += tasks * (_mean_run(rival.rec) or self._mean)
        hidden = level.ready - len(level.rivals)
        if hidden > 0:
            each = math.ceil(max(0.0, tag - level.rivals[-1].tag) / self._charge(None))
            tasks = min(hidden * each, max(0, self._facts.queued - seen))
            self.tasks += tasks
            self.work += tasks * self._mean


def _weight(tenant: TenantRecord) -> float:
    return tenant.weight / 1000


def _tag(tenant: TenantRecord, generation: float, virtual: float) -> float:
    """Where it stands, or if it is not ready, where it would enter."""
    tag = tenant.tag if tenant.generation == generation else 0.0
    return tag if tenant.is_ready(generation) else max(tag, virtual)


def _pace(facts: Facts) -> float:
    """Tasks that end in a second; 0: nobody knows."""
    windows = list(zip(facts.ended, ENDED_SECONDS, strict=True))
    rates = [count / seconds for count, seconds in windows if count >= ENOUGH]
    return max(rates) if rates else windows[-1][0] / windows[-1][1]


def _power(facts: Facts, slots: int, mean: float) -> float:
    """Seconds of work that are done in a second; 0: nobody knows."""
    if mean >= SHORT_SECONDS:
        return slots
    serving = slots / facts.clock.slots if facts.clock.slots > slots else 1.0
    return min(slots, _pace(facts) * serving * mean)


def _mean_run(tenant: TenantRecord | None) -> float:
    """Seconds of a task of the tenant; 0: nobody knows."""
    ended = tenant.finished + tenant.failed if tenant is not None else 0
    return tenant.served / ended if tenant is not None and ended else 0.0


def _mean_of_all(facts: Facts) -> float:
    """Of the tasks that were claimed in the last minute by those that are known; 0: nobody knows."""
    known = {rival.name: rival.rec for level in (facts.root, facts.inner) for rival in level.rivals}
    known |= {facts.rec.user: facts.user}
    claims, work = 0.0, 0.0
    for name, tenant in known.items():
        if tenant is None or (name.startswith(":") and facts.inner.ready):
            continue
        run = _mean_run(tenant)
        if run:
            weight = tenant.claims_now + tenant.claims_before + 1e-3
            claims, work = claims + weight, work + weight * run
    return work / claims if claims else 0.0


def share_cap(facts: Facts, share: float) -> int:
    """How many slots one user may hold; 0: all."""
    return max(1, math.ceil(share * facts.clock.slots - 1e-9)) if share < 1 else 0


def _cap_wait(cap: int, running: int, before: float, mean: float) -> float:
    return max(0.0, before + 1 - max(0, cap - running)) * mean / cap if cap else 0.0


def _caps(facts: Facts, own: int, in_group: float, mean: float, share: float) -> Iterator[float]:
    for tenant, before in ((facts.user, own), (facts.group, in_group)):
        if tenant is not None:
            run = _mean_run(tenant) or mean
            for cap in (tenant.cap, share_cap(facts, share)):
                yield _cap_wait(cap, tenant.running, before, run)
    if facts.limiter is not None:
        limiter = facts.limiter
        # Those who wait for it take turns.
        before = facts.before.own_limiter * max(1, limiter.waiting)
        yield _cap_wait(limiter.rec.cap, limiter.rec.running, before, mean)


def _rates(facts: Facts, own: int) -> Iterator[float]:
    cost = facts.rec.cost / 1000
    buckets: list[tuple[TenantRecord | LimiterRecord | None, int]] = [(facts.user, own), (facts.group, own)]
    if facts.limiter is not None:
        buckets.append((facts.limiter.rec, facts.before.own_limiter * max(1, facts.limiter.waiting)))
    for bucket, before in buckets:
        if bucket is not None and bucket.interval:
            at = max(bucket.full, facts.clock.now) + before * cost * bucket.interval - bucket.tau
            yield max(0.0, at - facts.clock.now) / _SECOND
