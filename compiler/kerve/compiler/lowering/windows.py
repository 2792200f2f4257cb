"""Sliding windows of convolutions and pooling over the spatial axes, in the terms of Keras and of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.symbol import static_shape

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = [
    "Windows",
    "each",
    "from_channels_first",
    "padded",
    "spatial_sizes",
    "to_channels_first",
    "transposed",
]


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution or pooling, with one number per spatial axis."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    #: "valid", "same" (evenly before and after, an odd one after) or "causal" (all before).
    padding: str

    @staticmethod
    def of(sizes: Any, strides: Any, padding: str, dilations: Any = 1) -> Windows:
        """Make windows from Keras's arguments, which may be one number for all axes."""
        sizes = tuple(int(size) for size in sizes)
        return Windows(sizes, each(strides, len(sizes)), each(dilations, len(sizes)), padding.lower())

    @property
    def extents(self) -> tuple[int, ...]:
        """The extents of a window, dilation included."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.sizes, self.dilations, strict=True))

    def pads(self, sizes: Sequence[int | None]) -> list[int] | None:
        """Return ONNX's `pads` for an input of these spatial sizes; None if they depend on a dynamic one."""
        pairs = [
            _pad(self.padding, size, extent, stride)
            for size, extent, stride in zip(sizes, self.extents, self.strides, strict=True)
        ]
        known = [pair for pair in pairs if pair is not None]
        if len(known) < len(pairs):
            return None
        return [begin for begin, _ in known] + [end for _, end in known]

    def attributes(self, sizes: Sequence[int | None]) -> dict[str, Any]:
        """Return the attributes of ONNX's Conv and pools for an input of these spatial sizes.

        Where attributes cannot express the padding (see `pads_in_graph`), the input must
        have been `padded`.
        """
        pads = self.pads(sizes)
        dilations = {"dilations": self.dilations} if max(self.dilations) > 1 else {}
        padding = {"auto_pad": "SAME_UPPER"} if pads is None else {"pads": pads}
        return {"kernel_shape": self.sizes, "strides": self.strides, **dilations, **padding}

    def pads_in_graph(self, sizes: Sequence[int | None]) -> bool:
        """Whether the padding depends on a dynamic size in a way that `auto_pad` does not support.

        `auto_pad` ignores dilations, and crops the input if windows are smaller than strides.
        """
        dilated = max(self.dilations) > 1
        sparse = any(size < stride for size, stride in zip(self.sizes, self.strides, strict=True))
        return (dilated or sparse) and self.pads(sizes) is None


def padded(g: Lowering, x: ir.Value, windows: Windows, value: ir.Value | None = None) -> ir.Value:
    """Pad `x` (channels first) by amounts that are computed from its sizes at run time."""
    strides, extents = (np.array(numbers, np.int64) for numbers in (windows.strides, windows.extents))
    sizes = g.op.Shape(x, start=2)
    steps = g.op.Div(g.op.Sub(sizes, 1), g.constant(strides))
    reach = g.op.Add(g.op.Mul(steps, g.constant(strides)), g.constant(extents))
    total = g.op.Max(g.op.Sub(reach, sizes), g.constant(np.int64(0)))
    before = g.op.Div(total, 2)
    outer = g.constant(np.zeros(2, np.int64))
    return g.op.Pad(x, g.op.Concat(outer, before, outer, g.op.Sub(total, before), axis=0), value)


def spatial_sizes(x: ir.Value) -> tuple[int | None, ...]:
    """Return the spatial sizes of a value in channels first; None where they are dynamic."""
    return static_shape(x)[2:]


def to_channels_first(g: Lowering, x: ir.Value, data_format: str) -> ir.Value:
    """Return `x` as ONNX's spatial operators take it: [batch, channels, *spatial]."""
    if data_format == "channels_first":
        return x
    rank = len(static_shape(x))
    return g.op.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def from_channels_first(g: Lowering, x: ir.Value, data_format: str) -> ir.Value:
    """Return the result of an ONNX operator in the layout of the Keras layer."""
    if data_format == "channels_first":
        return x
    rank = len(static_shape(x))
    return g.op.Transpose(x, perm=[0, *range(2, rank), 1])


def transposed(g: Lowering, x: ir.Value, order: Sequence[int]) -> ir.Value:
    """Return `x` with its axes in the given order."""
    return x if list(order) == list(range(len(order))) else g.op.Transpose(x, perm=list(order))


def each(value: Any, count: int) -> tuple[int, ...]:
    """Return one number per axis; a single number applies to all axes."""
    return (int(value),) * count if isinstance(value, int) else tuple(int(item) for item in value)


def _pad(padding: str, size: int | None, extent: int, stride: int) -> tuple[int, int] | None:
    """Return the padding before and after one axis, None if it depends on a dynamic size."""
    if padding == "valid" or extent == 1:
        return 0, 0
    if padding == "causal":
        return extent - 1, 0
    if stride == 1:
        total = extent - 1
    elif size is None:
        return None
    else:
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2
