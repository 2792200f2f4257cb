"""TensorFlow's operators on numbers that tf2onnx converts wrongly or not at all.

It divides integers towards zero, finds their maximum in float32, and multiplies masked elements of a matrix
by zero, which keeps NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.elementwise import quotient, remainder, truncated
from kerve.compiler.lowering.ops.operands import operand, rank, reduce
from kerve.compiler.lowering.ops.tensorflow import known_elements
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.tracing import UntraceableError

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]


def _truncate_divide(g: Lowering, _: _Attributes, x: ir.Value, y: ir.Value) -> ir.Value:
    assert x.dtype is not None
    divided = g.op.Div(x, y)
    return truncated(g, divided) if dtypes.is_float(x.dtype) else divided


def _top_k(g: Lowering, attributes: _Attributes, x: ir.Value, k: ir.Value) -> Any:
    count = g.op.Reshape(g.cast(k, "int64"), [1])
    values, places = g.ops.TopK(x, count, axis=-1, sorted=attributes.get("sorted", 1), _outputs=2)
    return values, g.cast(places, ir.DataType(attributes.get("index_type", ir.DataType.INT32)))


def _zero(g: Lowering, x: ir.Value) -> ir.Value:
    assert x.dtype is not None
    return operand(g, 0, x.dtype)


def _multiply_no_nan(g: Lowering, _: _Attributes, x: ir.Value, y: ir.Value) -> ir.Value:
    """Multiply, with zero where the second factor is zero, for any first factor."""
    zero = _zero(g, y)
    return g.op.Where(g.op.Equal(y, zero), zero, g.op.Mul(x, y))


def _sparse_product(
    g: Lowering, attributes: _Attributes, places: ir.Value, values: ir.Value, size: ir.Value, dense: ir.Value
) -> ir.Value:
    """Multiply a sparse matrix, given by indices, values and shape, by a dense one."""
    matrix = g.op.ScatterND(g.op.Expand(_zero(g, values), size), places, values)
    return _product(g, attributes, (matrix, "adjoint_a"), (dense, "adjoint_b"))


def _product_of_many_zeros(g: Lowering, attributes: _Attributes, a: ir.Value, b: ir.Value) -> ir.Value:
    """Multiply dense matrices that are marked as mostly zero."""
    return _product(g, attributes, (a, "transpose_a"), (b, "transpose_b"))


def _product(g: Lowering, attributes: _Attributes, *factors: tuple[ir.Value, str]) -> ir.Value:
    """Multiply two matrices, each transposed if its attribute is set."""
    return g.op.MatMul(
        *(g.op.Transpose(x, perm=[1, 0]) if attributes.get(turns) else x for x, turns in factors)
    )


def _half_sum_of_squares(g: Lowering, _: _Attributes, x: ir.Value) -> ir.Value:
    return g.op.Div(reduce(g, "ReduceSumSquare", x, None, keepdims=False), 2.0)


def _euclidean_norm(g: Lowering, attributes: _Attributes, x: ir.Value, axes: ir.Value) -> ir.Value:
    chosen = g.op.Reshape(g.cast(axes, "int64"), [-1])
    squares = g.op.ReduceSum(
        g.op.Mul(x, x), chosen, keepdims=attributes.get("keep_dims", 0), noop_with_empty_axes=1
    )
    return g.op.Sqrt(squares)


def _places(g: Lowering, x: ir.Value, axis: int) -> ir.Value:
    """Return 0, 1, ... along the axis -2 or -1 of a matrix, as a column or a row."""
    size = g.op.Gather(g.op.Shape(x), g.constant(np.int64(axis), "axis"))
    return g.op.Unsqueeze(_counted(g, size), [1 if axis == -2 else 0])


def _counted(g: Lowering, size: ir.Value) -> ir.Value:
    return g.op.Range(g.constant(np.int64(0), "first"), size, g.constant(np.int64(1), "step"))


def _band_part(g: Lowering, _: _Attributes, x: ir.Value, below: ir.Value, above: ir.Value) -> ir.Value:
    """Set elements outside a band around the diagonal to zero; a negative number keeps all diagonals."""
    distance = g.op.Sub(_places(g, x, -2), _places(g, x, -1))
    stays = g.op.And(_within(g, distance, below), _within(g, g.op.Neg(distance), above))
    return g.op.Where(stays, x, _zero(g, x))


def _within(g: Lowering, distance: ir.Value, count: ir.Value) -> ir.Value:
    count = g.cast(count, "int64")
    return g.op.Or(g.op.Less(count, 0), g.op.LessOrEqual(distance, count))


def _diagonal(g: Lowering, _: _Attributes, x: ir.Value, *given: ir.Value) -> ir.Value:
    """Build a diagonal matrix from a vector; `given` are the diagonal, the size, and the padding value."""
    number, *size = (int(known_elements(each)) for each in given[:3])
    if any(each != -1 for each in size):
        raise UntraceableError("a diagonal in a matrix of another size than its own")
    beside = given[3] if given else _zero(g, x)
    places = _places(g, g.op.Unsqueeze(x, [-1]), -2)
    matrix = g.op.Where(g.op.Equal(places, g.op.Transpose(places)), g.op.Unsqueeze(x, [-2]), beside)
    if number == 0:
        return matrix
    before, after = max(-number, 0), max(number, 0)
    outer = [0] * (rank(x) - 1)
    return g.op.Pad(matrix, [*outer, before, after, *outer, after, before], beside)


def _slice(g: Lowering, _: _Attributes, x: ir.Value, begin: ir.Value, size: ir.Value) -> ir.Value:
    """Slice by begin and size; a size of -1 means the rest."""
    begin, size = g.cast(begin, "int64"), g.cast(size, "int64")
    return g.op.Slice(x, begin, g.op.Where(g.op.Less(size, 0), g.op.Shape(x), g.op.Add(begin, size)))


def _invert_permutation(g: Lowering, _: _Attributes, x: ir.Value) -> ir.Value:
    places = _counted(g, g.op.Size(x))
    return g.cast_like(g.op.ScatterElements(places, g.cast(x, "int64"), places), x)


def _bound(is_before: Callable[[Lowering, ir.Value, ir.Value], ir.Value]) -> Handler:
    """Make a handler that counts the sorted numbers of a row before each value."""

    def handler(g: Lowering, attributes: _Attributes, numbers: ir.Value, values: ir.Value) -> ir.Value:
        before = is_before(g, g.op.Unsqueeze(numbers, [1]), g.op.Unsqueeze(values, [2]))
        count = g.op.ReduceSum(g.cast(before, "int64"), [2], keepdims=0)
        return g.cast(count, ir.DataType(attributes.get("out_type", ir.DataType.INT32)))

    return handler


def _shapes(g: Lowering, attributes: _Attributes, *tensors: ir.Value) -> list[ir.Value]:
    dtype = ir.DataType(attributes.get("out_type", ir.DataType.INT32))
    return [g.cast(g.op.Shape(each), dtype) for each in tensors]


def _cross_entropy(g: Lowering, _: _Attributes, logits: ir.Value, labels: ir.Value) -> Any:
    """Return the cross-entropy of each row's label, and None for the gradient, which only training uses."""
    log = g.op.LogSoftmax(logits, axis=-1)
    chosen = g.op.GatherElements(log, g.op.Unsqueeze(labels, [1]), axis=1)
    return g.op.Neg(g.op.Squeeze(chosen, [1])), None


