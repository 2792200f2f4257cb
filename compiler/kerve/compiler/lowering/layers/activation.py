"""Activation layers with weights; the others arrive as operations of `keras.ops`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("layers.PReLU")
def prelu(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """PRelu, whose slope lacks the batch dimension and broadcasts as in Keras."""
    return g.op.PRelu(inputs, g.weight(layer.alpha))
