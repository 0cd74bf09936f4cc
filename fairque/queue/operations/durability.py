"""When a call counts as done: once the primary has carried it out, once replicas have it, or once it is on disk.

WAIT and WAITAOF look at what their own connection has done, so they go with the call, in one round trip (see
`fairque.queue.assured`). Neither undoes anything: what is not confirmed in time may be there all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fairque.core.config import QueueConfig
from fairque.core.exceptions import ConfigError, FairQueueError, NotReplicatedError, QueueUnavailableError

CASUAL = frozenset(
    {
        "assign", "dead_news", "go_on", "join", "leave", "progress", "reconcile", "renew", "schedule_fire",
        "scheduler_lead", "sweep",
        "watch", "watch_workflow", "xcom_watch",
    }
)  # fmt: skip
"""Scripts whose writes nobody was promised: they are made again, or found out, should a failover undo them."""
LOOK_MILLISECONDS = 1


@dataclass(frozen=True, slots=True)
class Assurance:
    """What a call waits for: `wanted` replicas, or the disk of the server, `seconds` at most."""

    kind: Literal["replicated", "fsync"]
    wanted: int
    seconds: float

    def command(self, *, look: bool = False) -> tuple[Any, ...]:
        """What is sent behind the call. `look`: only to see how things stand, without waiting for it."""
        milliseconds = LOOK_MILLISECONDS if look else max(1, round(self.seconds * 1000))
        if self.kind == "fsync":
            return "WAITAOF", 1, 0, milliseconds
        return "WAIT", self.wanted, milliseconds

    def confirmed(self, told: Any) -> int:
        """How many have it, from the reply: replicas, or 1 for the server's own disk."""
        return int(told[0]) if self.kind == "fsync" else int(told)

    def failure(self, script: str, told: Any, reply: Any) -> NotReplicatedError:
        """The error for a call whose reply came, and whose confirmation did not."""
        confirmed = self.confirmed(told)
        return NotReplicatedError(
            f"the primary has carried out {script}, but {self.lack(confirmed)}: should the primary be lost now, it may "
            "be undone",
            script=script,
            confirmed=confirmed,
            wanted=self.wanted,
            reply=reply,
        )

    def lack(self, confirmed: int) -> str:
        """What is missing, for an error message."""
        if self.kind == "fsync":
            return f"did not say within {self.seconds:g} s that it is on its disk"
        return f"only {confirmed} of {self.wanted} replicas confirmed it within {self.seconds:g} s"

    def refused(self, text: str) -> FairQueueError:
        """What it means that the server refuses the command itself."""
        name = str(self.command()[0])
        lower = text.lower()
        if "unknown command" in lower:
            return ConfigError(
                f"queue.durability: {self.kind} needs the command {name}, which this server does not have: use Redis "
                "7.2 or newer, any Valkey, or durability: replicated"
            )
        if "appendonly is disabled" in lower:
            return ConfigError(
                f"queue.durability: {self.kind} needs an append-only file, which this server does not keep: CONFIG SET "
                "appendonly yes, and in its file"
            )
        if "permission" in lower:
            return QueueUnavailableError(
                f"queue.durability: {self.kind} needs the command {name}, which this user may not use: ACL SETUSER "
                f"<user> +{name.lower()} ({text})"
            )
        return QueueUnavailableError(f"the server refused {name}: {text}")


def assurance_of(config: QueueConfig) -> Assurance | None:
    """What the calls of a queue wait for; None: for nothing."""
    if config.durability == "local":
        return None
    wanted = config.min_replicas if config.durability == "replicated" else 1
    return Assurance(config.durability, wanted, config.durability_timeout_seconds)
