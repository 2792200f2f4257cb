"""Weights and activations in 8 bits, with ranges measured beforehand (static quantization).

    x -> Conv -> Relu -> Conv       =>      x -> Q -> DQ -> Conv -> Relu -> Q -> DQ -> Conv

Q and DQ are ONNX's QuantizeLinear and DequantizeLinear. A runtime with integer kernels runs the operators
between them on integers; others compute the same in float32. ONNX Runtime requires this form:

- the output of a Conv is quantized as well, and all its readers read the quantized form;
- weights are signed, with a scale per output channel and explicit zero points; activations are unsigned;
- a Gemm has an int32 bias. (ONNX Runtime would fuse MatMul and Add to a Gemm with a float32 bias, which it
  then cannot quantize; so they are converted to the right Gemm here.)

Operators without integer kernels (normalization, softmax, recurrence, attention's own products) stay in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.queries import array_of, is_constant, is_op, only_user, rank_of
from kerve.compiler.precision import integers
from kerve.compiler.precision.embeddings import quantize_tables
from kerve.compiler.precision.int8_plan import Plan, involved, origin
from kerve.compiler.precision.probing import ROUNDED, Range
from kerve.compiler.precision.weighted_ops import WeightedOp, is_clamped, past_clamps, weighted_ops
from kerve.compiler.precision.writing import Writer

__all__ = ["quantize"]

#: The limit on a bias in steps of its product's scale; the scale is raised if it would need more.
_MOST_STEPS = float(1 << 30)


def quantize(model: ir.Model, measure: Callable[[Sequence[str]], Mapping[str, Range]]) -> None:
    """Quantize a model in place; `measure` returns the ranges of values by name."""
    writer = Writer(model)
    for product in list(weighted_ops(model.graph)):
        _take_bias(product, writer)
    values = list(dict.fromkeys(involved(model.graph)))
    ranges = measure([str(value.name) for value in values])
    measured = {
        value: integers.affine(*bounds)
        for value, bounds in zip(values, ranges.values(), strict=True)
        if np.isfinite(bounds).all()
    }
    plan = Plan(model.graph, measured)
    for product in plan.products:
        _quantize_weight(product, measured[origin(product.input)], writer)
    rounded = list(plan.rounded())
    for product in plan.products:
        if is_clamped(product.output) and past_clamps(product.output) not in rounded:
            writer.set_apart(product.output)
    for value in rounded:
        _round(value, measured[origin(value)], plan, writer)
    quantize_tables(model.graph, writer)


def _take_bias(product: WeightedOp, writer: Writer) -> None:
    """Convert MatMul -> Add of matrices to a Gemm."""
    add = only_user(product.output)
    if not is_op(product.node, "MatMul") or rank_of(product.input) != 2 or not is_op(add, "Add"):
        return
    assert add is not None
    bias = add.inputs[0] if add.inputs[1] is product.output else add.inputs[1]
    if bias is None or not is_constant(bias) or rank_of(bias) != 1 or bias.dtype != ir.DataType.FLOAT:
        return
    result = add.outputs[0]
    gemm = writer.node(
        "Gemm", (product.input, product.weight, bias), at=add, dtype=result.dtype, shape=result.shape
    )
    writer.supersede(result, gemm)


def _quantize_weight(product: WeightedOp, given: integers.Affine, writer: Writer) -> None:
    bias = array_of(product.bias)
    least = None if bias is None else np.abs(bias) / (np.float32(_MOST_STEPS) * given.scale)
    weights = writer.bytes_of(product.weight, product.summed, least)
    product.node.replace_input_with(
        1,
        writer.node(
            "DequantizeLinear",
            (weights.integers, weights.scale, weights.zero_point),
            at=product.node,
            attributes={"axis": product.channels},
            dtype=ir.DataType.FLOAT,
            shape=product.weight.shape,
        ),
    )
    if bias is None or product.bias is None:
        return
    name, steps = product.bias.name, (weights.scales * given.scale).astype(np.float32)
    product.node.replace_input_with(
        2,
        writer.node(
            "DequantizeLinear",
            (
                writer.constant(np.rint(bias / steps).astype(np.int32), f"{name}:int32"),
                writer.constant(steps, f"{name}:scale"),
            ),
            at=product.node,
            attributes={"axis": 0},
            dtype=ir.DataType.FLOAT,
            shape=product.bias.shape,
        ),
    )


def _round(value: ir.Value, affine: integers.Affine, plan: Plan, writer: Writer) -> None:
    """Quantize a value for its integer readers, or for all readers if an integer operator computes it."""
    given = value in plan.given
    readers = [(node, index) for node, index in value.uses() if given or node in plan.nodes]
    name, at = str(value.name), value.producer() or readers[0][0]
    scale = writer.constant(affine.scale, f"{name}:scale")
    zero_point = writer.constant(affine.zero_point, f"{name}:zero_point")
    quantized = writer.node(
        "QuantizeLinear", (value, scale, zero_point), at=at, dtype=ir.DataType.UINT8, shape=value.shape
    )
    rounded = writer.node(
        "DequantizeLinear", (quantized, scale, zero_point), at=at, dtype=ir.DataType.FLOAT, shape=value.shape
    )
    for node, index in readers:
        node.replace_input_with(index, rounded)
    if given and value.is_graph_output():
        graph = value.graph
        assert graph is not None
        writer.set_output(graph, list(graph.outputs).index(value), rounded, value.shape)
    else:
        rounded.name = name + ROUNDED
