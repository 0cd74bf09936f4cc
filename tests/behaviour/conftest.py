"""The fixtures of the suites in this directory; they are defined, and explained, in tests/support."""

from __future__ import annotations

from tests.support.queues import clock, facades, make_queue, other, queue, timed
from tests.support.workers import make_workshop, workshop

__all__ = ["clock", "facades", "make_queue", "make_workshop", "other", "queue", "timed", "workshop"]
