"""A workflow's picture, as a Mermaid flowchart."""

from __future__ import annotations

import json
import re

from fairque.core.graph import Graph, is_mapped, task_name
from fairque.core.references import EachRef, find_references

# Even in quotes Mermaid finds HTML, Markdown, its own entities, directives and styles; each needs one of these.
_SPECIAL = re.compile(r"[\"#&<>`\\;:%{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
MAX_LABEL = 60


def flowchart(graph: Graph) -> str:
    """`graph` as the text of a Mermaid flowchart, top down.

    A box is a task (its function, and its id); a double-edged one runs for each item of an output. A thick
    arrow hands over an output. Dotted arrows come from tasks outside the workflow. The trigger rule is named
    where it is not `all_success`.
    """
    lines = []
    if graph.name is not None:
        # The title is YAML, of which a JSON string is a part.
        title = json.dumps(_CONTROL.sub(" ", graph.name), ensure_ascii=False)
        lines += ["---", f"title: {title}", "---"]
    lines.append("flowchart TD")
    names = {task_id: f"n{index}" for index, task_id in enumerate(graph.nodes)}
    outside: dict[str, str] = {}
    arrows: list[str] = []
    for task_id, task in graph.nodes.items():
        label = f"{escape(task_name(task))}<br/>{escape(task_id)}"
        if task.trigger_rule != "all_success":
            label += f"<br/>{escape(task.trigger_rule)}"
        left, right = ("[[", "]]") if is_mapped(task) else ("[", "]")
        lines.append(f'    {names[task_id]}{left}"{label}"{right}')
        used = {
            ref.of.task_id if isinstance(ref, EachRef) else ref.task_id
            for ref in find_references(task.args, task.kwargs, task.payload)
        }
        arrows += [
            f"    {names[other]} {'==>' if other in used else '-->'} {names[task_id]}"
            for other in graph.upstream[task_id]
        ]
        for other in graph.outside.get(task_id, ()):
            name = outside.setdefault(other, f"outside{len(outside)}")
            arrows.append(f"    {name} -.-> {names[task_id]}")
    lines += [f'    {name}(["{escape(other)}"])' for other, name in outside.items()]
    return "\n".join(lines + arrows) + "\n"


def escape(text: str) -> str:
    """`text` as Mermaid shows it literally, at most 60 characters of it."""
    text = _CONTROL.sub(" ", text)
    if len(text) > MAX_LABEL:
        text = text[: MAX_LABEL - 3] + "..."
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)
