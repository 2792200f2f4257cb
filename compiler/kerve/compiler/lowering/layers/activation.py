"""Activation layers with weights; the others are lowered as operations of `keras.ops`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.initializers import as_array
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("layers.PReLU")
def prelu(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """max(x, slope * x) if all slopes are at most 1 and not 0, otherwise Keras's own formula.

    PRelu is not used: ONNX Runtime has no vectorized CPU kernel for it (docs/performance.md).
    """
    slope, array = g.weight(layer.alpha), as_array(layer.alpha)
    if ((array != 0) & (array <= 1)).all():  # infinity * 0 is NaN
        return g.op.Max(inputs, g.op.Mul(inputs, slope))
    return g.op.Sub(g.op.Relu(inputs), g.op.Mul(g.op.Relu(g.op.Neg(inputs)), slope))
