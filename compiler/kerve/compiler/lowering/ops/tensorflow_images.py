"""TensorFlow's operators that resize images, in each of its three coordinate modes.

tf2onnx passes a ratio of sizes to Resize, so that rounding may yield less than the target size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.ops.tensorflow import numbers_in
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]


def _places(attributes: _Attributes) -> str:
    """Return the coordinate transformation mode, in ONNX's terms."""
    if attributes.get("half_pixel_centers"):
        return "half_pixel"
    return "align_corners" if attributes.get("align_corners") else "asymmetric"


def _place(old: Any, target: Any, places: str) -> Any:
    """Return the coordinates of new pixels among `old` ones along an axis, with TensorFlow's exact steps."""
    index = ops.cast(ops.arange(target, dtype="int32"), "float32")
    new = ops.cast(target, "float32")
    if places == "align_corners":
        return index * ((old - 1.0) / ops.maximum(new - 1.0, 1.0))
    return index * (old / new)


def _nearest(g: Lowering, images: Any, size: list[Any], places: str) -> Any:
    if places == "half_pixel":
        return resampling.resize(g, images, size, "nearest", data_format="channels_last")
    for axis, target in enumerate(size, 1):
        old = ops.cast(ops.shape(images)[axis], "float32")
        place = _place(old, target, places)
        index = ops.floor(place + 0.5 if places == "align_corners" else place)  # halves are rounded up
        images = ops.take(images, ops.cast(ops.minimum(index, old - 1.0), "int32"), axis=axis)
    return images


def _bilinear(g: Lowering, images: Any, size: list[Any], places: str) -> Any:
    images = ops.cast(images, "float32")
    return resampling.native(g, images, 1, size, places, mode="linear")


def _bicubic(g: Lowering, images: Any, size: list[Any], places: str) -> Any:
    images = ops.cast(images, "float32")
    if places == "half_pixel":
        return resampling.resize(g, images, size, "bicubic", data_format="channels_last")
    for axis, target in enumerate(size, 1):
        images = resampling.along(images, _cubic_weights(ops.shape(images)[axis], target, places), axis)
    return images


def _cubic_weights(source: Any, target: Any, places: str) -> Any:
    """Return the weights of old pixels (columns) in new ones (rows); edge pixels are repeated outside."""
    old = ops.cast(source, "float32")
    place = _place(old, target, places)
    before = ops.floor(place)
    share = ops.round((place - before) * resampling.CUBIC_STEPS) / resampling.CUBIC_STEPS
    columns = ops.expand_dims(ops.cast(ops.arange(source, dtype="int32"), "float32"), 0)
    weights = 0.0
    for step in (-1, 0, 1, 2):
        is_there = ops.equal(columns, ops.expand_dims(ops.clip(before + step, 0.0, old - 1.0), 1))
        weight = resampling.cubic(ops.abs(share - step), -0.75)
        weights = weights + ops.cast(is_there, "float32") * ops.expand_dims(weight, 1)
    return weights


def _area(g: Lowering, images: Any, size: list[Any], places: str) -> Any:
    if places == "align_corners":
        raise ValueError("it has no ONNX form with align_corners")
    return resampling.resize(g, ops.cast(images, "float32"), size, "area", data_format="channels_last")


_METHODS: Mapping[str, Callable[..., Any]] = {
    "ResizeArea": _area,
    "ResizeBicubic": _bicubic,
    "ResizeBilinear": _bilinear,
    "ResizeNearestNeighbor": _nearest,
}


def _handler(method: Callable[..., Any]) -> Callable[..., Any]:
    def handler(g: Lowering, attributes: _Attributes, images: ir.Value, size: ir.Value) -> Any:
        return g.call(lambda x: method(g, x, numbers_in(g, size), _places(attributes)), images)

    return handler


for _name, _method in _METHODS.items():
    HANDLERS.add(f"tensorflow.{_name}", _handler(_method))
