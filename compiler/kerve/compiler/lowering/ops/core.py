"""Operations of `keras.ops.core`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("core.Cast", "core.ConvertToTensor")
def cast(g: Lowering, operation: Any, x: ir.Value, **_: Any) -> ir.Value:  # noqa: ARG001
    """The same elements in the type that Keras infers."""
    return g.cast(x, g.output_dtype)
