"""What a server means by NOPERM: which right this user lacks, and the line that gives it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fairque.core.exceptions import FairQueueError, QueueUnavailableError
from fairque.core.rights import ALL_COMMANDS
from fairque.queue.operations.base import Call

_COMMAND = re.compile(r"no permissions to run the '([^']+)' command", re.IGNORECASE)
# A script was stopped at one of its commands; Redis 7.0 does not say at which.
_IN_SCRIPT = re.compile(
    r"ACL failure in script|user executing the script can't run this command", re.IGNORECASE
)
_KEYS = re.compile(r"no permissions to access|can't access", re.IGNORECASE)
_WAY_OUT = "`fairque acl` prints all that a user of the queue needs"


def in_script(text: str) -> bool:
    """Whether a script was stopped since its caller lacks a right: `rights_call` finds out which."""
    return _IN_SCRIPT.search(text) is not None


def rights_call(call: Call) -> Call:
    """What asks the server which of the commands that a queue needs this user may not use."""
    prefix, settings, *_ = call.argv
    return Call("rights", (prefix, settings, *ALL_COMMANDS))


def meaning(text: str, lacking: Sequence[str] = ()) -> FairQueueError | None:
    """The error for such a refusal, None if it is none. `lacking`: commands that this user is known to lack."""
    found = _COMMAND.search(text)
    names = [*lacking] or ([found[1]] if found else [])
    if names:
        commands = ", ".join(name.upper().replace("|", " ") for name in names)
        rights = " ".join(f"+{name}" for name in names)
        return QueueUnavailableError(
            f"this user may not use {commands} on the server: ACL SETUSER <user> {rights}; {_WAY_OUT} "
            f"({text.strip()}); or is it another redis.username that is meant?"
        )
    if _KEYS.search(text):
        return QueueUnavailableError(
            f"this user may not use the keys of the queue: ACL SETUSER <user> ~<queue.prefix>:*; {_WAY_OUT} "
            f"({text.strip()})"
        )
    if in_script(text):
        return QueueUnavailableError(
            f"this user lacks a right that a script needs; {_WAY_OUT} ({text.strip()})"
        )
    return None
