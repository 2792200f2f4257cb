"""Indexing operations: slices, gathers, scatters, diagonals, triangles, one-hot codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, reduce, size
from kerve.compiler.lowering.ops.shaping import expand, transposed
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.slices import may_begin_before, span
from kerve.compiler.lowering.symbol import is_symbol

HANDLERS = Handlers()

_TO_THE_END = np.iinfo(np.int64).max
_TO_THE_FRONT = np.iinfo(np.int64).min


@HANDLERS.register("numpy.GetItem", typed=True)
def get_item(g: Lowering, _: Any, x: ir.Value, key: Any) -> ir.Value:
    """`x[key]` with slices, integers, `None`, `...` and scalar tensors, which drop their axis."""
    parts = _full_key(key if isinstance(key, tuple | list) else (key,), rank(x))
    consuming = [part for part in parts if part is not None]
    slices = {axis: part for axis, part in enumerate(consuming) if isinstance(part, slice)}
    numbers = {axis: int(part) for axis, part in enumerate(consuming) if isinstance(part, int | np.integer)}
    tensors = {
        axis: part for axis, part in enumerate(consuming) if axis not in slices and axis not in numbers
    }
    slices = {axis: part for axis, part in slices.items() if part != slice(None)}
    if len(numbers) > 1 or (numbers and slices):
        slices |= {axis: slice(at, at + 1 if at != -1 else None) for axis, at in numbers.items()}
        x = g.op.Squeeze(_sliced(g, x, slices), sorted(numbers))
    else:
        x = _sliced(g, x, slices)
        for axis, at in numbers.items():
            x = g.op.Gather(x, g.constant(np.int64(at), "index"), axis=axis)
    for axis, index in sorted(tensors.items(), reverse=True):
        gone = sum(1 for other in numbers if other < axis)
        x = g.op.Gather(x, operand(g, g.unwrap(index), ir.DataType.INT64), axis=axis - gone)
    kept = [part for part in parts if part is None or isinstance(part, slice)]
    new_axes = [axis for axis, part in enumerate(kept) if part is None]
    return g.op.Unsqueeze(x, new_axes) if new_axes else x


def _full_key(key: Sequence[Any], ndim: int) -> list[Any]:
    """Replace `...` by full slices of all axes that no other part indexes."""
    parts = list(key)
    places = [place for place, part in enumerate(parts) if part is Ellipsis] or [len(parts)]
    consumed = sum(1 for part in parts if part is not None and part is not Ellipsis)
    parts[places[0] : places[0] + 1] = [slice(None)] * (ndim - consumed)
    return parts


def _sliced(g: Lowering, x: ir.Value, slices: dict[int, slice]) -> ir.Value:
    if not slices:
        return x
    if spans := {axis: span(part) for axis, part in slices.items() if may_begin_before(part)}:
        x = _sliced(g, x, spans)
        slices = slices | {axis: slice(None, None, slices[axis].step) for axis in spans}
    steps = [1 if part.step is None else int(part.step) for part in slices.values()]
    starts, stops = [], []
    for part, step in zip(slices.values(), steps, strict=True):
        starts.append((0 if step > 0 else _TO_THE_END) if part.start is None else size(g, part.start))
        stops.append(
            (_TO_THE_END if step > 0 else _TO_THE_FRONT) if part.stop is None else size(g, part.stop)
        )
    constant_steps = steps if any(step != 1 for step in steps) else None
    result = g.op.Slice(x, g.shape(starts), g.shape(stops), list(slices), constant_steps)
    if result.shape is None:
        assert x.shape is not None
        result.shape = ir.Shape(None if axis in slices else dim for axis, dim in enumerate(x.shape))
    return result


@HANDLERS.register("core.Slice")
def slice_(g: Lowering, operation: Any, inputs: ir.Value, start_indices: Any) -> ir.Value:
    """A slice of a given shape from given start indices."""
    starts = _vector(g, start_indices)
    lengths = _vector(g, operation.shape)
    stops = g.op.Add(starts, lengths)
    if -1 in [dim for dim in keras.tree.flatten(operation.shape) if isinstance(dim, int)]:
        stops = g.op.Where(g.op.Equal(lengths, -1), g.op.Shape(inputs), stops)
    return g.op.Slice(inputs, starts, stops, list(range(rank(inputs))))


def _vector(g: Lowering, x: Any) -> ir.Value:
    """Return a list of numbers and scalar tensors, or a tensor, as INT64 [n]."""
    if isinstance(x, ir.Value) or is_symbol(x):
        return g.op.Reshape(g.cast(g.unwrap(x), "int64"), [-1])
    return g.shape([size(g, dim) for dim in x])


@HANDLERS.register("core.SliceUpdate")
def slice_update(g: Lowering, _: Any, inputs: ir.Value, start_indices: Any, updates: Any) -> ir.Value:
    """Replace a slice by another tensor; start indices are clamped so that it lies inside."""
    updates = operand(g, updates, g.output_dtype)
    whole, box = g.op.Shape(inputs), g.op.Shape(updates)
    room = g.op.Sub(whole, box)
    starts = g.op.Max(g.op.Min(_vector(g, start_indices), room), g.constant(np.int64(0), "zero"))
    margins = g.op.Concat(starts, g.op.Sub(room, starts), axis=0)
    inside = g.op.Pad(g.op.Expand(g.constant(np.int32(1), "inside"), box), margins)
    return g.op.Where(g.cast(inside, "bool"), g.op.Pad(updates, margins), inputs)


@HANDLERS.register("core.Scatter")
def scatter(g: Lowering, operation: Any, indices: Any, values: Any) -> ir.Value:
    """Add values at indices of a tensor of zeros."""
    values = operand(g, values, g.output_dtype)
    zeros = expand(g, operand(g, 0, g.output_dtype), operation.shape)
    return _scatter_nd(g, zeros, g.unwrap(indices), values, "add")


@HANDLERS.register("core.ScatterUpdate")
def scatter_update(g: Lowering, operation: Any, inputs: ir.Value, indices: Any, updates: Any) -> ir.Value:
    """Set, add, multiply, or take the minimum or maximum of, values at indices."""
    return _scatter_nd(g, inputs, indices, updates, operation.reduction or "none")


def _scatter_nd(g: Lowering, x: Any, indices: Any, updates: Any, reduction: str) -> ir.Value:
    x = operand(g, x, g.output_dtype)
    return g.op.ScatterND(
        x, operand(g, indices, ir.DataType.INT64), operand(g, updates, g.output_dtype), reduction=reduction
    )


@HANDLERS.register("numpy.Take")
def take(g: Lowering, operation: Any, x: Any, indices: Any) -> ir.Value:
    """Slices at indices along an axis; negative ones count from the end."""
    axis = operation.axis
    x = operand(g, x, g.output_dtype)
    if axis is None:
        x, axis = g.op.Reshape(x, [-1]), 0
    return g.op.Gather(x, _index(g, indices), axis=axis)


def _index(g: Lowering, indices: Any) -> ir.Value:
    """Return indices in a type that Gather accepts."""
    given = isinstance(indices, ir.Value) and indices.dtype in (ir.DataType.INT32, ir.DataType.INT64)
    return indices if given else operand(g, indices, ir.DataType.INT64)


@HANDLERS.register("numpy.TakeAlongAxis")
def take_along_axis(g: Lowering, operation: Any, x: ir.Value, indices: Any) -> ir.Value:
    """Elements at indices along an axis, the other axes broadcast against each other."""
    indices, axis = _index(g, indices), operation.axis
    if axis is None:
        x, axis = g.op.Reshape(x, [-1]), 0
    assert x.shape is not None
    assert indices.shape is not None
    axis %= rank(x)
    others = [index for index in range(rank(x)) if index != axis]
    if any(x.shape[index] != indices.shape[index] for index in others):
        x, indices = (
            _broadcast_but(g, first, second, axis) for first, second in ((x, indices), (indices, x))
        )
    return g.op.GatherElements(x, indices, axis=axis)


def _broadcast_but(g: Lowering, x: ir.Value, other: ir.Value, axis: int) -> ir.Value:
    return expand(g, x, [1 if index == axis else g.dim(other, index) for index in range(rank(x))])


@HANDLERS.register("nn.OneHot")
def one_hot(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """One where the index on the new axis equals the element; all zeros for elements out of range."""
    axis = operation.axis % (rank(x) + 1)
    places = np.arange(operation.num_classes).reshape([-1] + [1] * (rank(x) - axis))
    number = g.op.Unsqueeze(operand(g, x, ir.DataType.INT64), [axis])
    return g.cast(g.op.Equal(number, g.constant(places, "classes")), g.output_dtype)


def _multi_hot(operation: Any, inputs: Any) -> Any:
    codes = ops.one_hot(inputs, operation.num_classes, axis=operation.axis, dtype=operation.dtype)
    return ops.max(codes, axis=1 if len(inputs.shape) > 1 else 0)


def _triangle(upper: int) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        k = operation.k
        return g.op.Trilu(x, operand(g, g.unwrap(k), ir.DataType.INT64), upper=upper)

    return handler


HANDLERS.add("numpy.Tril", _triangle(0))
HANDLERS.add("numpy.Triu", _triangle(1))


@HANDLERS.register("numpy.Diagonal")
def diagonal(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The elements whose two indices differ by the offset."""
    return _diagonal(g, x, operation.offset, operation.axis1 % rank(x), operation.axis2 % rank(x))


