"""Operations that move space to depth: blocks of pixels as channels, sliding windows as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, write
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()


def _blocks(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        last = operation.data_format == "channels_last"
        x = g.op.Transpose(x, perm=[0, 3, 1, 2]) if last else x
        x = write(g, onnx_op, x, blocksize=operation.block_size)
        return g.op.Transpose(x, perm=[0, 2, 3, 1]) if last else x

    return handler


HANDLERS.add("nn.DepthToSpace", _blocks("DepthToSpace"))
HANDLERS.add("nn.SpaceToDepth", _blocks("SpaceToDepth"))


def windows(
    images: Any, size: Sequence[int], strides: Sequence[int], rates: Sequence[int], padding: str
) -> Any | None:
    """Return the windows of `[n, *spatial, channels]`, each as the channels of one position.

    TensorFlow and Keras convolve with an identity matrix; here pixels are only copied. Returns None if the
    padding depends on a dynamic size.
    """
    spatial = list(images.shape[1:-1])
    extents = [(window - 1) * rate + 1 for window, rate in zip(size, rates, strict=True)]
    if padding == "same":
        if any(full is None and stride > 1 for full, stride in zip(spatial, strides, strict=True)):
            return None
        margins = [_margin(*each) for each in zip(spatial, extents, strides, strict=True)]
        if any(sum(each) for each in margins):
            images = ops.pad(images, [(0, 0), *margins, (0, 0)])
            spatial = list(images.shape[1:-1])
    if list(strides) == list(size) == extents and None not in images.shape[1:]:
        return _tiles(images, size, [full // window for full, window in zip(spatial, size, strict=True)])
    for axis in reversed(range(len(size))):
        images = _along(images, 1 + axis, size[axis], strides[axis], rates[axis])
    return images


def _margin(full: int | None, extent: int, stride: int) -> tuple[int, int]:
    """Return the numbers of zeros that TensorFlow adds before and after an axis for `SAME`."""
    total = extent - 1 if full is None else max((-(-full // stride) - 1) * stride + extent - full, 0)
    return total // 2, total - total // 2


def _tiles(images: Any, size: Sequence[int], counts: Sequence[int]) -> Any:
    """Return windows that neither overlap nor leave gaps, by reordering axes."""
    count = len(size)
    whole = tuple(slice(0, window * many) for window, many in zip(size, counts, strict=True))
    images = images[(slice(None), *whole)]
    split = [each for pair in zip(counts, size, strict=True) for each in pair]
    places, within = range(1, 2 * count, 2), range(2, 2 * count + 1, 2)
    images = ops.reshape(images, (-1, *split, images.shape[-1]))
    images = ops.transpose(images, (0, *places, *within, 2 * count + 1))
    return ops.reshape(images, (-1, *counts, int(np.prod(images.shape[1 + count :]))))


def _along(images: Any, axis: int, window: int, stride: int, rate: int) -> Any:
    """Return windows along one axis: for each of their elements a slice of the images, joined as channels."""
    behind = [(window - 1 - element) * rate for element in range(window)]
    before = (slice(None),) * axis
    parts = [
        images[(*before, slice(element * rate, -rest if rest else None, stride))]
        for element, rest in enumerate(behind)
    ]
    return ops.concatenate(parts, axis=-1) if window > 1 else parts[0]


def _extract_patches(operation: Any, images: Any) -> Any:
    count = len(operation.size)
    first = operation.data_format == "channels_first"
    single = len(images.shape) == count + 1
    batch = images[None] if single else images
    batch = ops.moveaxis(batch, 1, -1) if first else batch
    strides, rates = (_each(x, count) for x in (operation.strides or operation.size, operation.dilation_rate))
    patches = windows(batch, operation.size, strides, rates, operation.padding)
    if patches is None:
        return operation.call(images)
    patches = ops.moveaxis(patches, -1, 1) if first else patches
    return patches[0] if single else patches


HANDLERS.add("image.ExtractPatches", composite(_extract_patches))


@HANDLERS.register("tensorflow.ExtractImagePatches")
@HANDLERS.register("tensorflow.ExtractVolumePatches")
def extract_patches(g: Lowering, attributes: Mapping[str, Any], images: ir.Value) -> Any:
    """Extract windows of images or volumes; sizes, strides and rates are given for all axes."""
    size = attributes["ksizes"][1:-1]
    rates = attributes.get("rates", [1] * (len(size) + 2))[1:-1]
    padding = attributes["padding"].lower()
    patches = g.call(lambda x: windows(x, size, attributes["strides"][1:-1], rates, padding), images)
    if patches is None:
        raise ValueError("padding SAME with strides needs images of a known size")
    return patches


def _each(x: int | Sequence[int], count: int) -> list[int]:
    return [x] * count if isinstance(x, int) else list(x)


@HANDLERS.register("nn.Unfold")
def unfold(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Extract sliding windows of `[n, c, h, w]` as columns, by a convolution with an identity matrix."""
    assert x.shape is not None
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise g.refuse("it unfolds an image whose number of channels is not known", "fix the channels")
    kernel = _each(operation.kernel_size, 2)
    depth = channels * kernel[0] * kernel[1]
    identity = np.eye(depth).reshape(depth, channels, *kernel)
    patches = g.op.Conv(
        x,
        operand(g, identity, g.output_dtype),
        kernel_shape=kernel,
        dilations=_each(operation.dilation, 2),
        pads=_each(operation.padding, 2) * 2,
        strides=_each(operation.stride, 2),
    )
    return g.op.Reshape(patches, [0, depth, -1])


@HANDLERS.register("nn.Fold")
def fold(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Add up columns as sliding windows of an image."""
    assert rank(x) == 3
    return g.op.Col2Im(
        x,
        _each(operation.output_size, 2),
        _each(operation.kernel_size, 2),
        dilations=_each(operation.dilation, 2),
        pads=_each(operation.padding, 2) * 2,
        strides=_each(operation.stride, 2),
    )
