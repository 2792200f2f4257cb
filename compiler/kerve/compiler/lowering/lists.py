"""TensorFlow's lists of tensors, as used by `tf.TensorArray`, `tf.map_fn` and `tf.scan`.

A list is represented as one tensor with an additional first axis, since its elements have one shape (as
stacking requires). ONNX's own sequences would allow elements of several shapes, but few operators and hardly
any pass support them, and lists are stacked in the end. The shape of the elements may be unknown until the
first is written: until then, a list that a loop carries has its length and elements of size zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from kerve.compiler.errors import ConversionError

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = [
    "Dims",
    "TensorList",
    "blank",
    "joined",
    "known_dims",
    "put",
    "resized",
    "scalar",
    "sized",
    "vector",
]

#: The sizes of an element, None where one is not known; None for an unknown rank.
Dims = Sequence[int | None] | None


@dataclass(frozen=True)
class TensorList:
    """A list: its elements, or only their number before the first is written."""

    dtype: ir.DataType
    dims: Dims
    #: INT64 [1].
    size: ir.Value | None = None
    #: [size, *dims].
    items: ir.Value | None = None

    @classmethod
    def of(cls, items: ir.Value) -> TensorList:
        """Return the list of the slices of a tensor along its first axis."""
        assert items.dtype is not None
        return cls(items.dtype, known_dims(items, 1), items=items)

    def length(self, g: Lowering) -> ir.Value:
        """Return the number of elements, INT64 [1]."""
        if self.items is None:
            assert self.size is not None
            return self.size
        return g.op.Shape(self.items, start=0, end=1)

    def tensor(self, g: Lowering) -> ir.Value:
        """Return the elements as a tensor: zeros if none was written; unknown dimensions are 0."""
        if self.items is not None:
            return self.items
        if self.dims is None:
            raise ConversionError(
                "the rank of the elements of a list is not known; give tf.TensorArray the element_shape"
            )
        widths = g.constant(np.array([size or 0 for size in self.dims], np.int64), "shape")
        return _zeros(g, self.dtype, g.op.Concat(self.length(g), widths, axis=0), self.dims)


def known_dims(value: ir.Value, first: int = 0) -> Dims:
    """Return the sizes of a tensor from axis `first` on."""
    if value.shape is None:
        return None
    return [size if isinstance(size, int) else None for size in value.shape[first:]]


def sized(first: Dims, second: Dims) -> Dims:
    """Merge two partially known descriptions of the same shape."""
    if first is None or second is None or len(first) != len(second):
        return second if first is None else first
    return [b if a is None else a for a, b in zip(first, second, strict=True)]


def scalar(g: Lowering, x: ir.Value) -> ir.Value:
    """Return an integer as INT64 []."""
    return g.op.Reshape(g.cast(x, "int64"), g.constant(np.zeros(0, np.int64), "scalar"))


def vector(g: Lowering, x: ir.Value) -> ir.Value:
    """Return an integer as INT64 [1]."""
    return g.op.Reshape(g.cast(x, "int64"), [1])


def resized(g: Lowering, elements: TensorList, size: ir.Value) -> TensorList:
    """Truncate a list to `size` elements, or append zeros."""
    if elements.items is None:
        return TensorList(elements.dtype, elements.dims, size)
    kept = g.op.Slice(elements.items, [0], size, [0])
    kept.type, kept.shape = elements.items.type, _shape(None, elements.dims)
    missing = g.op.Max(g.op.Sub(size, elements.length(g)), g.constant(np.zeros(1, np.int64), "none"))
    return joined(g, [kept, blank(g, kept, missing)])


def joined(g: Lowering, parts: Sequence[ir.Value]) -> TensorList:
    """Concatenate lists."""
    if len(parts) == 1:
        return TensorList.of(parts[0])
    whole = g.op.Concat(*parts, axis=0)
    whole.type, whole.shape = parts[0].type, _shape(None, TensorList.of(parts[0]).dims)
    return TensorList.of(whole)


def put(g: Lowering, elements: TensorList, places: ir.Value, written: ir.Value) -> TensorList:
    """Write slices of `written` at `places` (INT64 [n])."""
    into = _as_wide(g, elements, written)
    result = g.op.ScatterND(into, g.op.Unsqueeze(places, [1]), written)
    result.type, result.shape = into.type, into.shape
    return TensorList.of(result)


def _as_wide(g: Lowering, elements: TensorList, written: ir.Value) -> ir.Value:
    """Return the tensor of a list, padded to the width of the elements to be written."""
    dims = TensorList.of(written).dims
    if dims is None:
        raise TypeError("the rank of what is written into a list is not known")
    if elements.items is None:
        full = g.op.Concat(elements.length(g), g.op.Shape(written, start=1), axis=0)
        return _zeros(g, elements.dtype, full, dims)
    tensor, have = elements.items, TensorList.of(elements.items).dims
    if have is not None and None not in have:
        return tensor
    # The list has its full width or still width 0. ScatterND rejects elements of another shape.
    lacking = g.op.Sub(g.op.Shape(written, start=1), g.op.Shape(tensor, start=1))
    none = g.constant(np.zeros(1 + len(dims), np.int64), "none")
    lacking = g.op.Max(g.op.Concat(g.constant(np.zeros(1, np.int64), "none"), lacking, axis=0), none)
    wide = g.op.Pad(tensor, g.op.Concat(none, lacking, axis=0))
    wide.type, wide.shape = tensor.type, _shape(None, have or dims)
    return wide


def blank(g: Lowering, alike: ir.Value, count: ir.Value) -> ir.Value:
    """Return `count` (INT64 [1]) zeros shaped like the slices of a tensor."""
    assert alike.dtype is not None
    full = g.op.Concat(count, g.op.Shape(alike, start=1), axis=0)
    return _zeros(g, alike.dtype, full, TensorList.of(alike).dims)


def _zeros(g: Lowering, dtype: ir.DataType, shape: ir.Value, dims: Dims) -> ir.Value:
    texts = dtype == ir.DataType.STRING
    zero = g.constant(np.array([""], object) if texts else np.zeros(1, dtype.numpy()), "nothing")
    zeros = g.op.Expand(zero, shape)
    zeros.dtype, zeros.shape = dtype, _shape(None, dims)
    return zeros


def _shape(size: int | None, dims: Dims) -> ir.Shape | None:
    return None if dims is None else ir.Shape([size, *dims])
