"""Requirements for the promotion of a version: `accuracy >= 0.97`, `loss <= stable.loss * 1.01`.

    requirement  METRIC (<= | < | >= | > | ==) term
    term         factor [(* | + | -) factor]
    factor       NUMBER | METRIC | LABEL.METRIC

Parsed, never evaluated as code.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from kerve.runtime.errors import InvalidArgumentError

__all__ = ["Requirement", "parse"]

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "*": operator.mul,
    "+": operator.add,
    "-": operator.sub,
}

NAME = r"[A-Za-z_]\w*"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FACTOR = rf"(?:{NUMBER}|{NAME}(?:\.{NAME})?)"
FORM = re.compile(rf"\s*({NAME})\s*(<=|>=|==|<|>)\s*({FACTOR})(?:\s*([*+-])\s*({FACTOR}))?\s*")

#: Returns the value of a metric, of the version to be promoted (label "") or of the version with a label.
Lookup = Callable[[str, str], float]


@dataclass(frozen=True)
class Requirement:
    """A comparison of a metric with a term."""

    text: str
    metric: str
    comparison: str
    left: str
    arithmetic: str
    right: str

    def check(self, lookup: Lookup) -> tuple[bool, str]:
        """Return whether it holds, and a text with the two numbers."""
        got = lookup("", self.metric)
        wanted = value(self.left, lookup)
        if self.arithmetic:
            wanted = ARITHMETIC[self.arithmetic](wanted, value(self.right, lookup))
        holds = COMPARISONS[self.comparison](got, wanted)
        return holds, f"{self.metric} is {got:.6g}; expected {self.comparison} {wanted:.6g}"


def parse(text: str) -> Requirement:
    """Parse a requirement; raises InvalidArgumentError if the syntax is wrong."""
    match = FORM.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(
            f"requirement {text!r}: expected METRIC, one of {', '.join(COMPARISONS)}, and a number, METRIC "
            "or LABEL.METRIC, optionally * + or - another; such as 'loss <= stable.loss * 1.01'"
        )
    metric, comparison, left, arithmetic, right = match.groups()
    return Requirement(text, metric, comparison, left, arithmetic or "", right or "")


def value(factor: str, lookup: Lookup) -> float:
    """Return the value of a factor."""
    if re.fullmatch(NUMBER, factor):
        return float(factor)
    label, _, metric = factor.rpartition(".")
    return lookup(label, metric)
