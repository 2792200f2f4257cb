"""Operations of `keras.ops.image`: colours, blurs, edges, and geometric transforms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


def _channels(operation: Any) -> int:
    return -1 if operation.data_format == "channels_last" else -3


def _rgb_to_grayscale(operation: Any, images: Any) -> Any:
    axis = _channels(operation)
    if images.shape[axis] == 1:
        return images
    wide = ops.moveaxis(ops.cast(images, keras.backend.result_type(images.dtype, float)), axis, -1)
    weights = np.array([[0.2989], [0.5870], [0.1140]]).astype(wide.dtype)
    return ops.cast(ops.moveaxis(ops.matmul(wide, weights), -1, axis), images.dtype)


def _rgb_to_hsv(operation: Any, images: Any) -> Any:
    axis = _channels(operation)
    red, green, blue = ops.unstack(images, 3, axis=axis)
    value = ops.maximum(ops.maximum(red, green), blue)
    spread = value - ops.minimum(ops.minimum(red, green), blue)
    zero = ops.zeros_like(value)
    saturation = ops.where(value > 0, spread / ops.where(value > 0, value, zero + 1), zero)
    unit = 1.0 / (6.0 * ops.where(spread > 0, spread, zero + 1))
    hue = ops.where(
        ops.equal(red, value),
        unit * (green - blue),
        ops.where(ops.equal(green, value), unit * (blue - red) + 2.0 / 6.0, unit * (red - green) + 4.0 / 6.0),
    )
    hue = ops.where(spread > 0, hue, zero)
    return ops.stack([ops.where(hue < 0, hue + 1.0, hue), saturation, value], axis=axis)


def _hsv_to_rgb(operation: Any, images: Any) -> Any:
    axis = _channels(operation)
    hue, saturation, value = ops.unstack(images, 3, axis=axis)
    sextant = hue * 6.0
    pure = (
        ops.abs(sextant - 3.0) - 1.0,
        2.0 - ops.abs(sextant - 2.0),
        2.0 - ops.abs(sextant - 4.0),
    )
    parts = [((1.0 - saturation) + saturation * ops.clip(part, 0.0, 1.0)) * value for part in pure]
    return ops.stack(parts, axis=axis)


def _batched(operation: Any, images: Any, run: Any) -> Any:
    """Run a function on images as a batch with channels last."""
    single, first = len(images.shape) == 3, operation.data_format == "channels_first"
    images = ops.expand_dims(images, 0) if single else images
    images = ops.moveaxis(images, 1, -1) if first else images
    images = run(images)
    images = ops.moveaxis(images, 3, 1) if first else images
    return ops.squeeze(images, 0) if single else images


def _gaussian_blur(operation: Any, images: Any) -> Any:
    bells = []
    for length, sigma in zip(operation.kernel_size, operation.sigma, strict=True):
        bell = np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / sigma) ** 2)
        bells.append(bell / bell.sum())
    kernel = np.outer(bells[1], bells[0]).reshape(operation.kernel_size)[:, :, None, None]

    def blur(batch: Any) -> Any:
        kernels = np.tile(kernel, (1, 1, batch.shape[-1], 1)).astype(batch.dtype)
        return ops.depthwise_conv(batch, kernels, padding="same", data_format="channels_last")

    return _batched(operation, images, blur)


def _sobel_edges(operation: Any, images: Any) -> Any:
    vertical = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    pair = np.stack([vertical, vertical.T], -1)[:, :, None, :]

    def edges(batch: Any) -> Any:
        channels = batch.shape[-1]
        framed = ops.pad(batch, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        kernels = np.tile(pair, (1, 1, channels, 1)).astype(batch.dtype)
        result = ops.depthwise_conv(framed, kernels, data_format="channels_last")
        return ops.reshape(result, (*ops.shape(batch)[:3], channels, 2))

    return _batched(operation, images, edges)


def _reflected(place: Any, size: Any) -> Any:
    """Reflect a coordinate at the edges of the image as TensorFlow's projective transform does."""
    below = place + 2 * size * ops.floor(-place / (2 * size))
    below = ops.where(below < -size, below + 2 * size, -below - 1.0)
    above = place - 2 * size * ops.floor(place / (2 * size))
    above = ops.where(above >= size, 2 * size - above - 1.0, above)
    return ops.where(place < 0, below, ops.where(place > size - 1.0, above, place))


def _wrapped(place: Any, size: Any) -> Any:
    span = ops.maximum(size - 1.0, 1.0)
    below = place + size * (ops.floor(-place / span) + 1.0)
    above = place - size * ops.floor(place / span)
    return ops.where(place < 0, below, ops.where(place > size - 1.0, above, place))


#: Mappings of coordinates outside the image to the inside; the results are then clipped to its edges.
_OUTSIDE = {"nearest": lambda place, _: place, "reflect": _reflected, "wrap": _wrapped}


