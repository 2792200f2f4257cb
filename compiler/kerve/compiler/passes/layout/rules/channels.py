"""Layout rules of operators that fix the channel axis, and their equivalents for the other layout.

| channels first          | channels last                |
|-------------------------|------------------------------|
| pointwise Conv          | MatMul, Add                  |
| BatchNormalization      | Mul, Add                     |
| GlobalAveragePool       | ReduceMean                   |
| GlobalMaxPool           | ReduceMax                    |
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.affine import batch_normalization
from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.cost import TRANSPOSE
from kerve.compiler.passes.layout.permutation import Perm
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot
from kerve.compiler.passes.queries import (
    attribute_int,
    attribute_ints,
    dims_of,
    input_of,
    is_constant,
    rank_of,
)

__all__ = ["BATCH_NORMALIZATION", "CONV", "GLOBAL_POOL", "MATMUL"]

#: First version of the operator set in which ReduceMean and ReduceMax take their axes as an input.
_AXES_INPUT = 18

#: Cost of a MatMul as a convolution: a MatMul runs faster, and runtimes fuse patterns around it
#: (attention, normalization). So it is converted between convolutions, but a whole transformer is not for
#: a Transpose or two.
_AS_CONVOLUTION = TRANSPOSE // 2

_REDUCTIONS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}


def _through(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Store the first input and the output alike; the other inputs must be constants."""
    if slot.index != 0 or len(node.outputs) != 1:
        return None
    if {rank_of(node.inputs[0]), rank_of(node.outputs[0])} != {len(perm)}:
        return None
    if any(value is not None and not is_constant(value) for value in node.inputs[1:]):
        return None
    return Placement((perm,) + (None,) * (len(node.inputs) - 1), (perm,))


def _moved(node: ir.Node, placement: Placement) -> tuple[ir.Value, ir.Value, Perm]:
    """Return the node's input and output, and the order in which both are now stored."""
    value, perm = node.inputs[0], placement.inputs[0]
    assert value is not None
    assert perm is not None
    return value, node.outputs[0], perm


# -- MatMul with weights -----------------------------------------------------------------------------


def _place_matmul(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Keep the channels last, or make them the second axis of a convolution, which is slower."""
    rank = len(perm)
    if rank < 3 or rank_of(node.inputs[1]) != 2:
        return None
    if perm[-1] != rank - 1 and (perm[1] != rank - 1 or node.outputs[0].dtype != ir.DataType.FLOAT):
        return None
    placement = _through(node, slot, perm)
    return placement and replace(placement, cost=0 if perm[-1] == rank - 1 else _AS_CONVOLUTION)


def _move_matmul(node: ir.Node, placement: Placement, editor: Editor) -> None:
    value, output, perm = _moved(node, placement)
    rank = len(perm)
    if perm[-1] == rank - 1:
        return
    weights = node.inputs[1]
    assert weights is not None
    kernel = editor.derive(
        weights, f"point{rank - 2}", lambda array: array.T.reshape(array.T.shape + (1,) * (rank - 2))
    )
    attributes = {"kernel_shape": [1] * (rank - 2)}
    conv = editor.node("Conv", [value, kernel], at=node, attributes=attributes, like=output)
    editor.replace(output, conv)


# -- Pointwise Conv ----------------------------------------------------------------------------------


def _place_conv(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Place a pointwise convolution as a matrix product with channels last."""
    if perm[-1] != 1 or not _looks_at_one_point(node):
        return None
    return _through(node, slot, perm)


def _looks_at_one_point(node: ir.Node) -> bool:
    kernel = node.inputs[1]
    return (
        kernel is not None
        and is_constant(kernel)
        and set(dims_of(kernel)[2:]) == {1}
        and attribute_int(node, "group", 1) == 1
        and set(attribute_ints(node, "strides") or [1]) == {1}
        and set(attribute_ints(node, "pads") or [0]) == {0}
    )


def _move_conv(node: ir.Node, placement: Placement, editor: Editor) -> None:
    value, output, _ = _moved(node, placement)
    kernel, bias = node.inputs[1], input_of(node, 2)
    assert kernel is not None
    weights = editor.derive(kernel, "matrix", lambda array: array.reshape(array.shape[:2]).T)
    product = editor.node("MatMul", [value, weights], at=node, like=output)
    if bias is not None:
        product = editor.node("Add", [product, bias], at=node, like=output)
    editor.replace(output, product)


# -- BatchNormalization ------------------------------------------------------------------------------


def _place_batch_normalization(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Place it as a scale and a shift of each channel, for any channel axis."""
    if batch_normalization(node) is None:
        return None
    if any(value is None or value.dtype != node.outputs[0].dtype for value in node.inputs[1:]):
        return None
    return _through(node, slot, perm)


def _move_batch_normalization(node: ir.Node, placement: Placement, editor: Editor) -> None:
    value, output, perm = _moved(node, placement)
    if perm[1] == 1:
        return
    terms = batch_normalization(node)
    assert terms is not None
    assert output.dtype is not None
    spread = (-1,) + (1,) * (len(perm) - 1 - perm.index(1))
    name = str(node.inputs[1].name if node.inputs[1] else "")
    for op_type, factors in zip(("Mul", "Add"), terms, strict=True):
        constant = editor.constant(
            factors.astype(output.dtype.numpy()).reshape(spread), f"{name}:{op_type.lower()}"
        )
        value = editor.node(op_type, [value, constant], at=node, like=output)
    editor.replace(output, value)


# -- Global pooling ----------------------------------------------------------------------------------


def _move_global_pool(node: ir.Node, placement: Placement, editor: Editor) -> None:
    value, output, perm = _moved(node, placement)
    if perm[:2] == (0, 1):
        return
    axes = [place for place, axis in enumerate(perm) if axis > 1]
    inputs, attributes = [value], {"keepdims": 1, "axes": axes}
    if editor.opset >= _AXES_INPUT:
        inputs.append(editor.constant(np.array(attributes.pop("axes"), dtype=np.int64), "axes"))
    mean = editor.node(
        _REDUCTIONS[node.op_type],
        inputs,
        at=node,
        attributes=attributes,
        like=output,
    )
    editor.replace(output, mean)


MATMUL = Rule(_place_matmul, _move_matmul)
CONV = Rule(_place_conv, _move_conv)
BATCH_NORMALIZATION = Rule(_place_batch_normalization, _move_batch_normalization)
GLOBAL_POOL = Rule(_through, _move_global_pool)
