"""Weights divide the service, also when they change under load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.model.scenarios.base import Ground, Result, jain, policy, run, scenario
from tests.model.simulation import Arrival, Report


def _service(report: Report, mode: str, since: float, before: float) -> dict[str, float]:
    """What each user got in a span of time: starts, or the run time of what was started then."""
    got: dict[str, float] = defaultdict(float)
    for start in report.starts:
        if since <= start.at < before:
            got[start.user] += start.cost if mode == "round_robin" else start.seconds
    return got


def _weighted(
    ground: Ground,
    mode: str,
    slots: int,
    half: float,
    first: Mapping[str, float],
    then: Mapping[str, float],
    arrivals: Iterable[Arrival],
) -> Result:
    """Jain's index over service ÷ weight under weights that change half-way, added up over both halves."""
    actions = [(0.0, policy(user, weight=weight)) for user, weight in first.items()]
    actions += [(half, policy(user, weight=weight)) for user, weight in then.items()]
    report = run(ground, mode, slots, 2 * half, arrivals, actions=actions)
    before, after = _service(report, mode, 0, half), _service(report, mode, half, 2 * half)
    index = jain(before[user] / first[user] + after[user] / then[user] for user in first)
    return Result(f"{index:.4f}", index >= 0.99, index, reports={"": report})


_JAIN = "Jain's index of service ÷ weight"


@scenario("weights", "weights 1, 2, 5 under load, changed half-way", _JAIN, ">= 0.99")
def weights(ground: Ground, mode: str, slots: int) -> Result:
    """The same three weights, in another order in the second half."""
    first, then = {"a": 1, "b": 2, "c": 5}, {"a": 5, "b": 1, "c": 2}
    arrivals = [Arrival(0, user, tasks=800) for user in first]
    return _weighted(ground, mode, slots, 400 / slots, first, then, arrivals)


@scenario("extreme-weights", "weights 0.01 to 100 under load, changed half-way", _JAIN, ">= 0.99")
def extreme_weights(ground: Ground, mode: str, slots: int) -> Result:
    """From one end of what is allowed to the other."""
    first = {"small": 1, "b": 2, "c": 5, "rises": 0.01, "falls": 100}
    then = {"small": 0.01, "b": 5, "c": 2, "rises": 100, "falls": 1}
    half = round(10 * sum(first.values()) / slots)
    # At weight 0.01 a tenth of a task of 1 s is due in each half, so it takes small tasks to show that it is given.
    # (Who has just been served 1 s at weight 100 and falls to 0.01 owes that second: it waits for 100 s of others.)
    arrivals = [Arrival(0, "small", seconds=0.01, cost=0.01, function="small", tasks=1200)]
    arrivals += [Arrival(0, user, tasks=200) for user in ("b", "c")]
    arrivals += [Arrival(0, "falls", tasks=1200)]
    arrivals += [Arrival(0, "rises", seconds=0.01, cost=0.01, function="small", tasks=100)]
    # Not behind what was meant for the other weight.
    arrivals += [Arrival(half, "rises", tasks=1200, priority=6)]
    return _weighted(ground, mode, slots, half, first, then, arrivals)


@scenario(
    "weight-change", "weight 1 against 1, changed to 5 against 1 at 20 s; tasks of 0.1 s",
    "how long until its part of the service since is 5 to 1 (within 5%), and stays so", "<= 2 s",
)  # fmt: skip
def weight_change(ground: Ground, mode: str, slots: int) -> Result:
    """A changed weight acts on the backlog that is already there."""
    changed, until = 20.0, 40.0
    arrivals = [Arrival(0, user, seconds=0.1, tasks=400 * slots) for user in ("x", "y")]
    actions = [(changed, policy("x", weight=5))]
    report = run(ground, mode, slots, until, arrivals, actions=actions)
    before = report.count(before=changed)
    assert abs(before["x"] - before["y"]) <= slots, "the weights were equal"
    counts = {"x": 0, "y": 0}
    followed, wrong = 0.0, True
    # By instants: what starts together is one figure.
    later = [start for start in report.starts if start.at >= changed]
    for number, start in enumerate(later):
        counts[start.user] += 1
        if number + 1 < len(later) and later[number + 1].at == start.at:
            continue
        share = counts["x"] / (counts["x"] + counts["y"])
        if abs(share - 5 / 6) > 0.05 * 5 / 6:
            followed, wrong = start.at - changed, True
        elif wrong:
            followed, wrong = start.at - changed, False
    return Result(f"{followed:.1f} s", not wrong and followed <= 2, followed, reports={"": report})
