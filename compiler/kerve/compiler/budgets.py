"""Default accuracy budgets of the reduced precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

__all__ = ["BUDGETS", "Budget", "describe"]


@dataclass(frozen=True)
class Budget:
    """The largest drop allowed for an output, by metric; see `kerve.compiler.precision.losses`."""

    #: With labels: accuracy, or root mean square error.
    accuracy: float
    #: Without labels: share of changed classes of a classifier, or of changed elements that are not floats.
    choices: float
    #: Without labels: relative error of other floats.
    error: float


BUDGETS: Mapping[str, Budget] = {
    "float16": Budget(accuracy=0.005, choices=0.01, error=0.01),
    "bfloat16": Budget(accuracy=0.005, choices=0.02, error=0.02),
    "int8": Budget(accuracy=0.01, choices=0.05, error=0.1),
    "int8-dynamic": Budget(accuracy=0.01, choices=0.05, error=0.1),
    "int4-weights": Budget(accuracy=0.02, choices=0.1, error=0.2),
}


def describe() -> str:
    """Return the budgets as one line of text."""
    return "; ".join(f"{name} {', '.join(map(str, astuple(budget)))}" for name, budget in BUDGETS.items())
