"""Activations: one ONNX operator, unless ONNX Runtime has no vectorized CPU kernel for it.

For Shrink, Mish, PRelu and Where it has none; they take ten times as long as the few operators that compute
the same (`benchmarks/kernels.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, rank, split_evenly, write
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()

_Write = Callable[[Lowering, Any, ir.Value], ir.Value]

_GELU_IN_ONNX = 20  # the first opset with Gelu


def _gelu(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    if g.opset >= _GELU_IN_ONNX:
        return g.op.Gelu(x, approximate="tanh" if operation.approximate else "none")
    if operation.approximate:
        cubic = g.op.Add(x, g.op.Mul(g.op.Mul(g.op.Mul(x, x), x), 0.044715))
        gate = g.op.Tanh(g.op.Mul(cubic, math.sqrt(2.0 / math.pi)))
    else:
        gate = g.op.Erf(g.op.Mul(x, math.sqrt(0.5)))
    return g.op.Mul(g.op.Mul(x, g.op.Add(gate, 1.0)), 0.5)


def _glu(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    value, gate = split_evenly(g, x, 2, operation.axis)
    return g.op.Mul(value, g.op.Sigmoid(gate))


def _hard_shrink(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    threshold = max(0.0, float(operation.threshold))  # a negative threshold acts like 0
    above, below = (g.op.ThresholdedRelu(each, alpha=threshold) for each in (x, g.op.Neg(x)))
    return g.op.Sub(above, below)


def _soft_shrink(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    return g.op.Sub(x, g.op.Clip(x, -float(operation.threshold), float(operation.threshold)))


_ACTIVATIONS: dict[str, _Write] = {
    "Elu": lambda g, op, x: g.op.Elu(x, alpha=float(op.alpha)),
    "Gelu": _gelu,
    "Glu": _glu,
    "HardShrink": _hard_shrink,
    "HardSigmoid": lambda g, _, x: g.op.HardSigmoid(x, alpha=1.0 / 6.0, beta=0.5),
    "HardSilu": lambda g, _, x: g.op.HardSwish(x),
    "HardTanh": lambda g, _, x: g.op.Clip(x, -1.0, 1.0),
    "LogSigmoid": lambda g, _, x: g.op.Neg(g.op.Softplus(g.op.Neg(x))),
    "Relu": lambda g, _, x: g.op.Relu(x),
    "Relu6": lambda g, _, x: g.op.Clip(x, 0.0, 6.0),
    "Selu": lambda g, _, x: g.op.Selu(x),
    "Sigmoid": lambda g, _, x: g.op.Sigmoid(x),
    "Silu": lambda g, _, x: g.op.Mul(x, g.op.Sigmoid(x)),
    "SoftShrink": _soft_shrink,
    "Softplus": lambda g, _, x: g.op.Softplus(x),
    "Softsign": lambda g, _, x: g.op.Softsign(x),
    "SparseSigmoid": lambda g, _, x: g.op.HardSigmoid(x, alpha=0.5, beta=0.5),
    "TanhShrink": lambda g, _, x: g.op.Sub(x, g.op.Tanh(x)),
    "Threshold": lambda g, op, x: g.op.Where(
        g.op.Greater(x, float(op.threshold)), x, float(op.default_value)
    ),
}


def _activation(write: _Write) -> Handler:
    def handler(g: Lowering, operation: keras.Operation, x: ir.Value) -> ir.Value:
        return write(g, operation, g.cast(x, g.output_dtype))

    return handler


for _keras_op, _write in _ACTIVATIONS.items():
    HANDLERS.add(f"nn.{_keras_op}", _activation(_write))


@HANDLERS.register("nn.LeakyRelu", typed=True)
def leaky_relu(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """LeakyRelu, which returns floats for integers, too, contrary to Keras's inference."""
    assert x.dtype is not None
    x = x if dtypes.is_float(x.dtype) else g.cast(x, "float32")
    return g.op.LeakyRelu(x, alpha=float(operation.negative_slope))


