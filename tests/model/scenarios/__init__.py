"""The workloads that show what the scheduler promises (docs/fairness.md), each with what it must come to.

`SCENARIOS` has them in the order of the table: with equal weights, with weights, by what newcomers wait, with limits,
and with assigned users.
"""

from tests.model.scenarios import assigned, limits, shares, waits, weights
from tests.model.scenarios.base import (
    ENTERED,
    MODES,
    SLOTS,
    Case,
    Ground,
    Result,
    Scenario,
    Scripts,
    percentile,
)

SCENARIOS = [
    entered for module in (shares, weights, waits, limits, assigned) for entered in ENTERED[module.__name__]
]

__all__ = [
    "MODES",
    "SCENARIOS",
    "SLOTS",
    "Case",
    "Ground",
    "Result",
    "Scenario",
    "Scripts",
    "percentile",
]
