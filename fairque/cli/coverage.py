"""`fairque config coverage`: who serves whom, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fairque.cli.config import FileArgument
from fairque.cli.exits import ExitCode
from fairque.cli.run import Run

if TYPE_CHECKING:
    from fairque.core.config import FairQueueConfig
    from fairque.core.coverage import Served

_SHOWN = 20
_OTHERS = "the users that no entry names"
_NO_ENTRY = 'add them to the assigned_users or steal_targets of an entry, or write "*" there'


class Sentence(NamedTuple):
    """Something that is so, and whether it is as it should be (ok, warn, fail)."""

    level: str
    text: str


def coverage(
    run: Run,
    file: FileArgument = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the queue, too, which entries have a live worker now.")
    ] = False,
) -> None:
    """Tell which worker entries serve which users. Exit code 1: some are served by nobody, or, with --live, an entry
    has no live worker.
    """
    from fairque.core.coverage import coverage

    run.config_file = file or run.config_file
    served = coverage(run.config)
    workers = _live_workers(run) if live else None
    dead = [entry.id for entry in run.config.workers if not workers[entry.id]] if workers is not None else []
    sentences = [*_served(served), *_live(run.config, served, workers, dead)]
    ok = all(sentence.level != "fail" for sentence in sentences)
    if run.out.as_json:
        run.out.data(_data(run.config, served, workers, ok))
    else:
        styles = {"ok": None, "warn": "yellow", "fail": "red"}
        for level, text in sentences:
            run.out.line(f"{level:<5} {text}", style=styles[level])
    run.finish(ExitCode.OK if ok else ExitCode.FAILED)


def _live_workers(run: Run) -> Counter[str]:
    """How many live workers there are of each entry."""
    with run.queue() as queue:
        return Counter(str(one.fields.get("worker_id", "")) for one in queue.get_stats().workers)


def _served(served: Sequence[Served]) -> Iterator[Sentence]:
    for part in served:
        who = _who(part)
        thieves = _names(part.thieves)
        if not part.owners and not part.thieves:
            yield Sentence("fail", f"nobody serves {who}: {_NO_ENTRY}")
        elif not part.owners:
            yield Sentence("warn", f"{thieves} {_verb(part.thieves, 'serve')} {who}, but only by stealing")
        else:
            together = "share" if len(part.owners) > 1 else "serves"
            more = (
                f"; {thieves} {_verb(part.thieves, 'steal')} from them" if thieves else "; nobody else does"
            )
            yield Sentence("ok", f"{_names(part.owners)} {together} {who}{more}")


def _live(
    config: FairQueueConfig, served: Sequence[Served], workers: Counter[str] | None, dead: Sequence[str]
) -> Iterator[Sentence]:
    if workers is None:
        return
    for entry in config.workers:
        count = workers[entry.id]
        told = f"has {count} live worker{'s' * (count > 1)}" if count else "has no live worker"
        yield Sentence("ok" if count else "fail", f"entry {entry.id} {told}")
    for part in served:
        left = part.without(dead)
        if left == part or not (part.owners or part.thieves):
            continue
        if not left.owners and not left.thieves:
            yield Sentence("fail", f"so nobody serves {_who(part)} now")
        elif not left.owners and part.owners:
            thieves, verb = _names(left.thieves), _verb(left.thieves, "serve")
            yield Sentence("warn", f"so {thieves} {verb} {_who(part)} now, by stealing")
    known = {entry.id for entry in config.workers}
    if strange := sorted(entry for entry in workers if entry and entry not in known):
        yield Sentence(
            "warn", f"workers live of {_names(strange)}, of which this configuration knows nothing"
        )


def _who(part: Served) -> str:
    """The users, in words; of many, the first."""
    shown = list(part.users[:_SHOWN])
    if len(part.users) > _SHOWN:
        shown.append(f"{len(part.users) - _SHOWN:,} more")
    return _names([*shown, *([_OTHERS] if part.others else [])])


def _names(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _verb(subjects: Sequence[str], verb: str) -> str:
    return verb if len(subjects) > 1 else f"{verb}s"


def _data(
    config: FairQueueConfig, served: Sequence[Served], workers: Counter[str] | None, ok: bool
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "ok": ok,
        "served": [
            {
                "users": part.users,
                "others": part.others,
                "assigned_to": part.owners,
                "stolen_by": part.thieves,
            }
            for part in served
        ],
    }
    if workers is not None:
        data["live_workers"] = {entry.id: workers[entry.id] for entry in config.workers}
    return data
