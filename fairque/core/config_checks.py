"""What a single field cannot see: contradictions within and between sections.

All functions take the data as it was written, whose values may still be of any type: they pass over what has
the wrong type, since the field's own check reports that.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from fairque.core.config_errors import Problem, as_line, nearest, path_text, value_text
from fairque.core.exceptions import ConfigError, FairQueueError, InvalidTaskError
from fairque.core.keys import encode
from fairque.core.patterns import is_pattern, lua_pattern
from fairque.core.policies import GroupPolicy, LimiterPolicy, UserPolicy
from fairque.core.schedules.models import ScheduledTask

PolicyT = TypeVar("PolicyT", UserPolicy, GroupPolicy, LimiterPolicy)

MAX_LISTED_USERS = 10_000
MAX_PATTERNS = 1000
_PREFIX = re.compile(r"[\w.:-]*(\{[\w.:-]+\})?[\w.:-]*", re.ASCII)


def worker_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of one entry under `workers`."""
    if isinstance(data.get("id"), str):
        yield from _name_problem(data["id"], ("id",), "worker id")
    for field in ("assigned_users", "steal_targets"):
        yield from _list_problems(data.get(field), field)
    assigned, targets = _ids(data.get("assigned_users")), _ids(data.get("steal_targets"))
    for index, user in targets.items():
        if user in assigned.values():
            text = (
                f"{value_text(user)} is also in assigned_users of this worker: one cannot steal from oneself"
            )
            yield Problem(("steal_targets", index), user, text)
    if all(data.get(field, "*") in ([], ()) for field in ("assigned_users", "steal_targets")):
        text = 'is empty, and so is steal_targets: this worker would serve nobody; write "*" in one of them'
        yield Problem(("assigned_users",), [], text)


def queue_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the `queue` section."""
    prefix, partitions = data.get("prefix"), data.get("partitions")
    if isinstance(prefix, str) and not _PREFIX.fullmatch(prefix):
        text = (
            "must hold only letters, digits and _ . : - (and one hash tag in braces, as in '{fq}'), "
            f"not {value_text(prefix)}"
        )
        yield Problem(("prefix",), prefix, text)
    if isinstance(partitions, int) and partitions > 1:
        text = f"must be 1, not {partitions}: several partitions are not supported yet"
        yield Problem(("partitions",), partitions, text)
    replicas = data.get("min_replicas")
    if isinstance(replicas, int) and replicas > 1 and data.get("durability", "local") != "replicated":
        text = "has no effect without `durability: replicated`"
        yield Problem(("min_replicas",), replicas, text)
    most, alert = data.get("max_dead_letters"), data.get("dead_letter_alert")
    if isinstance(most, int) and isinstance(alert, int) and alert > most:
        text = (
            f"must be at most max_dead_letters ({most}), not {alert}, which no user would ever get to; "
            "null turns it off"
        )
        yield Problem(("dead_letter_alert",), alert, text)


def scheduler_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the `scheduler` section."""
    if data.get("source") == "*":
        yield Problem(("source",), "*", "must be a name, not '*'")


def spool_contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the `spool` section."""
    directory = data.get("directory")
    if isinstance(directory, str) and "\0" in directory:
        yield Problem(("directory",), directory, f"must be a path, not {value_text(directory)}")


def entry_contradictions(workers: Any) -> Iterator[Problem]:
    """Between the entries under `workers`: ids and assigned users are unique."""
    first_with_id: dict[str, int] = {}
    owner: dict[str, tuple[int, str]] = {}
    for index, entry in enumerate(workers if isinstance(workers, list | tuple) else ()):
        worker_id = _get(entry, "id", "worker")
        if isinstance(worker_id, str):
            first = first_with_id.setdefault(worker_id, index)
            if first != index:
                text = f"{value_text(worker_id)} is already the id of workers[{first}]; ids must be unique"
                yield Problem(("workers", index, "id"), worker_id, text)
        for position, user in _ids(_get(entry, "assigned_users", "*")).items():
            place = ("workers", index, "assigned_users", position)
            other, where = owner.setdefault(user, (index, path_text(place)))
            if other != index:
                text = f"{value_text(user)} is already assigned by {where}; at most one entry may name a user"
                yield Problem(place, user, text)


def policy_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the names under `users`, `groups` and `limiters`, and of the groups that policies name."""
    users, groups, limiters = (_mapping(data.get(section)) for section in ("users", "groups", "limiters"))
    for section, names, what in (("groups", groups, "group name"), ("limiters", limiters, "limiter name")):
        for name in names:
            if isinstance(name, str):
                yield from _name_problem(name, (section, name), what)
    patterns = [name for name in users if isinstance(name, str) and is_pattern(name)]
    if len(patterns) > MAX_PATTERNS:
        text = (
            f"must hold at most {MAX_PATTERNS} patterns, not {len(patterns)}: put users into groups instead"
        )
        yield Problem(("users",), None, text)
    for name, policy in users.items():
        if not isinstance(name, str):
            continue
        if is_pattern(name):
            yield from _pattern_problem(name)
        else:
            yield from _name_problem(name, ("users", name), "user id")
        yield from _group_problem(name, _get(policy, "group", None), groups)


def _pattern_problem(pattern: str) -> Iterator[Problem]:
    try:
        lua_pattern(pattern)
    except ConfigError as exc:
        yield Problem(("users", pattern), pattern, str(exc))