@HANDLERS.register("activations.Mish")
def mish(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """x tanh(softplus(x)) = x u / (2 - u), where u = s (2 - s) and s = sigmoid(x)."""
    x = g.cast(x, g.output_dtype)
    s = g.op.Sigmoid(x)
    u = g.op.Mul(s, g.op.Sub(2.0, s))
    return g.op.Mul(x, g.op.Div(u, g.op.Sub(2.0, u)))


@HANDLERS.register("activations.ReLU")
def relu(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """`keras.activations.relu`, with negative slope, upper limit and threshold."""
    slope, limit, threshold = operation.negative_slope, operation.max_value, float(operation.threshold)
    if threshold == 0 and slope != 0 and limit is None:
        return g.op.LeakyRelu(x, alpha=float(slope))
    if threshold != 0:
        positive = g.op.ThresholdedRelu(x, alpha=threshold)
        positive = positive if limit is None else g.op.Clip(positive, 0.0, float(limit))
    else:
        positive = g.op.Relu(x) if limit is None else g.op.Clip(x, 0.0, float(limit))
    if slope == 0:
        return positive
    return g.op.Sub(positive, g.op.Mul(g.op.Relu(g.op.Sub(threshold, x)), float(slope)))


def _soft(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        x = g.cast(x, g.output_dtype)
        axes = operation.axis
        if isinstance(axes, int):
            return write(g, onnx_op, x, axis=axes)
        return _over_axes(g, onnx_op, x, None if axes is None else [axis % rank(x) for axis in axes])

    return handler


def _over_axes(g: Lowering, onnx_op: str, x: ir.Value, axes: list[int] | None) -> ir.Value:
    """Apply a softmax over several axes: move them to the end and flatten them."""
    kept = [] if axes is None else [axis for axis in range(rank(x)) if axis not in axes]
    order = kept + [axis for axis in range(rank(x)) if axis not in kept]
    moved = g.op.Transpose(x, perm=order)
    flat = g.op.Reshape(moved, [0] * len(kept) + [-1])
    result = g.op.Reshape(write(g, onnx_op, flat, axis=-1), g.op.Shape(moved))
    return g.op.Transpose(result, perm=[order.index(axis) for axis in range(rank(x))])


HANDLERS.add("nn.Softmax", _soft("Softmax"))
HANDLERS.add("nn.LogSoftmax", _soft("LogSoftmax"))


def _sparse_plus(_: Any, x: Any) -> Any:
    return ops.where(x <= -1, ops.zeros_like(x), ops.where(x < 1, 0.25 * ops.square(x + 1), x))


def _sparsemax(operation: Any, x: Any) -> Any:
    """Compute as Keras does, with the threshold from the sum of the supported cumulative sums."""
    axis = operation.axis
    ordered = ops.flip(ops.sort(x, axis=axis), axis=axis)
    total = ops.cumsum(ordered, axis=axis)
    count = ops.cumsum(ops.ones_like(x), axis=axis)
    support = ordered - (total - 1) / count > 0
    chosen = ops.sum(ops.where(support, total, 0.0), axis=axis, keepdims=True)
    size = ops.sum(ops.cast(support, x.dtype), axis=axis, keepdims=True)
    return ops.relu(x - (chosen - 1) / size)


def _celu(operation: Any, x: Any) -> Any:
    """Compute as Keras does: ONNX Runtime's Celu has no precision near 0."""
    return ops.maximum(x, 0.0) + operation.alpha * ops.expm1(ops.minimum(x, 0.0) / operation.alpha)


HANDLERS.add("nn.Celu", composite(_celu))
HANDLERS.add("nn.SparsePlus", composite(_sparse_plus))
HANDLERS.add("nn.Sparsemax", composite(_sparsemax))
HANDLERS.add(
    "nn.Squareplus", composite(lambda op, x: (x + ops.sqrt(ops.square(x) + ops.cast(op.b, x.dtype))) / 2)
)
