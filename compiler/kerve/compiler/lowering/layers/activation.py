"""Activation layers with weights; the others arrive as operations of `keras.ops`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.initializers import as_array
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("layers.PReLU")
def prelu(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """The larger of x and its part below, where that is what it comes to; else as Keras computes it.

    Not PRelu: ONNX Runtime has no vectorized kernel of it on CPUs (docs/performance.md).
    """
    slope, array = g.weight(layer.alpha), as_array(layer.alpha)
    if ((array != 0) & (array <= 1)).all():  # 0 would make NaN of infinity
        return g.op.Max(inputs, g.op.Mul(inputs, slope))
    return g.op.Sub(g.op.Relu(inputs), g.op.Mul(g.op.Relu(g.op.Neg(inputs)), slope))
