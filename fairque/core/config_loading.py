"""Where settings come from: a YAML file and the environment, and how one lies over the other.

The environment lies over the file, and what Python code says lies over both. A variable is named after the
path: `FAIRQUE_QUEUE__LEASE_SECONDS` is `queue.lease_seconds`, `FAIRQUE_WORKERS__0__ID` is `workers[0].id`.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from fairque.core.config_errors import FieldPath, Origin, model_at, refusal
from fairque.core.config_server import yield_address
from fairque.core.config_values import Loader, parsed_text
from fairque.core.exceptions import ConfigError

PREFIX = "FAIRQUE_"
DELIMITER = "__"
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")  # FAIRQUE_REDIS_PORT, for a service called fairque-redis


class Document(NamedTuple):
    """A YAML file: what it holds, and its nodes, which know their lines."""

    data: dict[str, Any]
    root: yaml.MappingNode

    def line(self, path: FieldPath) -> int | None:
        """The line (from 1) of what stands at `path`, or of the nearest thing around it."""
        node: yaml.Node = self.root
        line = None
        for part in path:
            children = _children(node)
            if part not in children:
                break
            line, node = children[part]
        return line


class Setting(NamedTuple):
    """One environment variable that sets something."""

    path: FieldPath
    name: str
    value: Any


def read_yaml(path: str | os.PathLike[str]) -> Document:
    """The configuration file at `path`.

    Raises:
        ConfigError: it cannot be read, is empty, is not YAML (with the line), or is no mapping.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror or exc}") from None
    try:
        loader = Loader(content)
        try:
            root = loader.get_single_node()
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{file}{_syntax(exc)}") from None
    if data is None:
        raise ConfigError(f"{file}: is empty; for a default configuration write `queue: {{}}`")
    if not isinstance(data, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{file}: must be a mapping with sections such as `redis:`, not a {_kind(data)}")
    return Document(data, root)


def read_environment(root: type[BaseModel], environ: Mapping[str, str] | None = None) -> list[Setting]:
    """The settings in `environ` (default: the process's environment) for the model `root`, sorted by name.

    Text is parsed as the field wants it: numbers, true/false, comma-separated or JSON lists, JSON mappings.
    An empty variable counts as absent. Names without a double underscore, other than the sections themselves,
    are not ours: Kubernetes sets `FAIRQUE_PORT` and the like for a service called fairque.

    Raises:
        ConfigError: a variable that was meant for us but has a single underscore, so it would go unread.
    """
    settings: list[Setting] = []
    problems: list[str] = []
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if not name.upper().startswith(PREFIX) or not text:
            continue
        parts = name[len(PREFIX) :].split(DELIMITER)
        if len(parts) > 1 or parts[0].lower() in root.model_fields:
            path, annotation = _resolve(root, parts)
            settings.append(Setting(path, name, parsed_text(text, annotation)))
        else:
            meant = _single_underscore(root, parts[0].lower())
            if meant and not _KUBERNETES_VALUE.match(text):
                problems.append(f"{name} would not be read: write {PREFIX}{meant} (two underscores)")
    if problems:
        raise refusal(problems)
    return settings


def overlay(base: Mapping[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """`base` with `settings` on top. `base` stays as it is.

    Raises:
        ConfigError: a setting for an entry of a list that is not there.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(base))
    for path, name, value in sorted(settings, key=_outermost_first):
        node: Any = merged
        for index, part in enumerate(path[:-1]):
            empty: Any = [] if isinstance(path[index + 1], int) else {}
            node = _step(node, part, empty, name)
        _step(node, path[-1], value, name, replace=True)
    return merged


def over_file(data: Mapping[str, Any], settings: list[Setting]) -> dict[str, Any]:
    """The data of a file with the environment on top.

    Raises:
        ConfigError: a variable for an entry of a list that is not there.
    """
    of_redis = [setting for setting in settings if setting.path[0] == "redis"]
    above, below = overlay({}, of_redis).get("redis"), data.get("redis")
    if isinstance(above, Mapping) and isinstance(below, Mapping):
        data = {**data, "redis": yield_address(below, above)}
    return overlay(data, settings)


def origin_of(settings: list[Setting], document: Document | None = None) -> Origin:
    """What knows the environment variable, else the line of the file, that a value came from."""

    def origin(path: FieldPath, value: object) -> str | None:
        for setting in settings:
            inside = setting.path == path[: len(setting.path)]
            if inside and (len(setting.path) < len(path) or setting.value == value):
                return f"from {setting.name}"
        line = document.line(path) if document else None
        return f"line {line}" if line else None

    return origin


class EnvironmentSource(PydanticBaseSettingsSource):
    """The environment as a source of pydantic-settings, below what Python code gives."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # everything is read at once, in __call__

    def __call__(self) -> dict[str, Any]:
        # A list is replaced as a whole, so variables for entries of a list that code gives are void.
        lists = {name for name, value in self.current_state.items() if isinstance(value, list | tuple)}
        settings = read_environment(self.settings_cls)
        data = overlay({}, [setting for setting in settings if setting.path[0] not in lists])
        explicit = self.current_state.get("redis")
        if isinstance(explicit, Mapping) and isinstance(data.get("redis"), Mapping):
            data["redis"] = yield_address(data["redis"], explicit)
        return data


def _children(node: yaml.Node) -> dict[str | int, tuple[int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: (key.start_mark.line + 1, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return {index: (value.start_mark.line + 1, value) for index, value in enumerate(node.value)}
    return {}


def _syntax(exc: Exception) -> str:
    """`:3: what is wrong` without quoting the line, which may hold a password."""
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    place = f":{mark.line + 1}" if mark else ""
    context, problem = getattr(exc, "context", None), getattr(exc, "problem", None)
    text = ", ".join(part for part in (context, problem) if part)
    if not text:
        text = (
            "it is not UTF-8 text, or holds control characters"
            if isinstance(exc, UnicodeError | yaml.reader.ReaderError)
            else str(exc)
        )
    return f"{place}: is not valid YAML: {text}"


def _kind(value: object) -> str:
    return "list" if isinstance(value, list) else "text" if isinstance(value, str) else type(value).__name__


def _resolve(root: type[BaseModel], parts: list[str]) -> tuple[FieldPath, Any]:
    """The path that a variable names, and the annotation of what is there (None: unknown)."""
    path: FieldPath = ()
    annotation: Any = root
    for part in parts:
        model = model_at(root, path) if path else root
        if part.isdigit() and get_origin(annotation) is list:
            path += (int(part),)
            annotation = get_args(annotation)[0]
        elif model is not None:
            path += (part.lower(),)
            field = model.model_fields.get(part.lower())
            annotation = field.annotation if field else None
        else:
            member = get_args(annotation)[1] if get_origin(annotation) is dict else Any
            member = get_args(member)[0] if get_origin(member) is Annotated else member
            # A user's id is the one name in which case counts.
            path += (part if dataclasses.is_dataclass(member) else part.lower(),)
            annotation = member
    return path, annotation


def _single_underscore(root: type[BaseModel], name: str) -> str | None:
    for section in root.model_fields:
        field = name.removeprefix(f"{section}_")
        model = model_at(root, (section,))
        if field != name and model is not None and field in model.model_fields:
            return f"{section}{DELIMITER}{field}".upper()
    return None


def _outermost_first(setting: Setting) -> tuple[int, list[tuple[int, str]]]:
    return len(setting.path), [(p, "") if isinstance(p, int) else (-1, p) for p in setting.path]


def _step(node: Any, part: Any, value: Any, name: str, *, replace: bool = False) -> Any:
    """Go from `node` to its `part`, which becomes `value` if it is missing, or in any case with `replace`."""
    if isinstance(part, int) and isinstance(node, list):
        if part > len(node):
            raise ConfigError(f"{name} sets entry {part}, but there are only {len(node)} (the first is 0)")
        if part == len(node):
            node.append(value)
        elif replace:
            node[part] = value
    elif isinstance(node, dict):
        if replace or node.get(part) is None:
            node[part] = value
    else:
        wanted = "list" if isinstance(part, int) else "mapping"
        raise ConfigError(f"{name} sets a part of something that is no {wanted}")
    return node[part]
