"""`fairque pause`, `resume` and `stats`: the queue as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.run import Run
from fairque.cli.words import span

if TYPE_CHECKING:
    from fairque.cli.output import Output
    from fairque.queue.health import QueueHealth
    from fairque.queue.operations.admin import QueueStats
    from fairque.queue.operations.users import UserStats


def pause(
    run: Run, user: Annotated[str | None, typer.Option("--user", "-u", help="Only this tenant.")] = None
) -> None:
    """Stop the start of tasks, of all or of one tenant. What runs goes on, and pushes are taken."""
    with run.queue() as queue:
        if user is None:
            queue.pause()
        else:
            queue.pause_user(user)
    _tell(run.out, user, paused=True)


def resume(
    run: Run, user: Annotated[str | None, typer.Option("--user", "-u", help="Only this tenant.")] = None
) -> None:
    """Let a paused queue, or a paused tenant, go on."""
    with run.queue() as queue:
        if user is None:
            queue.resume()
        else:
            queue.resume_user(user)
    _tell(run.out, user, paused=False)


def _tell(out: Output, user: str | None, *, paused: bool) -> None:
    if out.as_json:
        out.data({"paused": paused, "user_id": user})
    else:
        out.line(f"{'the queue' if user is None else f'user {user}'} {'is paused' if paused else 'goes on'}")


def stats(
    run: Run,
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="Also this tenant's numbers; may be repeated.")
    ] = None,
) -> None:
    """Show how many tasks there are in each state, what has happened so far, and who works."""
    from dataclasses import asdict

    from fairque.cli.views import stats_data

    with run.queue() as queue:
        found = queue.get_stats()
        health = queue.get_health()
        users = [queue.get_user_stats(name) for name in user or []]
    if run.out.as_json:
        data: dict[str, Any] = stats_data(found) | {"problems": list(health.problems)}
        if users:
            data["users"] = [asdict(item) for item in users]
        run.out.data(data)
        return
    _print(run.out, found, health, users)


def _print(out: Output, found: QueueStats, health: QueueHealth, users: list[UserStats]) -> None:
    out.table(["state", ">tasks"], found.states.items(), title="Tasks")
    if found.counters:
        out.line("")
        out.table(["event", ">count"], sorted(found.counters.items()), title="Since the beginning")
    out.line("")
    if found.workers:
        # What a worker tells of itself depends on its version: a column that nobody fills is left out.
        told = [
            name for name in ("host", "pid", "executor") if any(name in one.fields for one in found.workers)
        ]
        rows = [
            (
                one.incarnation,
                one.fields.get("worker_id", ""),
                one.fields.get("kind", ""),
                *(one.fields.get(name, "") for name in told),
                one.running,
                span(one.lease_left),
            )
            for one in found.workers
        ]
        out.table(["incarnation", "worker", "kind", *told, ">running", ">lease left"], rows, title="Workers")
    else:
        out.line("No worker is alive.")
    if users:
        out.line("")
        out.table(
            ["user", ">critical", ">queued", ">running", ">finished", ">failed", ">canceled", ">dead letters",
             ">waited", ">served", ">weight", "paused"],
            [
                (user.user_id, user.critical, user.normal, user.running, user.finished, user.failed, user.canceled,
                 user.dead_letters, span(user.waited_seconds), span(user.served_seconds), f"{user.weight:g}",
                 "yes" if user.paused else "")
                for user in users
            ],
            title="Users",
        )  # fmt: skip
    for problem in health.problems:
        out.line(f"! {problem}", style="yellow")
