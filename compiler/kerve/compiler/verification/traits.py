"""Traits of a graph's outputs: their precision, whether they are random, and whether ties decide them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["OutputTraits", "output_traits"]

#: Operators that return random numbers.
_DRAWING = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

#: Types of lower precision than float32, the lowest first.
_NARROW = (ir.DataType.FLOAT8E4M3FN, ir.DataType.INT8, ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class OutputTraits:
    """Traits of an output."""

    #: Whether it depends on random numbers.
    drawn: bool = False
    #: The type of lowest precision that it is computed from; None if none is below float32.
    narrowest: ir.DataType | None = None
    #: Whether it depends on the order of equal numbers where the source defines none.
    tied: bool = False

    def __or__(self, other: OutputTraits) -> OutputTraits:
        """Return the traits of a value computed from both."""
        narrow = [each for each in _NARROW if each in (self.narrowest, other.narrowest)]
        return OutputTraits(self.drawn or other.drawn, narrow[0] if narrow else None, self.tied or other.tied)


def output_traits(model: ir.Model) -> Mapping[str, OutputTraits]:
    """Return the traits of each output of a graph whose nodes are in topological order."""
    known: dict[ir.Value, OutputTraits] = {}
    for node in model.graph:
        basis = _own(node)
        for value in _read(node):
            basis |= known.get(value, OutputTraits())
        for output in node.outputs:
            known[output] = basis | _of_result(node, output)
    return {str(value.name): known.get(value, OutputTraits()) for value in model.graph.outputs}


def _own(node: ir.Node) -> OutputTraits:
    basis = OutputTraits(drawn=node.op_type in _DRAWING, tied=_orders_ties(node))
    for inner in _bodies(node):
        basis |= _own(inner)
        for output in inner.outputs:
            basis |= _of_result(inner, output)
    return basis


def _orders_ties(node: ir.Node) -> bool:
    """Return whether a node orders equal numbers where its source defines no order.

    TensorFlow's CombinedNonMaxSuppression orders equal scores by its heap; its other functions, which take
    a single image and a single class, by their index.
    """
    if node.op_type != "NonMaxSuppression":
        return False
    scores = node.inputs[1]
    return scores is None or scores.shape is None or tuple(scores.shape[:2]) != (1, 1)


def _of_result(node: ir.Node, value: ir.Value) -> OutputTraits:
    """Return the precision of a result; integers are exact unless rounded from floats."""
    given = node.inputs[0] if node.inputs else None
    exact = value.dtype == ir.DataType.INT8 and not (
        node.op_type == "Cast"
        and given is not None
        and given.dtype is not None
        and given.dtype.is_floating_point()
    )
    return OutputTraits(narrowest=value.dtype if value.dtype in _NARROW and not exact else None)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield every value that a node or a node in its subgraphs reads."""
    yield from (value for value in node.inputs if value is not None)
    for inner in _bodies(node):
        yield from (value for value in inner.inputs if value is not None)


def _bodies(node: ir.Node) -> Iterator[ir.Node]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield inner
                yield from _bodies(inner)
