"""Weights in 8 bits; activations are quantized at run time, in the range of each batch.

    x -> MatMul  =>  x -> DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul(scale of x * weights' scales)

No calibration is needed. But the range is computed for each batch and shared by its rows, so a row's outputs
depend slightly on the other rows. Convolutions are treated alike, with a scale per channel; they become
smaller, but slower on CPUs. Of the recurrent operators only LSTM has an integer form (`DynamicQuantizeLSTM`,
an operator of ONNX Runtime).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.queries import array_of, attribute_int, dims_of, input_of, is_constant, is_op
from kerve.compiler.precision.embeddings import quantize_tables
from kerve.compiler.precision.weighted_ops import WeightedOp, weighted_ops
from kerve.compiler.precision.writing import Writer

__all__ = ["quantize"]

_ONNX_RUNTIME = "com.microsoft"

#: The outputs of DynamicQuantizeLinear: the integers, their scale and their zero point.
_ROUNDED = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)


def quantize(model: ir.Model) -> None:
    """Quantize a model in place."""
    writer = Writer(model)
    rounded: dict[ir.Value, Sequence[ir.Value]] = {}
    for product in list(weighted_ops(model.graph)):
        given = product.input
        if given not in rounded:
            at = given.producer() or product.node
            rounded[given] = writer.several("DynamicQuantizeLinear", (given,), _ROUNDED, at=at)
        _quantize_product(product, rounded[given], writer)
    for node in list(model.graph):
        if _is_quantizable_lstm(node):
            _quantize_lstm(node, writer)
            model.opset_imports[_ONNX_RUNTIME] = 1
    quantize_tables(model.graph, writer)


def _quantize_product(product: WeightedOp, rounded: Sequence[ir.Value], writer: Writer) -> None:
    node, result = product.node, product.output
    weights = writer.bytes_of(product.weight, product.summed)
    integers, scale, zero_point = rounded
    along_channels = (-1, *[1] * (len(dims_of(product.weight)) - 2))

    def write(op_type: str, *inputs: ir.Value) -> ir.Value:
        return writer.node(op_type, inputs, at=node, dtype=ir.DataType.FLOAT, shape=result.shape)

    total = writer.node(
        "ConvInteger" if product.convolves else "MatMulInteger",
        (integers, weights.integers, zero_point),
        at=node,
        attributes=dict(node.attributes) if product.convolves else None,
        dtype=ir.DataType.INT32,
        shape=result.shape,
    )
    real = writer.node(
        "Cast", (total,), at=node, attributes={"to": int(ir.DataType.FLOAT)}, dtype=ir.DataType.FLOAT
    )
    scales = writer.constant(weights.scales.reshape(along_channels), f"{product.weight.name}:scale")
    step = writer.node("Mul", (scale, scales), at=node, dtype=ir.DataType.FLOAT, shape=scales.shape)
    new = write("Mul", real, step)
    bias = array_of(product.bias)
    if product.bias is not None and bias is not None:
        new = write("Add", new, writer.constant(bias.reshape(along_channels), str(product.bias.name)))
    writer.supersede(result, new)


def _is_quantizable_lstm(node: ir.Node) -> bool:
    return (
        is_op(node, "LSTM")
        and attribute_int(node, "layout", 0) == 0
        and all(
            is_constant(value) and value is not None and value.dtype == ir.DataType.FLOAT
            for value in node.inputs[1:3]
        )
    )


def _quantize_lstm(node: ir.Node, writer: Writer) -> None:
    """Convert an LSTM to the operator with int8 weights [directions, inputs, 4 * units]."""
    weights, tail = [], []
    for value in node.inputs[1:3]:
        array = array_of(value)
        assert array is not None
        assert value is not None
        turned = writer.constant(np.swapaxes(array, 1, 2), f"{value.name}:turned")
        quantized = writer.bytes_of(turned, (1,))
        columns = (array.shape[0], array.shape[1])
        weights.append(quantized.integers)
        tail.append(writer.constant(quantized.scales.reshape(columns), f"{value.name}:scale"))
        tail.append(writer.constant(np.zeros(columns, np.int8), f"{value.name}:zero_point"))
    others = [input_of(node, index) for index in range(3, 8)]
    new = writer.several(
        "DynamicQuantizeLSTM",
        (node.inputs[0], *weights, *others, *tail),
        [ir.DataType.FLOAT] * len(node.outputs),
        at=node,
        domain=_ONNX_RUNTIME,
        attributes={name: value for name, value in node.attributes.items() if name != "layout"},
    )
    for old, value in zip(node.outputs, new, strict=True):
        value.shape = old.shape
        writer.supersede(old, value)
