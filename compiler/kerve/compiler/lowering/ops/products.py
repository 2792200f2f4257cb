"""Products of tensors: matmul, dot, einsum and others, as MatMul wherever the shapes allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, reduce, reshape
from kerve.compiler.lowering.ops.shaping import transposed
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("numpy.Matmul")
def matmul(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The matrix product; as in Keras, of int8 in int32 and of other integers in floating point."""
    small = [x for x in (x1, x2) if isinstance(x, ir.Value) and x.dtype == ir.DataType.INT8 and rank(x) > 1]
    if len(small) == 2:
        return g.op.MatMulInteger(x1, x2)
    dtype = _product_type(g)
    return _multiplied(g, operand(g, x1, dtype), operand(g, x2, dtype))


def _multiplied(g: Lowering, a: ir.Value, b: ir.Value) -> ir.Value:
    """Multiply matrices and vectors, the latter as matrices of one row or column.

    ONNX Runtime 1.32 drops a Transpose of the matrix if the other factor is a vector.
    """
    if rank(a) > 1 and rank(b) == 1:
        return g.op.Squeeze(g.op.MatMul(a, g.op.Unsqueeze(b, [1])), [-1])
    if rank(a) == 1 and rank(b) > 1:
        return g.op.Squeeze(g.op.MatMul(g.op.Unsqueeze(a, [0]), b), [-2])
    return g.op.MatMul(a, b)


def _product_type(g: Lowering) -> ir.DataType:
    return dtypes.to_onnx(keras.backend.result_type(dtypes.from_onnx(g.output_dtype), float))


@HANDLERS.register("numpy.Einsum")
def einsum(g: Lowering, operation: Any, *operands: Any) -> ir.Value:
    """A sum of products over named axes; two tensors become one MatMul."""
    dtype = _product_type(g)
    values = [operand(g, x, dtype) for x in operands]
    equation = operation.subscripts.replace(" ", "")
    if "->" not in equation:
        equation += "->" + _implied_output(equation)
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    plain = "." not in equation and all(len(set(term)) == len(term) for term in [*terms, output])
    if len(values) == 2 and plain:
        return contract(g, (values[0], values[1]), (terms[0], terms[1]), output)
    return g.op.Einsum(*_same_ellipses(g, values, terms), equation=equation)


def _same_ellipses(g: Lowering, values: Sequence[ir.Value], terms: Sequence[str]) -> list[ir.Value]:
    """Add axes of size one so that all ellipses cover the same number of axes, as ONNX requires."""
    spans = [rank(x) - len(term) + 3 for x, term in zip(values, terms, strict=True)]
    widest = max([span for span, term in zip(spans, terms, strict=True) if "..." in term], default=0)
    aligned = []
    for x, term, span in zip(values, terms, spans, strict=True):
        first = term.find("...")
        missing = list(range(first, first + widest - span)) if first >= 0 else []
        aligned.append(g.op.Unsqueeze(x, missing) if missing else x)
    return aligned


def _implied_output(equation: str) -> str:
    letters = sorted(letter for letter in set(equation) if letter.isalpha() and equation.count(letter) == 1)
    return ("..." if "..." in equation else "") + "".join(letters)


def contract(g: Lowering, xs: tuple[ir.Value, ir.Value], terms: tuple[str, str], output: str) -> ir.Value:
    """Multiply two tensors whose axes are named by letters and sum over those not in `output`.

    Axes form four groups: batch (in both and in the output), summed (in both, not in the output), and those
    only in the left or only in the right tensor. `[batch, left, summed] @ [batch, summed, right]`.
    """
    terms, xs = _drop_summed_alone(g, xs, terms, output)
    for matrix, stack in ((0, 1), (1, 0)):
        order = _rows_first(terms[matrix], output)
        if _is_matrix_times_stack(order, terms[stack], output):
            rows = transposed(g, xs[matrix], [terms[matrix].index(name) for name in order])
            return g.op.MatMul(rows, xs[stack])
    alone = [name for name in output if (name in terms[0]) != (name in terms[1])]
    if alone and alone[0] in terms[1]:  # then the axes of the product are in order, without a Transpose
        xs, terms = xs[::-1], terms[::-1]
    left_term, right_term = terms
    batch = [name for name in output if name in left_term and name in right_term]
    summed = [name for name in left_term if name in right_term and name not in output]
    left = [name for name in left_term if name not in right_term]
    right = [name for name in right_term if name not in left_term]
    sizes = _sizes(g, xs, terms)
    a = transposed(g, xs[0], [left_term.index(name) for name in [*batch, *left, *summed]])
    b = transposed(g, xs[1], [right_term.index(name) for name in [*batch, *summed, *right]])
    if batch or len(left) == 0:  # without batch axes, MatMul takes any leading axes on the left
        a = _grouped(g, a, sizes, [*([name] for name in batch), left, summed])
        left_axes = [left]
    else:
        a = _grouped(g, a, sizes, [*([name] for name in left), summed])
        left_axes = [[name] for name in left]
    b = _grouped(g, b, sizes, [*([name] for name in batch), summed, right])
    product = g.op.MatMul(a, b)
    groups = [*([name] for name in batch), *left_axes, right]
    names = [name for group in groups for name in group]
    if any(len(group) != 1 for group in groups):
        product = reshape(g, product, [sizes[name] for name in names])
    return transposed(g, product, [names.index(name) for name in output])


