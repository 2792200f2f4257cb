"""The operators that multiply by weights, which account for nearly all of a model's size and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.passes.queries import (
    attribute_int,
    dims_of,
    input_of,
    is_constant,
    is_op,
    only_user,
    rank_of,
)

__all__ = ["WeightedOp", "is_clamped", "past_clamps", "weighted_op_of", "weighted_ops"]


#: Operators that clamp values, as quantization does.
_CLAMPS = ("Clip", "Relu")


@dataclass(frozen=True)
class WeightedOp:
    """A Conv, Gemm or MatMul whose second input is a float32 constant, with its bias."""

    node: ir.Node
    weight: ir.Value
    bias: ir.Value | None

    @property
    def input(self) -> ir.Value:
        """The input that is multiplied by the weight."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """The output."""
        return self.node.outputs[0]

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution, not a matrix product."""
        return is_op(self.node, "Conv")

    @property
    def channels(self) -> int:
        """The axis of the weight for the channels of the output."""
        return 0 if self.convolves else 1

    @property
    def summed(self) -> tuple[int, ...]:
        """The other axes of the weight."""
        rank = len(dims_of(self.weight))
        return tuple(axis for axis in range(rank) if axis != self.channels)


def weighted_ops(graph: ir.Graph) -> Iterator[WeightedOp]:
    """Yield the products of a graph in order, except those in subgraphs."""
    for node in graph:
        product = weighted_op_of(node)
        if product is not None:
            yield product


def weighted_op_of(node: ir.Node) -> WeightedOp | None:
    """Return the node as a product, or None if it is not one."""
    if not is_op(node, "Conv", "Gemm", "MatMul") or not _is_plain(node):
        return None
    weight, bias = node.inputs[1], input_of(node, 2)
    if weight is None or weight.dtype != ir.DataType.FLOAT or not is_constant(weight):
        return None
    if bias is not None and (not is_constant(bias) or len(dims_of(bias)) != 1):
        return None
    if not is_op(node, "Conv") and rank_of(weight) != 2:
        return None
    return WeightedOp(node, weight, bias)


def _is_plain(node: ir.Node) -> bool:
    """Return whether it computes input times weight plus bias, without scaling or transposing."""
    if not is_op(node, "Gemm"):
        return True
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return all(factor == 1.0 for factor in factors) and not any(
        attribute_int(node, name, 0) for name in ("transA", "transB")
    )


def is_clamped(value: ir.Value) -> bool:
    """Return whether the value's only reader is a clamp."""
    node = only_user(value)
    return node is not None and is_op(node, *_CLAMPS) and node.inputs[0] is value


def past_clamps(value: ir.Value) -> ir.Value:
    """Return the value after the clamps, if any, that are the only readers of this one."""
    while is_clamped(value):
        node = only_user(value)
        assert node is not None
        value = node.outputs[0]
    return value
