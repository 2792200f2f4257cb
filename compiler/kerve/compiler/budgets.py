"""What each reduced precision may lose, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

__all__ = ["BUDGETS", "Budget", "describe"]


@dataclass(frozen=True)
class Budget:
    """The largest drop of an output, by what is measured; `kerve.compiler.precision.losses` says how."""

    #: With labels: right answers, or root mean square error.
    accuracy: float
    #: Without labels, of an output that chooses a class, or that is no number.
    choices: float
    #: Without labels, of numbers.
    error: float


BUDGETS: Mapping[str, Budget] = {
    "float16": Budget(accuracy=0.005, choices=0.01, error=0.01),
    "bfloat16": Budget(accuracy=0.005, choices=0.02, error=0.02),
    "int8": Budget(accuracy=0.01, choices=0.05, error=0.1),
    "int8-dynamic": Budget(accuracy=0.01, choices=0.05, error=0.1),
    "int4-weights": Budget(accuracy=0.02, choices=0.1, error=0.2),
}


def describe() -> str:
    """Return the table in a line."""
    return "; ".join(f"{name} {', '.join(map(str, astuple(budget)))}" for name, budget in BUDGETS.items())