def _rows_first(term: str, output: str) -> list[str]:
    return sorted(term, key=lambda name: name not in output)


def _is_matrix_times_stack(matrix: Sequence[str], stack: str, output: str) -> bool:
    """Whether the product is `[row, summed] @ [..., summed, column]`, which needs no Transpose."""
    if len(matrix) != 2 or len(stack) < 2:
        return False
    row, summed = matrix
    joined = f"{stack[:-2]}{row}{stack[-1]}"
    return summed not in output and row not in stack and stack[-2] == summed and output == joined


def _drop_summed_alone(
    g: Lowering, xs: tuple[ir.Value, ir.Value], terms: tuple[str, str], output: str
) -> tuple[tuple[str, str], tuple[ir.Value, ir.Value]]:
    """Sum over axes that only one of the two has and the output does not."""
    kept, reduced = [], []
    for index, (x, term) in enumerate(zip(xs, terms, strict=True)):
        alone = [
            axis for axis, name in enumerate(term) if name not in output and name not in terms[1 - index]
        ]
        reduced.append(reduce(g, "ReduceSum", x, alone, keepdims=False) if alone else x)
        kept.append("".join(name for axis, name in enumerate(term) if axis not in alone))
    return (kept[0], kept[1]), (reduced[0], reduced[1])


def _sizes(g: Lowering, xs: tuple[ir.Value, ir.Value], terms: tuple[str, str]) -> dict[str, int | ir.Value]:
    """Return the size of each named axis; a size that is dynamic in one tensor may be static in the other."""
    sizes: dict[str, int | ir.Value] = {}
    for x, term in zip(xs, terms, strict=True):
        for axis, name in enumerate(term):
            if not isinstance(sizes.get(name), int):
                sizes[name] = g.dim(x, axis)
    return sizes


def _grouped(
    g: Lowering, x: ir.Value, sizes: dict[str, int | ir.Value], groups: Sequence[Sequence[str]]
) -> ir.Value:
    """Merge the axes of each group into one."""
    if all(len(group) == 1 for group in groups):
        return x
    return reshape(g, x, [_joined(g, [sizes[name] for name in group]) for group in groups])


def _joined(g: Lowering, dims: Sequence[int | ir.Value]) -> int | ir.Value:
    known = math.prod(dim for dim in dims if isinstance(dim, int))
    product: int | ir.Value = known
    for dim in dims:
        if isinstance(dim, ir.Value):
            first = isinstance(product, int) and product == 1
            product = dim if first else g.op.Mul(dim, operand(g, product, ir.DataType.INT64))
    return product


@HANDLERS.register("numpy.Tensordot")
def tensordot(g: Lowering, operation: Any, x1: Any, x2: Any) -> ir.Value:
    """A sum of products over pairs of axes."""
    dtype = _product_type(g)
    x1, x2 = operand(g, x1, dtype), operand(g, x2, dtype)
    axes = operation.axes
    if isinstance(axes, int):
        first, second = list(range(rank(x1) - axes, rank(x1))), list(range(axes))
    else:
        first, second = ([int(axis) for axis in np.atleast_1d(part)] for part in axes)
    return _tensordot(g, x1, x2, first, second)


def _tensordot(
    g: Lowering, x1: ir.Value, x2: ir.Value, first: Sequence[int], second: Sequence[int]
) -> ir.Value:
    left = [chr(ord("a") + axis) for axis in range(rank(x1))]
    right = [chr(ord("A") + axis) for axis in range(rank(x2))]
    for axis1, axis2 in zip(first, second, strict=True):
        right[axis2 % rank(x2)] = left[axis1 % rank(x1)]
    output = [name for name in [*left, *right] if (name in left) != (name in right)]
    return contract(g, (x1, x2), ("".join(left), "".join(right)), "".join(output))


