"""The normalizations of `keras.ops.nn`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import axes_of, rank, reduce
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import transposed

__all__ = ["HANDLERS", "batch_normalize", "layer_normalize", "root_mean_square_normalize"]

HANDLERS = Handlers()


def batch_normalize(
    g: Lowering,
    x: ir.Value,
    scale: ir.Value | None,
    offset: ir.Value | None,
    mean: ir.Value,
    variance: ir.Value,
    *,
    axis: int,
    epsilon: float,
) -> ir.Value:
    """Normalize along `axis` with given statistics: one BatchNormalization, which has channels on axis 1."""
    assert mean.dtype is not None
    count = static_shape(mean)[0]
    scale = scale if scale is not None else g.constant(np.ones(count, mean.dtype.numpy()), "scale")
    offset = offset if offset is not None else g.constant(np.zeros(count, mean.dtype.numpy()), "offset")
    channels = axis % rank(x)
    others = [other for other in range(rank(x)) if other != channels]
    order = [others[0], channels, *others[1:]]
    y = g.op.BatchNormalization(transposed(g, x, order), scale, offset, mean, variance, epsilon=epsilon)
    return transposed(g, y, np.argsort(order).tolist())


def layer_normalize(
    g: Lowering,
    x: ir.Value,
    scale: ir.Value | None,
    offset: ir.Value | None,
    *,
    axes: Sequence[int],
    epsilon: float,
) -> ir.Value:
    """Normalize over `axes`: one LayerNormalization, which supports only the last axes."""

    def normalize(x: ir.Value, first: int) -> ir.Value:
        weight = scale if scale is not None else _ones(g, x, first)
        return g.op.LayerNormalization(x, weight, offset, axis=first, epsilon=epsilon)

    return _over_last_axes(g, x, axes, normalize)


def root_mean_square_normalize(
    g: Lowering, x: ir.Value, scale: ir.Value | None, *, axes: Sequence[int], epsilon: float
) -> ir.Value:
    """Divide by the root of the mean square over `axes`: RMSNormalization if the opset has it."""

    def normalize(x: ir.Value, first: int) -> ir.Value:
        if g.opset >= 23:
            weight = scale if scale is not None else _ones(g, x, first)
            return g.op.RMSNormalization(x, weight, axis=first, epsilon=epsilon)
        # the pattern that ONNX Runtime replaces by its own SimplifiedLayerNormalization
        mean = reduce(g, "ReduceMean", g.op.Pow(x, 2.0), range(first, rank(x)), keepdims=True)
        normalized = g.op.Div(x, g.op.Sqrt(g.op.Add(mean, epsilon)))
        return normalized if scale is None else g.op.Mul(normalized, scale)

    return _over_last_axes(g, x, axes, normalize)


@HANDLERS.register("nn.BatchNorm")
def batch_norm(
    g: Lowering,
    operation: Any,
    x: ir.Value,
    mean: ir.Value,
    variance: ir.Value,
    offset: ir.Value | None = None,
    scale: ir.Value | None = None,
) -> ir.Value:
    """BatchNormalization."""
    return batch_normalize(
        g, x, scale, offset, mean, variance, axis=operation.axis, epsilon=operation.epsilon
    )


@HANDLERS.register("nn.LayerNorm")
def layer_norm(
    g: Lowering,
    operation: Any,
    x: ir.Value,
    gamma: ir.Value | None = None,
    beta: ir.Value | None = None,
) -> ir.Value:
    """LayerNormalization, in float32 at least; `rms_scaling` does not subtract the mean."""
    axes, epsilon = axes_of(operation.axis, rank(x)), _epsilon(operation)
    x, wide = _widened(g, x)
    gamma, beta = _parameters(g, x, axes, wide, gamma, beta)
    if not operation.rms_scaling:
        return layer_normalize(g, x, gamma, beta, axes=axes, epsilon=epsilon)

    def scale(x: ir.Value, first: int) -> ir.Value:
        last = range(first, rank(x))
        deviation = g.op.Sub(x, reduce(g, "ReduceMean", x, last, keepdims=True))
        variance = reduce(g, "ReduceMean", g.op.Mul(deviation, deviation), last, keepdims=True)
        y = g.op.Div(x, g.op.Sqrt(g.op.Add(variance, epsilon)))
        return y if gamma is None else g.op.Mul(y, gamma)

    return _over_last_axes(g, x, axes, scale)


@HANDLERS.register("nn.RMSNorm")
def rms_norm(g: Lowering, operation: Any, x: ir.Value, scale: ir.Value | None = None) -> ir.Value:
    """RMSNormalization, in float32 at least."""
    axes, epsilon = axes_of(operation.axis, rank(x)), _epsilon(operation)
    x, wide = _widened(g, x)
    scale = None if scale is None else g.cast(scale, wide)
    if axes[0] == rank(x) - len(axes):
        return root_mean_square_normalize(g, x, scale, axes=axes, epsilon=epsilon)
    y = root_mean_square_normalize(g, x, None, axes=axes, epsilon=epsilon)
    return y if scale is None else g.op.Mul(y, scale)  # Keras broadcasts it to the last axes


@HANDLERS.register("nn.Normalize", typed=True)  # Keras infers float32
def normalize(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Divide by the norm over axes, or by epsilon if that is larger."""
    if rank(x) == 0:
        x = g.op.Reshape(x, [1])
    if operation.order == 2:
        norm = reduce(g, "ReduceL2", x, operation.axis, keepdims=True)
    else:
        norm = g.call(keras.ops.norm, x, ord=operation.order, axis=operation.axis, keepdims=True)
    return g.op.Div(x, g.op.Max(norm, _epsilon(operation)))


def _over_last_axes(
    g: Lowering, x: ir.Value, axes: Sequence[int], normalize: Callable[[ir.Value, int], ir.Value]
) -> ir.Value:
    """Normalize over axes by moving them to the end and back; `normalize` gets the first of them."""
    order = [axis for axis in range(rank(x)) if axis not in axes] + list(axes)
    y = normalize(transposed(g, x, order), rank(x) - len(axes))
    return transposed(g, y, np.argsort(order).tolist())


def _ones(g: Lowering, x: ir.Value, first: int) -> ir.Value:
    """Return ones of the shape of the axes of `x` from `first` on."""
    assert x.dtype is not None
    sizes = static_shape(x)[first:]
    one = g.constant(np.ones([size if size is not None else 1 for size in sizes], x.dtype.numpy()), "ones")
    return one if None not in sizes else g.op.Expand(one, g.op.Shape(x, start=first))


def _epsilon(operation: Any) -> float:
    return float(keras.config.epsilon() if operation.epsilon is None else operation.epsilon)


def _widened(g: Lowering, x: ir.Value) -> tuple[ir.Value, str]:
    """Return `x` in the type in which Keras normalizes (float32, or the input's if wider), and that type."""
    assert x.dtype is not None
    wide = str(keras.backend.result_type(dtypes.from_onnx(x.dtype), "float32"))
    return g.cast(x, wide), wide


def _parameters(
    g: Lowering, x: ir.Value, axes: Sequence[int], wide: str, *parameters: ir.Value | None
) -> list[ir.Value | None]:
    """Cast scales and offsets to the type of `x` and reshape them to its axes, as Keras does."""
    sizes = [static_shape(x)[axis] for axis in axes]

    def fit(parameter: ir.Value) -> ir.Value:
        parameter = g.cast(parameter, wide)
        return (
            parameter
            if None in sizes or list(static_shape(parameter)) == sizes
            else g.op.Reshape(parameter, sizes)
        )

    return [None if parameter is None else fit(parameter) for parameter in parameters]
