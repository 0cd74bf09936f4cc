"""Workers with users of their own: these come first, others get what is left, and nobody starves with a dead worker."""

from __future__ import annotations

from tests.model.scenarios.base import Ground, Result, run, scenario
from tests.model.simulation import Action, Arrival, Staff
from tests.model.values import Entry, Scheduler

STEAL_AFTER = 5.0
"""The default of `steal_after_seconds`."""


def _assignment(**entries: Entry) -> tuple[float, Action]:
    def change(scheduler: Scheduler, now: int) -> None:
        scheduler.assign(now, entries)

    return 0.0, change


@scenario(
    "own-users-first", "two entries with a user each; one of the two has no more tasks from 50 s on",
    "starts of others' tasks before; slots in use after", "0; all",
)  # fmt: skip
def own_users_first(ground: Ground, mode: str, slots: int) -> Result:
    """As long as its own users have work a worker serves these, and then it steals."""
    staff = [Staff(slots, "first"), Staff(slots, "second")]
    arrivals = [Arrival(0, "a", tasks=200 * slots), Arrival(0, "b", tasks=50 * slots)]
    report = run(
        ground, mode, staff, 100, arrivals,
        actions=[_assignment(first=Entry(("a",)), second=Entry(("b",)))],
    )  # fmt: skip
    stolen = sum(start.user != "ab"[start.worker] for start in report.starts if start.at < 50)
    used = sum(report.seconds(since=51).values()) / (49 * 2 * slots)
    good = stolen == 0 and used >= 0.999
    return Result(f"{stolen}; {used:.0%}", good, used, reports={"": report})


@scenario(
    "dead-worker", "a user whose only worker is dead, beside an entry that is busy with its own backlog",
    "how long a task waits", "<= steal_after_seconds + 1 s (6 s)",
)  # fmt: skip
def dead_worker(ground: Ground, mode: str, slots: int) -> Result:
    """Who waits too long for its own worker competes everywhere."""
    staff = [Staff(slots, "busy"), Staff(slots, "dies", dies=20.2)]
    arrivals = [Arrival(0, "a", seconds=0.5, tasks=200 * slots)]
    # Served until its worker dies, and with tasks that the dead worker never takes.
    arrivals += [Arrival(at, "b", seconds=0.5) for at in range(20)]
    arrivals += [Arrival(30 + 7 * number, "b", seconds=0.5) for number in range(8)]
    report = run(
        ground, mode, staff, 100, arrivals,
        actions=[_assignment(busy=Entry(("a",)), dies=Entry(("b",)))],
    )  # fmt: skip
    late = [start for start in report.starts if start.user == "b" and start.at >= 30]
    assert len(late) == 8, "a task never started"
    longest = max(start.waited for start in late)
    return Result(f"{longest:.2f} s", longest <= STEAL_AFTER + 1, longest, reports={"": report})
