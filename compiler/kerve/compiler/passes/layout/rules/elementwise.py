"""Layout rule of elementwise operators with NumPy broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm, is_identity, restrict
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot
from kerve.compiler.passes.queries import is_constant, is_scalar, rank_of

__all__ = ["ELEMENTWISE", "ELEMENTWISE_OPS", "move", "operand", "spread"]

ELEMENTWISE_OPS = (
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
)


def place(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Store all tensors of full rank alike; those of lower rank follow their own axes."""
    if any(rank_of(output) != len(perm) for output in node.outputs):
        return None
    if rank_of(slot.value(node)) != len(perm):
        return None
    inputs: list[Perm | None] = []
    for value in node.inputs:
        if value is None or is_constant(value):
            inputs.append(None)
        elif (own := operand(value, perm)) is not None:
            inputs.append(own)
        else:
            return None
    return Placement(tuple(inputs), (perm,) * len(node.outputs))


def operand(value: ir.Value, perm: Perm) -> Perm | None:
    """Return the order of the axes of an operand, which broadcasting aligns with the last axes."""
    rank = rank_of(value)
    if rank is None or rank > len(perm):
        return None
    return restrict(tuple(axis - (len(perm) - rank) for axis in perm), range(rank))


def move(node: ir.Node, placement: Placement, editor: Editor) -> None:
    """Insert the axes of size one that operands of lower rank now need in the middle."""
    perm = placement.outputs[0]
    assert perm is not None
    for index, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(index, spread(value, perm, placement.inputs[index], node, editor))


def spread(value: ir.Value, perm: Perm, own: Perm | None, node: ir.Node, editor: Editor) -> ir.Value:
    """Return an operand reshaped to broadcast in the order `perm`; `own` is its current order."""
    rank = rank_of(value)
    assert rank is not None
    missing = len(perm) - rank
    if own is None and is_constant(value):
        return _spread_constant(value, perm, missing, editor)
    new = [place for place, axis in enumerate(perm) if axis < missing]
    if rank == 0 or new == list(range(missing)):
        return value
    assert value.shape is not None
    dims = list(value.shape)
    shape = ir.Shape([1 if place in new else dims.pop(0) for place in range(len(perm))])
    axes = editor.constant(np.array(new, dtype=np.int64), "axes")
    return editor.node("Unsqueeze", [value, axes], at=node, dtype=value.dtype, shape=shape)


def _spread_constant(value: ir.Value, perm: Perm, missing: int, editor: Editor) -> ir.Value:
    if is_scalar(value) or (missing == 0 and is_identity(perm)):
        return value

    def transform(array: NDArray[Any]) -> NDArray[Any]:
        stored = array.reshape((1,) * missing + array.shape).transpose(perm)
        # another operand has full rank, so leading axes of size one can be omitted
        leading = next(place for place, size in enumerate(stored.shape) if size != 1) if missing else 0
        return stored.reshape(stored.shape[leading:])

    return editor.derive(value, f"axes{''.join(map(str, perm))}", transform)


ELEMENTWISE = Rule(place, move)
