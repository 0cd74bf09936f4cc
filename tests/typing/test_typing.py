"""The typed API, checked by the type checkers that users have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKED = sorted(Path(__file__).parent.glob("check_*.py"))


def marked(path: Path) -> set[int]:
    """The numbers of the lines that must be refused."""
    return {number for number, line in enumerate(path.read_text().splitlines(), 1) if "  # E: " in line}


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.stem)
def test_mypy_refuses_exactly_the_marked_lines(path: Path) -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    refused = {int(error[1]) for error in re.finditer(rf"{path.name}:(\d+): error:", done.stdout)}

    assert refused == marked(path), done.stdout + done.stderr


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.stem)
def test_pyright_refuses_exactly_the_marked_lines(path: Path) -> None:
    pytest.importorskip("pyright")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    refused = {
        problem["range"]["start"]["line"] + 1
        for problem in report["generalDiagnostics"]
        if problem["severity"] == "error" and problem["file"] == str(path)
    }

    assert refused == marked(path), done.stdout
