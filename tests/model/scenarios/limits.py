"""Organisations, rates, shares of the slots, and limiters: each exact, and none of them anybody else's trouble."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

from tests.model.scenarios.base import Ground, Result, group, jain, limiter, policy, run, scenario
from tests.model.simulation import Action, Arrival, Report
from tests.model.values import Permits


@scenario(
    "organisations", "30 users of one organisation against 3 of another, all with backlogs",
    "the part of the 3; Jain's index among the 30", "48% to 52%; >= 0.99",
)  # fmt: skip
def organisations(ground: Ground, mode: str, slots: int) -> Result:
    """An organisation is one tenant among others, however many users it has."""
    large, small = [f"large{i}" for i in range(30)], [f"small{i}" for i in range(3)]
    actions: list[tuple[float, Action]] = [(0, group(name)) for name in ("large", "small")]
    actions += [(0, policy(user, group="large")) for user in large]
    actions += [(0, policy(user, group="small")) for user in small]
    arrivals = [Arrival(0, user, tasks=30) for user in large]
    arrivals += [Arrival(0, user, tasks=200) for user in small]
    report = run(ground, mode, slots, 600 / slots, arrivals, actions=actions)
    got = report.count()
    share = sum(got[user] for user in small) / got.total()
    index = jain(got[user] for user in large)
    good = 0.48 <= share <= 0.52 and index >= 0.99
    return Result(f"{share:.1%}; {index:.3f}", good, share, reports={"": report})


def _limited(rate: float) -> None:
    """Enter the row of a rate."""

    @scenario(
        f"rate-{rate:.0f}", f"a backlog under a rate limit of {rate:.0f}/s, beside three tenants on half of the slots",
        "starts in 60 s, of what the rate allows", "99% to 101%", slots=(1, 20),
    )  # fmt: skip
    def limited(ground: Ground, mode: str, slots: int) -> Result:
        arrivals = [Arrival(0, "limited", seconds=0.005, tasks=round(65 * rate), function="short")]
        every, length = 0.12, 0.02 * slots
        arrivals += [
            Arrival(round(every * (number + part / 3), 6), f"other{part}", seconds=length)
            for part in range(3)
            for number in range(round(60 / every))
        ]
        actions = [(0.0, policy("limited", rate=rate, burst=max(2, round(rate / 10))))]
        report = run(ground, mode, slots, 60, arrivals, actions=actions)
        got = report.count()["limited"] / (60 * rate)
        return Result(f"{got:.2%}", abs(got - 1) <= 0.01, got, reports={"": report})


_limited(50.0)
_limited(7.0)


def _mean_wait(ground: Ground, mode: str, slots: int, *, parks: bool) -> float:
    """Of others at 60% load, beside a tenant that starts 5 tasks a second: held to that by its limit or by itself."""
    rate, burst, until = 5.0, 2, 120.0
    dice = random.Random(5)
    arrivals: list[Arrival] = []
    for user in ("u", "v", "w"):
        at = 0.0
        while (at := at + dice.expovariate(0.2 / 0.1)) < until:
            arrivals.append(Arrival(round(at, 6), user, seconds=round(slots * dice.uniform(0.05, 0.15), 6)))
    actions = []
    if parks:
        arrivals.append(
            Arrival(0, "limited", seconds=0.02, tasks=round(rate * until) + 100, function="short")
        )
        actions = [(0.0, policy("limited", rate=rate, burst=burst))]
    else:
        # As the rate lets them start: a burst, then one by one.
        times = [max(0.0, (number - burst + 1) / rate) for number in range(round(rate * until))]
        arrivals += [Arrival(at, "limited", seconds=0.02, function="short") for at in times]
    report = run(ground, mode, slots, until, arrivals, actions=actions)
    return statistics.mean(start.waited for start in report.starts if start.user in "uvw")


@scenario(
    "parked-beside", "others beside a tenant that its rate limit parks, against the same starts without a limit",
    "what that adds to the others' mean wait", "< 1%", slots=(1, 2, 5),
)  # fmt: skip
def parked_beside(ground: Ground, mode: str, slots: int) -> Result:
    """A backlog that waits for tokens is no burden to others."""
    with_limit = _mean_wait(ground, mode, slots, parks=True)
    without = _mean_wait(ground, mode, slots, parks=False)
    change = with_limit / without - 1
    return Result(f"{change:+.2%}", change < 0.01, change)


SHARE = 0.3


@scenario(
    "user-share", f"max_user_share {SHARE}: A has a backlog of tasks of 60 s, B comes at 100.5 s",
    "slots that A holds at most; B's wait", "max(1, ceil(share × slots)); 0 s with slots to spare",
)  # fmt: skip
def user_share(ground: Ground, mode: str, slots: int) -> Result:
    """Headroom for the next tenant, when tasks are long."""
    arrivals = [Arrival(0, "A", seconds=60, tasks=20 * slots), Arrival(100.5, "B")]
    report = run(ground, mode, slots, 200, arrivals, max_user_share=SHARE)
    most = report.most_at_once(lambda start: start.user == "A")
    may = max(1, -int(-SHARE * slots // 1))
    wait = report.waits("B")[0]
    good = most == may and (slots == may or wait == 0)
    return Result(
        f"{most}; {wait:.1f} s", good, most, f"{may}; {'0 s' if slots > may else 'a free slot'}", {"": report}
    )


def _under_one_limiter(
    ground: Ground, mode: str, slots: int, permits: Permits, kept: Callable[[Report], bool], free: float
) -> Result:
    """A and B with tasks under one limiter, C with others. `free`: what C can get, as a part of all slots."""
    until = 600 / slots
    dice = random.Random(3)
    arrivals = [Arrival(0, user, tasks=700, limiter="api", function="call") for user in ("A", "B")]
    # Unequal, so that slots get free one by one.
    arrivals += [Arrival(0, "C", seconds=round(dice.uniform(0.5, 1.5), 3)) for _ in range(700)]
    report = run(ground, mode, slots, until, arrivals, actions=[(0, limiter("api", permits))])
    got = report.count()
    share = got["A"] / (got["A"] + got["B"])
    others = report.seconds()["C"] / (slots * until)
    # Under a limiter tasks are counted, not timed: by seconds the two come near.
    off = 0.02 if mode == "round_robin" else 0.05
    good = kept(report) and abs(share - 0.5) <= off and others >= 0.95 * free
    limit = f"{50 - 100 * off:.0f}-{50 + 100 * off:.0f}%; >= {0.95 * free:.0%}"
    return Result(f"{share:.1%}; {others:.0%}", good, share, limit, {"": report})


_LIMITED = "A's part of what A and B start; C's part of the slots"


@scenario(
    "limiter-slots", "A and B under one limiter of half the slots, C without",
    _LIMITED, "48% to 52% (45% to 55%); >= 0.95 of the rest, and never above the limiter",
)  # fmt: skip
def limiter_slots(ground: Ground, mode: str, slots: int) -> Result:
    """Fair among those who share it, no trouble for who does not."""
    cap = max(1, slots // 2)

    def kept(report: Report) -> bool:
        return report.most_at_once(lambda start: start.limiter == "api") == cap

    return _under_one_limiter(ground, mode, slots, Permits(cap=cap), kept, max(1 / 3, 1 - cap / slots))


@scenario(
    "limiter-rate", "A and B under one limiter of a quarter as many starts as there are slots, C without",
    _LIMITED, "48% to 52% (45% to 55%); >= 0.95 of the rest, and the rate used by 0.95 at least", slots=(2, 5, 20),
)  # fmt: skip
def limiter_rate(ground: Ground, mode: str, slots: int) -> Result:
    """The same by rate."""
    rate = slots / 4

    def kept(report: Report) -> bool:
        may = rate * report.until
        return (
            0.95 * may - 2
            <= sum(start.limiter == "api" for start in report.starts)
            <= max(may + 2, 1.01 * may)
        )

    return _under_one_limiter(ground, mode, slots, Permits(rate=rate), kept, 1 - rate / slots)


@scenario(
    "limiter-weights", "a backlog of weight 3 and a tenant that keeps one task under one limiter of 1 slot, C without",
    "the backlog's part of what the two start", "70% to 80%", slots=(5, 20),
)  # fmt: skip
def limiter_weights(ground: Ground, mode: str, slots: int) -> Result:
    """By weight, also for who comes back again and again."""
    dice = random.Random(3)
    arrivals = [Arrival(0, "A", tasks=400, limiter="api", function="call")]
    arrivals.append(Arrival(0, "B", limiter="api", function="call"))
    arrivals += [Arrival(0, "C", seconds=round(dice.uniform(0.5, 1.5), 3)) for _ in range(310 * slots)]
    report = run(
        ground, mode, slots, 300, arrivals,
        on_done=lambda user, now: [Arrival(now, "B", limiter="api", function="call")] if user == "B" else [],
        actions=[(0, limiter("api", Permits(cap=1))), (0, policy("A", weight=3))],
    )  # fmt: skip
    got = report.count()
    share = got["A"] / (got["A"] + got["B"])
    return Result(f"{share:.1%}", 0.7 <= share <= 0.8, share, reports={"": report})
