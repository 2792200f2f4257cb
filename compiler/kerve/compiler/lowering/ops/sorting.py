"""Operations that compare elements with each other: sorting, searching, counting, quantiles."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.elementwise import common_type
from kerve.compiler.lowering.ops.operands import (
    axes_of,
    composite,
    operand,
    rank,
    reduce,
    reshape,
    size,
    write,
)
from kerve.compiler.lowering.ops.shaping import transposed
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()


def _arg(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        axis = operation.axis
        if axis is not None:
            return write(g, onnx_op, x, axis=axis, keepdims=int(operation.keepdims))
        place = write(g, onnx_op, g.op.Reshape(x, [-1]), axis=0, keepdims=0)
        return g.op.Reshape(place, [1] * rank(x)) if operation.keepdims else place

    return handler


HANDLERS.add("numpy.Argmax", _arg("ArgMax"))
HANDLERS.add("numpy.Argmin", _arg("ArgMin"))


def ordered(g: Lowering, x: ir.Value, axis: int, *, largest: bool = False) -> tuple[ir.Value, ir.Value]:
    """Sort along an axis, stably; return the elements and their indices."""
    axis %= rank(x)
    assert x.shape is not None
    values, places = g.ops.TopK(
        x, g.op.Shape(x, start=axis, end=axis + 1), axis=axis, largest=int(largest), _outputs=2
    )
    values.shape = places.shape = x.shape
    return values, places


def _flat_if(g: Lowering, x: ir.Value, axis: int | None) -> tuple[ir.Value, int]:
    return (g.op.Reshape(x, [-1]), 0) if axis is None else (x, axis)


@HANDLERS.register("numpy.Sort")
def sort(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Sort in ascending order."""
    return ordered(g, *_flat_if(g, x, operation.axis))[0]


