"""CenterCrop of images of dynamic size."""

from __future__ import annotations

import functools
from typing import Any

import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

HANDLERS = Handlers()


@HANDLERS.register("layers.CenterCrop", typed=True)
def center_crop(g: Lowering, layer: Any, data: Any, **_: Any) -> ir.Value:
    """Crop the center; resize smaller images, as the layer's own `call` does for static sizes."""
    if not isinstance(data, ir.Value):
        return NotImplemented
    rows = rank(data) - (3 if layer.data_format == "channels_last" else 2)
    target = (layer.height, layer.width)
    known = static_shape(data)[rows : rows + 2]
    if None not in known or any(size is not None and size < n for size, n in zip(known, target, strict=True)):
        return NotImplemented
    images = g.wrap(g.cast(data, layer.compute_dtype))
    sizes = ops.shape(images)[rows : rows + 2]

    def cut() -> Any:
        key = [slice(None)] * rank(data)
        for axis, (size, kept) in enumerate(zip(sizes, target, strict=True), rows):
            key[axis] = slice((size - kept) // 2, (size - kept) // 2 + kept)
        return images[tuple(key)]

    def resized() -> Any:
        options = {"crop_to_aspect_ratio": True, "data_format": layer.data_format}
        return ops.cast(resampling.resize(g, images, target, **options), images.dtype)

    enough = (size >= n for size, n in zip(sizes, target, strict=True) if not isinstance(size, int))
    result: ir.Value = g.unwrap(ops.cond(functools.reduce(ops.logical_and, enough), cut, resized))
    shape = list(static_shape(data))
    shape[rows : rows + 2] = target
    result.shape = ir.Shape(shape)
    return result
