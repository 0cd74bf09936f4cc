"""`fairque cleanup`: what is past its time goes now, and not when a worker comes to it."""

from __future__ import annotations

from fairque.cli.run import Run

_WORDS = {
    "promoted": "scheduled tasks whose time had come were queued",
    "expired": "tasks that could not start in time were canceled",
    "forgotten": "entries of ended tasks past their TTL were removed",
    "dead_letters_expired": "dead letters past their TTL were removed",
    "dead_letters_dropped": "dead letters beyond max_dead_letters were removed",
    "orphans": "left-overs were mended or removed",
}


def cleanup(run: Run) -> None:
    """Remove what is past its time, and what was left behind, in calls of a few milliseconds.

    Workers do the same by themselves (queue.cleanup_interval_seconds).
    """
    with run.queue() as queue:
        done = queue.cleanup_expired_tasks()
    if run.out.as_json:
        run.out.data(done)
        return
    for name, count in done.items():
        if count:
            run.out.line(f"{count} {_WORDS.get(name, name)}")
    if not any(done.values()):
        run.out.note("there was nothing to do")
