"""Helpers for handlers of operations: typed operands, axes, reductions, composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handler
from kerve.compiler.lowering.symbol import is_symbol

__all__ = [
    "axes_of",
    "composite",
    "moved",
    "operand",
    "rank",
    "reduce",
    "reshape",
    "size",
    "sizes",
    "split_evenly",
    "strong_type",
    "write",
]


def composite(fn: Any) -> Handler:
    """Make a handler from a function that computes the operation with other Keras operations.

    `fn` receives the operation, then the arguments of its `call`.
    """

    def handler(g: Lowering, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        return g.call(lambda *a, **k: fn(operation, *a, **k), *args, **kwargs)

    return handler


def operand(g: Lowering, x: Any, dtype: ir.DataType) -> ir.Value:
    """Return a tensor, a number or a list of them as a value of the given type."""
    if isinstance(x, ir.Value):
        return g.cast(x, dtype)
    if is_symbol(x):
        return g.cast(x.value, dtype)
    if isinstance(x, list | tuple) and any(isinstance(leaf, ir.Value) for leaf in keras.tree.flatten(x)):
        parts = [operand(g, part, dtype) for part in x]
        return g.op.Concat(*(g.op.Unsqueeze(part, [0]) for part in parts), axis=0)
    with np.errstate(over="ignore"):
        return g.constant(np.asarray(x).astype(dtype.numpy()))


def strong_type(x: Any) -> str:
    """Return the Keras dtype that TensorFlow gives `x` before types are promoted."""
    if isinstance(x, ir.Value):
        assert x.dtype is not None
        return dtypes.from_onnx(x.dtype)
    if isinstance(x, list | tuple):
        leaves = [strong_type(leaf) for leaf in keras.tree.flatten(x)]
        return str(keras.backend.result_type(*leaves)) if leaves else str(keras.config.floatx())
    if isinstance(x, bool):
        return "bool"
    return "int32" if isinstance(x, int) else str(keras.config.floatx())


def rank(x: ir.Value) -> int:
    """Return the number of dimensions of a value."""
    assert x.shape is not None, f"the rank of {x} is not known"
    return len(x.shape)


def sizes(g: Lowering, x: ir.Value) -> list[int | ir.Value]:
    """Return all dimensions of a value, as `Lowering.dim` does."""
    return [g.dim(x, axis) for axis in range(rank(x))]


def axes_of(axis: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Return Keras's `axis` argument as sorted non-negative axes; None means all."""
    if axis is None:
        return list(range(ndim))
    listed = [axis] if isinstance(axis, int | np.integer) else list(axis)
    return sorted({int(a) % ndim for a in listed})


def reduce(g: Lowering, onnx_op: str, x: ir.Value, axis: Any, keepdims: bool) -> ir.Value:
    """Reduce over Keras's `axis` with an ONNX operator of the Reduce family."""
    axes = axes_of(axis, rank(x))
    if not axes:
        return x
    write = getattr(g.op, onnx_op)
    if g.opset < 18 and onnx_op != "ReduceSum":  # before opset 18 the axes are an attribute
        return write(x, axes=axes, keepdims=int(keepdims))
    return write(x, axes, keepdims=int(keepdims))


def size(g: Lowering, dim: Any) -> int | ir.Value:
    """Return a dimension as `g.dim` does (an int, or INT64 of shape [1]) from a number, value or symbol."""
    if isinstance(dim, int | np.integer):
        return int(dim)
    value = dim.value if is_symbol(dim) else dim
    source = _extent(value)
    if source is not None:
        return g.op.Shape(source[0], start=source[1], end=source[1] + 1)
    return g.op.Reshape(g.cast(value, "int64"), [1])


def _extent(value: ir.Value) -> tuple[ir.Value, int] | None:
    """Return the tensor and axis of which this scalar is the size, if `ops.shape` computes it."""
    for op_type in ("Cast", "Squeeze", "Shape"):
        node = value.producer()
        if node is None or node.op_type != op_type or node.inputs[0] is None:
            return None
        value = node.inputs[0]
    assert node is not None  # the last of the three
    start = node.attributes.get_int("start", 0)
    return value, start


def reshape(g: Lowering, x: ir.Value, dims: Sequence[Any]) -> ir.Value:
    """Reshape to dimensions given as ints (one may be -1), symbols, or tensors as `g.dim` returns them.

    A dimension that `x` has on the same axis is copied from it, and a single dynamic one becomes -1, so that
    the shape is nearly always a constant.
    """
    target: list[Any] = [int(dim) if isinstance(dim, int | np.integer) else dim for dim in dims]
    known = [dim for dim in target if isinstance(dim, int)]
    if 0 not in known:
        target = [0 if _copies(x, axis, dim) else dim for axis, dim in enumerate(target)]
        computed = [axis for axis, dim in enumerate(target) if not isinstance(dim, int)]
        if len(computed) == 1 and -1 not in known:
            target[computed[0]] = -1
        allowzero = 0
    else:
        allowzero = 1
    result = g.op.Reshape(x, g.shape([size(g, dim) for dim in target]), allowzero=allowzero)
    inferred = result.shape if result.shape is not None else [None] * len(target)
    result.shape = ir.Shape(
        have if not isinstance(dim, int) or dim == -1 or (dim == 0 and not allowzero) else dim
        for have, dim in zip(inferred, target, strict=True)
    )
    return result


def _copies(x: ir.Value, axis: int, dim: Any) -> bool:
    """Whether the dynamic size `dim` is the size of `x` on this axis."""
    if isinstance(dim, int) or x.shape is None or axis >= len(x.shape):
        return False
    value = dim.value if is_symbol(dim) else dim
    source = _extent(value) if rank(value) == 0 else _slice_of_shape(value)
    if source is None or source[0].shape is None:
        return False
    here, there = x.shape[axis], source[0].shape[source[1]]
    named = isinstance(here, ir.SymbolicDim) and here.value is not None and here == there
    return named or (source[0] is x and source[1] == axis)


def _slice_of_shape(value: ir.Value) -> tuple[ir.Value, int] | None:
    node = value.producer()
    if node is None or node.op_type != "Shape" or node.inputs[0] is None:
        return None
    return node.inputs[0], node.attributes.get_int("start", 0)


def split_evenly(g: Lowering, x: ir.Value, count: int, axis: int) -> list[ir.Value]:
    """Split an axis into equal parts."""
    if count == 1:
        return [x]
    sizes = {"num_outputs": count} if g.opset >= 18 else {}  # before opset 18, it is the number of outputs
    return list(g.ops.Split(x, axis=axis, _outputs=count, **sizes))


def write(g: Lowering, op_type: str, *args: Any, **attributes: Any) -> ir.Value:
    """Add a node with one output whose operator is given by name."""
    node: ir.Value = getattr(g.op, op_type)(*args, **attributes)
    return node


def moved(ndim: int, source: Sequence[int], destination: Sequence[int]) -> list[int]:
    """Return the permutation that moves axes as `numpy.moveaxis` does."""
    origin = [axis % ndim for axis in source]
    target = [axis % ndim for axis in destination]
    order = [axis for axis in range(ndim) if axis not in origin]
    for to, axis in sorted(zip(target, origin, strict=True)):
        order.insert(to, axis)
    return order