def _diagonal(g: Lowering, x: ir.Value, offset: int, axis1: int, axis2: int) -> ir.Value:
    """Flatten the two axes and gather elements in steps of a row and one element."""
    others = [axis for axis in range(rank(x)) if axis not in (axis1, axis2)]
    x = transposed(g, x, [*others, axis1, axis2])
    assert x.shape is not None
    rows, columns = x.shape[-2], x.shape[-1]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise g.refuse(
            "it takes a diagonal of a matrix whose size is not known", "fix the sizes of these axes"
        )
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    first = max(offset, 0) + max(-offset, 0) * columns
    places = first + np.arange(length) * (columns + 1)
    flat = g.op.Reshape(x, [*([0] * len(others)), rows * columns])
    return g.op.Gather(flat, g.constant(places.astype(np.int64), "places"), axis=-1)


@HANDLERS.register("numpy.Trace")
def trace(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The sum of a diagonal."""
    x = g.cast(x, g.output_dtype)
    values = _diagonal(g, x, operation.offset, operation.axis1 % rank(x), operation.axis2 % rank(x))
    return reduce(g, "ReduceSum", values, -1, keepdims=False)


@HANDLERS.register("numpy.Diag", "numpy.Diagflat")
def diag(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """A vector as the diagonal of a matrix, or the diagonal of a matrix."""
    if type(operation).__name__ == "Diagflat":
        x = g.op.Reshape(x, [-1])
    elif rank(x) == 2:
        return _diagonal(g, x, operation.k, 0, 1)
    k = operation.k
    before, after = max(-k, 0), max(k, 0)
    length = g.op.Shape(x)
    numbers = g.op.Range(
        g.constant(np.int64(0), "first"), g.op.Squeeze(length), g.constant(np.int64(1), "step")
    )
    on_diagonal = g.op.Equal(g.op.Unsqueeze(numbers, [1]), g.op.Unsqueeze(numbers, [0]))
    matrix = g.op.Where(on_diagonal, g.op.Unsqueeze(x, [0]), operand(g, 0, g.output_dtype))
    return g.op.Pad(matrix, [before, after, after, before]) if k else matrix


def _unravel_index(operation: Any, indices: Any) -> tuple[Any, ...]:
    coordinates = []
    for dim in reversed(operation.shape):
        coordinates.append(ops.cast(indices % dim, indices.dtype))
        indices = indices // dim
    return tuple(reversed(coordinates))


HANDLERS.add("nn.MultiHot", composite(_multi_hot), typed=True)
HANDLERS.add("numpy.UnravelIndex", composite(_unravel_index))