_HANDLERS: dict[str, Handler] = {
    "EuclideanNorm": _euclidean_norm,
    "FloorDiv": lambda g, _, x, y: quotient(g, x, y),
    "FloorMod": lambda g, _, x, y: remainder(g, x, y),
    "InvertPermutation": _invert_permutation,
    "L2Loss": _half_sum_of_squares,
    "LowerBound": _bound(lambda g, number, value: g.op.Less(number, value)),
    "MatrixBandPart": _band_part,
    "MatrixDiag": _diagonal,
    "MatrixDiagV2": _diagonal,
    "MatrixDiagV3": _diagonal,
    "MulNoNan": _multiply_no_nan,
    "ShapeN": _shapes,
    "SliceOfSize": _slice,
    "SparseMatMul": _product_of_many_zeros,
    "SparseSoftmaxCrossEntropyWithLogits": _cross_entropy,
    "SparseTensorDenseMatMul": _sparse_product,
    "TopKV2": _top_k,
    "TruncateDiv": _truncate_divide,
    "TruncateMod": lambda g, _, x, y: g.op.Mod(x, y, fmod=1),
    "UpperBound": _bound(lambda g, number, value: g.op.Not(g.op.Greater(number, value))),
}

for _name, _handler in _HANDLERS.items():
    HANDLERS.add(f"tensorflow.{_name}", _handler)
