"""Sizes of a graph: bytes by Keras layer, counts of operators, and formatting of shapes and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.passes.queries import LAYER_KEY, is_constant

__all__ = [
    "LayerSize",
    "bodies_of",
    "count_operators",
    "layer_sizes",
    "show_bytes",
    "show_shape",
    "weights_of",
    "with_bodies",
]


@dataclass(frozen=True)
class LayerSize:
    """The operators and the size of a Keras layer in the graph."""

    #: Its path; empty for nodes without a layer.
    layer: str
    operators: Counter[str]
    #: Elements and bytes of its constants; a shared constant is counted for its first layer.
    elements: int
    bytes: int


def layer_sizes(graph: ir.Graph) -> list[LayerSize]:
    """Return all layers, in the order of the graph."""
    nodes: dict[str, list[ir.Node]] = {}
    for node in graph:
        nodes.setdefault(node.metadata_props.get(LAYER_KEY, ""), []).append(node)
    counted: set[ir.Value] = set()
    sizes = []
    for layer, members in nodes.items():
        weights = {value: size for value, size in weights_of(members).items() if value not in counted}
        counted |= weights.keys()
        elements = sum(value.const_value.size for value in weights if value.const_value is not None)
        sizes.append(LayerSize(layer, count_operators(members), elements, sum(weights.values())))
    return sizes


def weights_of(nodes: Iterable[ir.Node]) -> dict[ir.Value, int]:
    """Return the constants that nodes and their subgraphs read, with their sizes in bytes."""
    return {
        value: value.const_value.nbytes
        for node in with_bodies(nodes)
        for value in node.inputs
        if value is not None and is_constant(value) and value.const_value is not None
    }


def count_operators(nodes: Iterable[ir.Node]) -> Counter[str]:
    """Return the number of nodes by operator, as `Conv` or `com.example.Op`, including subgraphs."""
    return Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in with_bodies(nodes)
    )


def with_bodies(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Yield each node, followed by those of its subgraphs."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from with_bodies(body)


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the subgraphs of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def show_shape(shape: ir.Shape | None) -> str:
    """Format a shape as `batch × 8 × 8 × 1`."""
    if shape is None:
        return "any shape"
    return " × ".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in shape) or "scalar"


def show_bytes(size: float) -> str:
    """Format a number of bytes with a suitable unit."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
