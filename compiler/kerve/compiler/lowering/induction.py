"""Induction variables of a loop: integers with an initial value and a constant step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.lists import scalar

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["InductionAnalysis", "InductionVariable", "origin", "provably_equal"]

_PASSING = frozenset({"Cast", "Identity"})
#: Operators that compute sizes.
_SIZES = frozenset({"Add", "Concat", "Gather", "Mul", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze"})

_CONDITIONS = frozenset({"And", "Less"})

_Pair = tuple[ir.Value | None, ir.Value | None]


def origin(value: ir.Value) -> ir.Value:
    """Return the value from which a chain of casts and identities starts."""
    return _back(value, _PASSING)


def provably_equal(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Whether two numbers are the same value, or are computed in the same way from equal operands."""
    waiting, seen = [(first, second)], {(first, second)}
    while waiting:
        operands = _equal_if(*waiting.pop())
        if operands is None:
            return False
        waiting += [pair for pair in operands if pair not in seen]
        seen.update(operands)
    return True


def _equal_if(first: ir.Value | None, second: ir.Value | None) -> list[_Pair] | None:
    """Return the pairs of operands whose equality implies that of two numbers; None if nothing does."""
    if first is None or second is None:
        return [] if first is second else None
    first, second = (_back(each, {*_PASSING, "Reshape"}) for each in (first, second))
    if first is second:
        return []
    a, b = constant_value(first), constant_value(second)
    if a is not None or b is not None:
        return [] if a is not None and b is not None and np.array_equal(np.ravel(a), np.ravel(b)) else None
    one, other = first.producer(), second.producer()
    alike = (
        one is not None
        and other is not None
        and one.op_type == other.op_type
        and one.op_type in _SIZES
        and first.index() == second.index()
        and _attributes(one) == _attributes(other)
        and len(one.inputs) == len(other.inputs)
    )
    return list(zip(one.inputs, other.inputs, strict=True)) if one and other and alike else None


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _back(value: ir.Value, over: Collection[str]) -> ir.Value:
    while (node := value.producer()) is not None and node.op_type in over and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


@dataclass(frozen=True)
class InductionVariable:
    """`start + step * iteration`; the start is an INT64 [] value if it is not constant."""

    start: int | ir.Value
    step: int


@dataclass(frozen=True)
class InductionAnalysis:
    """The body of a loop that is not adopted yet, and the initial values of its variables."""

    g: Lowering
    body: ir.Graph
    initial: Sequence[Any]
    #: Maps a value of the enclosing graph to its replacement.
    current: Callable[[ir.Value], Any]

    def progression(self, value: ir.Value) -> InductionVariable | None:
        """Return a number in the body as an induction variable; None if it is not known to be one."""
        value = origin(value)
        if value.const_value is not None:
            return _constant(value)
        if value is self.body.inputs[0]:
            return InductionVariable(0, 1)
        if (outer := self._kept(value)) is not None:
            return _started(self.g, outer) if _is_whole(outer) else None
        if value in self._variables:
            return self._of_variable(value)
        node = value.producer()
        sign = None if node is None else {"Add": 1, "Sub": -1}.get(node.op_type)
        return None if node is None or sign is None else self._sum(node.inputs, sign)

    def _kept(self, value: ir.Value) -> ir.Value | None:
        """Return the outer value of a loop-invariant value in the body, None if it is not invariant."""
        value = origin(value)
        if value in self._variables:
            index = self._variables[value]
            outer = self.initial[index] if origin(self.body.outputs[1 + index]) is value else None
        else:
            node = value.producer()
            inside = value in self.body.inputs or (node is not None and node.graph is self.body)
            outer = None if inside else self.current(value)
        return outer if isinstance(outer, ir.Value) else None

    def bounds(self) -> list[tuple[InductionVariable, ir.Value]] | None:
        """Return pairs (variable, bound): the loop continues while variable < bound; None if not known."""
        waiting, found = [self.body.outputs[0]], []
        while waiting:
            node = origin(waiting.pop()).producer()
            if node is None or node.op_type not in _CONDITIONS:
                return None
            first, second = node.inputs
            assert first is not None
            assert second is not None
            if node.op_type == "And":
                waiting += [first, second]
                continue
            later, bound = self.progression(first), self._kept(second)
            if later is None or bound is None or isinstance(later.start, ir.Value):
                return None
            # The condition for the next iteration is computed from the variables at the end of this one.
            found.append((InductionVariable(later.start - later.step, later.step), bound))
        return found

    @property
    def _variables(self) -> Mapping[ir.Value, int]:
        return {formal: index for index, formal in enumerate(self.body.inputs[2:])}

    def _of_variable(self, formal: ir.Value) -> InductionVariable | None:
        index = self._variables[formal]
        initial, after = self.initial[index], origin(self.body.outputs[1 + index])
        if after is formal or not isinstance(initial, ir.Value) or not _is_whole(initial):
            return None
        node = after.producer()
        if node is None or node.op_type not in ("Add", "Sub") or node.graph is not self.body:
            return None
        left, right = (origin(each) for each in node.inputs if each is not None)
        if right is formal and node.op_type == "Add":
            left, right = right, left
        step = constant_value(right)
        if left is not formal or step is None or np.size(step) != 1:
            return None
        number = int(np.ravel(step)[0])
        started = _started(self.g, initial)
        return InductionVariable(started.start, number if node.op_type == "Add" else -number)

    def _sum(self, terms: Sequence[ir.Value | None], sign: int) -> InductionVariable | None:
        first, second = (None if each is None else self.progression(each) for each in terms)
        if first is None or second is None:
            return None
        return InductionVariable(
            self._added(first.start, second.start, sign), first.step + sign * second.step
        )

    def _added(self, x: int | ir.Value, y: int | ir.Value, sign: int) -> int | ir.Value:
        if isinstance(x, int) and isinstance(y, int):
            return x + sign * y
        a, b = (
            self.g.constant(np.int64(each), "start") if isinstance(each, int) else each for each in (x, y)
        )
        return self.g.op.Add(a, b) if sign > 0 else self.g.op.Sub(a, b)


def _constant(value: ir.Value) -> InductionVariable | None:
    assert value.const_value is not None
    array = value.const_value.numpy()
    return (
        InductionVariable(int(array.ravel()[0]), 0) if array.size == 1 and array.dtype.kind in "iu" else None
    )


def _started(g: Lowering, value: ir.Value) -> InductionVariable:
    number = constant_value(value)
    return InductionVariable(scalar(g, value) if number is None else int(np.ravel(number)[0]), 0)


def _is_whole(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.INT32, ir.DataType.INT64)
