"""Linear algebra by elimination: ONNX has only the determinant.

The loops process one column of all matrices of a batch at once; sizes may be dynamic.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.decompositions import norm_by_singular_values
from kerve.compiler.lowering.ops.operands import composite
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("linalg.Det")
def det(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """The determinant."""
    return g.op.Det(x)


def _column(matrix: Any, k: Any) -> Any:
    return ops.take(matrix, ops.expand_dims(k, 0), axis=-1)


def _row(matrix: Any, k: Any) -> Any:
    return ops.take(matrix, ops.expand_dims(k, 0), axis=-2)


def _rows(matrix: Any) -> Any:
    """Return the row indices as a column vector."""
    return ops.expand_dims(ops.arange(ops.shape(matrix)[-2], dtype="int32"), 1)


def _eliminate(augmented: Any, size: Any, *, singular: float = math.nan) -> tuple[Any, Any, Any]:
    """Reduce `[A | B]` to `[1 | A^-1 B]` (Gauss-Jordan, pivoting by rows).

    Returns it with the sign and the logarithm of the magnitude of the determinant of A. If the pivot of a
    column is zero, `singular` is the divisor instead.
    """
    rows = _rows(augmented)

    def step(k: Any, state: Any) -> tuple[Any, Any, Any]:
        matrix, sign, magnitude = state
        candidates = ops.where(rows >= k, ops.abs(_column(matrix, k)), -1.0)
        best = ops.cast(ops.argmax(candidates, axis=-2, keepdims=True), "int32")
        here, there = ops.equal(rows, k), ops.equal(rows, best)
        current = _row(matrix, k)
        chosen = ops.sum(ops.where(there, matrix, ops.zeros_like(matrix)), axis=-2, keepdims=True)
        matrix = ops.where(there, current, matrix)
        pivot = ops.squeeze(_column(chosen, k), (-2, -1))
        divisor = _column(chosen, k)
        unit = chosen / ops.where(ops.equal(divisor, 0), ops.full_like(divisor, singular), divisor)
        others = matrix - _column(matrix, k) * unit
        swapped = ops.not_equal(ops.squeeze(best, (-2, -1)), k)
        turn = ops.where(swapped, ops.full_like(pivot, -1.0), ops.ones_like(pivot)) * ops.sign(pivot)
        return ops.where(here, unit, others), sign * turn, magnitude + ops.log(ops.abs(pivot))

    start = ops.zeros_like(augmented[..., 0, 0])
    return ops.fori_loop(0, size, step, (augmented, start + 1.0, start))


def _identity_like(matrix: Any) -> Any:
    """Return an identity matrix for each matrix of a batch."""
    numbers = ops.arange(ops.shape(matrix)[-1], dtype="int32")
    unit = ops.cast(ops.equal(ops.expand_dims(numbers, 1), numbers), matrix.dtype)
    return ops.zeros_like(matrix) + unit


def _solve_matrices(a: Any, b: Any) -> Any:
    size = ops.shape(a)[-1]
    return _eliminate(ops.concatenate([a, b], axis=-1), size)[0][..., size:]


def _solve(_: Any, a: Any, b: Any) -> Any:
    if len(b.shape) == len(a.shape) - 1:
        return _solve_matrices(a, ops.expand_dims(b, -1))[..., 0]
    return _solve_matrices(a, b)


def _solve_triangular(operation: Any, a: Any, b: Any) -> Any:
    return _solve(operation, ops.tril(a) if operation.lower else ops.triu(a), b)


def _inv(_: Any, x: Any) -> Any:
    return _solve_matrices(x, _identity_like(x))


def _transposed(x: Any) -> Any:
    return ops.swapaxes(x, -1, -2)


def _cholesky(operation: Any, x: Any) -> Any:
    """Compute column by column (Cholesky-Banachiewicz)."""
    rows = _rows(x)
    columns = _transposed(rows)

    def step(k: Any, factor: Any) -> Any:
        rest = _column(x, k) - ops.matmul(factor, _transposed(_row(factor, k)))
        column = ops.where(rows >= k, rest / ops.sqrt(_row(rest, k)), ops.zeros_like(rest))
        return ops.where(ops.equal(columns, k), column, factor)

    factor = ops.fori_loop(0, ops.shape(x)[-1], step, ops.zeros_like(x))
    return _transposed(factor) if operation.upper else factor


def _cholesky_inverse(operation: Any, x: Any) -> Any:
    inverse = _solve_matrices(ops.triu(x) if operation.upper else ops.tril(x), _identity_like(x))
    if operation.upper:
        return ops.matmul(inverse, _transposed(inverse))
    return ops.matmul(_transposed(inverse), inverse)


def _slogdet(_: Any, x: Any) -> tuple[Any, Any]:
    _, sign, magnitude = _eliminate(x, ops.shape(x)[-1], singular=1.0)
    return sign, magnitude


def _logdet(_: Any, x: Any) -> Any:
    """Return the log-determinant of positive definite matrices, whose determinants are positive."""
    return _eliminate(x, ops.shape(x)[-1], singular=1.0)[2]


def _norm(operation: Any, x: Any) -> Any:
    axes = tuple(range(len(x.shape))) if operation.axis is None else tuple(operation.axis)
    dtype = keras.config.floatx() if x.dtype == "int64" else keras.backend.result_type(x.dtype, float)
    x = ops.cast(x, dtype)
    if len(axes) == 1:
        return _vector_norm(x, operation.ord, axes[0], operation.keepdims)
    return _matrix_norm(x, operation.ord, axes, operation.keepdims)


def _vector_norm(x: Any, order: Any, axis: int, keepdims: bool) -> Any:
    options = {"axis": axis, "keepdims": keepdims}
    if order is None or order == 2:
        return ops.sqrt(ops.sum(ops.square(x), **options))
    if order == math.inf:
        return ops.max(ops.abs(x), **options)
    if order == -math.inf:
        return ops.min(ops.abs(x), **options)
    if order == 0:
        return ops.sum(ops.cast(ops.not_equal(x, 0), x.dtype), **options)
    return ops.power(ops.sum(ops.power(ops.abs(x), order), **options), 1.0 / order)


def _matrix_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    rows, columns = (axis % len(x.shape) for axis in axes)
    if order in ("nuc", 2, -2):
        return norm_by_singular_values(x, order, (rows, columns), keepdims=keepdims)
    if order is None or order == "fro":
        return ops.sqrt(ops.sum(ops.square(x), axis=axes, keepdims=keepdims))
    summed, compared = (rows, columns) if abs(order) == 1 else (columns, rows)
    sums = ops.sum(ops.abs(x), axis=summed, keepdims=True)
    extreme = (ops.max if order > 0 else ops.min)(sums, axis=compared, keepdims=True)
    return extreme if keepdims else ops.squeeze(extreme, (rows, columns))


@HANDLERS.register("linalg.Norm")
def norm(g: Lowering, operation: Any, x: ir.Value) -> Any:
    """Norms of vectors and matrices."""
    assert x.shape is not None
    axes = range(len(x.shape)) if operation.axis is None else operation.axis
    is_open = not all(isinstance(x.shape[axis], int) for axis in axes)
    if operation.ord in ("nuc", 2, -2) and len(axes) == 2 and is_open:
        raise g.refuse(
            f"a matrix norm of order {operation.ord!r} needs singular values, for matrices of known size",
            "give the inputs a fixed size, or use the order 'fro'",
        )
    return g.call(lambda value: _norm(operation, value), x)


_COMPOSITES = {
    "linalg.Cholesky": _cholesky,
    "linalg.CholeskyInverse": _cholesky_inverse,
    "linalg.Inv": _inv,
    "linalg.Solve": _solve,
    "linalg.SolveTriangular": _solve_triangular,
    "math.Logdet": _logdet,
    "numpy.Slogdet": _slogdet,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))
