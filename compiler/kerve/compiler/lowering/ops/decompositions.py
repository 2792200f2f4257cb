"""Matrix decompositions, as loops that rotate or reflect the columns of all matrices of a batch at once.

Results that depend on the signs of singular vectors or eigenvectors are refused: each library
chooses its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handler, Handlers

__all__ = ["HANDLERS", "norm_by_singular_values"]

HANDLERS = Handlers()

#: Number of sweeps over all pairs of columns; float64 converges in fewer than ten.
_SWEEPS = 12


def _of_known_size(fn: Callable[..., Any]) -> Handler:
    """Make a handler from a function of an operation and symbols; the first is matrices of static size."""

    def handler(g: Lowering, operation: Any, x: ir.Value, *others: ir.Value) -> Any:
        if x.shape is None or not all(isinstance(size, int) for size in x.shape[-2:]):
            what = f"operation {type(operation).__name__} of matrices of dynamic size"
            raise g.refuse(what, "give the inputs a fixed size")
        return g.call(lambda *values: fn(operation, *values), x, *others)

    return handler


def _transposed(x: Any) -> Any:
    return ops.swapaxes(x, -1, -2)


def _epsilon(x: Any) -> float:
    return float(np.finfo(x.dtype).eps)


def _tournament(half: int) -> list[int]:
    """Return the permutation of columns after a round, such that `2 * half - 1` rounds pair all columns.

    Column `i` is paired with `i + half`; the first stays and the others rotate (Brent and Luk 1985).
    """
    if half == 1:
        return [0, 1]
    return [0, half, *range(1, half - 1), *range(half + 1, 2 * half), half - 1]


def _turned(x: Any) -> tuple[Any, Any]:
    """Return `x V` with orthogonal columns, and the orthogonal `V` (Hestenes' one-sided Jacobi method).

    If the number of columns is odd, both results contain an additional column of zeros.
    """
    rows, columns = x.shape[-2:]
    identity = ops.zeros_like(x[..., :1, :]) + ops.cast(np.eye(columns), x.dtype)
    both = ops.concatenate([x, identity], axis=-2)
    if columns % 2:
        both = ops.concatenate([both, ops.zeros_like(both[..., :1])], axis=-1)
    half = (columns + 1) // 2

    def turn(_: Any, state: Any) -> Any:
        left, right = state[..., :half], state[..., half:]
        upper = left[..., :rows, :], right[..., :rows, :]
        a, b, c = (
            ops.sum(p * q, axis=-2, keepdims=True)
            for p, q in ((upper[0], upper[0]), (upper[1], upper[1]), upper)
        )
        is_done = ops.equal(c, 0)
        slope = (b - a) / ops.where(is_done, ops.ones_like(c), 2.0 * c)
        tangent = ops.where(slope < 0, -1.0, 1.0) / (ops.abs(slope) + ops.sqrt(1.0 + slope * slope))
        tangent = ops.where(is_done, ops.zeros_like(tangent), tangent)
        cosine = 1.0 / ops.sqrt(1.0 + tangent * tangent)
        sine = cosine * tangent
        turned = ops.concatenate([cosine * left - sine * right, sine * left + cosine * right], axis=-1)
        return ops.take(turned, np.array(_tournament(half)), axis=-1)

    both = ops.fori_loop(0, _SWEEPS * (2 * half - 1), turn, both)
    return both[..., :rows, :], both[..., rows:, :]


def _lengths(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(x), axis=-2))


def _singular_values(x: Any) -> Any:
    """Return the singular values in descending order."""
    rows, columns = x.shape[-2:]
    turned, _ = _turned(x if columns <= rows else _transposed(x))
    return ops.flip(ops.sort(_lengths(turned), axis=-1), axis=-1)[..., : min(rows, columns)]


def _pseudo_inverse(x: Any, rcond: Any) -> Any:
    """Return the pseudo-inverse from the singular values above `rcond` times the largest."""
    if x.shape[-1] > x.shape[-2]:
        return _transposed(_pseudo_inverse(_transposed(x), rcond))
    turned, orthogonal = _turned(x)
    values = ops.expand_dims(_lengths(turned), -2)
    kept = values > rcond * ops.max(values, axis=-1, keepdims=True)
    scale = ops.where(kept, 1.0 / ops.square(ops.where(kept, values, ops.ones_like(values))), 0.0)
    return ops.matmul(orthogonal * ops.cast(scale, x.dtype), _transposed(turned))


def _pinv(operation: Any, x: Any) -> Any:
    rcond = 10.0 * max(x.shape[-2:]) * _epsilon(x) if operation.rcond is None else operation.rcond
    return _pseudo_inverse(x, rcond)


def _lstsq(operation: Any, a: Any, b: Any) -> Any:
    """Return the least-squares solution of minimum norm."""
    rcond = operation.rcond
    if rcond is None:
        rcond = _epsilon(a) * max(a.shape)
    elif rcond < 0:
        rcond = _epsilon(a)
    return ops.matmul(_pseudo_inverse(a, rcond), b)


def _matrix_rank(operation: Any, x: Any) -> Any:
    values = _singular_values(x)
    least = operation.tol
    if least is None:
        least = _epsilon(x) * max(x.shape[-2:]) * ops.max(values, axis=-1, keepdims=True)
    return ops.sum(ops.cast(values > least, "int32"), axis=-1)


def norm_by_singular_values(x: Any, order: Any, axes: tuple[int, int], *, keepdims: bool) -> Any:
    """Return the largest (2) or smallest (-2) singular value of matrices, or the sum of all ("nuc")."""
    values = _singular_values(ops.moveaxis(x, axes, (-2, -1)))
    reduce = {2: ops.max, -2: ops.min, "nuc": ops.sum}[order]
    result = reduce(values, axis=-1)
    return ops.expand_dims(result, sorted(axis % len(x.shape) for axis in axes)) if keepdims else result


def _qr(operation: Any, x: Any) -> tuple[Any, Any]:
    """Compute by Householder reflections, with the signs of LAPACK."""
    rows, columns = x.shape[-2:]
    places = np.arange(rows, dtype="int32")[:, None]
    orthogonal = ops.zeros_like(x[..., :1]) + ops.cast(np.eye(rows), x.dtype)

    def reflect(k: Any, state: Any) -> tuple[Any, Any]:
        upper, left = state
        column = ops.take(upper, ops.expand_dims(k, 0), axis=-1)
        first = ops.take(column, ops.expand_dims(k, 0), axis=-2)
        below = ops.where(ops.greater(places, k), column, ops.zeros_like(column))
        rest = ops.sum(ops.square(below), axis=-2, keepdims=True)
        is_done = ops.equal(rest, 0)
        length = ops.sqrt(ops.square(first) + rest)
        last = ops.where(first < 0, length, -length)
        one = ops.ones_like(first)
        factor = ops.where(is_done, ops.zeros_like(first), (last - first) / ops.where(is_done, one, last))
        normal = below / ops.where(is_done, one, first - last)
        normal = ops.where(ops.equal(places, k), ops.ones_like(normal), normal)
        upper = upper - factor * ops.matmul(normal, ops.matmul(_transposed(normal), upper))
        return upper, left - factor * ops.matmul(ops.matmul(left, normal), _transposed(normal))

    upper, orthogonal = ops.fori_loop(0, min(rows, columns), reflect, (x, orthogonal))
    kept = rows if operation.mode == "complete" else min(rows, columns)
    return orthogonal[..., :kept], ops.triu(upper[..., :kept, :])


def _svd(operation: Any, x: Any) -> Any:
    return _singular_values(x)


@HANDLERS.register("linalg.SVD")
def svd(g: Lowering, operation: Any, x: ir.Value) -> Any:
    """Singular values only."""
    if operation.compute_uv:
        raise g.refuse(
            "operation SVD: the signs of singular vectors differ between libraries",
            "take the values alone (`compute_uv=False`), `pinv` or `lstsq`",
        )
    return _of_known_size(_svd)(g, operation, x)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "linalg.Lstsq": _lstsq,
    "linalg.MatrixRank": _matrix_rank,
    "linalg.Pinv": _pinv,
    "linalg.Qr": _qr,
}

for _name, _fn in _FUNCTIONS.items():
    HANDLERS.add(_name, _of_known_size(_fn))
