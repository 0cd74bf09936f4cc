"""What a test needs and a machine may lack: skipped on a laptop, a failure in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def in_ci() -> bool:
    """Whether this run is CI's (the environment variable CI is set to something other than false or 0)."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def require(present: bool, what: str, way_out: str) -> None:
    """Go on if `present`; otherwise skip the test, or in CI, where nothing may go missing, fail it."""
    if present:
        return
    message = f"{what} is missing: {way_out}"
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def require_program(name: str, way_out: str) -> Path:
    """The path of a program on PATH, or a skip (in CI a failure)."""
    found = shutil.which(name)
    require(found is not None, name, way_out)
    assert found is not None
    return Path(found)
