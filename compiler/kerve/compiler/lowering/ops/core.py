"""Operations of `keras.ops.core` that convert types."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("core.Cast")
def cast(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """Cast to the type that Keras infers."""
    return g.cast(x, g.output_dtype)


@HANDLERS.register("core.ConvertToTensor", typed=True)
def convert_to_tensor(g: Lowering, operation: Any, x: Any) -> ir.Value:
    """Cast a tensor to another type, or stack numbers, some of which are dynamic, to a tensor."""
    first = next(leaf for leaf in keras.tree.flatten(x) if isinstance(leaf, ir.Value))
    assert first.dtype is not None
    dtype = first.dtype if operation.dtype is None else dtypes.to_onnx(operation.dtype)
    return operand(g, x, dtype)