@HANDLERS.register("numpy.Dot", "numpy.Inner", "numpy.Vdot")
def dot(g: Lowering, operation: Any, x1: Any, x2: Any) -> ir.Value:
    """Sum products over the last axis of the first and the last or second to last axis of the second."""
    dtype = _product_type(g)
    x1, x2 = operand(g, x1, dtype), operand(g, x2, dtype)
    kind = type(operation).__name__
    if kind == "Vdot":
        x1, x2 = (g.op.Reshape(x, [-1]) for x in (x1, x2))
    if rank(x1) == 0 or rank(x2) == 0:
        return g.op.Mul(x1, x2)
    if rank(x2) == 1 or (kind == "Dot" and rank(x2) == 2):
        return _multiplied(g, x1, x2)
    return _tensordot(g, x1, x2, [-1], [-1 if kind == "Inner" else -2])


def _kron(_: Any, x1: Any, x2: Any) -> Any:
    ndim = max(len(x1.shape), len(x2.shape))
    x1, x2 = (ops.reshape(x, (1,) * (ndim - len(x.shape)) + ops.shape(x)) for x in (x1, x2))
    first, second = ops.shape(x1), ops.shape(x2)
    product = ops.reshape(x1, [n for size in first for n in (size, 1)]) * ops.reshape(
        x2, [n for size in second for n in (1, size)]
    )
    return ops.reshape(product, [a * b for a, b in zip(first, second, strict=True)])


def _cross(operation: Any, x1: Any, x2: Any) -> Any:
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    axes = (operation.axisa, operation.axisb, operation.axisc)
    a, b = (
        ops.unstack(ops.moveaxis(ops.cast(x, dtype), axis, -1), axis=-1)
        for x, axis in zip((x1, x2), axes, strict=False)
    )
    third = a[0] * b[1] - a[1] * b[0]
    if len(a) == 2 and len(b) == 2:
        return third
    zero = ops.zeros_like(third)
    a, b = ([*part, zero] if len(part) == 2 else part for part in (a, b))
    parts = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], third]
    return ops.moveaxis(ops.stack(parts, axis=-1), -1, axes[2])


def _vander(operation: Any, x: Any) -> Any:
    count = operation.N if operation.N is not None else ops.shape(x)[0]
    powers = ops.arange(count, dtype="float32")
    powers = powers if operation.increasing else ops.flip(powers, axis=0)
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    return ops.cast(ops.power(ops.expand_dims(wide, -1), ops.cast(powers, wide.dtype)), x.dtype)


def _corrcoef(_: Any, x: Any) -> Any:
    x = x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, keras.config.floatx())
    centered = x - ops.mean(x, axis=-1, keepdims=True)
    covariance = ops.matmul(centered, ops.swapaxes(centered, -1, -2))
    deviation = ops.sqrt(ops.sum(ops.square(centered), axis=-1))
    scale = ops.expand_dims(deviation, -1) * ops.expand_dims(deviation, -2)
    return ops.clip(covariance / scale, -1.0, 1.0)


def _cdist(_: Any, x: Any, y: Any) -> Any:
    difference = ops.expand_dims(x, -2) - ops.expand_dims(y, -3)
    return ops.sqrt(ops.sum(ops.square(difference), axis=-1))


def _correlate(operation: Any, x1: Any, x2: Any) -> Any:
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    dtype = "float64" if dtype == "int64" else keras.backend.result_type(dtype, "float32")
    x1, x2 = ops.cast(x1, dtype), ops.cast(x2, dtype)
    n, m = x1.shape[0], x2.shape[0]
    margin = 0 if operation.mode == "valid" else m - 1
    signal = ops.pad(ops.reshape(x1, (1, -1, 1)), ((0, 0), (margin, margin), (0, 0)))
    full = ops.reshape(ops.conv(signal, ops.reshape(x2, (-1, 1, 1)), data_format="channels_last"), (-1,))
    if operation.mode != "same":
        return full
    start = (n + m - 1 - max(n, m)) // 2
    return full[start : start + max(n, m)]


_COMPOSITES = {
    "math.CDist": _cdist,
    "numpy.Corrcoef": _corrcoef,
    "numpy.Correlate": _correlate,
    "numpy.Cross": _cross,
    "numpy.Kron": _kron,
    "numpy.Outer": lambda _, x1, x2: ops.multiply(ops.reshape(x1, (-1, 1)), ops.reshape(x2, (1, -1))),
    "numpy.Vander": _vander,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))
