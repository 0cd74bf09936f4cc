"""Every key name of a queue, and nothing else.

The Lua side builds the same names in ``scripts/lib/keys.lua``; a test holds the two equal. Variable parts are
percent-encoded, so that no user id can reach into another tenant's keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from fairque.core.exceptions import InvalidTaskError

MAX_PART_BYTES = 256
_UNSAFE = re.compile(r"[%:{}\x00-\x1f\x7f]")


def encode(part: str, what: str = "user id") -> str:
    """The form in which `part` stands inside a key: ``% : { }`` and control characters percent-encoded.

    Raises:
        InvalidTaskError: the part is empty, not a string, not valid Unicode, or over 256 bytes once encoded.
    """
    if not isinstance(part, str):
        raise InvalidTaskError(f"{what} must be a string, not {type(part).__name__}")
    if not part:
        raise InvalidTaskError(f"{what} must not be empty")
    # Only ASCII characters are replaced, each by three: decode() is the exact inverse.
    encoded = part
    if not part.isalnum() and _UNSAFE.search(part):
        encoded = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    try:
        size = len(encoded) if encoded.isascii() else len(encoded.encode())
    except UnicodeEncodeError:
        raise InvalidTaskError(
            f"{what} {part[:40]!r} holds a lone surrogate: use valid Unicode text"
        ) from None
    if size > MAX_PART_BYTES:
        raise InvalidTaskError(
            f"{what} {part[:40]!r}... takes {size} bytes as a key part; the limit is {MAX_PART_BYTES}. "
            "Use a shorter one, for example a digest of it"
        )
    return encoded


def decode(part: str) -> str:
    """What `encode` made `part` from."""
    return unquote(part) if "%" in part else part


@dataclass(frozen=True, slots=True)
class Keys:
    """Names under one prefix. Arguments are encoded parts (see `encode`)."""

    prefix: str = "fq"

    @property
    def clock(self) -> str:
        """Virtual time and all that one call reads and writes once: packed."""
        return f"{self.prefix}:clock"

    @property
    def ready_all(self) -> str:
        """Tenants that can be claimed from, by tag."""
        return f"{self.prefix}:ready:all"

    @property
    def ready_sparse(self) -> str:
        """Those among them whose next task may use the sparse lane, by tag."""
        return f"{self.prefix}:ready:sparse"

    @property
    def ahead(self) -> str:
        """Tenants that are not ready but run tasks that virtual time has not passed, by tag."""
        return f"{self.prefix}:ahead"

    @property
    def policies(self) -> str:
        """User policies by user: msgpack; never expires."""
        return f"{self.prefix}:policies"

    @property
    def estimates(self) -> str:
        """What newcomers of a function turned out to cost, by function, in seconds."""
        return f"{self.prefix}:estimates"

    @property
    def expiring(self) -> str:
        """Tasks with an expiry that have not started, by expiry."""
        return f"{self.prefix}:expiring"

    @property
    def functions(self) -> str:
        """Function names that live workers announced, by the time of the last announcement."""
        return f"{self.prefix}:functions"

    @property
    def passed(self) -> str:
        """Scheduled tasks that a worker gave back because it lacks their function, by when it was last looked at."""
        return f"{self.prefix}:passed"

    @property
    def workers(self) -> str:
        """Incarnations by lease deadline."""
        return f"{self.prefix}:workers"

    @property
    def dead(self) -> str:
        """Incarnations that were declared dead and still hold tasks to give back, by time of death."""
        return f"{self.prefix}:workers:dead"

    @property
    def waiters(self) -> str:
        """Idle incarnations that block on their wake list, by the time they parked."""
        return f"{self.prefix}:waiters"

    @property
    def stats(self) -> str:
        """Counters of the whole queue."""
        return f"{self.prefix}:stats"

    @property
    def meta(self) -> str:
        """Schema version."""
        return f"{self.prefix}:meta"

    @property
    def groups(self) -> str:
        """Policies of organisations by name: msgpack; never expires."""
        return f"{self.prefix}:groups"

    @property
    def limiters(self) -> str:
        """Policies of named limiters by name: msgpack; never expires."""
        return f"{self.prefix}:limiters"

    @property
    def rules(self) -> str:
        """Policies of users by pattern, the first that fits counts: msgpack; never expires."""
        return f"{self.prefix}:rules"

    @property
    def users(self) -> str:
        """Users that have a record, by when they came."""
        return f"{self.prefix}:users"

    @property
    def by_backlog(self) -> str:
        """Users by their backlog, roughly."""
        return f"{self.prefix}:users:backlog"

    @property
    def by_service(self) -> str:
        """Users by what they were served, roughly."""
        return f"{self.prefix}:users:service"

    @property
    def by_wait(self) -> str:
        """Users by their recent mean wait, roughly."""
        return f"{self.prefix}:users:wait"

    @property
    def by_dead(self) -> str:
        """Users that have dead letters, by how many."""
        return f"{self.prefix}:users:dead"

    @property
    def dead_news(self) -> str:
        """What has died and was not told to anybody yet: packed, with a TTL."""
        return f"{self.prefix}:news:dead"

    @property
    def cleanup(self) -> str:
        """How far the round of clean-up is, and whose turn it is to go on."""
        return f"{self.prefix}:cleanup"

    @property
    def parked(self) -> str:
        """Tenants out of tokens, and limiters that somebody waits for (behind two colons), by when to look again."""
        return f"{self.prefix}:parked"

    @property
    def holders(self) -> str:
        """Tenants by how many tasks they run, while a tenant may hold only a share of the slots."""
        return f"{self.prefix}:holders"

    @property
    def fresh(self) -> str:
        """Ready users who have not waited too long for their own workers, by since when they wait."""
        return f"{self.prefix}:fresh"

    @property
    def assign(self) -> str:
        """Which assignment of users to worker entries is in force."""
        return f"{self.prefix}:assign"

    @property
    def entries(self) -> str:
        """Worker entries: whom each serves first, and whom then."""
        return f"{self.prefix}:assign:entries"

    @property
    def schedules(self) -> str:
        """Schedules by name, with what was decided last: packed (lib/schedules.lua)."""
        return f"{self.prefix}:schedules"

    @property
    def schedules_due(self) -> str:
        """All schedules by when to look at them, infinity if never."""
        return f"{self.prefix}:schedules:due"

    @property
    def leader(self) -> str:
        """Which scheduler decides ticks, with its token and the end of its lease: packed."""
        return f"{self.prefix}:scheduler:leader"

    @property
    def missing(self) -> str:
        """Tasks that wait for others which the server does not know yet, by how long they do."""
        return f"{self.prefix}:deps:missing"

    @property
    def continued(self) -> str:
        """What calls have left to later ones, oldest first."""
        return f"{self.prefix}:deps:continue"

    @property
    def workflows(self) -> str:
        """Workflows: those that have ended by when they are forgotten, behind them those that run."""
        return f"{self.prefix}:workflows"

    def task(self, task_id: str) -> str:
        """The packed record of a task."""
        return f"{self.prefix}:task:{task_id}"

    def result(self, task_id: str) -> str:
        """The encoded result, with a TTL."""
        return f"{self.prefix}:result:{task_id}"

    def errors(self, task_id: str) -> str:
        """The last failed attempts of a task, oldest first: packed (core/attempts.py)."""
        return f"{self.prefix}:errors:{task_id}"

    def progress(self, task_id: str) -> str:
        """The last progress that a running task told, with a TTL."""
        return f"{self.prefix}:progress:{task_id}"

    def watchers(self, task_id: str) -> str:
        """Clients that wait for the task's result or events, with a TTL."""
        return f"{self.prefix}:watchers:{task_id}"

    def state(self, state: str) -> str:
        """Tasks in a state, by the time they entered it (scheduled: when due)."""
        return f"{self.prefix}:state:{state}"

    def critical(self, user: str) -> str:
        """CRITICAL task ids of a user, first in first out."""
        return f"{self.prefix}:queue:user:{user}:critical"

    def normal(self, user: str) -> str:
        """Task ids of priorities 1-5 of a user, smallest score first."""
        return f"{self.prefix}:queue:user:{user}:normal"

    def user(self, user: str) -> str:
        """A tenant's packed scheduling state and counters."""
        return f"{self.prefix}:user:{user}"

    def costs(self, user: str) -> str:
        """A tenant's measured cost per function (worker_time)."""
        return f"{self.prefix}:user:{user}:costs"

    def retries(self, user: str) -> str:
        """When a tenant's retry budget is whole again (µs), while it is not: with a TTL until then."""
        return f"{self.prefix}:user:{user}:retries"

    def dlq(self, user: str) -> str:
        """A tenant's dead letters, by the time they failed."""
        return f"{self.prefix}:dlq:{user}"

    def dedup(self, user: str, key: str) -> str:
        """The task that holds a deduplication key."""
        return f"{self.prefix}:dedup:{user}:{key}"

    def worker(self, incarnation: str) -> str:
        """What an incarnation announced, its last call number and what was answered."""
        return f"{self.prefix}:worker:{incarnation}"

    def held(self, incarnation: str) -> str:
        """Task ids that an incarnation holds: token and cancel mark."""
        return f"{self.prefix}:worker:{incarnation}:tasks"

    def wake(self, incarnation: str) -> str:
        """What an idle worker, or a client that waits for results, blocks on."""
        return f"{self.prefix}:wake:{incarnation}"

    def limited(self, user: str, limiter: str) -> str:
        """Task ids of a user under a limiter, smallest score first."""
        return f"{self.prefix}:queue:user:{user}:limited:{limiter}"

    def limiters_of(self, user: str) -> str:
        """Limiters under which a user has tasks queued."""
        return f"{self.prefix}:user:{user}:limiters"

    def limiter(self, name: str) -> str:
        """What of a limiter is in use: packed; only while it differs from an unused one."""
        return f"{self.prefix}:limiter:{name}"

    def limiter_tags(self, name: str) -> str:
        """Users who are ahead of the others under a limiter, by their tag there."""
        return f"{self.prefix}:limiter:{name}:tags"

    def blocked(self, name: str) -> str:
        """Users whose only work waits for a limiter, by their place among those who share it."""
        return f"{self.prefix}:limiter:{name}:blocked"

    def ready_in(self, group: str) -> str:
        """Ready members of an organisation (its name behind a colon), by tag."""
        return f"{self.prefix}:ready:{group}"

    def ahead_in(self, group: str) -> str:
        """Members of an organisation that are not ready but ahead of its virtual time, by tag."""
        return f"{self.prefix}:ahead:{group}"

    def downstream(self, task_id: str) -> str:
        """Tasks that wait for a task."""
        return f"{self.prefix}:deps:waiting:{task_id}"

    def upstream(self, task_id: str) -> str:
        """What a task waits for, and how each has ended; under an empty name the counts of them."""
        return f"{self.prefix}:deps:blocked:{task_id}"

    def workflow(self, workflow_id: str) -> str:
        """A workflow's name, state and counts."""
        return f"{self.prefix}:workflow:{workflow_id}"

    def nodes(self, workflow_id: str) -> str:
        """The tasks of a workflow, each behind those that it waits for."""
        return f"{self.prefix}:workflow:{workflow_id}:nodes"

    def stage(self, workflow_id: str) -> str:
        """Tasks of a large workflow that are not visible yet, each before those that it waits for."""
        return f"{self.prefix}:workflow:{workflow_id}:stage"

    def xcom(self, user: str, namespace: str, key: str) -> str:
        """A value that tasks of a user share, with a TTL."""
        return f"{self.prefix}:xcom:{user}:{namespace}:{key}"

    def xcoms(self, user: str, namespace: str) -> str:
        """The keys of a namespace by when they expire, with the TTL of the longest."""
        return f"{self.prefix}:xcom:{user}:{namespace}"

    def words(self, group: str) -> str:
        """How many ready members of an organisation stand in each set of who serves whom."""
        return f"{self.prefix}:user:{group}:words"

    def members(self, group: str, word: str) -> str:
        """Ready tenants of the root ("") or of an organisation that certain workers serve, by tag."""
        return f"{self.prefix}:ready:for:{group}:{word}"

    def assignment(self, number: str) -> str:
        """Which worker entries serve each user, of one published assignment."""
        return f"{self.prefix}:assigned:{number}"

    def waiting(self, schedule: str) -> str:
        """The run of a schedule that is not over, and the runs that wait for it, each for the one before."""
        return f"{self.prefix}:schedules:waiting:{schedule}"

    def history(self, schedule: str) -> str:
        """What became of a schedule's last ticks, newest first."""
        return f"{self.prefix}:schedules:history:{schedule}"
