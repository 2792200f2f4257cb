"""Remove Identity nodes, except where an output of a graph needs a node of its own."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import is_op

__all__ = ["DropIdentities"]


class DropIdentities(ir.passes.InPlacePass):
    """Replace the output of an Identity by its input.

    onnx-ir's own pass renames a value that already is an output, and lists it twice: ONNX Runtime then
    returns wrong results.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove them in every graph of the model."""
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            for node in list(graph):
                if is_op(node, "Identity") and not _is_needed(node):
                    source, result = node.inputs[0], node.outputs[0]
                    assert source is not None
                    source.type = source.type or result.type
                    source.shape = source.shape or result.shape
                    editor.replace(result, source)
                    modified = True
        return ir.passes.PassResult(model, modified)


def _is_needed(identity: ir.Node) -> bool:
    source, result = identity.inputs[0], identity.outputs[0]
    if not result.is_graph_output():
        return False
    producer = None if source is None else source.producer()
    return (
        source is None or producer is None or producer.graph is not identity.graph or source.is_graph_output()
    )
