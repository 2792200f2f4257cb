"""TensorFlow functions that combine elements: reductions, products, sorting."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import tensorflow as tf
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import is_symbol
from kerve.compiler.lowering.tensorflow_functions.arguments import (
    Function,
    dtype_of,
    is_float,
    known_axes,
    known_value,
    of_floats,
)

__all__ = ["FUNCTIONS"]


def _reduction(function: Function) -> Function:
    def reduce(g: Lowering, input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return function(input_tensor, axis=known_axes(axis), keepdims=bool(keepdims))

    return reduce


def _arg(function: Function) -> Function:
    def arg(g: Lowering, input: Any, axis: Any = None, output_type: Any = tf.int64) -> Any:
        return ops.cast(function(input, axis=known_value(axis) or 0), dtype_of(output_type))

    return arg


def _matmul(
    g: Lowering, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, **rest: Any
) -> Any:
    if not is_float(a) or any(value for name, value in rest.items() if name != "name"):
        return NotImplemented
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _cumsum(g: Lowering, x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False) -> Any:
    return NotImplemented if exclusive or reverse else ops.cumsum(x, axis=known_value(axis))


_TopK = namedtuple("_TopK", ["values", "indices"])  # as TensorFlow returns them


def _top_k(g: Lowering, input: Any, k: Any = 1, sorted: bool = True, **_: Any) -> Any:
    return _TopK(*ops.top_k(input, k if is_symbol(k) else known_value(k), sorted=sorted))


def _sort(g: Lowering, values: Any, axis: int = -1, direction: str = "ASCENDING") -> Any:
    result = ops.sort(values, axis=axis)
    return result if direction == "ASCENDING" else ops.flip(result, axis=axis)


def _norm(
    g: Lowering,
    tensor: Any,
    ord: Any = "euclidean",
    axis: Any = None,
    keepdims: bool = False,
) -> Any:
    if ord == "euclidean":
        return ops.sqrt(ops.sum(ops.square(tensor), axis=known_axes(axis), keepdims=bool(keepdims)))
    return NotImplemented


_Qr = namedtuple("_Qr", ["q", "r"])


def _qr(g: Lowering, input: Any, full_matrices: bool = False) -> Any:
    return _Qr(*ops.qr(input, mode="complete" if full_matrices else "reduced"))


def _triangular_solve(g: Lowering, matrix: Any, rhs: Any, lower: bool = True, adjoint: bool = False) -> Any:
    if not is_float(matrix):
        return NotImplemented
    matrix = ops.swapaxes(matrix, -1, -2) if adjoint else matrix
    return ops.solve_triangular(matrix, rhs, lower=bool(lower) != bool(adjoint))


FUNCTIONS: dict[str, Function] = {
    "argmax": _arg(ops.argmax),
    "argmin": _arg(ops.argmin),
    "argsort": lambda g, values, axis=-1, direction="ASCENDING", **_: (
        ops.argsort(values, axis) if direction == "ASCENDING" else NotImplemented
    ),
    "cumsum": _cumsum,
    "einsum": lambda g, *inputs, equation, **_: ops.einsum(equation, *inputs),
    "linalg.matvec": lambda g, a, b, transpose_a=False, **_: (
        NotImplemented if transpose_a else ops.squeeze(ops.matmul(a, ops.expand_dims(b, -1)), -1)
    ),
    "linalg.qr": _qr,
    "linalg.triangular_solve": _triangular_solve,
    "math.top_k": _top_k,
    "matmul": _matmul,
    "norm": _norm,
    "reduce_all": _reduction(ops.all),
    "reduce_any": _reduction(ops.any),
    "reduce_logsumexp": _reduction(ops.logsumexp),
    "reduce_max": _reduction(ops.max),
    "reduce_mean": of_floats(_reduction(ops.mean)),
    "reduce_min": _reduction(ops.min),
    "reduce_prod": of_floats(_reduction(ops.prod)),
    "reduce_sum": _reduction(ops.sum),
    "math.reduce_std": of_floats(_reduction(ops.std)),
    "math.reduce_variance": of_floats(_reduction(ops.var)),
    "sort": _sort,
    "tensordot": lambda g, a, b, axes: ops.tensordot(a, b, known_value(axes)),
}
