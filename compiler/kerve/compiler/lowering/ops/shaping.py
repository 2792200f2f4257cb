"""Operations that only rearrange elements: reshaping, joining, splitting, repeating, padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import (
    axes_of,
    composite,
    moved,
    operand,
    rank,
    reshape,
    size,
    sizes,
    split_evenly,
)
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import is_symbol

HANDLERS = Handlers()


@HANDLERS.register("numpy.Reshape")
def reshape_(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Reshape to a shape that may contain -1 and dynamic sizes."""
    target = operation.newshape
    if is_symbol(target) or isinstance(target, ir.Value):
        return g.op.Reshape(x, g.cast(g.unwrap(target), "int64"))
    if g.spec is not None and None not in g.output_shape:  # otherwise a size is dynamic
        target = g.output_shape
    return reshape(g, x, [-1 if dim is None else dim for dim in target])


@HANDLERS.register("numpy.Ravel")
def ravel(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """Flatten to one dimension."""
    return g.op.Reshape(x, [-1])


def transposed(g: Lowering, x: ir.Value, order: Sequence[int]) -> ir.Value:
    """Transpose, unless the order is unchanged."""
    return x if list(order) == list(range(rank(x))) else g.op.Transpose(x, perm=list(order))


@HANDLERS.register("numpy.Transpose")
def transpose(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Permute axes, by default reverse them."""
    axes = operation.axes or range(rank(x))[::-1]
    return transposed(g, x, [axis % rank(x) for axis in axes])


@HANDLERS.register("numpy.Moveaxis")
def moveaxis(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Move axes to other positions."""
    return transposed(g, x, moved(rank(x), _listed(operation.source), _listed(operation.destination)))


@HANDLERS.register("numpy.Swapaxes")
def swapaxes(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Exchange two axes."""
    order = list(range(rank(x)))
    first, second = operation.axis1 % rank(x), operation.axis2 % rank(x)
    order[first], order[second] = order[second], order[first]
    return transposed(g, x, order)


def _listed(axis: Any) -> list[int]:
    return [axis] if isinstance(axis, int) else list(axis)


@HANDLERS.register("numpy.ExpandDims")
def expand_dims(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Insert axes of size one."""
    axes = _listed(operation.axis)
    return g.op.Unsqueeze(x, axes_of(axes, rank(x) + len(axes)))


@HANDLERS.register("numpy.Squeeze")
def squeeze(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Remove the given axes of size one, or all that are statically of size one."""
    assert x.shape is not None
    if operation.axis is None:
        axes = [axis for axis, dim in enumerate(x.shape) if dim == 1]
    else:
        axes = axes_of(operation.axis, rank(x))
    return g.op.Squeeze(x, axes) if axes else x


@HANDLERS.register("numpy.Concatenate")
def concatenate(g: Lowering, operation: Any, xs: Sequence[Any]) -> ir.Value:
    """Concatenate along an axis, in the common type."""
    parts = [operand(g, x, g.output_dtype) for x in xs]
    return parts[0] if len(parts) == 1 else g.op.Concat(*parts, axis=operation.axis)


@HANDLERS.register("numpy.Append")
def append(g: Lowering, operation: Any, x1: Any, x2: Any) -> ir.Value:
    """Concatenate along an axis; without an axis, flattened."""
    parts = [operand(g, x, g.output_dtype) for x in (x1, x2)]
    if operation.axis is None:
        parts = [g.op.Reshape(part, [-1]) for part in parts]
    return g.op.Concat(*parts, axis=operation.axis or 0)


@HANDLERS.register("numpy.Stack")
def stack(g: Lowering, operation: Any, xs: Sequence[Any]) -> ir.Value:
    """Stack along a new axis."""
    parts = [g.op.Unsqueeze(operand(g, x, g.output_dtype), [operation.axis]) for x in xs]
    return parts[0] if len(parts) == 1 else g.op.Concat(*parts, axis=operation.axis)


@HANDLERS.register("core.Unstack")
def unstack(g: Lowering, operation: Any, x: ir.Value) -> list[ir.Value]:
    """Split along an axis, which is removed."""
    assert x.shape is not None
    axis = operation.axis % rank(x)
    count = operation.num if operation.num is not None else x.shape[axis]
    if not isinstance(count, int):
        raise g.refuse(
            "it unstacks an axis whose size is not known", "give `num`, or fix the size of the axis"
        )
    return [g.op.Squeeze(part, [axis]) for part in split(g, x, [1] * count, axis)]


def split(g: Lowering, x: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
    """Split `x` into parts of the given sizes."""
    if len(sizes) == 1:
        return [x]
    return list(g.ops.Split(x, list(sizes), axis=axis, _outputs=len(sizes)))


@HANDLERS.register("numpy.Split", "numpy.ArraySplit", "numpy.Hsplit", "numpy.Vsplit", "numpy.Dsplit")
def split_(g: Lowering, operation: Any, x: ir.Value) -> list[ir.Value]:
    """Split into equal parts, or at given indices."""
    assert x.shape is not None
    axis = min(_axis_of(operation), rank(x) - 1) % rank(x)
    length, where = x.shape[axis], operation.indices_or_sections
    if isinstance(where, int | np.integer) and not isinstance(length, int):
        return split_evenly(g, x, int(where), axis)
    if isinstance(where, int | np.integer):
        larger = length % where
        sizes = [length // where + 1] * larger + [length // where] * (where - larger)
        return split(g, x, sizes, axis)
    bounds = [0, *(int(place) for place in np.asarray(where)), None]
    if isinstance(length, int):
        return split(g, x, np.diff([*bounds[:-1], length]).tolist(), axis)
    return [
        g.op.Slice(x, [start], [np.iinfo(np.int64).max if stop is None else stop], [axis])
        for start, stop in itertools.pairwise(bounds)
    ]


#: The axis of operations whose name implies it.
_NAMED_AXIS = {"Vsplit": 0, "Hsplit": 1, "Dsplit": 2, "Flipud": 0, "Fliplr": 1}


def _axis_of(operation: keras.Operation) -> Any:
    return getattr(operation, "axis", _NAMED_AXIS.get(type(operation).__name__))


@HANDLERS.register("numpy.BroadcastTo")
def broadcast_to(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Broadcast to a shape."""
    return expand(g, x, operation.shape)


def expand(g: Lowering, x: ir.Value, dims: Any) -> ir.Value:
    """Broadcast to a shape of ints, symbols and tensors, or to a shape tensor."""
    if is_symbol(dims) or isinstance(dims, ir.Value):
        return g.op.Expand(x, g.cast(g.unwrap(dims), "int64"))
    result = g.op.Expand(x, g.shape([size(g, dim) for dim in dims]))
    assert x.shape is not None
    own = [1] * (len(dims) - len(x.shape)) + list(x.shape)
    inferred = [None] * len(dims) if result.shape is None else result.shape
    result.shape = ir.Shape(
        known if not isinstance(dim, int) else have if dim == 1 else dim
        for have, dim, known in zip(own, dims, inferred, strict=True)
    )
    return result


@HANDLERS.register("numpy.Tile")
def tile(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Repeat the whole tensor along each axis."""
    repeats = operation.repeats
    counts: list[int | ir.Value]
    if is_symbol(repeats) and len(repeats.shape) == 1:
        length, counts = repeats.shape[0] or rank(x), [g.cast(repeats.value, "int64")]
    else:
        repeats = list(repeats) if isinstance(repeats, list | tuple | np.ndarray) else [repeats]
        length, counts = len(repeats), [size(g, count) for count in repeats]
    if length > rank(x):
        x = g.op.Unsqueeze(x, list(range(length - rank(x))))
    return g.op.Tile(x, g.shape([*[1] * (rank(x) - length), *counts]))


@HANDLERS.register("numpy.Repeat")
def repeat(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Repeat each element along an axis."""
    axis = operation.axis
    if axis is None:
        x, axis = g.op.Reshape(x, [-1]), 0
    assert x.shape is not None
    axis %= rank(x)
    length, repeats = x.shape[axis], g.unwrap(operation.repeats)
    if isinstance(repeats, ir.Value):
        return _repeat_by_tensor(g, x, repeats, axis)
    counts = np.asarray(repeats).reshape(-1)
    if isinstance(length, int):
        places = np.repeat(np.arange(length), counts if len(counts) > 1 else int(counts[0]))
        return g.op.Gather(x, g.constant(places.astype(np.int64), "places"), axis=axis)
    if len(counts) > 1:
        return _repeat_by_tensor(g, x, g.constant(counts.astype(np.int64), "repeats"), axis)
    count = int(counts[0])
    copies = g.op.Tile(g.op.Unsqueeze(x, [axis + 1]), [1] * (axis + 1) + [count] + [1] * (rank(x) - axis - 1))
    dims = sizes(g, x)
    dims[axis] = -1
    return reshape(g, copies, dims)


def _repeat_by_tensor(g: Lowering, x: ir.Value, repeats: ir.Value, axis: int) -> ir.Value:
    """Put element i at all positions from the end of element i - 1 to before its own end."""
    length = g.op.Shape(x, start=axis, end=axis + 1)
    repeats = g.op.Expand(g.op.Reshape(g.cast(repeats, "int64"), [-1]), length)
    ends = g.op.CumSum(repeats, g.constant(np.int64(0), "axis"))
    total = g.op.ReduceSum(repeats, keepdims=0)
    place = g.op.Range(g.constant(np.int64(0), "first"), total, g.constant(np.int64(1), "step"))
    passed = g.op.GreaterOrEqual(g.op.Unsqueeze(place, [1]), g.op.Unsqueeze(ends, [0]))
    index = g.op.ReduceSum(g.cast(passed, "int64"), [1], keepdims=0)
    index.shape = ir.Shape([None])
    return g.op.Gather(x, index, axis=axis)


@HANDLERS.register("numpy.Flip", "numpy.Fliplr", "numpy.Flipud")
def flip(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Reverse along axes."""
    return flipped(g, x, axes_of(_axis_of(operation), rank(x)))


def flipped(g: Lowering, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Reverse axes with a Slice."""
    if not axes:
        return x
    last, before_first = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes)
    result = g.op.Slice(x, last, before_first, list(axes), [-1] * len(axes))
    result.shape = x.shape
    return result


@HANDLERS.register("numpy.Pad")
def pad(g: Lowering, operation: Any, x: ir.Value, constant_values: Any = None) -> ir.Value:
    """Pad with constant, reflected or symmetric values; the mode may be in capitals, as in TensorFlow."""
    mode = operation.mode.lower()
    widths = [tuple(width) for width in operation.pad_width]
    widths = widths * rank(x) if len(widths) == 1 else widths
    if mode == "symmetric":
        for axis, (before, after) in enumerate(widths):
            x = _pad_symmetric(g, x, axis, before, after)
        return x
    before, after = ([size(g, pair[side]) for pair in widths] for side in (0, 1))
    fill = None
    if constant_values is not None:
        assert x.dtype is not None
        fill = operand(g, constant_values, x.dtype)
    return g.op.Pad(x, g.shape([*before, *after]), fill, mode=mode)


def _pad_symmetric(g: Lowering, x: ir.Value, axis: int, before: int, after: int) -> ir.Value:
    """Pad with reversed pieces of the input, edge included; ONNX's Pad has no such mode."""
    parts = [x]
    if before:
        parts.insert(0, g.op.Slice(x, [before - 1], [np.iinfo(np.int64).min], [axis], [-1]))
    if after:
        parts.append(g.op.Slice(x, [-1], [-after - 1], [axis], [-1]))
    return g.op.Concat(*parts, axis=axis) if len(parts) > 1 else x


def _roll(operation: Any, x: Any) -> Any:
    if operation.axis is None:
        return ops.reshape(ops.roll(ops.ravel(x), operation.shift, 0), ops.shape(x))
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    shifts = operation.shift if isinstance(operation.shift, list | tuple) else [operation.shift] * len(axes)
    for axis, shift in zip(axes, shifts, strict=True):
        length = ops.shape(x)[axis]
        first = (-shift) % length
        head, tail = [slice(None)] * len(x.shape), [slice(None)] * len(x.shape)
        head[axis], tail[axis] = slice(first, None), slice(None, first)
        x = ops.concatenate([x[tuple(head)], x[tuple(tail)]], axis=axis)
    return x


def _rot90(operation: Any, x: Any) -> Any:
    """Rotate with Keras's steps, whose reshapes between quarter turns scramble non-square images."""
    turns = operation.k % 4
    if turns == 0:
        return x
    axes = [axis % len(x.shape) for axis in operation.axes]
    order = [axis for axis in range(len(x.shape)) if axis not in axes] + axes
    x = ops.transpose(x, order)
    *outer, height, width = ops.shape(x)
    final = (width, height) if turns % 2 else (height, width)
    x = _turned(ops.reshape(x, (-1, height, width)))
    for _ in range(turns - 1):
        x = _turned(ops.reshape(x, (-1, *final)) if _ == 0 else x)
    return ops.transpose(ops.reshape(x, (*outer, *final)), [order.index(axis) for axis in range(len(order))])


def _turned(x: Any) -> Any:
    return ops.transpose(ops.flip(x, axis=2), (0, 2, 1))


def _stacked(rank_of_part: int, axis: int) -> Any:
    def fn(_: Any, xs: Any) -> Any:
        return ops.concatenate([_at_least(x, rank_of_part) for x in xs], axis=min(axis, _rank_joined(xs) - 1))

    def _rank_joined(xs: Any) -> int:
        return max(len(xs[0].shape), rank_of_part)

    return fn


def _at_least(x: Any, ndim: int) -> Any:
    """Add axes as NumPy's `atleast_1d` and `atleast_3d` do."""
    if len(x.shape) == 0:
        x = ops.reshape(x, (1,))
    if ndim == 3 and len(x.shape) == 1:
        x = ops.expand_dims(x, 0)
    if ndim == 3 and len(x.shape) == 2:
        x = ops.expand_dims(x, 2)
    return x


def _diff(operation: Any, x: Any) -> Any:
    later, earlier = ([slice(None)] * len(x.shape) for _ in range(2))
    later[operation.axis], earlier[operation.axis] = slice(1, None), slice(None, -1)
    for _ in range(operation.n):
        step = ops.not_equal if x.dtype == "bool" else ops.subtract
        x = step(x[tuple(later)], x[tuple(earlier)])
    return x


def _meshgrid(operation: Any, *xs: Any) -> list[Any]:
    xs = tuple(ops.ravel(x) for x in xs)
    count = len(xs)
    order = list(range(count))
    if operation.indexing == "xy" and count > 1:
        order[0], order[1] = 1, 0
    sizes = [ops.shape(xs[order.index(place)])[0] for place in range(count)]
    return [
        ops.broadcast_to(
            ops.reshape(x, [-1 if place == order[index] else 1 for place in range(count)]), sizes
        )
        for index, x in enumerate(xs)
    ]


_COMPOSITES = {
    "numpy.Diff": _diff,
    "numpy.Dstack": _stacked(3, 2),
    "numpy.Hstack": _stacked(1, 1),
    "numpy.Roll": _roll,
    "numpy.Rot90": _rot90,
    "numpy.Vstack": lambda _, xs: ops.concatenate(xs, axis=0),
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))

HANDLERS.add("numpy.Meshgrid", composite(_meshgrid), typed=True)  # Keras infers float32
