"""The docs say what the code says."""

from __future__ import annotations

from pathlib import Path

from fairque.core.states import TRANSITIONS

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