def _group_problem(user: str, group: Any, groups: Mapping[Any, Any]) -> Iterator[Problem]:
    if not isinstance(group, str) or not group or group in groups:
        return
    close = nearest(group, [name for name in groups if isinstance(name, str)])
    hint = f"did you mean {close!r}?" if close else f"add it there: `{group}: {{}}`"
    yield Problem(("users", user, "group"), group, f"{value_text(group)} is not one of `groups`; {hint}")


def policy(kind: type[PolicyT], value: Any) -> PolicyT:
    """`value`, a mapping of the fields of `kind`, as a policy of that kind.

    Raises:
        ValidationError: with a line for each field that is wrong.
    """
    if isinstance(value, kind):
        return value
    if value is None:  # `alice:` with nothing after it
        value = {}
    names = [field.name for field in dataclasses.fields(kind)]
    problems: list[Problem] = []
    if not isinstance(value, Mapping):
        told = type(value).__name__ if dataclasses.is_dataclass(value) else value_text(value)
        text = f"must be a mapping of {', '.join(names)}, not {told}"
        problems.append(Problem((), None, text))
        value = {}
    for name, setting in value.items():
        if name not in names:
            close = nearest(str(name), names)
            hint = f"did you mean {close!r}?" if close else f"valid are {', '.join(names)}"
            problems.append(Problem((str(name),), None, f"unknown key; {hint}"))
            continue
        try:  # one by one, so that each mistake is told (a burst needs a rate_limit beside it)
            beside = {"rate_limit": 1.0, "retry_budget": 1.0}
            fields: dict[str, Any] = {field: number for field, number in beside.items() if field in names}
            kind(**{**fields, name: setting})
        except (FairQueueError, TypeError, ValueError) as exc:
            # A limiter without a rate_limit is not wrong yet: it may have the other limit.
            if setting is not None:
                problems.append(Problem((name,), setting, str(exc)))
    if not problems:
        try:
            return kind(**value)
        except (FairQueueError, TypeError, ValueError) as exc:
            problems.append(Problem((), None, str(exc)))
    raise ValidationError.from_exception_data(kind.__name__, [as_line(problem) for problem in problems])


def schedules(value: Any) -> dict[str, ScheduledTask]:
    """`value`, a mapping of names to the fields of a ScheduledTask, as schedules.

    Raises:
        ValidationError: with a line for each schedule that is wrong.
    """
    problems: list[Problem] = []
    found: dict[str, ScheduledTask] = {}
    if not isinstance(value, Mapping):
        problems.append(
            Problem((), None, f"must be a mapping of names to schedules, not {value_text(value)}")
        )
        value = {}
    for name, fields in value.items():
        if not isinstance(name, str):
            problems.append(Problem((str(name),), None, f"the key {name!r} must be text: quote it"))
        elif isinstance(fields, ScheduledTask) and fields.name == name:
            found[name] = fields
        elif not isinstance(fields, Mapping):
            text = f"must be a mapping such as {{cron: '@daily', function: 'app:report'}}, not {value_text(fields)}"
            problems.append(Problem((name,), None, text))
        elif "name" in fields:
            problems.append(
                Problem((name, "name"), fields["name"], "unknown key; the name stands before the colon")
            )
        else:
            try:
                found[name] = ScheduledTask.from_data({**fields, "name": name})
            except FairQueueError as error:
                problems.append(_schedule_problem(name, fields, str(error)))
    if problems:
        raise ValidationError.from_exception_data("schedules", [as_line(problem) for problem in problems])
    return found


def _schedule_problem(name: str, fields: Mapping[Any, Any], told: str) -> Problem:
    """What a ScheduledTask says of its fields, at the field that it names first."""
    text = told.partition(": ")[2] if told.startswith("schedule ") else told
    word = text.split()[0].strip("'")
    known = word in fields
    return Problem((name, word) if known else (name,), fields.get(word) if known else None, text)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _get(entry: Any, name: str, default: Any) -> Any:
    value = entry.get(name, default) if isinstance(entry, Mapping) else getattr(entry, name, None)
    return default if value is None else value


def _ids(users: Any) -> dict[int, str]:
    """Position and id of the users in a list; empty for "*", and for what is no list."""
    if not isinstance(users, list | tuple):
        return {}
    return {index: user for index, user in enumerate(users) if isinstance(user, str) and user != "*"}


def _list_problems(users: Any, field: str) -> Iterator[Problem]:
    if isinstance(users, str) and users != "*":
        yield Problem((field,), users, f'must be "*" or a list: write [{users}]')
    if not isinstance(users, list | tuple):
        return
    if len(users) > MAX_LISTED_USERS:
        text = f'must name at most {MAX_LISTED_USERS} users, not {len(users)}; "*" serves any number'
        yield Problem((field,), None, text)
    seen: dict[str, int] = {}
    for index, user in enumerate(users):
        if not isinstance(user, str):
            continue
        if user == "*" and len(users) > 1:
            yield Problem((field, index), user, 'must not stand among ids: write "*" alone, or the ids alone')
        first = seen.setdefault(user, index)
        if first != index:
            text = f"{value_text(user)} stands in this list already, at [{first}]"
            yield Problem((field, index), user, text)
        yield from _name_problem(user, (field, index), "user id")


def _name_problem(name: str, path: tuple[str | int, ...], what: str) -> Iterator[Problem]:
    try:
        encode(name, what)
    except InvalidTaskError as exc:
        yield Problem(path, name, str(exc))
