"""Operations of `keras.ops.nn`."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_UNARY = {"Relu": "Relu", "Sigmoid": "Sigmoid"}


def _unary(onnx_op: str) -> Any:
    def handler(g: Lowering, operation: keras.Operation, x: ir.Value) -> ir.Value:  # noqa: ARG001
        return getattr(g.op, onnx_op)(x)

    return handler


for _keras_op, _onnx_op in _UNARY.items():
    HANDLERS.add(f"nn.{_keras_op}", _unary(_onnx_op))


@HANDLERS.register("nn.Softmax")
def softmax(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Softmax along one axis."""
    return g.op.Softmax(x, axis=operation.axis)
