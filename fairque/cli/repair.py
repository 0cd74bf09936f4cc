"""`fairque repair` and `fairque acl`: mending what the doctor finds, and the rights of a user of the queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.queue.operations.admin import WorkerInfo
    from fairque.queue.operations.reconcile import Repair, Report
    from fairque.queue.queue import TaskQueue

LOOK_SECONDS = 0.2
SHOWN = 50


def repair(
    run: Run,
    apply: Annotated[bool, typer.Option("--apply", help="Mend it; without, it is only shown.")] = False,
    wait: Annotated[
        bool,
        typer.Option(help="With --apply: wait until the tasks of workers that are gone are queued again."),
    ] = True,
) -> None:
    """Compare all that is stored twice, and show what does not agree; with --apply, mend it. It may run beside workers.

    Exit code 1: something is (still) to be mended.
    """
    with run.queue() as queue:
        if not apply:
            report, gone = queue.reconcile(dry_run=True), _gone(queue)
            _tell(run, report, gone, applied=False)
            run.finish(ExitCode.FAILED if report.repaired or gone else ExitCode.OK)
            return
        report = queue.reconcile()
        gone = _gone(queue)
        if gone and wait:
            if not run.out.as_json:
                run.out.line(f"{len(gone)} workers are gone; their leases are waited for")
            _reap(queue)
        left = queue.reconcile(dry_run=True)
        still = _gone(queue) if wait else []
        _tell(run, report, gone, applied=True)
        if left.repaired or still:
            run.out.line(
                "something is still to be mended: run it again, and see whether something else writes there"
            )
            run.finish(ExitCode.FAILED)


def _gone(queue: TaskQueue) -> list[WorkerInfo]:
    """Workers whose leases have run out, and whose tasks wait to be given back."""
    return [worker for worker in queue.get_stats().workers if worker.lease_left <= 0]


def _reap(queue: TaskQueue) -> None:
    """Do as a worker does, until the leases of the dead are over: before, the server gives nothing back."""
    from fairque.queue.operations import claims

    engine = queue.engine
    session = claims.Session(slots=1, fields={"kind": "repair"})
    queue.run(claims.join(engine, session))
    lease = engine.config.lease_seconds
    deadline = time.monotonic() + 2 * lease + 1
    try:
        while time.monotonic() < deadline:
            queue.run(claims.settle_and_claim(engine, session, want=0, holding=()))
            stats = queue.get_stats()
            if not stats.numbers.get("dead_workers") and not any(w.lease_left <= 0 for w in stats.workers):
                return
            time.sleep(min(LOOK_SECONDS, lease / 12))
    finally:
        queue.run(claims.leave(engine, session.incarnation))


def _tell(run: Run, report: Report, gone: list[WorkerInfo], *, applied: bool) -> None:
    if run.out.as_json:
        run.out.data(
            {
                "applied": applied,
                "checked": report.checked,
                "repairs": [{"what": one.what, "was": one.was, "now": one.now} for one in report.repaired],
                "dead_workers": [
                    {
                        "incarnation": one.incarnation,
                        "worker_id": one.fields.get("worker_id"),
                        "tasks": one.running,
                    }
                    for one in gone
                ],
            }
        )
        return
    if report.repaired:
        run.out.table(["what", "was", "is now" if applied else "would be"], _rows(report.repaired))
        if len(report.repaired) > SHOWN:
            run.out.line(f"and {len(report.repaired) - SHOWN} more (--json lists all)")
    for one in gone:
        name = one.fields.get("worker_id") or one.incarnation
        run.out.line(
            f"worker {name} is gone: {one.running} tasks {'are' if applied else 'would be'} queued again"
        )
    total = len(report.repaired) + len(gone)
    if not total:
        run.out.line(f"{report.checked} records agree: nothing to mend")
    elif applied:
        run.out.line(f"{total} mended, of {report.checked} records")
    else:
        run.out.line(
            f"{total} to mend, of {report.checked} records. Nothing was changed: fairque repair --apply"
        )


def _rows(repairs: tuple[Repair, ...]) -> list[tuple[str, str, str]]:
    return [(one.what, one.was, one.now) for one in repairs[:SHOWN]]


def acl(
    run: Run,
    user: Annotated[str, typer.Argument(help="Name of the user on the server.")] = "fairque",
    rules: Annotated[bool, typer.Option("--rules", help="Only the rules, for a file of users.")] = False,
) -> None:
    """Print the line that makes a user on the server who may work with this queue, and do nothing else."""
    from fairque.core.rights import acl_line, acl_rules

    fsync = run.config.queue.durability == "fsync"
    prefix = run.config.key_prefix
    line = acl_line(user, prefix, fsync=fsync)
    if run.out.as_json:
        run.out.data({"user": user, "line": line, "rules": acl_rules(prefix, fsync=fsync)})
    else:
        run.out.line(acl_rules(prefix, fsync=fsync) if rules else line)
