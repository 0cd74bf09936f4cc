"""Why a task waits: a sentence, and the numbers behind it.

One call reads all that decides (explain.lua), at a bounded cost; the conclusions are drawn here (reasons.py,
estimate.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from fairque.core.config import QueueConfig
from fairque.core.keys import decode
from fairque.core.models import Task
from fairque.core.states import TaskState
from fairque.core.tenant import TenantRecord
from fairque.queue.operations.base import Engine, Flow
from fairque.queue.operations.estimate import Estimate, estimate
from fairque.queue.operations.reasons import LASTING, Ahead, Limit, Reason, Reasons, seconds_text
from fairque.queue.operations.records import at
from fairque.queue.operations.tasks import encoded_id
from fairque.queue.operations.waiting import Facts, facts

SOON_SECONDS = 60.0
"""An expiry that is nearer is told."""
AT_ONCE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task has not started. `str()` of it is its text.

    `state` None: there is no such task. `reasons` has at least one; `reason` is the code of the main one. `position`
    counts the tasks of its user that start before it (None: it does not wait for a slot, or it is too far behind among
    CRITICAL ones), `tasks_before` those of all users. `rank`: how many tenants are served before its user (before its
    group, if it is in one; `rank_in_group` is among that group's users); None: it is not ready. `tag` is its user's
    place in virtual time and `group_tag` its group's; `virtual_time` that of the queue, and `front` the smallest tag of
    who is ready. `ahead` are the first of those who are served before. `starts_in`: seconds until it is likely to
    start; None: nobody can tell, `unknown_because`.
    """

    task_id: str
    state: TaskState | None
    text: str
    reasons: tuple[Reason, ...]
    user_id: str | None = None
    group: str | None = None
    starts_in: float | None = None
    unknown_because: str = ""
    position: int | None = None
    tasks_before: int | None = None
    rank: int | None = None
    rank_in_group: int | None = None
    ready_tenants: int = 0
    tag: float | None = None
    group_tag: float | None = None
    virtual_time: float = 0.0
    front: float = 0.0
    ahead: tuple[Ahead, ...] = ()
    limits: tuple[Limit, ...] = ()
    limiter_users: dict[str, int] = field(default_factory=dict)
    due_at: datetime | None = None
    expires_at: datetime | None = None
    workers: int = 0
    workers_that_can: int = 0
    slots: int = 0
    running: int = 0

    @property
    def reason(self) -> str:
        """The main reason's code: what it waits for, or `running`, `finished`, `failed`, `canceled`, `gone`."""
        return self.reasons[0].code

    def __str__(self) -> str:
        return self.text


def explain(engine: Engine, task_id: str | Task[object]) -> Flow[Explanation]:
    """Why a task waits, and when it is likely to start. One that runs, has ended, or is gone is explained as such."""
    encoded = encoded_id(task_id)
    name = decode(encoded)
    reply = yield engine.call("explain", encoded)
    if reply:
        return _explanation(name, facts(reply), engine.config)
    gone = Reason("gone", "it never existed, was deleted, or its result_ttl has passed")
    return Explanation(
        task_id=name, state=None, text=f"There is no task {name}: {gone.text}.", reasons=(gone,)
    )


def _explanation(name: str, found: Facts, config: QueueConfig) -> Explanation:
    rec, user, group = found.rec, found.user, found.group
    waits = rec.state is TaskState.QUEUED
    reasons = Reasons(found, config.max_user_share, config.steal_after_seconds)
    guess = _estimate(found, reasons, config)
    generation = found.clock.generation
    inner = group.level.generation if group is not None and group.level is not None else generation
    return Explanation(
        task_id=name,
        state=rec.state,
        text=_text(name, found, reasons, guess),
        reasons=reasons.all,
        user_id=found.user_id,
        group=found.group_name,
        starts_in=guess.seconds,
        unknown_because=guess.why,
        position=found.before.total if waits else None,
        tasks_before=guess.before if waits and guess.seconds is not None else None,
        rank=found.root.rank,
        rank_in_group=found.inner.rank,
        ready_tenants=found.root.ready,
        tag=_tag(user, inner),
        group_tag=_tag(group, generation),
        virtual_time=found.clock.virtual,
        front=found.root.rivals[0].tag if found.root.rivals else found.clock.virtual,
        ahead=reasons.ahead if waits else (),
        limits=reasons.limits,
        limiter_users=found.limiter.users if found.limiter is not None else {},
        due_at=at(rec.entered) if rec.state is TaskState.SCHEDULED else None,
        expires_at=at(rec.expires) if rec.expires else None,
        workers=found.worker_count,
        workers_that_can=len(reasons.able()),
        slots=int(found.clock.slots),
        running=int(found.clock.all_running),
    )


def _tag(tenant: TenantRecord | None, generation: float) -> float | None:
    if tenant is None:
        return None
    return tenant.tag if tenant.generation == generation else 0.0


def _estimate(found: Facts, reasons: Reasons, config: QueueConfig) -> Estimate:
    main = reasons.all[0]
    if main.code in ("scheduled", "retry_budget"):
        return Estimate(reasons.until(found.rec.entered))
    if main.code in LASTING or found.rec.state is not TaskState.QUEUED:
        return Estimate(None, main.text)
    guess = estimate(found, by_time=config.fairness == "worker_time", share=config.max_user_share)
    if main.code == "own_workers_busy" and guess.seconds is not None:
        return Estimate(max(guess.seconds, reasons.others_from), before=guess.before)
    return guess


def _text(name: str, found: Facts, reasons: Reasons, guess: Estimate) -> str:
    main = reasons.all[0].text
    who = f"Task {name} of user {found.user_id}"
    if found.rec.state is not TaskState.QUEUED:
        return f"{who}: {main}.{_expiry(found, reasons, guess)}"
    told = [reason.text for reason in reasons.all if reason.code != "next"] or [main]
    text = f"{who} waits: {'; '.join(told)}."
    if guess.seconds is not None:
        when = "at once" if guess.seconds < AT_ONCE_SECONDS else f"in about {seconds_text(guess.seconds)}"
        text += f" It should start {when}."
    elif guess.why != main:
        text += f" When it starts cannot be told: {guess.why}."
    return text + _expiry(found, reasons, guess)


def _expiry(found: Facts, reasons: Reasons, guess: Estimate) -> str:
    rec = found.rec
    if not rec.expires or rec.state.is_terminal or rec.state is TaskState.STARTED:
        return ""
    left = reasons.until(rec.expires)
    if guess.seconds is not None and guess.seconds > left:
        return f" It expires in {seconds_text(left)}, before that."
    return f" It expires in {seconds_text(left)}." if left < SOON_SECONDS else ""
