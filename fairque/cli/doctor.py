"""`fairque doctor`: whether the server is one that a queue can be trusted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.cli.checkup_depth import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(run: Run) -> None:
    """Check the server and the queue, and say what to change. Exit code 1: something must be changed."""
    from fairque.cli.checkup import examine

    findings = examine(run.config)
    failed = any(finding.level == "fail" for finding in findings)
    if run.out.as_json:
        run.out.data(
            {
                "ok": not failed,
                "server": str(run.config.redis.address),
                "findings": [
                    {"check": item.check, "level": item.level, "found": item.found, "advice": item.advice}
                    for item in findings
                ],
            }
        )
    else:
        _print(run, findings)
    run.finish(ExitCode.FAILED if failed else ExitCode.OK)


def _print(run: Run, findings: list[Finding]) -> None:
    from rich.text import Text

    rows = [(Text(item.level, _STYLES[item.level]), item.check, item.found) for item in findings]
    run.out.table(["", "check", "found"], rows, title=f"Server {run.config.redis.address}")
    advice = [item for item in findings if item.advice]
    if advice:
        run.out.line("")
    for item in advice:
        run.out.line(f"{item.check}: {item.advice}", style=_STYLES[item.level])
    counts = {level: sum(item.level == level for item in findings) for level in _STYLES}
    run.out.line("")
    run.out.line(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to change")
