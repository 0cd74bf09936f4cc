"""Trigger rules: whether a task runs, given how those it waits for have ended.

`decide` is the only statement of the rules; the server's copy and the table in the docs are compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairque.core.exceptions import InvalidTaskError
from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.states import TaskState


@dataclass(frozen=True, slots=True)
class Decision:
    """`run` it, `wait` for more to end, or `never`: then `state` is how it ends, for `reason`."""

    action: Literal["run", "wait", "never"]
    state: TaskState | None = None
    reason: str = ""


RUN = Decision("run")
WAIT = Decision("wait")
DEPENDENCY_FAILED = Decision("never", TaskState.FAILED, "a dependency failed")
DEPENDENCY_CANCELED = Decision("never", TaskState.CANCELED, "a dependency was canceled")
NONE_SUCCEEDED = Decision("never", TaskState.CANCELED, "no dependency succeeded")
NONE_FAILED = Decision("never", TaskState.CANCELED, "no dependency failed")


def decide(rule: TriggerRule, *, succeeded: int, failed: int, canceled: int, pending: int) -> Decision:
    """What becomes of a task that waits by `rule`, with so many dependencies in each condition.

    To run, or never to, is decided as soon as nothing that is pending could change it. A failure outweighs a
    cancellation as far as both are known by then. A task without dependencies runs, whatever its rule.

    Raises:
        InvalidTaskError: there is no such rule.
    """
    if not succeeded and not failed and not canceled and not pending:
        return RUN
    match rule:
        case "all_success":
            if failed:
                return DEPENDENCY_FAILED
            if canceled:
                return DEPENDENCY_CANCELED
            return WAIT if pending else RUN
        case "all_done":
            return WAIT if pending else RUN
        case "none_failed":
            if failed:
                return DEPENDENCY_FAILED
            return WAIT if pending else RUN
        case "one_success":
            if succeeded:
                return RUN
            if pending:
                return WAIT
            return DEPENDENCY_FAILED if failed else NONE_SUCCEEDED
        case "one_failed":
            if failed:
                return RUN
            return WAIT if pending else NONE_FAILED
    raise InvalidTaskError(f"trigger_rule must be one of {', '.join(map(repr, TRIGGER_RULES))}, not {rule!r}")
