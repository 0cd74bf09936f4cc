"""What was sent against what was done: each rule names the task that breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fairque.core.states import TaskState
from tests.support.ledger.book import Sent
from tests.support.ledger.crew import Harm
from tests.support.ledger.sheet import Execution

SETTLE_SECONDS = 1.0
"""In fair weather, the server knows of an end after so long at most."""
CLEARING_SECONDS = 3.0
"""After bad weather, everybody has found the server again."""
CRASHED = "killed its process three times while running alone"
TERMINAL = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the server has of a task."""

    state: TaskState | None
    attempt: int = 0
    reason: str = ""
    result: object = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known at the end of a run. `finished`: how often the server has counted an end as finished."""

    sent: Sequence[Sent]
    ticks: Collection[str]
    executions: Mapping[str, Sequence[Execution]]
    recorded: Mapping[str, Recorded]
    finished: int
    harms: Sequence[Harm] = ()
    weather: Sequence[tuple[float, float]] = ()


@dataclass(slots=True)
class Findings:
    """Figures for a table, and what must not be."""

    figures: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def audit(evidence: Evidence) -> Findings:
    """Compare."""
    found = Findings()
    fates = dict(_fates(evidence))
    for name, harmed in fates.items():
        found.violations += harmed.problems
        recorded = evidence.recorded.get(name)
        if recorded is not None and recorded.state not in TERMINAL:
            found.violations.append(f"{name} is {recorded.state} for good")
    found.violations += _presence(evidence)
    sent = {one.task_id: one for one in evidence.sent}
    for one in evidence.sent:
        found.violations += _outcome(one, evidence.recorded.get(one.task_id))
    states = Counter(recorded.state for recorded in evidence.recorded.values())
    twice = evidence.finished - states[TaskState.FINISHED]
    if twice:
        found.violations.append(
            f"{evidence.finished} ends were counted for {states[TaskState.FINISHED]} tasks"
        )
    unanswered = [one for one in evidence.sent if not one.acknowledged]
    found.figures = {
        "tasks sent": len(sent),
        "acknowledged": len(sent) - len(unanswered),
        "of these lost": sum(
            1 for one in evidence.sent if one.acknowledged and one.task_id not in evidence.recorded
        ),
        "not acknowledged": len(unanswered),
        "of these there all the same": sum(1 for one in unanswered if one.task_id in evidence.recorded),
        "ticks due": len(evidence.ticks),
        "ticks run": sum(1 for name in evidence.ticks if evidence.executions.get(name)),
        "finished": states[TaskState.FINISHED],
        "canceled": states[TaskState.CANCELED],
        "dead letters of a process that was killed": states[TaskState.FAILED],
        "recorded twice": twice,
        "executions": sum(len(list_) for list_ in evidence.executions.values()),
        "running at a kill, stop or term": sum(fate.running for fate in fates.values()),
        "executed again": sum(fate.again for fate in fates.values()),
        "of these ended, but not told yet": sum(fate.untold for fate in fates.values()),
        "of these held, but begun after the stop": sum(fate.late for fate in fates.values()),
    }  # fmt: skip
    return found


def _presence(evidence: Evidence) -> Iterator[str]:
    """Whether everything is there that should be, and nothing else."""
    sent = {one.task_id for one in evidence.sent}
    for one in evidence.sent:
        if one.acknowledged and one.task_id not in evidence.recorded:
            yield f"{one.task_id} was acknowledged and is lost"
    for name in evidence.ticks:
        recorded = evidence.recorded.get(name)
        if recorded is None:
            yield f"the tick {name} was never pushed"
        elif recorded.state is not TaskState.FINISHED and recorded.reason != CRASHED:
            yield f"the tick {name} is {recorded.state}: {recorded.reason}"
    for name in evidence.recorded:
        if name not in sent and name not in evidence.ticks:
            yield f"{name} was pushed by nobody"
    for name in evidence.executions:
        if name not in evidence.recorded:
            yield f"{name} was executed and is not there"


def _outcome(one: Sent, recorded: Recorded | None) -> Iterator[str]:
    """Whether it ended as it had to."""
    name = one.task_id
    if recorded is None:
        return
    if one.canceled is True and recorded.state is not TaskState.CANCELED:
        yield f"{name} was canceled and is {recorded.state}"
    if one.canceled is False and recorded.state is TaskState.CANCELED:
        yield f"{name} is canceled, which nobody asked for: {recorded.reason}"
    if recorded.state is TaskState.FAILED and recorded.reason != CRASHED:
        yield f"{name} failed: {recorded.reason}"
    if one.seen is not None and recorded.result != one.seen:
        yield f"{name} had the result {one.seen} and now has {recorded.result}"


@dataclass(slots=True)
class _Fate:
    """Of one task: executions that ran when their process was harmed; those that were repeated, and which of these had
    ended (`untold`) or not begun (`late`) then; `problems`: what nothing explains."""

    running: int = 0
    again: int = 0
    untold: int = 0
    late: int = 0
    problems: list[str] = field(default_factory=list)


def _fates(evidence: Evidence) -> Iterator[tuple[str, _Fate]]:
    harms = sorted(evidence.harms, key=lambda harm: harm.begun)
    for name, executions in evidence.executions.items():
        fate, recorded = _Fate(), evidence.recorded.get(name)
        counted: set[int] = set()
        free = recorded is not None and recorded.state is TaskState.CANCELED
        valid = recorded is not None and recorded.state is TaskState.FINISHED
        told = [one for one in executions if valid and recorded is not None and one.name == recorded.result]
        if valid and (len(told) != 1 or told[0].ended is None or told[0].failed):
            fate.problems.append(f"{name} has the result of {len(told)} executions")
        for number, one in enumerate(executions):
            over = executions[number + 1].begun if number + 1 < len(executions) else float("inf")
            met = [harm for harm in harms if _meets(harm, one, over)]
            fate.running += any(_runs_at(harm.begun, one) for harm in met)
            if one in told or (free and one is executions[-1]):  # it was canceled while it ran
                continue
            if one.failed and one.attempt not in counted:
                counted.add(one.attempt)
            elif met:
                fate.again += 1
                since = min(harm.begun for harm in met)
                fate.late += one.begun > max(harm.begun for harm in met)
                if one.ended is not None and one.ended < since:
                    fate.untold += 1
                    if since - one.ended > SETTLE_SECONDS and not _cloudy(evidence, one.ended, since):
                        fate.problems.append(
                            f"the end of {name} was not told for {since - one.ended:.1f} s, and went with its process"
                        )
            else:
                fate.problems.append(
                    f"{name} was executed once more without a cause: {one.name} in {_brief(executions)}"
                )
        yield name, fate


def _meets(harm: Harm, one: Execution, over: float) -> bool:
    """Whether the harm was done to who executed it, before it was executed anew."""
    return (
        (one.pid in harm.pids or one.parent in harm.pids) and harm.begun <= over and one.begun <= harm.ended
    )


def _runs_at(moment: float, one: Execution) -> bool:
    return one.begun <= moment and (one.ended is None or one.ended >= moment)


def _cloudy(evidence: Evidence, begun: float, ended: float) -> bool:
    return any(
        since - SETTLE_SECONDS <= ended and begun <= until + CLEARING_SECONDS
        for since, until in evidence.weather
    )


def _brief(executions: Sequence[Execution]) -> str:
    return ", ".join(
        f"{one.attempt}/{one.pid}({one.parent}) {one.begun:.3f}-{'' if one.ended is None else f'{one.ended:.3f}'}"
        f"{' failed' if one.failed else ''}"
        for one in executions
    )
