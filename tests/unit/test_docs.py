"""The docs say what the code says."""

from __future__ import annotations

import re
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, cast

from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.registry import default_registry
from fairque.core.states import TRANSITIONS
from fairque.core.triggers import decide

DOCS = Path(__file__).parents[2] / "docs"


def diagram() -> str:
    """The state diagram, from the table."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {start.value if start else '[*]'} --> {end.value}: {why}"
        for (start, end), why in TRANSITIONS.items()
    ]
    return "\n".join([*lines, "```"])


def test_the_state_diagram_is_made_from_the_table() -> None:
    text = (DOCS / "internals.md").read_text()
    shown = text.partition("<!-- states: begin -->\n")[2].partition("\n<!-- states: end -->")[0]
    assert shown == diagram()


def test_decisions_take_five_lines_at_most() -> None:
    for entry in (DOCS / "decisions.md").read_text().split("\n## ")[1:]:
        title, *body = entry.strip().splitlines()
        assert len(body) <= 5, title
        assert body[0].startswith("Context: "), title
        assert any(line.startswith("Choice: ") for line in body), title
        assert body[-1].startswith("Cost: ") or body[-2].startswith("Cost: "), title


def trigger_table() -> str:
    """What becomes of a task with two dependencies, from the rules."""
    conditions = ("succeeded", "failed", "canceled", "pending")
    lines = [
        "| they | " + " | ".join(f"`{rule}`" for rule in TRIGGER_RULES) + " |",
        "|---|---|---|---|---|---|",
    ]
    for some in combinations_with_replacement(conditions, 2):
        counts = {name: some.count(name) for name in conditions}
        decisions = [decide(cast(TriggerRule, rule), **counts) for rule in TRIGGER_RULES]
        cells = [decision.state.value if decision.state else decision.action for decision in decisions]
        lines.append(f"| {', '.join(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(page: str, name: str) -> str:
    """What stands between the marks `name` of a page."""
    text = (DOCS / page).read_text()
    return text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"\n<!-- {name}: end -->")[0]


def test_the_table_of_trigger_rules_is_made_from_them() -> None:
    assert shown("workflows.md", "triggers") == trigger_table()


def test_the_examples_of_workflows_run_and_their_picture_is_theirs() -> None:
    names: dict[str, Any] = {"__name__": "workflows_page"}
    known = dict(default_registry()._functions)
    for example in re.findall(r"```python\n(.*?)```", (DOCS / "workflows.md").read_text(), re.DOTALL):
        exec(compile(example, "docs/workflows.md", "exec"), names)  # noqa: S102 - our own page
    default_registry()._functions = known  # no process could import that page

    picture = names["nightly"].visualize()
    for task_id, task in names["graph"].nodes.items():
        picture = picture.replace(task_id, task.function.rpartition(":")[2][0])
    assert shown("workflows.md", "picture") == f"```mermaid\n{picture}```"
    for work, tasks, dependencies in (("summed", 3, 2), ("same", 3, 2), ("later", 3, 2)):
        graph = names[work].graph()
        assert (len(graph.nodes), graph.edge_count) == (tasks, dependencies)
