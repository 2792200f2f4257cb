"""Operations of `keras.ops.core` that convert types."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("core.Cast", "core.ConvertToTensor")
def cast(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """The same elements in the type that Keras infers."""
    return g.cast(x, g.output_dtype)
