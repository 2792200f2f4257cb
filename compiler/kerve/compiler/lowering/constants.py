"""Constant evaluation of traced code, mostly of computations on ranks and axes."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

__all__ = ["constant_value", "taken_branch"]

#: Operators in computations on ranks and axes.
_LOGIC = frozenset({
    "Add", "And", "Cast", "Concat", "Equal", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Mod", "Mul", "Neg", "Not", "Or", "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze",
    "Sub", "Unsqueeze", "Where",
})  # fmt: skip


def constant_value(value: ir.Value | None) -> Any:
    """Return the array of a value that depends only on constants, None if it is not known."""
    if value is None:
        return None
    known: dict[ir.Value, Any] = {}
    waiting = [value]
    # Evaluate each value once: operands used twice at each of many steps would double the work every time.
    while waiting:
        each = waiting.pop()
        if each in known:
            continue
        if each.const_value is not None:
            known[each] = each.const_value.numpy()
            continue
        node = each.producer()
        if node is None or node.domain or node.op_type not in _LOGIC:
            return None
        operands = [operand for operand in node.inputs if operand is not None]
        if len(operands) < len(node.inputs):
            return None
        if missing := [operand for operand in operands if operand not in known]:
            waiting += [each, *missing]
        else:
            known[each] = _evaluated(node, each, [known[operand] for operand in operands])
    return known[value]


def _evaluated(node: ir.Node, result: ir.Value, arguments: list[Any]) -> Any:
    feeds = {str(each.name): array for each, array in zip(node.inputs, arguments, strict=True) if each}
    return ReferenceEvaluator(ir.to_proto(node)).run([str(result.name)], feeds)[0]


def taken_branch(node: ir.Node, inputs: list[Any]) -> ir.Graph | None:
    """Return the taken branch of an If with a constant condition; the other may not fit the ranks."""
    choice = constant_value(inputs[0]) if node.op_type == "If" else None
    if choice is None:
        return None
    return node.attributes["then_branch" if choice else "else_branch"].as_graph()
