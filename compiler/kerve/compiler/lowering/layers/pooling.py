"""Global pooling of images and volumes; other pooling layers are lowered as operations of `keras.ops`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import from_channels_first, to_channels_first

HANDLERS = Handlers()


@HANDLERS.register("layers.GlobalAveragePooling2D", "layers.GlobalAveragePooling3D")
def global_average_pooling(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """GlobalAveragePool."""
    return _global_pool(g, layer, g.cast(inputs, g.output_dtype), "GlobalAveragePool")


@HANDLERS.register("layers.GlobalMaxPooling2D", "layers.GlobalMaxPooling3D")
def global_max_pooling(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """GlobalMaxPool; ReduceMax for integers, which ONNX does not pool."""
    assert inputs.dtype is not None
    if dtypes.is_float(inputs.dtype):
        return _global_pool(g, layer, inputs, "GlobalMaxPool")
    rank = len(static_shape(inputs))
    first = 1 if layer.data_format == "channels_last" else 2
    return g.op.ReduceMax(inputs, [*range(first, first + rank - 2)], keepdims=int(layer.keepdims))


def _global_pool(g: Lowering, layer: Any, inputs: ir.Value, op_type: str) -> ir.Value:
    pooled = getattr(g.op, op_type)(to_channels_first(g, inputs, layer.data_format))
    if layer.keepdims:
        return from_channels_first(g, pooled, layer.data_format)
    return g.op.Squeeze(pooled, [*range(2, len(static_shape(inputs)))])
