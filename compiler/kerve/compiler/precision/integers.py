"""Quantization of floats to integers: `real = scale * (integer - zero_point)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["Affine", "affine", "blockwise", "per_channel"]

_INT8_LARGEST = 127
_UINT8_LARGEST = 255
_INT4_LARGEST = 7

#: Smaller scales are subnormal, with too few digits to divide by.
_LEAST = np.finfo(np.float32).smallest_normal

#: Clipping limits to try, as shares of a block's largest element.
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


#: The number of elements quantized at once.
_SLAB = 1 << 20


class Affine(NamedTuple):
    """The quantization parameters of an activation in uint8."""

    scale: np.float32
    zero_point: np.uint8


def affine(low: float, high: float) -> Affine:
    """Return parameters that map [low, high], widened to include 0, to all of uint8; 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / _UINT8_LARGEST)
    if scale < _LEAST:
        return Affine(np.float32(1.0), np.uint8(0))
    return Affine(scale, np.uint8(np.clip(round(-low / float(scale)), 0, _UINT8_LARGEST)))


def per_channel(
    weight: NDArray[Any], axes: tuple[int, ...], least: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 elements and one scale for each channel; `axes` are those within a channel.

    The scale keeps these axes with size 1. No scale is below `least`, if given. Zero points are zero.
    """
    largest = np.maximum(weight.max(axes, keepdims=True), -weight.min(axes, keepdims=True))
    scale = _scale(largest, _INT8_LARGEST)
    if least is not None:
        scale = np.maximum(scale, least.reshape(scale.shape))
    integers = np.empty(weight.shape, np.int8)
    for rows in _slabs(len(weight), weight.size):
        real = weight[rows] / (scale if len(scale) == 1 else scale[rows])
        integers[rows] = np.clip(np.rint(real, out=real), -_INT8_LARGEST, _INT8_LARGEST, out=real)
    return integers, scale


def _slabs(length: int, elements: int) -> Iterator[slice]:
    """Yield slices of an array's axis, to limit the size of temporary arrays."""
    step = max(1, _SLAB * length // max(elements, 1))
    yield from (slice(start, start + step) for start in range(0, length, step))


def blockwise(weight: NDArray[Any], block: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the elements of a matrix [k, n] in int4, and scales [ceil(k / block), n].

    In each block of `block` rows of a column, the largest elements are clipped if that reduces the block's
    mean square error.
    """
    rows, columns = weight.shape
    integers = np.empty(weight.shape, ml_dtypes.int4)
    scales = np.empty((-(-rows // block), columns), np.float32)
    for part in _slabs(columns, weight.size):
        integers[:, part], scales[:, part] = _blocks(weight[:, part], block)
    return integers, scales


def _blocks(weight: NDArray[Any], block: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    rows, columns = weight.shape
    count = -(-rows // block)
    padded = np.zeros((count * block, columns), np.float32)
    padded[:rows] = weight
    blocks = padded.reshape(count, block, columns)
    largest = np.abs(blocks).max(axis=1)
    full = _scale(largest, _INT4_LARGEST)
    best, least = full, np.full_like(full, np.inf)
    for clip in _CLIPS:
        scale = full * np.float32(clip)
        error = np.square(_round4(blocks, scale) * scale[:, None] - blocks).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    integers = _round4(blocks, best).reshape(count * block, columns)[:rows]
    return integers.astype(ml_dtypes.int4), best


def _scale(largest: NDArray[Any], steps: int) -> NDArray[np.float32]:
    """Return scales that map the largest elements to `steps`, or 1 for elements too small to represent."""
    scale = (largest / steps).astype(np.float32)
    return np.where(scale < _LEAST, np.float32(1.0), scale)


def _round4(blocks: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    rounded: NDArray[np.float32] = np.clip(np.rint(blocks / scale[:, None]), -_INT4_LARGEST, _INT4_LARGEST)
    return rounded
