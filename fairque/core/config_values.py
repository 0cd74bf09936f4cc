"""How text becomes values: YAML, and the text of an environment variable or of a URL's parameter."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml

_TRUE_FALSE = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} stands here for the second time (first in line "
                    f"{seen[key_node.value]})",
                    problem_mark=key_node.start_mark,
                )
            seen[key_node.value] = line
        return super().construct_mapping(node, deep)


def parsed_text(text: str, annotation: Any) -> Any:
    """`text` (not empty) as a field with this annotation wants it; what does not fit stays text."""
    kinds = _kinds(annotation)
    if Any in kinds or (text[0] in "[{" and str not in kinds):
        return _yaml_value(text)
    if NoneType in kinds and str not in kinds and text.lower() in ("null", "none"):
        return None
    if bool in kinds and text.lower() in _TRUE_FALSE:
        return _TRUE_FALSE[text.lower()]
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                pass
    if list in kinds and text != "*":
        return [item.strip() for item in text.split(",")]
    return text


def _kinds(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(_kinds(argument) for argument in get_args(annotation)))
    return {origin or annotation}


def _yaml_value(text: str) -> Any:
    """JSON is YAML; so is a plain number or word."""
    try:
        return yaml.load(text, Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError):
        return text