@HANDLERS.register("numpy.Argsort")
def argsort(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The indices that sort in ascending order."""
    return ordered(g, *_flat_if(g, x, operation.axis))[1]


@HANDLERS.register("math.TopK")
def top_k(g: Lowering, operation: Any, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The largest elements of the last axis and their indices."""
    k = g.op.Reshape(operand(g, g.unwrap(operation.k), ir.DataType.INT64), [1])
    values, places = g.ops.TopK(x, k, axis=-1, sorted=int(operation.sorted), _outputs=2)
    return values, places


@HANDLERS.register("math.InTopK")
def in_top_k(g: Lowering, operation: Any, targets: ir.Value, predictions: ir.Value) -> ir.Value:
    """Whether fewer than k predictions are greater than the target's; False if one is not finite."""
    size = g.op.Shape(predictions, start=1, end=2)
    valid = g.op.And(g.op.GreaterOrEqual(targets, 0), g.op.Less(g.cast(targets, "int64"), size))
    index = g.op.Unsqueeze(g.op.Where(valid, g.cast(targets, "int64"), g.constant(np.int64(0), "first")), [1])
    score = g.op.GatherElements(predictions, index, axis=1)
    ahead = reduce(g, "ReduceSum", g.cast(g.op.Greater(predictions, score), "int32"), 1, keepdims=False)
    nothing = reduce(g, "ReduceSum", g.op.Mul(predictions, 0.0), 1, keepdims=False)
    finite = g.op.Equal(nothing, 0.0)  # NaN if any is not finite
    return g.op.And(g.op.And(g.op.Less(ahead, int(operation.k)), finite), valid)


def _edges(g: Lowering, comparison: str, values: ir.Value, edges: ir.Value) -> ir.Value:
    """Count the edges for which the comparison with each value is true."""
    column = g.op.Unsqueeze(values, [rank(values)])
    counted = getattr(g.op, comparison)(column, edges)
    return reduce(g, "ReduceSum", g.cast(counted, "int32"), -1, keepdims=False)


@HANDLERS.register("numpy.SearchSorted")
def searchsorted(g: Lowering, operation: Any, sorted_sequence: Any, values: Any) -> ir.Value:
    """The indices at which values would be inserted."""
    dtype = common_type(sorted_sequence, values)
    edges, values = operand(g, sorted_sequence, dtype), operand(g, values, dtype)
    return _edges(g, "GreaterOrEqual" if operation.side == "right" else "Greater", values, edges)


@HANDLERS.register("numpy.Digitize")
def digitize(g: Lowering, _: Any, x: ir.Value, bins: Any) -> ir.Value:
    """The index of the bin, whose left edge is included; NaN is in the last one."""
    assert x.dtype is not None
    dtype = ir.DataType.DOUBLE if x.dtype in (ir.DataType.DOUBLE, ir.DataType.INT64) else ir.DataType.FLOAT
    edges = operand(g, bins, dtype)
    above = _edges(g, "Less", g.cast(x, dtype), edges)
    return g.op.Sub(g.cast(g.op.Size(edges), "int32"), above)


@HANDLERS.register("numpy.IsIn", typed=True)  # Keras infers nothing for a number on the left
def isin(g: Lowering, operation: Any, x1: Any, x2: Any) -> ir.Value:
    """Whether each element is one of the others."""
    dtype = common_type(x1, x2)
    x1, x2 = operand(g, x1, dtype), g.op.Reshape(operand(g, x2, dtype), [-1])
    same = g.op.Equal(g.op.Unsqueeze(x1, [rank(x1)]), x2)
    found = g.cast(reduce(g, "ReduceMax", g.cast(same, "int32"), -1, keepdims=False), "bool")
    return g.op.Not(found) if operation.invert else found


@HANDLERS.register("numpy.Bincount")
def bincount(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The count of each number, or the sum of its weights."""
    x = g.cast(x, "int64")
    highest = g.op.ReduceMax(x, keepdims=0) if g.opset >= 18 else reduce(g, "ReduceMax", x, None, False)
    count = g.op.Max(g.op.Add(highest, 1), g.constant(np.int64(operation.minlength), "minlength"))
    numbers = g.op.Range(g.constant(np.int64(0), "first"), count, g.constant(np.int64(1), "step"))
    hits = g.cast(g.op.Equal(g.op.Unsqueeze(x, [rank(x)]), numbers), g.output_dtype)
    if operation.weights is not None:
        weights = operand(g, g.unwrap(operation.weights), g.output_dtype)
        hits = g.op.Mul(hits, g.op.Unsqueeze(weights, [rank(weights)]))
    return reduce(g, "ReduceSum", hits, rank(x) - 1, keepdims=False)


@HANDLERS.register("numpy.Unique")
def unique(g: Lowering, operation: Any, x: ir.Value) -> Any:
    """Unique elements, with first indices, inverse indices and counts if requested."""
    attributes = {} if operation.axis is None else {"axis": operation.axis}
    values, index, inverse, counts = g.ops.Unique(x, sorted=int(operation.sorted), **attributes, _outputs=4)
    for result in (values, index, inverse, counts):
        result.type = x.type if result is values else ir.TensorType(ir.DataType.INT64)
        if result.shape is None:
            result.shape = ir.Shape([None])
    if operation.size is not None:
        values = _resized(g, values, operation.axis or 0, operation.size, operation.fill_value or 0)
        index, counts = (
            _resized(g, each, 0, operation.size, fill) for each, fill in ((index, 1), (counts, 0))
        )
    if operation.return_inverse and operation.axis is None:
        assert x.shape is not None
        inverse = g.op.Reshape(inverse, g.op.Shape(x))
    chosen = (
        (operation.return_index, index),
        (operation.return_inverse, inverse),
        (operation.return_counts, counts),
    )
    extra = [result for wanted, result in chosen if wanted]
    return (values, *extra) if extra else values


def _resized(g: Lowering, x: ir.Value, axis: int, size: int, fill: float) -> ir.Value:
    """Truncate or pad an axis to a size."""
    assert x.dtype is not None
    assert x.shape is not None
    axis %= rank(x)
    missing = g.op.Max(
        g.op.Sub(size, g.op.Shape(x, start=axis, end=axis + 1)), operand(g, [0], ir.DataType.INT64)
    )
    margins = [g.shape([0] * (rank(x) + axis)), missing, g.shape([0] * (rank(x) - axis - 1))]
    result = g.op.Pad(
        g.op.Slice(x, [0], [size], [axis]), g.op.Concat(*margins, axis=0), operand(g, fill, x.dtype)
    )
    result.shape = ir.Shape([size if index == axis else dim for index, dim in enumerate(x.shape)])
    return result


def _argpartition(operation: Any, x: Any) -> Any:
    """Order as Keras does: the k + 1 smallest elements ascending, then the others descending."""
    x = ops.cast(x, "int32")
    x = ops.ravel(x) if operation.axis is None else ops.swapaxes(x, operation.axis, -1)
    length = x.shape[-1]
    kth = min(operation.kth, length - 1)
    least = ops.top_k(-x, kth + 1)[1]
    taken = ops.any(ops.equal(ops.expand_dims(least, -1), np.arange(length, dtype="int32")), axis=-2)
    others = ops.top_k(ops.where(taken, ops.zeros_like(x), x), length - kth - 1)[1]
    places = ops.concatenate([least, others], axis=-1)
    return places if operation.axis is None else ops.swapaxes(places, -1, operation.axis)


def _histogram(operation: Any, x: Any) -> tuple[Any, Any]:
    if operation.range is None:
        low, high = ops.min(x), ops.max(x)
    else:
        low, high = (ops.cast(bound, x.dtype) for bound in operation.range)
    edges = ops.cast(ops.linspace(low, high, operation.bins + 1), x.dtype)
    column = ops.expand_dims(x, -1)
    place = ops.sum(ops.cast(column >= edges[1:-1], "int32"), axis=-1)
    inside = ops.logical_and(x >= low, x <= high)
    hits = ops.equal(ops.expand_dims(place, -1), ops.arange(operation.bins, dtype="int32"))
    counted = ops.logical_and(hits, ops.expand_dims(inside, -1))
    return ops.sum(ops.cast(counted, x.dtype), axis=0), edges


def _quantile(scale: float) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value, q: Any = 0.5) -> ir.Value:
        return _quantiles(g, operation, x, q, scale)

    return handler


def _quantiles(g: Lowering, operation: Any, x: ir.Value, q: Any, scale: float) -> ir.Value:
    """Sort the reduced axes and interpolate between neighbours; NaN if any element is NaN."""
    x = g.cast(x, g.output_dtype)
    axes = axes_of(operation.axis, rank(x))
    kept = [axis for axis in range(rank(x)) if axis not in axes]
    flat = transposed(g, x, [*kept, *axes])
    if len(axes) != 1:
        flat = reshape(g, flat, [*(g.dim(x, axis) for axis in kept), -1])
    values, _ = ordered(g, flat, -1)
    many = rank(q) > 0 if isinstance(q, ir.Value) else np.ndim(q) > 0
    position = g.op.Reshape(g.op.Mul(operand(g, q, ir.DataType.DOUBLE), scale), [-1])
    last = g.op.Sub(g.op.Shape(flat, start=rank(flat) - 1, end=rank(flat)), 1)
    exact = g.op.Mul(position, g.cast(last, "float64"))
    picked = _interpolated(g, values, exact, last, _method(operation))
    if dtypes.is_float(g.output_dtype):
        bad = g.op.Cast(g.op.IsNaN(flat), to=int(ir.DataType.INT32))
        any_bad = g.cast(reduce(g, "ReduceMax", bad, -1, keepdims=True), "bool")
        picked = g.op.Where(any_bad, g.constant(np.array(np.nan, g.output_dtype.numpy()), "nan"), picked)
    ndim = rank(picked)
    picked = transposed(g, picked, [ndim - 1, *range(ndim - 1)]) if many else g.op.Squeeze(picked, [ndim - 1])
    if not operation.keepdims:
        return picked
    return g.op.Unsqueeze(picked, [axis + int(many) for axis in axes])


def _method(operation: Any) -> str:
    """Return the interpolation method; Keras loses that of a `quantile` in a functional model."""
    recorded = type(operation).__name__ == "Quantile" and operation._inbound_nodes
    return "linear" if recorded else getattr(operation, "method", "linear")


def _interpolated(g: Lowering, values: ir.Value, exact: ir.Value, last: ir.Value, method: str) -> ir.Value:
    def at(places: ir.Value) -> ir.Value:
        bounded = g.op.Min(g.op.Max(g.cast(places, "int64"), g.constant(np.int64(0), "first")), last)
        return g.op.Gather(values, bounded, axis=-1)

    if method == "nearest":
        return at(g.op.Round(exact))
    low, high = g.op.Floor(exact), g.op.Ceil(exact)
    if method in ("lower", "higher"):
        return at(low if method == "lower" else high)
    if method == "midpoint":
        return g.op.Mul(g.op.Add(at(low), at(high)), 0.5)
    assert values.dtype is not None
    # Choose neighbours as Keras does: next to infinity the choice matters.
    low = g.op.Max(g.op.Sub(high, 1.0), g.constant(np.float64(0), "first"))
    high = g.op.Min(g.op.Add(low, 1.0), g.cast(last, "float64"))
    share = g.cast(g.op.Sub(high, exact), values.dtype)
    return g.op.Add(g.op.Mul(at(high), g.op.Sub(1.0, share)), g.op.Mul(at(low), share))


HANDLERS.add("numpy.Median", _quantile(1.0))
HANDLERS.add("numpy.Quantile", _quantile(1.0))
HANDLERS.add("numpy.Percentile", _quantile(0.01))


def _nan_quantile(scale: float) -> Any:
    """Sort NaN to the end and interpolate among the others."""

    def fn(operation: Any, x: Any, q: Any = 0.5) -> Any:
        x = ops.cast(x, keras.backend.result_type(x.dtype, float))
        axes = axes_of(operation.axis, len(x.shape))
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        flat = ops.transpose(x, [*kept, *axes])
        flat = ops.reshape(flat, [*(ops.shape(x)[axis] for axis in kept), -1])
        missing = ops.isnan(flat)
        values = ops.sort(ops.where(missing, ops.full_like(flat, np.inf), flat), axis=-1)
        count = ops.sum(ops.cast(ops.logical_not(missing), "int32"), axis=-1, keepdims=True)
        exact = ops.cast(count - 1, "float64") * ops.cast(ops.reshape(q, (-1,)), "float64") * scale
        result = _nan_interpolated(values, exact, count, operation.method)
        result = ops.where(ops.equal(count, 0), ops.full_like(result, np.nan), result)
        many = np.ndim(q) > 0 if not hasattr(q, "shape") else len(q.shape) > 0
        result = ops.moveaxis(result, -1, 0) if many else ops.squeeze(result, -1)
        return ops.expand_dims(result, [axis + int(many) for axis in axes]) if operation.keepdims else result

    return fn


def _nan_interpolated(values: Any, exact: Any, count: Any, method: str) -> Any:
    def at(places: Any) -> Any:
        bounded = ops.clip(ops.cast(places, "int32"), 0, ops.maximum(count - 1, 0))
        return ops.take_along_axis(values, bounded, axis=-1)

    low, high = ops.floor(exact), ops.ceil(exact)
    if method == "nearest":
        return at(ops.round(exact))
    if method in ("lower", "higher"):
        return at(low if method == "lower" else high)
    if method == "midpoint":
        return 0.5 * (at(low) + at(high))
    low = ops.maximum(high - 1, 0)
    high = ops.minimum(low + 1, ops.maximum(ops.cast(count, low.dtype) - 1, 0))
    share = ops.cast(high - exact, values.dtype)
    return at(high) * (1 - share) + at(low) * share


def _nanmedian(operation: Any, x: Any) -> Any:
    if operation.axis is not None and not np.size(operation.axis):
        return x
    return ops.nanquantile(x, 0.5, axis=operation.axis, keepdims=operation.keepdims)


_COMPOSITES = {
    "numpy.Argpartition": _argpartition,
    "numpy.Histogram": _histogram,
    "numpy.Nanmedian": _nanmedian,
    "numpy.Nanpercentile": _nan_quantile(0.01),
    "numpy.Nanquantile": _nan_quantile(1.0),
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))


def _segment(reduction: str, initial: Any) -> Handler:
    def handler(g: Lowering, operation: Any, data: ir.Value, segment_ids: Any) -> ir.Value:
        ids = operand(g, segment_ids, ir.DataType.INT64)
        given = operation.num_segments
        count = None if given is None else g.shape([size(g, given)])
        result = segments(g, data, ids, count, reduction, initial(data.dtype))
        if result.shape is None:
            assert data.shape is not None
            result.shape = ir.Shape([None, *data.shape[rank(ids) :]])
        return result

    return handler


def segments(
    g: Lowering, data: ir.Value, ids: ir.Value, count: ir.Value | None, reduction: str, start: Any
) -> ir.Value:
    """Scatter rows into segments; rows with negative ids go to an extra segment, which is cut off.

    Without a `count` (INT64, one element), the number of segments is the largest id + 1.
    """
    if g.opset < 18 and reduction in ("max", "min"):
        raise g.refuse(f"a segment-wise {reduction} needs opset 18", "compile with --opset 18 or newer")
    assert data.dtype is not None
    if count is None:
        last = reduce(g, "ReduceMax", ids, None, False)  # without ids, the smallest integer
        count = g.op.Reshape(g.op.Max(g.op.Add(last, 1), 0), [1])
    ids = g.op.Where(g.op.Less(ids, 0), count, ids)
    shape = g.op.Concat(g.op.Add(count, 1), g.op.Shape(data, start=rank(ids)), axis=0)
    filled = g.op.ScatterND(
        g.op.Expand(operand(g, start, data.dtype), shape),
        g.op.Unsqueeze(ids, [rank(ids)]),
        data,
        reduction=reduction,
    )
    return g.op.Slice(filled, [0], [-1], [0])


HANDLERS.add("math.SegmentSum", _segment("add", lambda _: 0))
HANDLERS.add("math.SegmentProd", _segment("mul", lambda _: 1))
HANDLERS.add("math.SegmentMax", _segment("max", lambda dtype: dtype.min))
HANDLERS.add("math.SegmentMin", _segment("min", lambda dtype: dtype.max))
