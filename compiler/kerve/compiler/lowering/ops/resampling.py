"""Resizing of images: ONNX's Resize if it computes what TensorFlow does, otherwise
gathers or two matrices.

For any filter, resampling an axis is a product with a matrix of weights. Static sizes are integers, and their
matrices constants; otherwise the graph computes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, size
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import is_symbol

__all__ = ["CUBIC_STEPS", "HANDLERS", "along", "cubic", "native", "resize"]

HANDLERS = Handlers()

#: TensorFlow looks up the weights of its bicubic filter in a table with this many steps.
CUBIC_STEPS = 1024


def resize(  # the arguments of Keras's function
    g: Lowering,
    images: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Any:
    """Lower `keras.src.backend.image.resize`, whose results are not yet cast to the images' type."""
    del fill_mode  # Keras allows only one
    rows = len(images.shape) - (3 if _channels_last(data_format) else 2)
    if crop_to_aspect_ratio:
        images = _cropped(images, rows, size)
    elif pad_to_aspect_ratio:
        images = _padded(images, rows, size, fill_value)
    known = tuple(each for each in size if not is_symbol(each))
    if tuple(images.shape[rows : rows + 2]) == known:
        return images
    axes = ((rows, size[0]), (rows + 1, size[1]))
    if interpolation == "nearest":
        if all(_fits(images.shape[axis], target) for axis, target in axes):
            return native(g, images, rows, size, mode="nearest", nearest_mode="round_prefer_ceil")
        return _nearest(images, axes)
    if interpolation == "bilinear" and not antialias:
        if keras.backend.is_float_dtype(images.dtype):
            return native(g, images, rows, size, mode="linear")
        return _blended(ops.cast(images, "float32"), axes)
    resampled = ops.cast(images, keras.backend.result_type(images.dtype, "float32"))
    for axis, length in reversed(axes):
        weights = _weights(ops.shape(images)[axis], length, interpolation, antialias)
        resampled = along(resampled, ops.cast(weights, resampled.dtype), axis)
    if interpolation == "area":  # the weights are areas: the mean divides by the total
        areas = [_float(ops.shape(images)[axis]) / _float(length) for axis, length in axes]
        resampled = resampled * (1.0 / (areas[0] * areas[1]))
    return resampled


def _channels_last(data_format: str | None) -> bool:
    return (data_format or keras.config.image_data_format()) == "channels_last"


def native(
    g: Lowering, images: Any, rows: int, target: Any, places: str = "half_pixel", **attributes: Any
) -> Any:
    """Add a Resize, on images with channels first; `places` is its `coordinate_transformation_mode`."""
    last = rows == len(images.shape) - 3
    if last:
        images = ops.moveaxis(images, -1, -3)
    x = images.value
    sizes = g.shape([g.dim(x, axis) for axis in range(len(images.shape) - 2)] + [size(g, n) for n in target])
    result = g.op.Resize(x, None, None, sizes, coordinate_transformation_mode=places, **attributes)
    assert x.shape is not None
    # ONNX's inference finds no sizes if those of the batch are dynamic.
    result.shape = ir.Shape(
        [*x.shape[:-2], *(n if isinstance(n, int) else None for n in map(_plain, target))]
    )
    resized = g.wrap(result)
    return ops.moveaxis(resized, -3, -1) if last else resized


def _plain(size: Any) -> Any:
    """Convert a NumPy size to a Python integer."""
    return int(size) if isinstance(size, np.integer) else size


def _fits(source: int | None, target: Any) -> bool:
    """Whether each pixel is copied a static integer number of times, so that rounding is not involved."""
    return source is not None and not is_symbol(target) and target % source == 0


def _nearest(images: Any, axes: Sequence[tuple[int, Any]]) -> Any:
    """Gather the nearest pixels with TensorFlow's exact steps: Resize breaks ties differently."""
    for axis, target in axes:
        source = ops.shape(images)[axis]
        place = ops.floor(_centers(target) * (_float(source) / _float(target)))
        images = ops.take(images, ops.cast(ops.minimum(place, _float(source) - 1.0), "int32"), axis=axis)
    return images


def _blended(images: Any, axes: Sequence[tuple[int, Any]]) -> Any:
    """Interpolate linearly with TensorFlow's exact steps: integers are rounded later, often from ties."""
    for axis, target in reversed(axes):
        source = ops.shape(images)[axis]
        place = _centers(target) * (_float(source) / _float(target)) - 0.5
        lower = ops.floor(place)
        first = ops.take(images, ops.cast(ops.maximum(lower, 0.0), "int32"), axis=axis)
        last = ops.minimum(ops.cast(ops.ceil(place), "int32"), source - 1)
        share = ops.reshape(place - lower, [-1] + [1] * (len(images.shape) - axis - 1))
        images = first + (ops.take(images, last, axis=axis) - first) * share
    return images


def along(x: Any, weights: Any, axis: int) -> Any:
    """Multiply one axis by a matrix of weights, with a row for each new element."""
    if axis == len(x.shape) - 2:
        return ops.matmul(weights, x)
    if axis == len(x.shape) - 1:
        return ops.matmul(x, ops.transpose(weights))
    return ops.moveaxis(ops.tensordot(weights, x, axes=[[1], [axis]]), 0, axis)


def _float(x: Any) -> Any:
    return ops.cast(x, "float32") if hasattr(x, "dtype") else np.float32(x)


def _centers(length: Any) -> Any:
    return ops.cast(ops.arange(length, dtype="int32"), "float32") + 0.5


