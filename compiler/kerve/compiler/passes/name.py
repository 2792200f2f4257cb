"""Naming of nodes by layer and operator: `conv2d/Conv`, `conv2d/Relu`, `conv2d/Conv_1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import onnx_ir as ir

from kerve.compiler.passes.queries import LAYER_KEY

__all__ = ["NameCanonically"]


class NameCanonically(ir.passes.InPlacePass):
    """Name nodes by layer and operator, and their outputs after them, uniquely in the whole model.

    Inputs, outputs and constants keep their names. The names depend only on the graph.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Name everything in the model."""
        names = _Names(_given(model))
        before = [node.name for graph in model.graphs() for node in graph]
        _name(model.graph, names, set(model.graph.outputs))
        return ir.passes.PassResult(
            model, before != [node.name for graph in model.graphs() for node in graph]
        )


class _Names:
    """Names in use."""

    def __init__(self, given: Iterable[str]) -> None:
        self._used = set(given)
        self._next: Counter[str] = Counter()

    def new(self, base: str) -> str:
        """Return `base`, or `base_1`, `base_2`, ... where it is taken."""
        name = base
        while name in self._used:
            self._next[base] += 1
            name = f"{base}_{self._next[base]}"
        self._used.add(name)
        return name


def _given(model: ir.Model) -> Iterable[str]:
    """Yield the names that are kept: those of the model's inputs, outputs and constants."""
    yield from (str(value.name) for value in (*model.graph.inputs, *model.graph.outputs))
    yield from model.graph.initializers


def _name(graph: ir.Graph, names: _Names, kept: Collection[ir.Value], layer: str = "") -> None:
    for node in graph:
        inner = node.metadata_props.get(LAYER_KEY) or layer
        node.name = names.new(f"{inner}/{node.op_type}" if inner else node.op_type)
        for index, output in enumerate(node.outputs):
            if output in kept or output.name == "":  # an optional output that is absent
                continue
            output.name = node.name if index == 0 else names.new(f"{node.name}:{index}")
        for body in _bodies(node):
            for index, value in enumerate(body.inputs):
                value.name = names.new(f"{node.name}/in:{index}")
            for value in list(body.initializers.values()):
                value.name = names.new(str(value.name))
            _name(body, names, kept, inner)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
