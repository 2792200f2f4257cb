"""What the outputs of a graph rest on: how precisely they are computed, and whether they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["OutputTraits", "output_traits"]

#: Operators that draw anew each time they run.
_DRAWING = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

#: Types that carry fewer digits than float32, the fewest first.
_NARROW = (ir.DataType.FLOAT8E4M3FN, ir.DataType.INT8, ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class OutputTraits:
    """What an output rests on."""

    #: Whether a random number is among what it is computed from.
    drawn: bool = False
    #: The type of fewest digits among what it is computed from; None where none is below float32.
    narrowest: ir.DataType | None = None

    def __or__(self, other: OutputTraits) -> OutputTraits:
        """Return what rests on both."""
        narrow = [each for each in _NARROW if each in (self.narrowest, other.narrowest)]
        return OutputTraits(self.drawn or other.drawn, narrow[0] if narrow else None)


def output_traits(model: ir.Model) -> Mapping[str, OutputTraits]:
    """Return the basis of each output of a graph whose nodes are in order."""
    known: dict[ir.Value, OutputTraits] = {}
    for node in model.graph:
        basis = _own(node)
        for value in _read(node):
            basis |= known.get(value, OutputTraits())
        for output in node.outputs:
            known[output] = basis | _of_result(node, output)
    return {str(value.name): known.get(value, OutputTraits()) for value in model.graph.outputs}


def _own(node: ir.Node) -> OutputTraits:
    basis = OutputTraits(drawn=node.op_type in _DRAWING)
    for inner in _bodies(node):
        basis |= _own(inner)
        for output in inner.outputs:
            basis |= _of_result(inner, output)
    return basis


def _of_result(node: ir.Node, value: ir.Value) -> OutputTraits:
    """Tell the digits of a result; integers have all of theirs, unless real numbers are rounded to them."""
    given = node.inputs[0] if node.inputs else None
    exact = value.dtype == ir.DataType.INT8 and not (
        node.op_type == "Cast"
        and given is not None
        and given.dtype is not None
        and given.dtype.is_floating_point()
    )
    return OutputTraits(narrowest=value.dtype if value.dtype in _NARROW and not exact else None)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Every value that a node or a node in its bodies reads."""
    yield from (value for value in node.inputs if value is not None)
    for inner in _bodies(node):
        yield from (value for value in inner.inputs if value is not None)


def _bodies(node: ir.Node) -> Iterator[ir.Node]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield inner
                yield from _bodies(inner)