def _weights(source: Any, target: Any, interpolation: str, antialias: bool) -> Any:
    """Return the weights of old elements (columns) in new ones (rows)."""
    scale = _float(source) / _float(target)
    old, new = ops.expand_dims(_centers(source), 0), ops.expand_dims(_centers(target), 1)
    if interpolation == "area":
        upper = ops.minimum(old + 0.5, (new + 0.5) * scale)
        lower = ops.maximum(old - 0.5, (new - 0.5) * scale)
        return ops.maximum(upper - lower, 0.0)
    if interpolation == "bicubic" and not antialias:
        place = new * scale - 0.5
        whole = ops.floor(place)
        place = whole + ops.round((place - whole) * CUBIC_STEPS) / CUBIC_STEPS
        return _normalized(cubic(ops.abs(old - 0.5 - place)))
    widening = ops.maximum(scale, 1.0) if antialias else 1.0
    return _normalized(_FILTERS[interpolation](ops.abs(new * scale - old) / widening))


def _normalized(weights: Any) -> Any:
    total = ops.sum(weights, axis=1, keepdims=True)
    return weights / ops.where(ops.equal(total, 0), ops.ones_like(total), total)


def _triangle(x: Any) -> Any:
    return ops.relu(1.0 - x)


def cubic(x: Any, a: float = -0.5) -> Any:
    """Keys's cubic convolution kernel; `a` is its slope at 1."""
    near = (((a + 2.0) * x - (a + 3.0)) * x) * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return ops.where(x >= 2.0, 0.0, ops.where(x >= 1.0, far, near))


def _lanczos(radius: float) -> Callable[[Any], Any]:
    def fn(x: Any) -> Any:
        safe = ops.maximum(x, 1e-3)
        wave = radius * ops.sin(math.pi * safe) * ops.sin(math.pi * safe / radius) / (math.pi * safe) ** 2
        return ops.where(x > radius, 0.0, ops.where(x > 1e-3, wave, 1.0))

    return fn


_FILTERS: dict[str, Callable[[Any], Any]] = {
    "bicubic": cubic,
    "bilinear": _triangle,
    "cubic": cubic,
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
    "linear": _triangle,
    "tricubic": cubic,
    "trilinear": _triangle,
}


def _share(length: Any, numerator: int, denominator: int) -> Any:
    """Return `length * numerator / denominator` rounded down, as Keras computes it."""
    return _whole(_float(length * numerator) / _float(denominator))


def _whole(x: Any) -> Any:
    return ops.cast(x, "int32") if hasattr(x, "dtype") and hasattr(x, "value") else int(x)


def _least(first: Any, second: Any) -> Any:
    return (
        min(first, second)
        if isinstance(first, int) and isinstance(second, int)
        else ops.minimum(first, second)
    )


def _greatest(first: Any, second: Any) -> Any:
    return (
        max(first, second)
        if isinstance(first, int) and isinstance(second, int)
        else ops.maximum(first, second)
    )


def _cropped(images: Any, rows: int, target: Any) -> Any:
    """Crop the largest centered window of the target's aspect ratio."""
    height, width = ops.shape(images)[rows : rows + 2]
    window = (
        _greatest(_least(height, _share(width, target[0], target[1])), 1),
        _greatest(_least(width, _share(height, target[1], target[0])), 1),
    )
    key: list[Any] = [slice(None)] * len(images.shape)
    for axis, length, kept in zip((rows, rows + 1), (height, width), window, strict=True):
        start = _whole(_float(length - kept) / np.float32(2))
        key[axis] = slice(start, start + kept)
    return images[tuple(key)]


def _padded(images: Any, rows: int, target: Any, fill_value: float) -> Any:
    """Add margins to reach the target's aspect ratio."""
    height, width = ops.shape(images)[rows : rows + 2]
    whole = (
        _greatest(height, _share(width, target[0], target[1])),
        _greatest(width, _share(height, target[1], target[0])),
    )
    margins: list[Any] = [(0, 0)] * len(images.shape)
    for axis, length, wanted in zip((rows, rows + 1), (height, width), whole, strict=True):
        margin = _whole(_float(wanted - length) / np.float32(2))
        margins[axis] = (margin, margin)
    return ops.pad(images, margins, constant_values=fill_value)


def _scale_and_translate(operation: Any, images: Any, output_shape: Any, scale: Any, translation: Any) -> Any:
    dtype = images.dtype
    integers = not keras.backend.is_float_dtype(dtype)
    result = ops.cast(images, "float32") if integers else images
    for index, axis in enumerate(operation.spatial_dims):
        axis %= len(images.shape)
        length = ops.shape(images)[axis]
        inverse = 1.0 / ops.cast(scale[index], "float32")
        shift = ops.cast(translation[index], "float32")
        place = ops.expand_dims((_centers(output_shape[axis]) - shift) * inverse, 1)
        widening = ops.maximum(inverse, 1.0) if operation.antialias else 1.0
        old = ops.expand_dims(_centers(length), 0)
        weights = _normalized(_FILTERS[operation.method](ops.abs(place - old) / widening))
        inside = ops.logical_and(place >= 0.0, place <= _float(length))
        weights = ops.where(inside, weights, ops.zeros_like(weights))
        result = along(result, ops.cast(weights, result.dtype), axis)
    if not integers:
        return result
    return ops.cast(ops.clip(ops.round(result), _float(ops.min(images)), _float(ops.max(images))), dtype)


HANDLERS.add("image.ScaleAndTranslate", composite(_scale_and_translate))
