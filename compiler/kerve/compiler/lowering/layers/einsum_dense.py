"""EinsumDense: one MatMul if the equation is a matrix product, as in attention."""

from __future__ import annotations

import math

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.addition import add_bias, broadcasts
from kerve.compiler.lowering.ops.operands import rank, reshape
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

HANDLERS = Handlers()


@HANDLERS.register("layers.EinsumDense")
def einsum_dense(g: Lowering, layer: keras.layers.EinsumDense, inputs: ir.Value) -> ir.Value:
    """Merge the summed axes and the kernel's free axes, multiply matrices, add the bias."""
    count = _summed(layer.equation)
    if count is None:
        return NotImplemented
    summed, free = layer.kernel.shape[:count], layer.kernel.shape[count:]
    outer = rank(inputs) - count
    x = g.cast(inputs, g.output_dtype)
    if count != 1:
        x = reshape(g, x, [*(g.dim(inputs, axis) for axis in range(outer)), math.prod(summed)])
    outputs = g.op.MatMul(
        x,
        g.weight(
            layer.kernel,
            lambda kernel: kernel.reshape(math.prod(summed), math.prod(free)),
            role="matrix" if len(layer.kernel.shape) != 2 or count != 1 else "",
        ),
    )
    inner = layer.bias is not None and len(layer.bias.shape) <= len(free)
    inner = inner and broadcasts((*static_shape(inputs)[:outer], *free), layer.bias.shape)
    if inner:
        outputs = g.op.Add(
            outputs,
            g.weight(layer.bias, lambda bias: np.broadcast_to(bias, free).reshape(-1), role="vector"),
        )
    if len(free) != 1:
        outputs = reshape(g, outputs, [*(g.dim(outputs, axis) for axis in range(outer)), *free])
    if layer.bias is not None and not inner:
        outputs = add_bias(g, outputs, layer.bias)
    return outputs if layer.activation is None else g.call(layer.activation, outputs)


def _summed(equation: str) -> int | None:
    """Return the number of summed axes of `outer summed, summed free -> outer free`, otherwise None."""
    inputs, output = equation.replace(" ", "").split("->")
    left, kernel = inputs.split(",")
    summed = "".join(name for name in left if name not in output)
    outer, free = left[: len(left) - len(summed)], kernel[len(summed) :]
    matrices = left == outer + summed and kernel == summed + free and output == outer + free
    return len(summed) if matrices and summed and "." not in kernel else None
