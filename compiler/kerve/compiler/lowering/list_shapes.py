"""What a graph says of the shapes of the elements of its lists, wherever it says it.

A list is mostly made without a word about its elements. What is written into it has a shape, and what is
read from it, perhaps in the body of a loop within a loop: all names of one list are brought together first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.lists import Dims, known_dims, sized

__all__ = ["DIMS", "note"]

#: The attribute of an operator that makes a list: the sizes of its elements, -1 for an unknown one.
DIMS = "dims"

_MAKERS = frozenset({"EmptyList", "ListReserve"})

#: Operators whose first output is the list that is their first input.
_HANDING_ON = frozenset({
    "Identity", "ListPopBack", "ListPushBack", "ListResize", "ListScatterIntoExistingList", "ListSetItem",
})  # fmt: skip

#: For operators on lists: which of their inputs (True) and outputs is like an element, and by how many axes
#: it has more.
_TENSORS: Mapping[str, tuple[bool, int, int]] = {
    "ListGather": (False, 0, 1),
    "ListGetItem": (False, 0, 0),
    "ListPopBack": (False, 1, 0),
    "ListPushBack": (True, 1, 0),
    "ListScatterIntoExistingList": (True, 1, 1),
    "ListSetItem": (True, 2, 0),
    "ListStack": (False, 0, 1),
}

#: The place of the input `element_shape`.
_SHAPES: Mapping[str, int] = {
    "EmptyList": 0, "ListConcatV2": 1, "ListGather": 2, "ListGetItem": 2, "ListPopBack": 1, "ListReserve": 0,
    "ListStack": 1,
}  # fmt: skip


def note(graph: ir.Graph) -> None:
    """Tell the operators that make lists what the elements will be."""
    nodes = list(_nodes(graph))
    if not any(node.op_type in _MAKERS for node in nodes):
        return
    names = _Names()
    for node in nodes:
        for first, second in _alike(node):
            names.join(first, second)
    said: dict[ir.Value, Dims] = {}
    for node in nodes:
        at = node.outputs[0] if node.op_type in _MAKERS else node.inputs[0] if node.inputs else None
        if at is not None:
            for dims in _said(node):
                said[names.of(at)] = sized(said.get(names.of(at)), dims)
    for node in nodes:
        dims = said.get(names.of(node.outputs[0])) if node.op_type in _MAKERS else None
        if dims is not None:
            sizes = [-1 if size is None else size for size in dims]
            node.attributes[DIMS] = ir.AttrInt64s(DIMS, sizes)


class _Names:
    """Which values are names of the same list."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value) -> ir.Value:
        while (parent := self._parents.get(value)) is not None:
            value = parent
        return value

    def join(self, first: ir.Value, second: ir.Value) -> None:
        first, second = self.of(first), self.of(second)
        if first is not second:
            self._parents[first] = second


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    graphs = (each for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH)
    return [each.as_graph() for each in graphs]


def _alike(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Return pairs of values that are the same list, if they are lists."""
    if node.op_type in _HANDING_ON and node.inputs[0] is not None:
        yield node.outputs[0], node.inputs[0]
    for body in _bodies(node):
        if node.op_type == "Loop":
            for index, (formal, initial) in enumerate(zip(body.inputs[2:], node.inputs[2:], strict=True)):
                assert initial is not None
                yield formal, initial
                yield body.outputs[1 + index], formal
                yield node.outputs[index], formal
        elif node.op_type == "If":
            yield from zip(node.outputs, body.outputs, strict=True)


def _said(node: ir.Node) -> Iterator[Dims]:
    """Return what an operator shows of the elements of its list."""
    if (place := _SHAPES.get(node.op_type)) is not None:
        sizes = constant_value(node.inputs[place])
        if sizes is not None and sizes.ndim == 1:
            yield [int(size) if size >= 0 else None for size in sizes]
    if node.op_type in _TENSORS:
        is_input, place, more = _TENSORS[node.op_type]
        tensor = (node.inputs if is_input else node.outputs)[place]
        if tensor is not None:
            yield known_dims(tensor, more)
