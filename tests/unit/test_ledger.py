"""The ledger finds what it is there to find: each of its rules, broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairque.core.states import TaskState
from tests.support.ledger import sheet
from tests.support.ledger.audit import CRASHED, Evidence, Recorded, audit
from tests.support.ledger.book import Sent
from tests.support.ledger.crew import Harm
from tests.support.ledger.plan import FAULTS, TARGETS, draw
from tests.support.ledger.sheet import Execution

FIRST = Execution("t", 1, 100, 10, 5.0, 6.0)
SECOND = Execution("t", 2, 200, 20, 9.0, 10.0)
KILL = Harm("kill", frozenset({100}), 5.5, 5.6)


def finished(by: Execution) -> Recorded:
    return Recorded(TaskState.FINISHED, by.attempt, "", by.name)


def evidence(*executions: Execution, **fields: Any) -> Evidence:
    """One acknowledged task, whose last execution is the recorded one."""
    given = Evidence(
        sent=[Sent("t", "u", acknowledged=True)],
        ticks=(),
        executions={"t": executions} if executions else {},
        recorded={"t": finished(executions[-1])} if executions else {},
        finished=1 if executions else 0,
    )
    return replace(given, **fields)


@pytest.mark.parametrize(
    "good",
    [
        evidence(FIRST),
        evidence(replace(FIRST, ended=None), SECOND, harms=[KILL]),
        # The parent was killed, and what ran in its child went with it.
        evidence(replace(FIRST, ended=None), SECOND, harms=[replace(KILL, pids=frozenset({10}))]),
        # It had ended, and the server was not told in time.
        evidence(replace(FIRST, ended=5.4), SECOND, harms=[KILL]),
        evidence(replace(FIRST, ended=2.0, begun=1.0), SECOND, harms=[KILL], weather=[(2.0, 4.0)]),
        # A stopped process comes back, and begins what it held, after another has done it.
        evidence(
            SECOND, replace(FIRST, begun=12.0, ended=12.1),
            harms=[Harm("stop", frozenset({100}), 3.0, 13.0)], recorded={"t": finished(SECOND)},
        ),
        # As it was told to, it failed once.
        evidence(replace(FIRST, failed=True), SECOND),
        # Nobody knows whether it was taken: it was not, or it was.
        evidence(sent=[Sent("t", "u")]),
        evidence(FIRST, sent=[Sent("t", "u")]),
        evidence(
            replace(FIRST, ended=None), sent=[Sent("t", "u", acknowledged=True, canceled=True)],
            recorded={"t": Recorded(TaskState.CANCELED)}, finished=0,
        ),
        # Canceled while it ran, in a process that was killed much later.
        evidence(
            FIRST, sent=[Sent("t", "u", acknowledged=True, canceled=True)], finished=0,
            recorded={"t": Recorded(TaskState.CANCELED)}, harms=[replace(KILL, begun=20.0, ended=21.0)],
        ),
        evidence(recorded={"t": Recorded(TaskState.FAILED, 4, CRASHED)}),
        evidence(FIRST, sent=[], ticks={"t"}),
    ],
)  # fmt: skip
def test_nothing_is_found_where_nothing_is_wrong(good: Evidence) -> None:
    assert audit(good).violations == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (evidence(), "t was acknowledged and is lost"),
        (evidence(FIRST, recorded={}, finished=0), "t was executed and is not there"),
        (evidence(FIRST, sent=[]), "t was pushed by nobody"),
        (evidence(sent=[], ticks={"t"}), "the tick t was never pushed"),
        (
            evidence(recorded={"t": Recorded(TaskState.FAILED, 1, "no retries left")}),
            "t failed: no retries left",
        ),
        (
            evidence(FIRST, recorded={"t": Recorded(TaskState.STARTED, 1)}, finished=0),
            "t is started for good",
        ),
        (evidence(FIRST, finished=2), "2 ends were counted for 1 tasks"),
        (evidence(FIRST, SECOND), "executed once more without a cause"),
        # Its process was killed, but later than it was executed anew, or it was another one.
        (evidence(FIRST, SECOND, harms=[replace(KILL, begun=9.5, ended=9.6)]), "without a cause"),
        (evidence(FIRST, SECOND, harms=[replace(KILL, pids=frozenset({300}))]), "without a cause"),
        (evidence(replace(FIRST, begun=1.0, ended=2.0), SECOND, harms=[KILL]), "was not told for 3.5 s"),
        (
            evidence(FIRST, recorded={"t": Recorded(TaskState.FINISHED, 1, "", "other")}),
            "the result of 0 executions",
        ),
        (
            evidence(FIRST, sent=[Sent("t", "u", acknowledged=True, seen="other")]),
            "had the result other and now has",
        ),
        (
            evidence(FIRST, sent=[Sent("t", "u", acknowledged=True, canceled=True)]),
            "was canceled and is finished",
        ),
        (evidence(recorded={"t": Recorded(TaskState.CANCELED)}), "canceled, which nobody asked for"),
        (
            evidence(
                replace(FIRST, failed=True),
                replace(SECOND, attempt=1, failed=True),
                replace(SECOND, begun=11.0),
            ),
            "without a cause",
        ),
    ],
)
def test_what_is_wrong_is_named(bad: Evidence, said: str) -> None:
    assert any(said in violation for violation in audit(bad).violations), audit(bad).violations


def test_the_same_seed_is_the_same_schedule() -> None:
    plan = draw(7, 120)
    assert plan == draw(7, 120)
    assert plan != draw(8, 120)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert all(fault.index < TARGETS[fault.target] for fault in plan)
    # A run of half a minute meets most kinds, and a longer one all of them.
    kinds = {(what, target) for what, target, _, _ in FAULTS}
    assert {(fault.what, fault.target) for fault in plan} == kinds
    assert len({(fault.what, fault.target) for fault in draw(7, 15)}) >= 12


def test_a_sheet_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sheet"
    sheet.write(str(path), "begin", "a", 1, 1.0)
    sheet.write(str(path), "begin", "b", 1, 2.0)
    sheet.write(str(path), "fail", "a", 1, 1.0)
    sheet.write(str(path), "begin", "a", 2, 3.0)
    sheet.write(str(path), "end", "a", 2, 3.0)
    found = sheet.read(path)
    assert [(one.attempt, one.failed, one.ended is None) for one in found["a"]] == [
        (1, True, False), (2, False, False),
    ]  # fmt: skip
    assert [one.ended for one in found["b"]] == [None]