def _sampled(
    images: Any, places: tuple[Any, Any], interpolation: str, fill_mode: str, fill_value: float
) -> Any:
    """Sample images `[n, h, w, c]` at coordinates (x, y) of shape `[n, h', w']`."""
    height, width = (ops.cast(size, "float32") for size in ops.shape(images)[1:3])
    x, y = places
    if fill_mode != "constant":
        x, y = (
            ops.clip(_OUTSIDE[fill_mode](place, size), 0.0, size - 1.0)
            for place, size in ((x, width), (y, height))
        )
    if interpolation == "nearest":
        return _picked(images, _half_away(x), _half_away(y), fill_value)
    left, top = ops.floor(x), ops.floor(y)
    total: Any = 0.0
    for dx, dy in itertools.product((0, 1), (0, 1)):
        weight = (x - left if dx else left + 1.0 - x) * (y - top if dy else top + 1.0 - y)
        picked = _picked(images, left + dx, top + dy, fill_value)
        total = total + ops.expand_dims(weight, -1) * ops.cast(picked, "float32")
    if not keras.backend.is_float_dtype(images.dtype):
        total = ops.cast(total, "int32")
    return ops.cast(total, images.dtype)


def _half_away(x: Any) -> Any:
    """Round half away from zero, as C does."""
    return ops.sign(x) * ops.floor(ops.abs(x) + 0.5)


def _picked(images: Any, x: Any, y: Any, fill_value: float) -> Any:
    """Return pixels at integer coordinates, and a fill value outside of the image."""
    count, height, width, channels = ops.shape(images)
    inside = ops.logical_and(
        ops.logical_and(x >= 0, x < ops.cast(width, x.dtype)),
        ops.logical_and(y >= 0, y < ops.cast(height, y.dtype)),
    )
    column = ops.cast(ops.where(inside, x, ops.zeros_like(x)), "int32")
    row = ops.cast(ops.where(inside, y, ops.zeros_like(y)), "int32")
    image = ops.reshape(ops.arange(count, dtype="int32"), (-1, 1, 1))
    index = (image * height + row) * width + column
    pixels = ops.take(ops.reshape(images, (-1, channels)), index, axis=0)
    return ops.where(ops.expand_dims(inside, -1), pixels, ops.cast(fill_value, images.dtype))


def project(
    images: Any, transform: Any, size: Any, *, interpolation: str, fill_mode: str, fill_value: float
) -> Any:
    """Sample images `[n, h, w, c]` where a projective transform maps each pixel of an image of some size."""
    rows, columns = (ops.cast(ops.arange(n, dtype="int32"), "float32") for n in size)
    x, y = ops.reshape(columns, (1, 1, -1)), ops.reshape(rows, (1, -1, 1))
    a = [ops.reshape(part, (-1, 1, 1)) for part in ops.unstack(ops.cast(transform, "float32"), 8, axis=-1)]
    scale = a[6] * x + a[7] * y + 1.0
    safe = ops.where(ops.equal(scale, 0), ops.ones_like(scale), scale)
    nowhere = ops.full_like(scale, -2.0)
    everywhere = ops.zeros_like(ops.cast(images[:, :1, :1, 0], "float32"))
    places = tuple(
        everywhere + ops.where(ops.equal(scale, 0), nowhere, place / safe)
        for place in (a[0] * x + a[1] * y + a[2], a[3] * x + a[4] * y + a[5])
    )
    return _sampled(images, places, interpolation, fill_mode, fill_value)


def _projected(operation: Any, images: Any, transform: Any, fill_mode: str) -> Any:
    def run(batch: Any) -> Any:
        return project(
            batch,
            transform,
            ops.shape(batch)[1:3],
            interpolation=operation.interpolation,
            fill_mode=fill_mode,
            fill_value=operation.fill_value,
        )

    return _batched(operation, images, run)


def _affine_transform(operation: Any, images: Any, transform: Any) -> Any:
    return _projected(operation, images, transform, operation.fill_mode)


def _perspective_transform(operation: Any, images: Any, start_points: Any, end_points: Any) -> Any:
    start, end = (ops.reshape(ops.cast(p, "float32"), (-1, 4, 2)) for p in (start_points, end_points))
    return _projected(operation, images, _homography(start, end), "constant")


def _homography(start: Any, end: Any) -> Any:
    """Solve for the eight parameters of the transform that maps each end point to its start point."""
    x, y = end[..., 0], end[..., 1]
    one, zero = ops.ones_like(x), ops.zeros_like(x)
    u, v = start[..., 0], start[..., 1]
    first = ops.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    second = ops.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    matrix = ops.reshape(ops.stack([first, second], axis=2), (-1, 8, 8))
    return ops.solve(matrix, ops.reshape(start, (-1, 8)))


def _fixed(index: Any, size: Any, fill_mode: str) -> tuple[Any, Any]:
    """Map integer coordinates inside; return them, and for the mode "constant" whether they were inside."""
    if fill_mode in ("constant", "nearest"):
        inside = ops.logical_and(index >= 0, index < size) if fill_mode == "constant" else None
        return ops.clip(index, 0, size - 1), inside
    if fill_mode == "wrap":
        return ops.mod(index, size), None
    place = ops.mod(ops.abs(index), 2 * size)
    over = 2 * size - place - (1 if fill_mode == "reflect" else 0)
    return ops.where(place < size, place, over), None


