"""Rewriting of a graph to an assignment of layouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.cost import stored, wanted
from kerve.compiler.passes.layout.nets import Net, Reader, is_transpose
from kerve.compiler.passes.layout.permutation import Perm, compose, inverse, is_identity
from kerve.compiler.passes.layout.placement import Placement
from kerve.compiler.passes.layout.rules import rule_of
from kerve.compiler.passes.queries import LAYER_KEY, is_constant, shape_dims

__all__ = ["rewrite"]


def rewrite(graph: ir.Graph, nets: list[Net], moved: Mapping[ir.Node, Placement], editor: Editor) -> None:
    """Rewrite the nodes in `moved` to their placements.

    Every tensor is provided once in each order that a reader requires. With nothing moved, this merges
    consecutive and equal Transposes, and folds those of constants.
    """
    for net in nets:
        _Offer(graph, net, moved, editor).serve()
    for node, placement in moved.items():
        rule = rule_of(node)
        assert rule is not None
        rule.move(node, placement, editor)
    for node in reversed(graph):
        result = node.outputs[0] if is_transpose(node) else None
        if result is not None and not result.uses() and not result.is_graph_output():
            graph.remove(node, safe=True)


class _Offer:
    """A tensor in its new layout, and its copies in other orders."""

    def __init__(self, graph: ir.Graph, net: Net, moved: Mapping[ir.Node, Placement], editor: Editor) -> None:
        self._graph = graph
        self._net = net
        self._moved = moved
        self._editor = editor
        self._copies: dict[Perm, ir.Value] = {}
        self._have = stored(net, moved)
        dims = shape_dims(net.tensor)
        if not is_identity(self._have):
            net.tensor.shape = ir.Shape([dims[axis] for axis in self._have])

    def serve(self) -> None:
        """Connect every reader to the copy that it requires."""
        for reader in self._net.readers:
            change = compose(inverse(self._have), wanted(reader, self._moved))
            value = self._copy(change, reader)
            if reader.node is None:
                output = self._graph.outputs[reader.index]
                shape = None if output is self._net.tensor else output.shape  # with the author's names
                self._editor.set_output(self._graph, reader.index, value, shape)
            else:
                reader.node.replace_input_with(reader.index, value)

    def _copy(self, change: Perm, reader: Reader) -> ir.Value:
        tensor = self._net.tensor
        if is_identity(change):
            return tensor
        if change not in self._copies:
            if is_constant(tensor):
                key = f"axes{''.join(map(str, change))}"
                self._copies[change] = self._editor.derive(
                    tensor, key, lambda array: np.transpose(array, change)
                )
            else:
                self._copies[change] = self._transpose(change, reader)
        return self._copies[change]

    def _transpose(self, change: Perm, reader: Reader) -> ir.Value:
        tensor = self._net.tensor
        dims = shape_dims(tensor)
        output = ir.Value(shape=ir.Shape([dims[axis] for axis in change]), type=tensor.type)
        node = ir.node("Transpose", [tensor], attributes={"perm": list(change)}, outputs=[output])
        producer = tensor.producer()
        layer = next(
            (of for of in (reader.node, producer) if of is not None and LAYER_KEY in of.metadata_props), None
        )
        if layer is not None:
            node.metadata_props[LAYER_KEY] = layer.metadata_props[LAYER_KEY]
        if producer is not None and producer.graph is self._graph:
            producer.append(node)
        else:
            self._graph.insert_before(self._graph[0], node)
        return output
