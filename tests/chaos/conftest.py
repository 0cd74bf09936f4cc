"""The fixtures of the suites in this directory; they are defined, and explained, in tests/support."""

from __future__ import annotations

from tests.support.workers import make_workshop, workshop

__all__ = ["make_workshop", "workshop"]
