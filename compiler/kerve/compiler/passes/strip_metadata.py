"""Remove metadata of other tools from the model; kerve's own, under `kerve.`, is kept."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["StripMetadata"]

_OURS = "kerve."


class StripMetadata(ir.passes.InPlacePass):
    """Remove metadata and documentation of nodes, values and graphs that are not kerve's."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Strip the whole model."""
        modified = False
        for item in _items(model):
            foreign = [key for key in item.metadata_props if not key.startswith(_OURS)]
            for key in foreign:
                del item.metadata_props[key]
            modified |= bool(foreign) or bool(item.doc_string)
            item.doc_string = None
        return ir.passes.PassResult(model, modified)


def _items(model: ir.Model) -> Iterator[ir.Graph | ir.Node | ir.Value]:
    for graph in model.graphs():
        yield graph
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield node
            yield from node.outputs
