"""Planning of which operators run on 8-bit integers, and which values are quantized for them."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

from kerve.compiler.passes.queries import is_constant, is_op
from kerve.compiler.precision.weighted_ops import WeightedOp, past_clamps, weighted_op_of
from kerve.compiler.traversal import reachable

__all__ = ["Plan", "involved", "origin"]

#: Operators with integer kernels that are worthwhile only if their inputs are integers anyway.
_FOLLOWING = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid")

#: Operators that only move elements, whether integers or floats.
_MOVING = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class Plan:
    """The plan for one graph; values that are not in `measured` cannot be quantized."""

    def __init__(self, graph: ir.Graph, measured: Container[ir.Value]) -> None:
        self.products: list[WeightedOp] = []
        self.following: list[ir.Node] = []
        #: Outputs of integer operators: all readers read the quantized form.
        self.given: set[ir.Value] = set()
        for node in graph:
            product = weighted_op_of(node)
            if product is not None and self._is_possible(product, measured):
                self.products.append(product)
                if product.convolves:
                    self.given.add(past_clamps(product.output))
            elif is_op(node, *_FOLLOWING) and self._follows(node, measured):
                self.following.append(node)
                self.given.add(past_clamps(node.outputs[0]))
        self._drop_dead_ends()

    @property
    def nodes(self) -> set[ir.Node]:
        """All operators that run on integers."""
        return {product.node for product in self.products} | set(self.following)

    def rounded(self) -> Iterator[ir.Value]:
        """Yield every value to quantize, once."""
        taken = [product.input for product in self.products]
        taken += [value for node in self.following for value in node.inputs if value is not None]
        yield from dict.fromkeys((*taken, *self._given_in_order()))

    def _given_in_order(self) -> Iterator[ir.Value]:
        yield from (past_clamps(product.output) for product in self.products if product.convolves)
        yield from (past_clamps(node.outputs[0]) for node in self.following)

    def _is_possible(self, product: WeightedOp, measured: Container[ir.Value]) -> bool:
        if origin(product.input) not in measured:
            return False
        return not product.convolves or past_clamps(product.output) in measured

    def _follows(self, node: ir.Node, measured: Container[ir.Value]) -> bool:
        inputs = [value for value in node.inputs if value is not None]
        return past_clamps(node.outputs[0]) in measured and all(
            not is_constant(value) and origin(value) in self.given for value in inputs
        )

    def _drop_dead_ends(self) -> None:
        """Keep only nodes whose results reach another integer operator; others need not be quantized."""
        kept = {product.node for product in self.products}
        for node in reversed(self.following):
            result = past_clamps(node.outputs[0])
            if _leads_to(result, kept):
                kept.add(node)
            else:
                self.given.discard(result)
        self.following = [node for node in self.following if node in kept]


def involved(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values whose ranges a plan may need."""
    for node in graph:
        product = weighted_op_of(node)
        if product is not None:
            yield origin(product.input)
            yield past_clamps(product.output)
        elif is_op(node, *_FOLLOWING) and node.outputs[0].dtype == ir.DataType.FLOAT:
            yield past_clamps(node.outputs[0])


def origin(value: ir.Value) -> ir.Value:
    """Return the value whose elements this one has, before operators that only move elements."""
    producer = value.producer()
    while producer is not None and is_op(producer, *_MOVING) and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


def _leads_to(value: ir.Value, nodes: Container[ir.Node]) -> bool:
    return any(node in nodes for each in reachable([value], _handed_on) for node, _ in each.uses())


def _handed_on(value: ir.Value) -> Iterator[ir.Value]:
    for node, index in value.uses():
        if is_op(node, *_MOVING) and index == 0:
            yield node.outputs[0]
