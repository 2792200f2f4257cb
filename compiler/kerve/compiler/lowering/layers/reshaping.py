"""Upsampling layers, for which ONNX has one operator; their `call` repeats elements."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.windows import each, from_channels_first, to_channels_first

HANDLERS = Handlers()

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


@HANDLERS.register("layers.UpSampling1D")
def up_sampling_1d(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Resize by repeating steps."""
    return _resize(g, inputs, each(layer.size, 1), "channels_last", _NEAREST)


@HANDLERS.register("layers.UpSampling2D")
def up_sampling_2d(g: Lowering, layer: Any, inputs: ir.Value) -> Any:
    """Resize, or a matrix product for filters whose weights differ between ONNX and TensorFlow."""
    assert inputs.dtype is not None
    if layer.interpolation == "nearest":
        return _resize(g, inputs, layer.size, layer.data_format, _NEAREST)
    if not dtypes.is_float(inputs.dtype):
        return NotImplemented
    if layer.interpolation == "bilinear":
        return _resize(g, inputs, layer.size, layer.data_format, _LINEAR)

    def resample(images: Any) -> Any:
        first = 1 if layer.data_format == "channels_last" else 2
        sizes = keras.ops.shape(images)[first : first + 2]
        target = [size * factor for size, factor in zip(sizes, layer.size, strict=True)]
        return resampling.resize(g, images, target, layer.interpolation, data_format=layer.data_format)

    return g.call(resample, inputs)


@HANDLERS.register("layers.UpSampling3D")
def up_sampling_3d(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Resize by repeating voxels."""
    return _resize(g, inputs, layer.size, layer.data_format, _NEAREST)


def _resize(
    g: Lowering, x: ir.Value, factors: tuple[int, ...], data_format: str, attributes: dict[str, str]
) -> ir.Value:
    scales = [1.0, 1.0, *(float(factor) for factor in factors)]
    y = g.op.Resize(to_channels_first(g, x, data_format), None, scales, **attributes)
    return from_channels_first(g, y, data_format)
