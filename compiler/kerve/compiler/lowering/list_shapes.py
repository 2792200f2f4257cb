"""Inference of the element shapes of a graph's lists.

A list is mostly created without an element shape. The tensors that are written to it and read from it have
shapes, possibly in the body of a nested loop: so all values that are the same list are unified first.
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

#: Operators whose first output is the list in their first input.
_HANDING_ON = frozenset({
    "Identity", "ListPopBack", "ListPushBack", "ListResize", "ListScatterIntoExistingList", "ListSetItem",
})  # fmt: skip

#: For operators on lists: whether the tensor shaped like an element is an input (True) or an output, its
#: index, and its number of additional leading axes.
_TENSORS: Mapping[str, tuple[bool, int, int]] = {
    "ListGather": (False, 0, 1),
    "ListGetItem": (False, 0, 0),
    "ListPopBack": (False, 1, 0),
    "ListPushBack": (True, 1, 0),
    "ListScatterIntoExistingList": (True, 1, 1),
    "ListSetItem": (True, 2, 0),
    "ListStack": (False, 0, 1),
}

#: The index of the input `element_shape`.
_SHAPES: Mapping[str, int] = {
    "EmptyList": 0, "ListConcatV2": 1, "ListGather": 2, "ListGetItem": 2, "ListPopBack": 1, "ListReserve": 0,
    "ListStack": 1,
}  # fmt: skip


def note(graph: ir.Graph) -> None:
    """Annotate the operators that create lists with the shape of the elements."""
    nodes = list(_nodes(graph))
    if not any(node.op_type in _MAKERS for node in nodes):
        return
    names = _Names()
    for node in nodes:
        for first, second in _alike(node):
            names.join(first, second)
    known: dict[ir.Value, Dims] = {}
    for node in nodes:
        at = node.outputs[0] if node.op_type in _MAKERS else node.inputs[0] if node.inputs else None
        if at is not None:
            for dims in _known_dims(node):
                known[names.of(at)] = sized(known.get(names.of(at)), dims)
    for node in nodes:
        dims = known.get(names.of(node.outputs[0])) if node.op_type in _MAKERS else None
        if dims is not None:
            sizes = [-1 if size is None else size for size in dims]
            node.attributes[DIMS] = ir.AttrInt64s(DIMS, sizes)


class _Names:
    """Union-find structure of the values that are the same list."""

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
    """Yield pairs of values that are the same list, if they are lists."""
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


def _known_dims(node: ir.Node) -> Iterator[Dims]:
    """Yield the element shapes that an operator implies for its list."""
    if (place := _SHAPES.get(node.op_type)) is not None:
        sizes = constant_value(node.inputs[place])
        if sizes is not None and sizes.ndim == 1:
            yield [int(size) if size >= 0 else None for size in sizes]
    if node.op_type in _TENSORS:
        is_input, place, more = _TENSORS[node.op_type]
        tensor = (node.inputs if is_input else node.outputs)[place]
        if tensor is not None:
            yield known_dims(tensor, more)
