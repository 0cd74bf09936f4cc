"""A nightly report: a cron schedule in a time zone, what a deploy does, a run by hand, and what became of the ticks."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

from fairque import ScheduledTask, TaskQueue, TaskScheduler, Worker, current_task, task


@task(timeout=60, max_retries=1)
def nightly_report(directory: str, kind: str) -> str:
    """Count the orders. The label `tick` says which night it is for, however late it runs."""
    night = datetime.fromisoformat(current_task().task.labels["tick"])
    orders = Counter(Path(directory, "orders.txt").read_text().split())
    lines = [f"{name}: {count}" for name, count in orders.most_common()]
    Path(directory, f"{kind}-{night:%Y-%m-%d}.txt").write_text("\n".join(lines))
    return f"{kind} report of {orders.total()} orders: {', '.join(lines)}"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, TaskQueue() as queue:
        Path(directory, "orders.txt").write_text("tea tea coffee tea milk coffee")

        nightly = ScheduledTask(
            "nightly-report",
            nightly_report(directory, "full"),
            cron="30 2 * * MON-FRI",
            timezone="Europe/Berlin",
            misfire="run_once",  # after a weekend without schedulers: one report, not three
            overlap="skip",
            start=date(2020, 1, 1),
        )
        print("clocks go forward:")
        for run in nightly.next_runs(3, after=datetime(2024, 3, 27, 12, tzinfo=UTC)):
            print(" ", run.isoformat())

        # In production: `fairque scheduler nightly_report`, and `fairque worker nightly_report`.
        scheduler = TaskScheduler(schedules=[nightly], source="example")
        scheduler.start()
        worker = Worker()
        worker.start()

        # Nobody wants to wait for half past two.
        handle = queue.schedules.trigger("nightly-report")
        print(handle.result(timeout=30))
        print("written:", len(list(Path(directory).glob("full-*.txt"))))

        # An interval ticks while we watch.
        queue.schedules.add(ScheduledTask("often", nightly_report(directory, "quick"), every=0.2))
        while len(queue.schedules.history("often")) < 3:
            time.sleep(0.05)
        queue.schedules.pause("often")
        print({entry.outcome for entry in queue.schedules.history("often")})

        scheduler.stop()
        worker.stop()
        print(
            "removed:",
            queue.schedules.reconcile([], source="example").removed,
            queue.schedules.remove("often"),
        )


if __name__ == "__main__":
    main()

# Prints:
# clocks go forward:
#   2024-03-28T02:30:00+01:00
#   2024-03-29T02:30:00+01:00
#   2024-04-01T02:30:00+02:00
# full report of 6 orders: tea: 3, coffee: 2, milk: 1
# written: 1
# {'run'}
# removed: ('nightly-report',) True
