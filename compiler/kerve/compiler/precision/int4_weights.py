"""Weights of matrices in int4, in blocks with a scale each; activations stay in float32.

    x -> MatMul(w)      =>      x -> MatMul(DequantizeLinear(w in int4, scales))

This is ONNX's standard blocked DequantizeLinear (operator set 21), supported by any runtime of that version.
ONNX Runtime converts it to `MatMulNBits` when it loads the model, which multiplies by int4 directly: an
eighth of the memory traffic, which limits a Dense layer at small batches. (Written into the file, that
operator would run nowhere else and gain nothing.) Embedding tables are int8. Convolutions and recurrent
layers stay in float32: they have no int4 kernels, and their weights would be unpacked on each call.
"""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.queries import array_of, is_op, only_user, rank_of
from kerve.compiler.precision import integers
from kerve.compiler.precision.embeddings import quantize_tables
from kerve.compiler.precision.weighted_ops import WeightedOp, is_clamped, weighted_ops
from kerve.compiler.precision.writing import Writer

__all__ = ["quantize"]

#: The number of rows that share a scale, the usual one in kernels and formats.
_BLOCK = 32


def quantize(model: ir.Model) -> None:
    """Quantize a model in place."""
    writer = Writer(model)
    for product in list(weighted_ops(model.graph)):
        weight = array_of(product.weight)
        if product.convolves or weight is None:
            continue
        quantized, scales = integers.blockwise(weight, _BLOCK)
        name = product.weight.name
        dequantized = writer.node(
            "DequantizeLinear",
            (writer.constant(quantized, f"{name}:int4"), writer.constant(scales, f"{name}:scale")),
            at=product.node,
            attributes={"axis": 0, "block_size": _BLOCK},
            dtype=ir.DataType.FLOAT,
            shape=product.weight.shape,
        )
        product.node.replace_input_with(1, dequantized)
        _set_bias_apart(product, writer)
    quantize_tables(model.graph, writer)


def _set_bias_apart(product: WeightedOp, writer: Writer) -> None:
    """Add the bias by a Sum.

    ONNX Runtime fuses a MatMul or Gemm with a following Add and activation to one float32 operator before it
    looks for int4 weights; it does not fuse a Sum.
    """
    node, result = product.node, product.output
    if product.bias is not None:
        bare = writer.node("MatMul", node.inputs[:2], at=node, dtype=result.dtype, shape=result.shape)
        total = writer.node("Sum", (bare, product.bias), at=node, dtype=result.dtype, shape=result.shape)
        writer.supersede(result, total)
        return
    reader = only_user(result)
    if reader is not None and is_op(reader, "Add") and rank_of(product.input) == 2:
        old = reader.outputs[0]
        total = writer.node("Sum", reader.inputs, at=reader, dtype=old.dtype, shape=old.shape)
        writer.supersede(old, total)
    elif is_clamped(result):
        writer.set_apart(result)
