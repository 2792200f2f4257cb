"""Operations of `keras.ops.numpy`."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_ARITHMETIC = {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul"}


def _arithmetic(onnx_op: str) -> Any:
    def handler(g: Lowering, operation: keras.Operation, x1: Any, x2: Any) -> ir.Value:  # noqa: ARG001
        dtype = g.output_dtype
        x1, x2 = (g.cast(x, dtype) if isinstance(x, ir.Value) else x for x in (x1, x2))
        return getattr(g.op, onnx_op)(x1, x2)

    return handler


for _keras_op, _onnx_op in _ARITHMETIC.items():
    HANDLERS.add(f"numpy.{_keras_op}", _arithmetic(_onnx_op))