@HANDLERS.register("image.MapCoordinates")
def map_coordinates(g: Lowering, operation: Any, inputs: ir.Value, coordinates: ir.Value) -> Any:
    """Sample at fractional coordinates: the nearest element, or linear interpolation."""
    if operation.order > 1:
        raise g.refuse(f"`map_coordinates` of order {operation.order}", "use the order 0 or 1")
    return g.call(lambda x, places: _map_coordinates(operation, x, places), inputs, coordinates)


def _map_coordinates(operation: Any, inputs: Any, coordinates: Any) -> Any:
    sizes = ops.shape(inputs)
    fractional = keras.backend.is_float_dtype(coordinates.dtype)
    nodes = []
    for axis, size in enumerate(sizes):
        place = coordinates[axis]
        lower = ops.floor(place) if operation.order and fractional else place
        if not operation.order:
            index = ops.cast(ops.round(place) if fractional else place, "int32")
            nodes.append([(*_fixed(index, size, operation.fill_mode), None)])
            continue
        share = place - lower
        index = ops.cast(lower, "int32")
        nodes.append(
            [
                (*_fixed(index, size, operation.fill_mode), 1 - share),
                (*_fixed(index + 1, size, operation.fill_mode), share),
            ]
        )
    flat = ops.reshape(inputs, (-1,))
    total = sum(
        _corner(flat, corner, sizes, operation, coordinates.dtype) for corner in itertools.product(*nodes)
    )
    integers = not keras.backend.is_float_dtype(inputs.dtype)
    return ops.cast(ops.round(total) if integers and fractional else total, inputs.dtype)


def _corner(flat: Any, corner: Sequence[Any], sizes: Sequence[Any], operation: Any, dtype: str) -> Any:
    """Return one neighbour's weighted contribution."""
    index: Any = 0
    for (place, _, _), size in zip(corner, sizes, strict=True):
        index = index * size + place
    picked = ops.cast(ops.take(flat, index, axis=0), dtype)
    for _, inside, _ in corner:
        if inside is not None:
            picked = ops.where(inside, picked, ops.cast(operation.fill_value, dtype))
    weights = [weight for _, _, weight in corner if weight is not None]
    return math.prod(weights[1:], start=weights[0]) * picked if weights else picked


_COMPOSITES = {
    "image.AffineTransform": _affine_transform,
    "image.GaussianBlur": _gaussian_blur,
    "image.HSVToRGB": _hsv_to_rgb,
    "image.PerspectiveTransform": _perspective_transform,
    "image.RGBToGrayscale": _rgb_to_grayscale,
    "image.RGBToHSV": _rgb_to_hsv,
    "image.SobelEdges": _sobel_edges,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))


@HANDLERS.register("tensorflow.CropAndResize")
def crop_and_resize(
    g: Lowering,
    attributes: Mapping[str, Any],
    images: ir.Value,
    boxes: ir.Value,
    box_images: ir.Value,
    size: ir.Value,
) -> Any:
    """Sample boxes [n, (y, x, y, x)] of images, in relative coordinates, at the points of a grid."""
    nearest = attributes.get("method", "bilinear") in ("nearest", b"nearest")
    fill = float(attributes.get("extrapolation_value", 0.0))

    def run(pixels: Any, corners: Any, which: Any, target: Any) -> Any:
        pixels = ops.cast(pixels, "float32")
        places = [_grid(corners, pixels, axis, target[axis]) for axis in (0, 1)]
        shape = (-1, target[0], target[1])
        y, x = (
            ops.broadcast_to(ops.expand_dims(place, 2 - axis), (ops.shape(corners)[0], *shape[1:]))
            for axis, place in enumerate(places)
        )
        chosen = ops.take(pixels, which, axis=0)
        inside = _within(y, ops.shape(pixels)[1]) & _within(x, ops.shape(pixels)[2])
        found = _sampled(chosen, (x, y), "nearest" if nearest else "bilinear", "nearest", 0.0)
        return ops.where(ops.expand_dims(inside, -1), found, fill)

    return g.call(run, images, boxes, box_images, size)


def _grid(boxes: Any, images: Any, axis: int, count: Any) -> Any:
    """Return the coordinates of grid points along an axis of images, computed in TensorFlow's order."""
    last = ops.cast(ops.shape(images)[1 + axis] - 1, "float32")
    first, end = boxes[:, axis, None], boxes[:, axis + 2, None]
    between = ops.cast(count, "float32") - 1.0
    several = first * last + ops.cast(ops.arange(count), "float32") * ((end - first) * last / between)
    return ops.where(ops.equal(count, 1), 0.5 * (first + end) * last, several)


def _within(place: Any, size: Any) -> Any:
    return ops.logical_and(place >= 0, place <= ops.cast(size - 1, "float32"))
