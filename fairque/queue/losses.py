"""Events of workers that died: told by whoever had their tasks given back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fairque.core.events import EventBus, TaskCanceled, TaskFailed, TaskLost, WorkerDead
from fairque.core.record import Reason
from fairque.queue.operations.claims import Session
from fairque.queue.operations.losses import Death, Fate, Loss, read_news


def tell_losses(bus: EventBus, news: Sequence[bytes]) -> None:
    """Tell who listens: of each task what became of it, then of each incarnation that it is dead."""
    if not news or bus.idle:
        return
    for one in read_news(news):
        if isinstance(one, Death):
            _tell_death(bus, one)
        else:
            _tell_loss(bus, one)


def tell_renewed(bus: EventBus, session: Session) -> None:
    """The same, of what a renewal brought."""
    if session.news:
        news, session.news = session.news, []
        tell_losses(bus, news)


def _tell_death(bus: EventBus, death: Death) -> None:
    bus.emit(
        WorkerDead(
            at=datetime.now(UTC),
            worker_id=death.worker_id,
            incarnation=death.incarnation,
            recovered=death.recovered,
        )
    )


def _tell_loss(bus: EventBus, loss: Loss) -> None:
    about: dict[str, Any] = {
        "at": datetime.now(UTC),
        "task_id": loss.task_id,
        "user_id": loss.user_id,
        "function": loss.function,
    }
    match loss.fate:
        case Fate.BURIED:
            bus.emit(
                TaskFailed(
                    **about, attempt=loss.attempt, duration=0.0, error_type="lost", reason=Reason.CRASHED.text
                )
            )
        case Fate.CANCELED:
            bus.emit(TaskCanceled(**about, reason=Reason.CANCELED.text))
        case fate:
            bus.emit(TaskLost(**about, incarnation=loss.incarnation, began=fate is Fate.AGAIN))
